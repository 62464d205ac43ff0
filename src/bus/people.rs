//! Which people have sockets here, and what was handed to them: what one part of the process knows and
//! another writes down.
//!
//! Both are states, not queues: whoever writes them down takes what has changed since the last time, and
//! puts back what could not be written.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::observability::metrics::BusMetrics;

/// Conversations and people for whom a delivery may wait to be written down. While the database is away more
/// may come; they are dropped and counted, and made good by the next message that is delivered.
const MAX_DELIVERIES: usize = 65_536;

/// The people with sockets in this process.
#[derive(Clone, Debug, Default)]
pub struct People {
    inner: Arc<PeopleInner>,
}

#[derive(Debug, Default)]
struct PeopleInner {
    /// A plain mutex: held to change one entry, or to take what has changed. Bounded by the sockets.
    state: Mutex<Attendance>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Attendance {
    devices: HashMap<Uuid, usize>,
    /// Whoever came or left since the last look; true where somebody came.
    changed: HashMap<Uuid, bool>,
}

/// A socket of somebody. Dropping it ends it.
#[derive(Debug)]
pub struct Device {
    person: Uuid,
    people: People,
}

impl People {
    /// A socket of this person is here, for as long as the answer lives.
    pub fn enter(&self, person: Uuid) -> Device {
        let mut state = self.lock();
        *state.devices.entry(person).or_default() += 1;
        state.changed.insert(person, true);
        drop(state);
        self.inner.news.notify_one();
        Device {
            person,
            people: self.clone(),
        }
    }

    /// Waits until somebody has come or left since [`People::take_changed`].
    pub async fn changed(&self) {
        loop {
            if !self.lock().changed.is_empty() {
                return;
            }
            self.inner.news.notified().await;
        }
    }

    /// Whoever came or left since the last time, and whether it was somebody who came.
    pub fn take_changed(&self) -> HashMap<Uuid, bool> {
        std::mem::take(&mut self.lock().changed)
    }

    /// How many sockets somebody has.
    pub fn devices(&self, person: Uuid) -> usize {
        self.lock().devices.get(&person).copied().unwrap_or(0)
    }

    /// Everybody with a socket.
    pub fn everybody(&self) -> Vec<Uuid> {
        self.lock().devices.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Attendance> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device {
    /// Whose it is.
    pub fn person(&self) -> Uuid {
        self.person
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let mut state = self.people.lock();
        if let Some(devices) = state.devices.get_mut(&self.person) {
            *devices -= 1;
            if *devices == 0 {
                state.devices.remove(&self.person);
            }
        }
        state.changed.entry(self.person).or_default();
        drop(state);
        self.people.inner.news.notify_one();
    }
}

/// How far messages were handed to their recipients' sockets.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    inner: Arc<DeliveredInner>,
}

#[derive(Debug, Default)]
struct DeliveredInner {
    /// A plain mutex: held to move one position, or to take them all.
    positions: Mutex<HashMap<(Uuid, Uuid), i64>>,
    news: Notify,
    metrics: BusMetrics,
}

impl Delivered {
    pub(super) fn new(metrics: BusMetrics) -> Self {
        Self {
            inner: Arc::new(DeliveredInner {
                metrics,
                ..DeliveredInner::default()
            }),
        }
    }

    /// A message of a conversation, by its `seq`, was handed to a socket of this person.
    pub fn note(&self, conversation: Uuid, person: Uuid, seq: i64) {
        let mut positions = self.lock();
        let key = (conversation, person);
        if let Some(position) = positions.get_mut(&key) {
            *position = seq.max(*position);
            return;
        }
        if positions.len() >= MAX_DELIVERIES {
            self.inner.metrics.deliveries_missed.inc();
            return;
        }
        let is_first = positions.is_empty();
        positions.insert(key, seq);
        drop(positions);
        if is_first {
            self.inner.news.notify_one();
        }
    }

    /// Waits until there is a position that was not taken.
    pub async fn noted(&self) {
        loop {
            if !self.lock().is_empty() {
                return;
            }
            self.inner.news.notified().await;
        }
    }

    /// The positions noted since the last time, each by its conversation and person.
    pub fn take(&self) -> HashMap<(Uuid, Uuid), i64> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Uuid, Uuid), i64>> {
        self.inner
            .positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANA: Uuid = Uuid::from_u128(1);
    const BEN: Uuid = Uuid::from_u128(2);

    #[test]
    fn a_person_is_here_as_long_as_one_of_their_sockets_is() {
        let people = People::default();
        let first = people.enter(ANA);
        let second = people.enter(ANA);
        let other = people.enter(BEN);
        assert_eq!((people.devices(ANA), people.devices(BEN)), (2, 1));
        assert_eq!(
            people.take_changed(),
            HashMap::from([(ANA, true), (BEN, true)])
        );
        drop(first);
        assert_eq!(people.take_changed(), HashMap::from([(ANA, false)]));
        drop((second, other));
        let third = people.enter(ANA);
        assert_eq!(third.person(), ANA);
        assert_eq!(
            people.take_changed(),
            HashMap::from([(ANA, true), (BEN, false)])
        );
        assert_eq!(people.everybody(), [ANA]);
    }

    #[test]
    fn positions_move_forward_only_and_are_bounded() {
        let metrics = BusMetrics::default();
        let delivered = Delivered::new(metrics.clone());
        delivered.note(ANA, BEN, 2);
        delivered.note(ANA, BEN, 1);
        assert_eq!(delivered.take(), HashMap::from([((ANA, BEN), 2)]));
        assert!(delivered.take().is_empty());
        for person in 0..=MAX_DELIVERIES as u128 {
            delivered.note(ANA, Uuid::from_u128(person), 1);
        }
        assert_eq!(metrics.deliveries_missed.get(), 1);
        assert_eq!(delivered.take().len(), MAX_DELIVERIES);
    }
}
