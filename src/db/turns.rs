//! Shares the connections of the pool among users.
//!
//! A request may wait for a lock that its own user holds, and occupies a connection for as long as
//! it waits. One user therefore gets only some of the connections, and all users together leave a
//! few to the server's own statements.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::error::DbError;
use crate::auth::Claims;

/// One user may occupy at most the pool divided by this number, so that a single user cannot delay
/// the others.
const USERS_PER_POOL: usize = 3;

/// Connections that one user may occupy even in a small pool. A page sends several requests at
/// once, and one of them may be slow.
const MIN_PER_USER: usize = 2;

/// Maximum waiting requests per connection. Further requests are refused immediately, because they
/// would wait longer than the timeout anyway.
const MAX_WAITING_PER_CONNECTION: usize = 64;

/// Gives out turns to use a connection.
pub(super) struct Turns {
    /// The connections for the requests of all users.
    all: Arc<Semaphore>,
    max_waiting: usize,
    /// Requests that wait for a connection.
    waiting: AtomicUsize,
    max_wait: Duration,
    max_per_user: usize,
    users: Arc<DashMap<Uuid, User>>,
}

/// A user with requests in progress.
struct User {
    turns: Arc<Semaphore>,
    /// Requests that have a turn or wait for one.
    requests: usize,
}

/// The permission to use a connection. It is returned on drop.
#[derive(Default)]
pub(super) struct Turn {
    _of_all: Option<OwnedSemaphorePermit>,
    _of_user: Option<(OwnedSemaphorePermit, Request)>,
}

/// A request of a user that has a turn or waits for one.
struct Request {
    user: Uuid,
    users: Arc<DashMap<Uuid, User>>,
}

/// Counts a waiting request.
struct Waiting<'a>(&'a AtomicUsize);

impl Turns {
    /// Shares `connections` among users. A request waits for its turn for at most `max_wait`.
    pub(super) fn new(connections: usize, max_wait: Duration) -> Self {
        Self {
            all: Arc::new(Semaphore::new(connections)),
            max_waiting: connections * MAX_WAITING_PER_CONNECTION,
            waiting: AtomicUsize::new(0),
            max_wait,
            max_per_user: (connections / USERS_PER_POOL)
                .max(MIN_PER_USER)
                .min(connections),
            users: Arc::default(),
        }
    }

    /// Waits for a turn of this caller. The server itself needs none.
    ///
    /// # Errors
    /// [`DbError::TooManyOfCaller`] if the user's other requests occupy all connections that one
    /// user may have, and [`DbError::PoolExhausted`] if all users together do.
    pub(super) async fn acquire(&self, caller: &Claims) -> Result<Turn, DbError> {
        if caller.is_of_service() {
            return Ok(Turn::default());
        }
        let deadline = Instant::now() + self.max_wait;
        let of_user = match caller.person() {
            Some(person) => Some(self.of_user(person, deadline).await?),
            None => None,
        };
        let of_all = self.of_all(deadline).await?;
        Ok(Turn {
            _of_all: Some(of_all),
            _of_user: of_user,
        })
    }

    /// Returns the number of requests that wait for a connection.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Refuses all further turns.
    pub(super) fn close(&self) {
        self.all.close();
    }

    async fn of_user(
        &self,
        person: Uuid,
        deadline: Instant,
    ) -> Result<(OwnedSemaphorePermit, Request), DbError> {
        let (turns, request) = self.enter(person)?;
        let turn = timeout_at(deadline, turns.acquire_owned()).await;
        match turn {
            Ok(Ok(turn)) => Ok((turn, request)),
            Ok(Err(_)) | Err(_) => Err(DbError::TooManyOfCaller),
        }
    }

    /// Counts a request of this user.
    fn enter(&self, person: Uuid) -> Result<(Arc<Semaphore>, Request), DbError> {
        let mut user = self.users.entry(person).or_insert_with(|| User {
            turns: Arc::new(Semaphore::new(self.max_per_user)),
            requests: 0,
        });
        if user.requests >= self.max_per_user * (1 + MAX_WAITING_PER_CONNECTION) {
            return Err(DbError::TooManyOfCaller);
        }
        user.requests += 1;
        let turns = Arc::clone(&user.turns);
        drop(user);
        let request = Request {
            user: person,
            users: Arc::clone(&self.users),
        };
        Ok((turns, request))
    }

    async fn of_all(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, DbError> {
        let all = Arc::clone(&self.all);
        if let Ok(turn) = Arc::clone(&all).try_acquire_owned() {
            return Ok(turn);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.max_waiting {
            return Err(DbError::PoolExhausted);
        }
        match timeout_at(deadline, all.acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            // Closed at the shutdown.
            Ok(Err(_)) => Err(DbError::Unavailable(None)),
            Err(_) => Err(DbError::PoolExhausted),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Entry::Occupied(mut user) = self.users.entry(self.user) {
            user.get_mut().requests -= 1;
            if user.get().requests == 0 {
                user.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u128) -> Claims {
        Claims {
            json: "{}".into(),
            role: "authenticated".to_owned(),
            subject: Some(Uuid::from_u128(number).to_string()),
            expires_at: i64::MAX,
            signer: None,
        }
    }

    #[tokio::test]
    async fn one_user_leaves_connections_to_others_and_all_users_to_the_server() {
        let turns = Turns::new(6, Duration::from_millis(50));
        let [ana, ben, eve, zoe] = [1, 2, 3, 4].map(user);
        let first = turns.acquire(&ana).await.unwrap();
        let second = turns.acquire(&ana).await.unwrap();
        let third = turns.acquire(&ana).await;
        assert!(matches!(third, Err(DbError::TooManyOfCaller)));
        let mut others = Vec::new();
        for caller in [&ben, &ben, &eve, &eve] {
            others.push(turns.acquire(caller).await.unwrap());
        }
        let refused = turns.acquire(&zoe).await;
        assert!(matches!(refused, Err(DbError::PoolExhausted)));
        assert!(turns.acquire(&Claims::of_service()).await.is_ok());
        // A request that waits gets the turn of one that ends.
        let (waited, ()) = tokio::join!(turns.acquire(&zoe), async {
            tokio::task::yield_now().await;
            assert_eq!(turns.waiting(), 1);
            drop(first);
        });
        assert!(waited.is_ok());
        drop((waited, others, second));
        assert!(turns.users.is_empty());
        assert_eq!(turns.waiting(), 0);
    }

    #[test]
    fn the_waiting_requests_of_one_user_are_bounded() {
        let turns = Turns::new(2, Duration::from_secs(2));
        let [ana, ben] = [1, 2].map(Uuid::from_u128);
        let allowed = MIN_PER_USER * (1 + MAX_WAITING_PER_CONNECTION);
        let entered: Vec<_> = (0..=allowed).map(|_| turns.enter(ana)).collect();
        assert_eq!(entered.iter().filter(|turn| turn.is_ok()).count(), allowed);
        assert!(turns.enter(ben).is_ok());
        drop(entered);
        assert!(turns.users.is_empty());
    }
}
