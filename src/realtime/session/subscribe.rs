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

/// How long the reply to a join waits for its bindings to be registered. Clients give up on a join
/// after ten seconds, and the database usually takes milliseconds.
const SUBSCRIBE_PATIENCE: Duration = Duration::from_secs(3);

/// Notice for a channel whose bindings are not registered in time.
pub(super) const SUBSCRIBE_LATE: &str =
    "Changes are not live yet: the database takes long to answer";

impl Session {
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
        let is_waited_for = channel
            .joining
            .as_ref()
            .is_some_and(|joining| joining.wait.is_some());
        let Some(subscription) = &mut channel.subscription else {
            return;
        };
        subscription.is_running = false;
        let was_failing = subscription.failures > 0;
        let mut again = std::mem::take(&mut subscription.is_stale);
        let notice = match &result {
            Ok(state) => {
                subscription.failures = 0;
                Some(state.notice())
            }
            Err(error) if error.is_retryable() => {
                subscription.failures = subscription.failures.saturating_add(1);
                again = true;
                // Sent once. The next notice reports success.
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
        let was_joining = channel.joining.is_some();
        if was_joining {
            self.join_done(topic, effects);
        }
        if let Some(notice) = notice {
            self.tell(topic, notice, effects);
        }
        if was_joining {
            self.settle(topic, now, effects);
        }
    }
}

impl Channel {
    pub(super) fn is_joining_without_wait(&self) -> bool {
        self.joining
            .as_ref()
            .is_some_and(|joining| joining.wait.is_none())
    }

    /// Returns an effect that registers the bindings under the channel's current identity. Only one
    /// registration runs at a time. If one is running, the next starts when it is done.
    pub(super) fn subscribe(&mut self) -> Option<Effect> {
        let until_live = self
            .joining
            .as_ref()
            .is_some_and(|joining| joining.wait.is_some());
        let identity = self.holder.identity();
        let subscription = self.subscription.as_mut()?;
        let bindings = subscription.bindings.as_ref().ok()?.clone();
        if std::mem::replace(&mut subscription.is_running, true) {
            subscription.is_stale = true;
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
