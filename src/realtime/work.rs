//! The asynchronous work of a session, such as registering bindings and checking permissions.
//!
//! The work runs inside the socket's own task, so it ends with the socket and needs no queue. Only
//! the storing of a broadcast has a task of its own. A channel has at most one registration, one
//! recheck and one broadcast to store at a time. It has few permission checks, because its messages
//! wait for the first check of a write or of a new token.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, join, select};
use tokio::sync::{Semaphore, watch};

use super::channel::authorize::{AuthorizeError, Authorizer, CheckKind};
use super::hub::{Hub, StreamState};
use super::messages::replay::Replayer;
use super::messages::store::{Store, StoreError};
use super::permissions::Permissions;
use super::protocol::sub_topic;
use super::session::{
    AuthorizeOrder, Outcome, PersistOrder, RecheckOrder, RecheckOutcome, ReplayOrder,
    SubscribeOrder, WorkResult,
};
use crate::visibility::{ChannelId, SubscribeError, Subscriber, Visibility};

/// The longest pause before the second attempt of the same work, after the database was
/// unavailable.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause between any two attempts. Supabase Realtime retries after 5 to 10 seconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How long a channel that requested a notice waits for broadcasts from the database to become
/// live. Supabase Realtime waits equally long.
const MESSAGES_PATIENCE: Duration = Duration::from_secs(60);

/// Maximum number of concurrent rechecks. They fill only one or two pipelines (see
/// `channel/authorize`), so that joins do not wait behind a change that concerns thousands of
/// channels.
pub const MAX_RECHECKS: usize = 32;

/// Work in progress.
pub type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

/// The outcome of work, and the work that remains.
pub struct Done {
    /// The outcome to pass to the session.
    pub outcome: Outcome,
    /// Work that continues after the outcome.
    pub rest: Option<Work>,
}

/// Creates work, and contains everything that the work needs.
#[derive(Clone)]
pub struct Workshop {
    /// Registers the bindings.
    pub visibility: Visibility,
    /// Checks permissions. If absent, private channels have no permissions.
    pub authorizer: Option<Authorizer>,
    /// Stores broadcasts. If absent, storing is refused.
    pub store: Option<Store>,
    /// Reads stored messages. If absent, replay is refused.
    pub replayer: Option<Replayer>,
    /// Provides the state of the change stream.
    pub hub: Arc<Hub>,
    /// Whether broadcasts from the database are live.
    pub messages_live: watch::Receiver<bool>,
    /// The semaphore with one permit for each concurrent recheck.
    pub rechecks: Arc<Semaphore>,
}

impl Workshop {
    /// Registers the bindings of a channel whose client has this address (see
    /// [`Subscriber::address`]). If this takes longer than the order's patience, the
    /// outcome is [`WorkResult::SubscribeLate`] and the registration continues.
    pub fn subscribe(&self, order: SubscribeOrder, address: Option<u16>) -> Work {
        let (channel, topic, patience) = (order.channel, Arc::clone(&order.topic), order.patience);
        let registration: Work = Box::pin(self.clone().register(order, address));
        Box::pin(async move {
            let is_late = Box::pin(tokio::time::sleep(patience));
            match select(registration, is_late).await {
                Either::Left((done, _)) => done,
                Either::Right(((), registration)) => Done {
                    outcome: Outcome {
                        channel,
                        topic,
                        result: WorkResult::SubscribeLate,
                    },
                    rest: Some(registration),
                },
            }
        })
    }

    /// Checks the permissions of a channel. Without an authorizer, the channel has none.
    pub fn authorize(&self, order: AuthorizeOrder) -> Work {
        let workshop = self.clone();
        Box::pin(async move {
            workshop.pause(order.failures).await;
            let result = workshop.check(order.kind, &order).await;
            Done {
                outcome: Outcome {
                    channel: order.channel,
                    topic: order.topic,
                    result: WorkResult::Authorized {
                        kind: order.kind,
                        mark: order.mark,
                        round: order.round,
                        result,
                    },
                },
                rest: None,
            }
        })
    }

    /// Rechecks the permissions of a channel.
    pub fn recheck(&self, order: RecheckOrder) -> Work {
        let workshop = self.clone();
        Box::pin(async move {
            let RecheckOrder { read, with_write } = order;
            workshop.pause(read.failures).await;
            // The semaphore is never closed, so `acquire` cannot fail.
            let _permit = workshop.rechecks.acquire().await;
            let (may_read, may_write) = join(workshop.check(read.kind, &read), async {
                match with_write {
                    true => Some(workshop.check(CheckKind::Write, &read).await),
                    false => None,
                }
            })
            .await;
            Done {
                outcome: Outcome {
                    channel: read.channel,
                    topic: read.topic,
                    result: WorkResult::Rechecked(RecheckOutcome {
                        kind: read.kind,
                        mark: read.mark,
                        round: read.round,
                        failures: read.failures,
                        read: may_read,
                        write: may_write,
                    }),
                },
                rest: None,
            }
        })
    }

    async fn check(
        &self,
        kind: CheckKind,
        order: &AuthorizeOrder,
    ) -> Result<Permissions, AuthorizeError> {
        match &self.authorizer {
            Some(authorizer) => {
                let topic = sub_topic(&order.topic);
                authorizer
                    .check(kind, topic, &order.claims, &order.headers)
                    .await
            }
            None => Ok(Permissions::default()),
        }
    }

