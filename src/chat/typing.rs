//! Who is typing where, told to the others on the topic of the conversation and on their own topics (chat API 1.2, 2.7).
//!
//! Nothing is stored: what is kept here outlives nobody's typing by more than seconds. Others are told of a start
//! at most every [`MIN_INTERVAL`], of an end always: when the person says so, sends a message, or is not heard of
//! any more.

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

/// How often the others are told at most that somebody goes on typing. Clients repeat themselves every three
/// seconds.
const MIN_INTERVAL: Duration = Duration::from_secs(2);

/// How late an end may be noticed. Clients forget a start by themselves after its `expires_in_ms`.
const TICK: Duration = Duration::from_millis(200);

/// Everybody who types. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Typing {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    broadcasts: Broadcasts,
    /// A plain mutex: held to change one entry, or to look through all of them. Bounded by the requests of the
    /// last seconds, each of which asked the database.
    typists: Mutex<HashMap<Typist, State>>,
    news: Notify,
}

/// Who may know besides those on the conversation's topic: its other members, as the database named them.
pub(super) type Others = Arc<[Uuid]>;

/// Somebody in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Typist {
    conversation: Uuid,
    person: Uuid,
}

#[derive(Clone, Debug)]
struct State {
    /// They type until then; `None`: they have stopped, which is remembered as long as a new start would
    /// come too soon.
    until: Option<Instant>,
    /// When the others were told of a start.
    told_at: Instant,
    /// Whether the others are to be told of a start as soon as that is not too soon.
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

