export { EmojiPopup, type EmojiPopupProps } from './emoji/emoji-popup'
