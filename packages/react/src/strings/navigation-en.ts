import { plural } from './plural'

const n = plural('en')

/**
 * The texts of the provider and of `./navigation`. They are in a separate file, because a page
 * without a conversation needs no others.
 */
export const navigationEn = {
  /** The BCP 47 language tag, used to format dates, numbers and lists. */
  locale: 'en',
  dir: 'ltr' as 'ltr' | 'rtl',

  // People and presence
  unknownPerson: 'Unknown user',
  online: 'Online',
  away: 'Away',
  busy: 'Busy',
  offline: 'Offline',
  setStatus: 'Set status',
  statusAutomatic: 'Automatic',

  // Time
  today: 'Today',
  yesterday: 'Yesterday',

  // One-line previews of messages
  photo: 'Photo',
  file: 'File',
  previewDeleted: 'Message deleted',
  previewImage: 'Photo',
  previewFile: (name: string) => name,

  // Links to the messages
  messages: 'Messages',
  messagesUnread: (count: number) =>
    n(count, { zero: 'Messages', one: 'Messages, 1 unread', other: `Messages, ${count} unread` }),
  newMessage: 'New message',
  openMessages: 'Open Messages',
  markAllRead: 'Mark all as read',
  nothingUnread: 'You have read everything.',

  // Announcements and notices
  notifications: 'Notifications',
  announceMessage: (name: string, text: string) => `${name}: ${text}`,
  announceOther: (count: number, name: string) =>
    n(count, { one: `New message from ${name}`, other: `${count} new messages from ${name}` }),
  announceSent: 'Sent',
  announceFailed: 'Message not sent',
  messageUnavailable: 'This message is not available.',
  changeFailed: (message: string) => `The change was undone. ${message}`,
  close: 'Close',
}

/** The texts of one language that the provider and `./navigation` use. */
export type NavigationStrings = typeof navigationEn
