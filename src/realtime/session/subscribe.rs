//! The registration of a channel's bindings, and its result.

use std::sync::Arc;
use std::time::Duration;

use super::super::channel::Channel;
use super::super::error::JoinRefusal;
use super::super::hub::StreamState;
use super::super::protocol::SystemNotice;
use super::effect::{Effect, SubscribeOrder};
use super::state::Session;
use crate::limits::UnixMillis;
use crate::visibility::SubscribeError;

/// How long the reply to a join waits for the registration of its bindings. Clients give up on a
/// join after ten seconds, and the database usually takes only milliseconds.
const SUBSCRIBE_PATIENCE: Duration = Duration::from_secs(3);

/// Sent to a channel whose bindings are not registered in time.
pub(super) const SUBSCRIBE_LATE: &str =
    "Changes are not live yet: the database takes long to answer";

impl Session {
    /// Answers a join without `wait` whose bindings are not registered in time. The registration
    /// continues.
    pub(super) fn subscribe_late(
        &mut self,
        topic: &Arc<str>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let is_waited_for = self
            .channels
            .get(topic)
            .is_some_and(|channel| channel.is_joining_with_wait());
        if !is_waited_for {
            let notice = SystemNotice::changes_error(SUBSCRIBE_LATE);
            self.answer_join(topic, Some(notice), now, effects);
        }
    }

    /// Handles the result of a registration.
    pub(super) fn subscribed(
        &mut self,
        topic: &Arc<str>,
        result: Result<StreamState, SubscribeError>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let is_waited_for = channel.is_joining_with_wait();
        let Some(subscription) = &mut channel.subscription else {
            return;
        };
        let was_failing = subscription.failures > 0;
        let mut again = subscription.registration.end();
        let notice = match &result {
            Ok(state) => {
                subscription.failures = 0;
                Some(state.notice())
            }
            Err(error) if error.is_retryable() => {
                subscription.failures = subscription.failures.saturating_add(1);
                again = true;
                // The error is sent only once. The next notice reports success.
                (!was_failing).then(|| SystemNotice::changes_error(error.client_text()))
            }
            Err(error) if is_waited_for => {
                let refusal = JoinRefusal::Subscription(error.client_text());
                self.refuse_joining(topic, &refusal, now, effects);
                return;
            }
            Err(error) => Some(SystemNotice::changes_error(error.client_text())),
        };
        let keeps_waiting = is_waited_for && result.is_err();
        if again {
            effects.extend(channel.subscribe());
        }
        if keeps_waiting {
            return;
        }
        if channel.joining().is_some() {
            self.answer_join(topic, notice, now, effects);
        } else if let Some(notice) = notice {
            self.send_notice(topic, notice, effects);
        }
    }
}

impl Channel {
    /// Returns whether the reply to the join waits until changes are live.
    fn is_joining_with_wait(&self) -> bool {
        self.joining().is_some_and(|joining| joining.wait.is_some())
    }

    /// Returns an effect that registers the bindings under the channel's current identity. Only one
    /// registration runs at a time. If one is already running, returns `None`, and the next one
    /// starts when it ends. Also returns `None` if the channel has no valid bindings.
    pub(super) fn subscribe(&mut self) -> Option<Effect> {
        let until_live = self.is_joining_with_wait();
        let identity = self.holder.identity();
        let subscription = self.subscription.as_mut()?;
        let bindings = subscription.bindings.as_ref().ok()?.clone();
        if !subscription.registration.begin() {
            return None;
        }
        Some(Effect::Subscribe(SubscribeOrder {
            channel: self.id,
            topic: Arc::clone(&self.topic),
            identity,
            bindings,
            options: subscription.options,
            patience: SUBSCRIBE_PATIENCE,
            failures: subscription.failures,
            until_live,
        }))
    }
}
