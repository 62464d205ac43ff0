//! Sends typing indicators to the other members of a conversation, on the topic of the conversation
//! and on their own topics (docs/api.md, *Live changes*).
//!
//! Nothing is stored in the database. An entry in memory outlives the typing by at most a few
//! seconds. Starts are sent at most once per [`MIN_INTERVAL`]; this limit does not apply to ends.
//! Typing ends when the client reports its end, when the user sends a message, or when the client
//! no longer repeats the start.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::topics;
use crate::bus::broadcasts::{Broadcasts, ServerBroadcast};
use crate::shutdown::Tasks;

/// The minimum interval between two starts that are sent for a user who keeps typing. Clients
/// repeat a start every three seconds.
const MIN_INTERVAL: Duration = Duration::from_secs(2);

/// How late an expired start may be noticed. Clients expire a start themselves after its
/// `expires_in_ms`.
const TICK: Duration = Duration::from_millis(200);

/// The users who are typing. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Typing {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    broadcasts: Broadcasts,
    /// A standard mutex, held to change one entry or to scan all of them. The number of entries is
    /// bounded by the requests of the last few seconds, each of which queried the database.
    typists: Mutex<HashMap<Typist, State>>,
    news: Notify,
}

/// The other members of the conversation, as the database returned them. They may receive the
/// indicator even if they are not on the conversation's topic.
pub(super) type Others = Arc<[Uuid]>;

/// A user in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Typist {
    conversation: Uuid,
    person: Uuid,
}

#[derive(Clone, Debug)]
struct State {
    /// When the typing expires. `None` if it has ended; the entry then remains until a new start
    /// may be sent.
    until: Option<Instant>,
    /// When the last start was sent.
    told_at: Instant,
    /// Whether a start must be sent as soon as [`MIN_INTERVAL`] has passed.
    is_owed: bool,
    expires_in: Duration,
    others: Others,
}

impl Typing {
    pub(super) fn new(broadcasts: Broadcasts) -> Self {
        Self {
            inner: Arc::new(Inner {
                broadcasts,
                typists: Mutex::default(),
                news: Notify::new(),
            }),
        }
    }

    /// Records that a user is typing. The database has decided that the others may see it.
    pub(super) fn started(
        &self,
        conversation: Uuid,
        person: Uuid,
        others: &Others,
        expires_in: Duration,
        now: Instant,
    ) {
        let typist = Typist {
            conversation,
            person,
        };
        if self.audience(typist, others).next().is_none() {
            return;
        }
        let mut typists = self.lock();
        let until = Some(now + expires_in);
        let is_told = if let Some(state) = typists.get_mut(&typist) {
            let is_due = now >= state.told_at + MIN_INTERVAL;
            // A start soon after an end is sent later. A repeated start need not be sent.
            state.is_owed = !is_due && (state.is_owed || state.until.is_none());
            if is_due {
                state.told_at = now;
            }
            state.until = until;
            state.expires_in = expires_in;
            state.others = Arc::clone(others);
            is_due
        } else {
            let state = State {
                until,
                told_at: now,
                is_owed: false,
                expires_in,
                others: Arc::clone(others),
            };
            typists.insert(typist, state);
            true
        };
        drop(typists);
        if is_told {
            self.send(typist, others, Some(expires_in));
        }
        self.inner.news.notify_one();
    }

    /// Records that a user stopped typing. The database has decided that the others may see it.
    pub(super) fn stopped(&self, conversation: Uuid, person: Uuid, others: &Others) {
        let typist = Typist {
            conversation,
            person,
        };
        self.forget(typist);
        // Sent even if no start is recorded, because another process may have sent the start.
        self.send(typist, others, None);
    }

    /// Records that a user stopped typing in all conversations.
    pub(super) fn stopped_everywhere(&self, person: Uuid) {
        let typists: Vec<_> = self
            .lock()
            .iter()
            .filter(|(typist, state)| typist.person == person && state.until.is_some())
            .map(|(typist, state)| (*typist, Arc::clone(&state.others)))
            .collect();
        for (typist, others) in typists {
            self.stopped(typist.conversation, person, &others);
        }
    }

    /// Records that a user sent a message, which ends their typing.
    pub(super) fn sent(&self, conversation: Uuid, person: Uuid) {
        let typist = Typist {
            conversation,
            person,
        };
        if let Some(others) = self.forget(typist) {
            self.send(typist, &others, None);
        }
    }

