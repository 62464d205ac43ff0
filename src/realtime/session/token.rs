//! New tokens of a joined channel (protocol 3.6).

use serde_json::value::RawValue;

use super::super::channel::{Channel, Holder, JoinState, NewToken, Tracking, WriteState};
use super::super::error::{expiry, token_text};
use super::super::protocol::{AccessToken, ClientMessage};
use super::effect::Effect;
use super::state::Session;
use crate::auth::TokenError;
use crate::limits::UnixMillis;

impl Session {
    /// Handles `access_token`, which never receives a reply (protocol 3.6).
    pub(super) fn refresh(
        &mut self,
        message: &ClientMessage<'_>,
        payload: &RawValue,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let AccessToken::Token(token) = AccessToken::parse(payload) else {
            return;
        };
        let topic = &*message.topic;
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        channel.unverified = None;
        let mark = self.shared.marks.of(&token);
        let newer = channel
            .access
            .rights()
            .and_then(|rights| rights.new_token.holder());
        if newer.unwrap_or(&channel.holder).mark == mark {
            return;
        }
        let verified = self.shared.verifier.verify_socket(&token);
        if matches!(verified, Err(TokenError::KeysUnavailable)) && self.keep_unverified(message) {
            return;
        }
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        match verified {
            Err(error) => self.close_channel(topic, token_text(&error), now, effects),
            Ok(claims) => {
                let holder = Holder { claims, mark };
                if let Some(error) = expiry(&holder.claims, now.seconds()) {
                    self.close_channel(topic, token_text(&error), now, effects);
                } else if channel.is_private() {
                    effects.extend(channel.check_read(&holder, &self.headers, 0));
                    if let Some(rights) = channel.access.rights_mut() {
                        rights.new_token = NewToken::Checking(holder);
                    }
                } else {
                    channel.take_over(holder, effects);
                    let user_id = channel.holder.claims.user_id();
                    self.shared.hub.set_user_id(channel.id, user_id);
                    effects.extend(channel.subscribe());
                }
            }
        }
    }
}

impl Channel {
    /// Switches the channel to another identity.
    pub(super) fn take_over(&mut self, holder: Holder, effects: &mut Vec<Effect>) {
        if self.is_managed() && holder.claims.subject != self.holder.claims.subject {
            // The previous user must no longer appear in the presence of the topic.
            self.untrack(effects);
            self.tracking.key = Tracking::key_of_subject(&holder);
        }
        self.holder = holder;
        if let JoinState::Joined { is_warned } = &mut self.join_state {
            *is_warned = false;
        }
        if let Some(rights) = self.access.rights_mut() {
            rights.write = WriteState::Unchecked;
        }
    }
}