    /// Reads the stored messages that a join requests.
    pub fn read_stored(&self, order: ReplayOrder) -> Work {
        let replayer = self.replayer.clone();
        Box::pin(async move {
            let topic = sub_topic(&order.topic);
            let messages = match &replayer {
                Some(replayer) => match replayer.read(topic, order.params, order.max_bytes).await {
                    Ok(messages) => Some(messages),
                    Err(error) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(%error, cause, "cannot read stored messages; refusing the join");
                        None
                    }
                },
                None => None,
            };
            Done {
                outcome: Outcome {
                    channel: order.channel,
                    topic: order.topic,
                    result: WorkResult::Replay(messages),
                },
                rest: None,
            }
        })
    }

    /// Stores a broadcast and sends it. Without a store, both are refused.
    pub fn persist(&self, order: PersistOrder) -> Work {
        let store = self.store.clone();
        Box::pin(async move {
            let result = match &store {
                Some(store) => store.send(order.store).await,
                None => Err(StoreError::Forbidden),
            };
            Done {
                outcome: Outcome {
                    channel: order.channel,
                    topic: order.topic,
                    result: WorkResult::Stored {
                        reference: order.reference,
                        result,
                    },
                },
                rest: None,
            }
        })
    }

    /// Waits until broadcasts from the database are live, for at most [`MESSAGES_PATIENCE`].
    pub fn await_messages(&self, channel: ChannelId, topic: Arc<str>) -> Work {
        let live = self.messages_live.clone();
        Box::pin(async move {
            let is_live = become_live(live, MESSAGES_PATIENCE).await;
            Done {
                outcome: Outcome {
                    channel,
                    topic,
                    result: WorkResult::MessagesLive(is_live),
                },
                rest: None,
            }
        })
    }

    async fn register(self, order: SubscribeOrder, address: Option<u16>) -> Done {
        self.pause(order.failures).await;
        let subscriber = Subscriber {
            identity: order.identity,
            address,
            options: order.options,
        };
        let result = self
            .visibility
            .subscribe(order.channel, subscriber, order.bindings)
            .await;
        let result = self
            .finish_registration(result, order.channel, order.until_live)
            .await;
        Done {
            outcome: Outcome {
                channel: order.channel,
                topic: order.topic,
                result: WorkResult::Subscribed(result),
            },
            rest: None,
        }
    }

    /// Processes the result of a registration. Returns the state of the change stream. If
    /// `until_live` is set, first waits until the stream is live.
    async fn finish_registration(
        &self,
        result: Result<(), SubscribeError>,
        channel: ChannelId,
        until_live: bool,
    ) -> Result<StreamState, SubscribeError> {
        if let Err(error) = result {
            if !error.is_retryable() {
                self.hub.unmark_subscribed(channel);
            }
            return Err(error);
        }
        let mut state = self.hub.mark_subscribed(channel);
        // If the channel has left in the meantime, this must not wait. The registration is removed
        // only when the session receives the outcome, and it never receives the outcome if the
        // socket ends first.
        if until_live && self.hub.has_member(channel) {
            let mut stream = self.hub.watch_stream();
            // The hub outlives this work, so waiting ends only with the condition.
            if let Ok(live) = stream.wait_for(|state| *state == StreamState::Live).await {
                state = *live;
            }
        }
        Ok(state)
    }

    /// Waits longer after each failure. The wait ends early when the change stream becomes live,
    /// because the database is then available. The duration is random within a range, so that the
    /// channels do not all retry at once.
    async fn pause(&self, failures: u32) {
        if failures == 0 {
            return;
        }
        let longest = FIRST_PAUSE
            .saturating_mul(1 << failures.saturating_sub(1).min(8))
            .min(LONGEST_PAUSE);
        let pause = longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        let mut stream = self.hub.watch_stream();
        stream.mark_unchanged();
        let is_back = Box::pin(async move {
            while stream.changed().await.is_ok() {
                if *stream.borrow_and_update() == StreamState::Live {
                    return;
                }
            }
            std::future::pending::<()>().await;
        });
        select(is_back, Box::pin(tokio::time::sleep(pause))).await;
    }
}

/// Waits until `live` is true. Returns `false` after `patience`, or as soon as the sender is
/// dropped.
async fn become_live(mut live: watch::Receiver<bool>, patience: Duration) -> bool {
    let waiting = tokio::time::timeout(patience, live.wait_for(|live| *live));
    matches!(waiting.await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_for_live_messages_ends_after_the_patience_or_when_the_sender_is_dropped() {
        let (said, live) = watch::channel(false);
        assert!(!become_live(live.clone(), Duration::from_millis(1)).await);
        let waiting = become_live(live.clone(), MESSAGES_PATIENCE);
        let (is_live, _) = tokio::join!(waiting, async { said.send_replace(true) });
        assert!(is_live);
        let is_so_already = become_live(live.clone(), Duration::from_millis(1)).await;
        assert!(is_so_already);
        said.send_replace(false);
        drop(said);
        let nobody_will_say_so = become_live(live, Duration::MAX);
        assert!(!nobody_will_say_so.await);
    }
}
