//! Keeps track of the users with sockets in this process. `realtime` registers their devices, and
//! `chat` writes their presence to the database.
//!
//! The registry holds the current state, not a queue of events. `chat` takes the users that changed
//! ([`People::take_changed`]) and reads their current number of devices.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

/// The users with sockets in this process.
#[derive(Clone, Debug, Default)]
pub struct People {
    inner: Arc<PeopleInner>,
}

#[derive(Debug, Default)]
struct PeopleInner {
    /// A standard mutex, because it is held only to change one entry or to take the changes. The
    /// number of sockets limits the size of the state.
    state: Mutex<Devices>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Devices {
    /// The number of devices of each user with at least one.
    devices: HashMap<Uuid, usize>,
    /// The users whose devices changed since the last [`People::take_changed`], with `true` if a
    /// device was added.
    changed: HashMap<Uuid, bool>,
}

/// A user's device. It is counted until this value is dropped.
#[derive(Debug)]
pub struct Device {
    user_id: Uuid,
    people: People,
}

impl People {
    /// Registers a device of this user until the returned value is dropped.
    pub fn enter(&self, user_id: Uuid) -> Device {
        let mut state = self.lock();
        *state.devices.entry(user_id).or_default() += 1;
        state.changed.insert(user_id, true);
        drop(state);
        self.inner.notify.notify_one();
        Device {
            user_id,
            people: self.clone(),
        }
    }

    /// Waits until a device has been added or removed since the last [`People::take_changed`].
    pub async fn changed(&self) {
        loop {
            if !self.lock().changed.is_empty() {
                return;
            }
            self.inner.notify.notified().await;
        }
    }

    /// Returns the users whose devices changed since the last call, with `true` for those to whom a
    /// device was added.
    pub fn take_changed(&self) -> HashMap<Uuid, bool> {
        std::mem::take(&mut self.lock().changed)
    }

    /// Returns the number of devices of a user.
    pub fn devices(&self, user_id: Uuid) -> usize {
        self.lock().devices.get(&user_id).copied().unwrap_or(0)
    }

    /// Returns all users with a device.
    pub fn all(&self) -> Vec<Uuid> {
        self.lock().devices.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Devices> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device {
    /// Returns the user.
    pub fn user_id(&self) -> Uuid {
        self.user_id
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let mut state = self.people.lock();
        if let Some(devices) = state.devices.get_mut(&self.user_id) {
            *devices -= 1;
            if *devices == 0 {
                state.devices.remove(&self.user_id);
            }
        }
        state.changed.entry(self.user_id).or_default();
        drop(state);
        self.people.inner.notify.notify_one();
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
        assert_eq!(third.user_id(), ANA);
        assert_eq!(
            people.take_changed(),
            HashMap::from([(ANA, true), (BEN, false)])
        );
        assert_eq!(people.all(), [ANA]);
    }
}