    /// Sends delayed starts, and ends for expired starts, until the server stops.
    pub(super) async fn run(self, tasks: Tasks) {
        let keeping = async {
            loop {
                if self.lock().is_empty() {
                    self.inner.news.notified().await;
                }
                tokio::time::sleep(TICK).await;
                for (typist, others, start) in self.due(Instant::now()) {
                    self.send(typist, &others, start);
                }
            }
        };
        tokio::select! {
            () = keeping => {}
            () = tasks.token().cancelled() => {}
        }
    }

    /// Takes the indicators to send now. A start has the time until it expires; an end has `None`.
    fn due(&self, now: Instant) -> Vec<(Typist, Others, Option<Duration>)> {
        let mut due = Vec::new();
        self.lock().retain(|typist, state| {
            let may_start = now >= state.told_at + MIN_INTERVAL;
            match state.until {
                Some(until) if until <= now => {
                    state.until = None;
                    // The end is sent only if the start was sent.
                    if !std::mem::take(&mut state.is_owed) {
                        due.push((*typist, Arc::clone(&state.others), None));
                    }
                }
                Some(_) if state.is_owed && may_start => {
                    due.push((*typist, Arc::clone(&state.others), Some(state.expires_in)));
                    state.is_owed = false;
                    state.told_at = now;
                }
                _ => {}
            }
            state.until.is_some() || !may_start
        });
        due
    }

    /// Ends a user's typing. Returns the other members if the start was sent to them.
    fn forget(&self, typist: Typist) -> Option<Others> {
        let mut typists = self.lock();
        let state = typists.get_mut(&typist)?;
        let was_owed = std::mem::take(&mut state.is_owed);
        let was_told = state.until.take().is_some() && !was_owed;
        was_told.then(|| Arc::clone(&state.others))
    }

    /// Returns the topics that have subscribers.
    fn audience(&self, typist: Typist, others: &Others) -> impl Iterator<Item = String> {
        let conversation = topics::of_conversation(typist.conversation);
        let devices = others.iter().map(|person| topics::of_person(*person));
        std::iter::once(conversation)
            .chain(devices)
            .filter(|topic| self.inner.broadcasts.has_members(topic))
    }

