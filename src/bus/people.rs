//! The users with sockets in this process, and the messages delivered to them. One part of the
//! process knows both; another writes them to the database.
//!
//! Both are states, not queues. The writer takes what has changed since the last time and puts back
//! what it could not write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::observability::metrics::BusMetrics;

/// Maximum pairs of conversation and user with a delivery that waits to be written. Further ones
/// during a database outage are dropped and counted; the next delivered message makes up for them.
const MAX_DELIVERIES: usize = 65_536;

/// The users with sockets in this process.
#[derive(Clone, Debug, Default)]
pub struct People {
    inner: Arc<PeopleInner>,
}

#[derive(Debug, Default)]
struct PeopleInner {
    /// A standard mutex, held to change one entry or to take the changes. The number of sockets
    /// limits its size.
    state: Mutex<Attendance>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Attendance {
    devices: HashMap<Uuid, usize>,
    /// Users whose devices changed since the last call; `true` if a device was added.
    changed: HashMap<Uuid, bool>,
}

/// A user's device, which counts until it is dropped.
#[derive(Debug)]
pub struct Device {
    person: Uuid,
    people: People,
}

impl People {
    /// Registers a device of this user for as long as the returned value lives.
    pub fn enter(&self, person: Uuid) -> Device {
        let mut state = self.lock();
        *state.devices.entry(person).or_default() += 1;
        state.changed.insert(person, true);
        drop(state);
        self.inner.notify.notify_one();
        Device {
            person,
            people: self.clone(),
        }
    }

    /// Waits until a device was added or removed since [`People::take_changed`].
    pub async fn changed(&self) {
        loop {
            if !self.lock().changed.is_empty() {
                return;
            }
            self.inner.notify.notified().await;
        }
    }

    /// The users whose devices changed since the last call, and whether a device was added.
    pub fn take_changed(&self) -> HashMap<Uuid, bool> {
        std::mem::take(&mut self.lock().changed)
    }

    /// The number of devices of a user.
    pub fn devices(&self, person: Uuid) -> usize {
        self.lock().devices.get(&person).copied().unwrap_or(0)
    }

    /// All users with a device.
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
    /// The user.
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
        self.people.inner.notify.notify_one();
    }
}

/// The positions up to which messages were delivered to the sockets of their recipients.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    inner: Arc<DeliveredInner>,
}

#[derive(Debug, Default)]
struct DeliveredInner {
    /// A standard mutex, held to change one position or to take all of them.
    positions: Mutex<HashMap<(Uuid, Uuid), i64>>,
    notify: Notify,
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

    /// Records that a message with this `seq` was delivered to a socket of this user.
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
            self.inner.notify.notify_one();
        }
    }

    /// Records that positions were put off because their receipts were locked.
    pub fn note_held(&self, positions: usize) {
        self.inner.metrics.deliveries_held.inc_by(positions as u64);
    }

    /// Waits until there is a position to take.
    pub async fn recorded(&self) {
        loop {
            if !self.lock().is_empty() {
                return;
            }
            self.inner.notify.notified().await;
        }
    }

    /// The positions recorded since the last call, keyed by conversation and user.
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
    fn a_user_is_present_while_one_device_remains() {
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
    fn positions_only_move_forward_and_are_bounded() {
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
