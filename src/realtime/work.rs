//! Work that a session wants done aside: registering bindings and asking for permissions.
//!
//! It runs inside the socket's own task, so it ends with the socket and needs no queue of its
//! own; there is at most one registration, one question and one recheck per channel.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, join, select};
use tokio::sync::{Semaphore, watch};

use super::channel::authorize::{AuthorizeError, Authorizer, Permissions, Question};
use super::hub::{Hub, StreamState};
use super::messages::replay::Replayer;
use super::messages::store::{Store, StoreError};
use super::protocol::sub_topic;
use super::session::{
    AuthorizeOrder, Outcome, PersistOrder, RecheckOrder, RecheckOutcome, ReplayOrder,
    SubscribeOrder, WorkResult,
};
use crate::visibility::{ChannelId, SubscribeError, Visibility};

/// Pause before the second attempt to register bindings that met no database.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Pause between attempts at most. The original retries after 5 to 10 seconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How long a channel waits that wants to hear when broadcasts from the database are live: as in
/// the original.
const MESSAGES_PATIENCE: Duration = Duration::from_secs(60);

/// Maximum concurrent rechecks, which is the size of a few batches of questions. Joins must not wait
/// behind a change that concerns thousands of channels.
pub const MAX_RECHECKS: usize = 32;

/// Work under way.
pub type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What came of it, and what is left of it.
pub struct Done {
    /// What the session is to hear.
    pub outcome: Outcome,
    /// Work that goes on.
    pub rest: Option<Work>,
}

/// What work is done with.
#[derive(Clone)]
pub struct Workshop {
    /// Registers bindings.
    pub visibility: Visibility,
    /// Asks for permissions, where there is somebody to ask.
    pub authorizer: Option<Authorizer>,
    /// Stores broadcasts, where they can be.
    pub store: Option<Store>,
    /// Reads stored messages, where there are some.
    pub replayer: Option<Replayer>,
    /// Knows where the change stream stands.
    pub hub: Arc<Hub>,
    /// Whether broadcasts from the database are live.
    pub messages_live: watch::Receiver<bool>,
    /// One permit for each concurrent recheck.
    pub rechecks: Arc<Semaphore>,
}

impl Workshop {
    /// Registers the bindings of a channel. When it takes longer than the session's patience,
    /// that is told, and the work goes on.
    pub fn subscribe(&self, order: SubscribeOrder) -> Work {
        let (channel, topic, patience) = (order.channel, Arc::clone(&order.topic), order.patience);
        let registration: Work = Box::pin(self.clone().register(order));
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

    /// Asks what a channel may do. Where nobody can be asked, nobody may do anything.
    pub fn authorize(&self, order: AuthorizeOrder) -> Work {
        let workshop = self.clone();
        Box::pin(async move {
            workshop.pause(order.failures).await;
            let answer = workshop.ask(order.question, &order).await;
            Done {
                outcome: Outcome {
                    channel: order.channel,
                    topic: order.topic,
                    result: WorkResult::Authorized {
                        question: order.question,
                        mark: order.mark,
                        round: order.round,
                        answer,
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
            // The semaphore is never closed, so this cannot fail.
            let _turn = workshop.rechecks.acquire().await;
            let (may_read, may_write) = join(workshop.ask(read.question, &read), async {
                match with_write {
                    true => Some(workshop.ask(Question::Write, &read).await),
                    false => None,
                }
            })
            .await;
            Done {
                outcome: Outcome {
                    channel: read.channel,
                    topic: read.topic,
                    result: WorkResult::Rechecked(RecheckOutcome {
                        question: read.question,
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

    async fn ask(
        &self,
        question: Question,
        order: &AuthorizeOrder,
    ) -> Result<Permissions, AuthorizeError> {
        match &self.authorizer {
            Some(authorizer) => {
                let topic = sub_topic(&order.topic);
                authorizer
                    .ask(question, topic, &order.claims, &order.headers)
                    .await
            }
            None => Ok(Permissions::default()),
        }
    }

    /// Reads the stored messages that a join asks for.
    pub fn read_stored(&self, order: ReplayOrder) -> Work {
        let replayer = self.replayer.clone();
        Box::pin(async move {
            let topic = sub_topic(&order.topic);
            let messages = match &replayer {
                Some(replayer) => match replayer.read(topic, order.params, order.max_bytes).await {
                    Ok(messages) => Some(messages),
                    Err(error) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(%error, cause, "stored messages are not replayed");
                        None
                    }
                },
                None => None,
            };
            Done {
                outcome: Outcome {
                    channel: order.channel,
                    topic: order.topic,
                    result: WorkResult::Stored(messages),
                },
                rest: None,
            }
        })
    }

    /// Stores a broadcast and sends it. Where nothing can be stored, nobody may.
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
                    result: WorkResult::Persisted {
                        reference: order.reference,
                        result,
                    },
                },
                rest: None,
            }
        })
    }

    /// Waits until broadcasts from the database are live, but not for ever.
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

    async fn register(self, order: SubscribeOrder) -> Done {
        self.pause(order.failures).await;
        let result = self
            .visibility
            .subscribe(order.channel, order.identity, order.bindings, order.options)
            .await;
        let result = self.settled(result, order.channel, order.until_live).await;
        Done {
            outcome: Outcome {
                channel: order.channel,
                topic: order.topic,
                result: WorkResult::Subscribed(result),
            },
            rest: None,
        }
    }

    /// Where the stream stands for a channel whose bindings are registered.
    async fn settled(
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
        // A channel that has left meanwhile waits for nothing: what was registered is forgotten when
        // its session hears of it, which it never would if the socket ended before.
        if until_live && self.hub.member(channel).is_some() {
            let mut stream = self.hub.watch_stream();
            // The hub outlives this work, so waiting ends only with the condition.
            if let Ok(live) = stream.wait_for(|state| *state == StreamState::Live).await {
                state = *live;
            }
        }
        Ok(state)
    }

    /// Waits longer after each failure, but no longer than until the change stream is live
    /// again: then the database is back. Spread, so that all channels do not come at once.
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

/// Whether it comes true in time. Where nobody will ever say so the wait ends at once.
async fn become_live(mut live: watch::Receiver<bool>, patience: Duration) -> bool {
    let waiting = tokio::time::timeout(patience, live.wait_for(|live| *live));
    matches!(waiting.await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_channel_waits_for_live_messages_as_long_as_it_has_patience() {
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