    fn send(&self, typist: Typist, others: &Others, start: Option<Duration>) {
        let mut topics = self.audience(typist, others).peekable();
        if topics.peek().is_none() {
            return;
        }
        let expires_in_ms = start.map_or(0, |expires_in| expires_in.as_millis());
        // Serialized once for all topics.
        let payload: Arc<str> = json!({
            "conversation_id": typist.conversation,
            "user_id": typist.person,
            "is_typing": start.is_some(),
            "expires_in_ms": u64::try_from(expires_in_ms).unwrap_or(u64::MAX),
        })
        .to_string()
        .into();
        for topic in topics {
            self.inner.broadcasts.send(ServerBroadcast {
                topic,
                event: "typing",
                payload: Arc::clone(&payload),
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Typist, State>> {
        self.inner
            .typists
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;
    use crate::bus::broadcasts::{Audiences, BroadcastListener};
    use crate::observability::metrics::BusMetrics;

    const PLACE: Uuid = Uuid::from_u128(1);
    const ANA: Uuid = Uuid::from_u128(2);
    const EXPIRES_IN: Duration = Duration::from_secs(6);

    const BEN: Uuid = Uuid::from_u128(3);
    const ZOE: Uuid = Uuid::from_u128(4);

    fn nobody() -> Others {
        Arc::new([])
    }

    /// Only Ben has a device, and the conversation's topic has no subscribers.
    #[derive(Debug)]
    struct BensDevice;

    impl Audiences for BensDevice {
        fn has_members(&self, topic: &str) -> bool {
            topic == topics::of_person(BEN)
        }

        fn topics(&self, _prefix: &str) -> Vec<String> {
            Vec::new()
        }
    }

    #[derive(Debug)]
    struct Everybody;

    impl Audiences for Everybody {
        fn has_members(&self, _topic: &str) -> bool {
            true
        }

        fn topics(&self, _prefix: &str) -> Vec<String> {
            Vec::new()
        }
    }

    fn start() -> (Typing, BroadcastListener) {
        start_before(Everybody)
    }

    fn start_before(audiences: impl Audiences + 'static) -> (Typing, BroadcastListener) {
        let (bus, mut listener) = Bus::new(1, BusMetrics::default());
        let broadcasts = listener.take_broadcasts().unwrap();
        broadcasts.set_audiences(Arc::new(audiences));
        (Typing::new(bus.broadcasts().clone()), broadcasts)
    }

    /// Returns the indicators sent since the last call: `+` for a start, `-` for an end.
    fn received(listener: &mut BroadcastListener) -> String {
        let mut received = String::new();
        while let Some(broadcast) = listener.try_next() {
            let is_start = broadcast.payload.contains("\"is_typing\":true");
            received.push(if is_start { '+' } else { '-' });
        }
        received
    }

    /// Lets time pass, one tick at a time.
    fn pass(typing: &Typing, now: &mut Instant, time: Duration) {
        let end = *now + time;
        while *now < end {
            *now += TICK;
            for (typist, others, start) in typing.due(*now) {
                typing.send(typist, &others, start);
            }
        }
    }

    #[test]
    fn starts_are_sent_every_two_seconds_and_the_end_when_they_expire() {
        let (typing, mut listener) = start();
        let mut now = Instant::now();
        for _ in 0..10 {
            typing.started(PLACE, ANA, &nobody(), EXPIRES_IN, now);
            pass(&typing, &mut now, Duration::from_millis(400));
        }
        assert_eq!(received(&mut listener), "++");
        pass(&typing, &mut now, EXPIRES_IN);
        assert_eq!(received(&mut listener), "-");
        assert!(typing.lock().is_empty());
    }

    #[test]
    fn an_end_is_sent_at_once_and_the_next_start_waits() {
        let (typing, mut listener) = start();
        let mut now = Instant::now();
        typing.started(PLACE, ANA, &nobody(), EXPIRES_IN, now);
        typing.stopped(PLACE, ANA, &nobody());
        typing.started(PLACE, ANA, &nobody(), EXPIRES_IN, now);
        assert_eq!(received(&mut listener), "+-");
        pass(&typing, &mut now, MIN_INTERVAL);
        assert_eq!(received(&mut listener), "+");
        typing.sent(PLACE, ANA);
        typing.sent(PLACE, ANA);
        assert_eq!(received(&mut listener), "-");
        typing.started(PLACE, ANA, &nobody(), EXPIRES_IN, now);
        typing.sent(PLACE, ANA);
        assert_eq!(received(&mut listener), "", "neither was sent");
        typing.started(PLACE, ANA, &nobody(), EXPIRES_IN, now);
        typing.stopped_everywhere(ANA);
        typing.stopped_everywhere(ANA);
        assert_eq!(received(&mut listener), "-");
        pass(&typing, &mut now, MIN_INTERVAL);
        assert_eq!(received(&mut listener), "");
        assert!(typing.lock().is_empty());
    }

    #[test]
    fn devices_of_other_members_receive_indicators_on_their_own_topics() {
        let (typing, mut listener) = start_before(BensDevice);
        let mut now = Instant::now();
        let others: Others = Arc::new([BEN, ZOE]);
        let mut received = || {
            let topics = std::iter::from_fn(|| listener.try_next()).map(|received| received.topic);
            topics.collect::<Vec<_>>()
        };
        typing.started(PLACE, ANA, &others, EXPIRES_IN, now);
        assert_eq!(received(), [topics::of_person(BEN)]);
        typing.sent(PLACE, ANA);
        assert_eq!(received(), [topics::of_person(BEN)], "a message ends it");
        pass(&typing, &mut now, MIN_INTERVAL);
        typing.started(PLACE, ANA, &others, EXPIRES_IN, now);
        pass(&typing, &mut now, EXPIRES_IN);
        assert_eq!(received().len(), 2, "and so does expiry");
        typing.started(PLACE, ANA, &others, EXPIRES_IN, now);
        typing.stopped_everywhere(ANA);
        assert_eq!(
            received().len(),
            2,
            "and so does an end without a conversation"
        );
        typing.started(PLACE, ANA, &nobody(), EXPIRES_IN, now);
        assert!(received().is_empty(), "no subscriber is left");
    }
}
