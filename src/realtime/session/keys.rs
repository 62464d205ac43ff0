//! Reacts to keys that have disappeared, and to keys that have been fetched.

use std::sync::Arc;

use super::super::channel::{Channel, OwnedMessage, Rights};
use super::super::error::{JoinRefusal, token_text};
use super::super::protocol::ClientMessage;
use super::effect::Effect;
use super::state::Session;
use crate::auth::{TokenError, Verifier};
use crate::limits::UnixMillis;

/// Maximum size in bytes of a message with a token that waits for its keys. Tokens are also sent in
/// headers, which proxies commonly limit to 8 KiB.
const MAX_TOKEN_MESSAGE_BYTES: usize = 16 * 1024;

impl Session {
    /// Verifies again the tokens that could not be verified before. Closes the channels whose token
    /// was verified with a key that has disappeared.
    pub fn keys_changed(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        let topics: Vec<Arc<str>> = self.channels.keys().cloned().collect();
        for topic in topics {
            let channel = self.channels.get_mut(&topic);
            // The new token comes first, because it may replace one whose key has disappeared.
            if let Some(message) = channel.and_then(|channel| channel.unverified.take()) {
                self.receive(&message.borrow(), now, effects);
            }
            let Some(channel) = self.channels.get(&topic) else {
                continue;
            };
            let Err(error) = channel.check_signers(&self.shared.verifier) else {
                continue;
            };
            if channel.joining().is_some() {
                self.refuse_joining(&topic, &JoinRefusal::Token(error), now, effects);
            } else {
                self.close_channel(&topic, token_text(&error), now, effects);
            }
        }
        self.find_deadline(now);
    }

    /// Keeps a message with a token whose keys are not available, until they have been fetched. The
    /// channel keeps its identity until then. Returns `false` if the message is too large.
    pub(super) fn keep_unverified(&mut self, message: &ClientMessage<'_>) -> bool {
        let Some(channel) = self.channels.get_mut(&*message.topic) else {
            return false;
        };
        let owned = OwnedMessage::new(message, Arc::clone(&channel.topic));
        if owned.payload_bytes() > MAX_TOKEN_MESSAGE_BYTES {
            return false;
        }
        channel.unverified = Some(Box::new(owned));
        true
    }
}

impl Channel {
    /// Checks the keys of the current token and of a new one whose permissions are being checked.
    fn check_signers(&self, verifier: &Verifier) -> Result<(), TokenError> {
        verifier.check_signer(&self.holder.claims)?;
        let rights: Option<&Rights> = self.access.rights();
        match rights.and_then(|rights| rights.new_token.holder()) {
            Some(newer) => verifier.check_signer(&newer.claims),
            None => Ok(()),
        }
    }
}