    /// Somebody says that they type, which the database allows them to be seen doing.
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
            // A start after an end is news, a repetition is not.
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
            self.tell(typist, others, Some(expires_in));
        }
        self.inner.news.notify_one();
    }

    /// Somebody says that they have stopped, which they may be seen doing.
    pub(super) fn stopped(&self, conversation: Uuid, person: Uuid, others: &Others) {
        let typist = Typist {
            conversation,
            person,
        };
        self.forget(typist);
        // Told whether or not a start is remembered: it may have been told by another process.
        self.tell(typist, others, None);
    }

    /// Somebody has stopped typing wherever they were.
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

    /// A message of somebody is there: they have stopped typing it.
    pub(super) fn sent(&self, conversation: Uuid, person: Uuid) {
        let typist = Typist {
            conversation,
            person,
        };
        if let Some(others) = self.forget(typist) {
            self.tell(typist, &others, None);
        }
    }

    /// Tells of ends that nobody speaks of, until the server stops.
    pub(super) async fn run(self, tasks: Tasks) {
        let keeping = async {
            loop {
                if self.lock().is_empty() {
                    self.inner.news.notified().await;
                }
                tokio::time::sleep(TICK).await;
                for (typist, others, start) in self.due(Instant::now()) {
                    self.tell(typist, &others, start);
                }
            }
        };
        tokio::select! {
            () = keeping => {}
            () = tasks.token().cancelled() => {}
        }
    }

    /// What is to be told now, and is told by this: starts with the time until they expire, and ends.
    fn due(&self, now: Instant) -> Vec<(Typist, Others, Option<Duration>)> {
        let mut due = Vec::new();
        self.lock().retain(|typist, state| {
            let may_start = now >= state.told_at + MIN_INTERVAL;
            match state.until {
                Some(until) if until <= now => {
                    state.until = None;
                    // Of a start that nobody was told of nobody is told the end.
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

    /// Forgets that somebody types. Returns the others if they were told that.
    fn forget(&self, typist: Typist) -> Option<Others> {
        let mut typists = self.lock();
        let state = typists.get_mut(&typist)?;
        let was_owed = std::mem::take(&mut state.is_owed);
        let was_told = state.until.take().is_some() && !was_owed;
        was_told.then(|| Arc::clone(&state.others))
    }

    /// The topics on which somebody listens.
    fn audience(&self, typist: Typist, others: &Others) -> impl Iterator<Item = String> {
        let conversation = topics::of_conversation(typist.conversation);
        let devices = others.iter().map(|person| topics::of_person(*person));
        std::iter::once(conversation)
            .chain(devices)
            .filter(|topic| self.inner.broadcasts.has_members(topic))
    }

    fn tell(&self, typist: Typist, others: &Others, start: Option<Duration>) {
        let mut topics = self.audience(typist, others).peekable();
        if topics.peek().is_none() {
            return;
        }
        let expires_in_ms = start.map_or(0, |expires_in| expires_in.as_millis());
        // Written once, whatever the number of topics.
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

    /// Only Ben has a device, and nobody looks at the conversation.
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

    /// What was told meanwhile: `+` for a start, `-` for an end.
    fn told(listener: &mut BroadcastListener) -> String {
        let mut told = String::new();
        while let Some(broadcast) = listener.try_next() {
            let is_start = broadcast.payload.contains("\"is_typing\":true");
            told.push(if is_start { '+' } else { '-' });
        }
        told
    }

    /// Time passes, a tick at a time.
    fn pass(typing: &Typing, now: &mut Instant, time: Duration) {
        let end = *now + time;
        while *now < end {
            *now += TICK;
            for (typist, others, start) in typing.due(*now) {
                typing.tell(typist, &others, start);
            }
        }
    }

    #[test]
    fn starts_are_told_every_two_seconds_and_the_end_when_it_is_not_renewed() {
        let (typing, mut listener) = start();
        let mut now = Instant::now();
        for _ in 0..10 {
            typing.started(PLACE, ANA, &nobody(), EXPIRES_IN, now);
            pass(&typing, &mut now, Duration::from_millis(400));
        }
        assert_eq!(told(&mut listener), "++");
        pass(&typing, &mut now, EXPIRES_IN);
        assert_eq!(told(&mut listener), "-");
        assert!(typing.lock().is_empty());
    }

    #[test]
    fn an_end_always_passes_and_a_start_after_it_waits() {
        let (typing, mut listener) = start();
        let mut now = Instant::now();
        typing.started(PLACE, ANA, &nobody(), EXPIRES_IN, now);
        typing.stopped(PLACE, ANA, &nobody());
        typing.started(PLACE, ANA, &nobody(), EXPIRES_IN, now);
        assert_eq!(told(&mut listener), "+-");
        pass(&typing, &mut now, MIN_INTERVAL);
        assert_eq!(told(&mut listener), "+");
        typing.sent(PLACE, ANA);
        typing.sent(PLACE, ANA);
        assert_eq!(told(&mut listener), "-");
        typing.started(PLACE, ANA, &nobody(), EXPIRES_IN, now);
        typing.sent(PLACE, ANA);
        assert_eq!(told(&mut listener), "", "of neither was anybody told");
        typing.started(PLACE, ANA, &nobody(), EXPIRES_IN, now);
        typing.stopped_everywhere(ANA);
        typing.stopped_everywhere(ANA);
        assert_eq!(told(&mut listener), "-");
        pass(&typing, &mut now, MIN_INTERVAL);
        assert_eq!(told(&mut listener), "");
        assert!(typing.lock().is_empty());
    }

    #[test]
    fn devices_of_the_others_are_told_wherever_they_look() {
        let (typing, mut listener) = start_before(BensDevice);
        let mut now = Instant::now();
        let others: Others = Arc::new([BEN, ZOE]);
        let mut told = || {
            let topics = std::iter::from_fn(|| listener.try_next()).map(|told| told.topic);
            topics.collect::<Vec<_>>()
        };
        typing.started(PLACE, ANA, &others, EXPIRES_IN, now);
        assert_eq!(told(), [topics::of_person(BEN)]);
        typing.sent(PLACE, ANA);
        assert_eq!(told(), [topics::of_person(BEN)], "a message ends it");
        pass(&typing, &mut now, MIN_INTERVAL);
        typing.started(PLACE, ANA, &others, EXPIRES_IN, now);
        pass(&typing, &mut now, EXPIRES_IN);
        assert_eq!(told().len(), 2, "and so does silence");
        typing.started(PLACE, ANA, &others, EXPIRES_IN, now);
        typing.stopped_everywhere(ANA);
        assert_eq!(told().len(), 2, "and the person, without saying where");
        typing.started(PLACE, ANA, &nobody(), EXPIRES_IN, now);
        assert!(told().is_empty(), "nobody is left who listens");
    }
}
