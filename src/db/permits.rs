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

/// Gives out permits to use a connection.
pub(super) struct Permits {
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
    permits: Arc<Semaphore>,
    /// Requests that have a permit or wait for one.
    requests: usize,
}

/// The permission to use a connection. It is returned on drop.
#[derive(Default)]
pub(super) struct Permit {
    _of_all: Option<OwnedSemaphorePermit>,
    _of_user: Option<(OwnedSemaphorePermit, Request)>,
}

/// A request of a user that has a permit or waits for one.
struct Request {
    user: Uuid,
    users: Arc<DashMap<Uuid, User>>,
}

/// Counts a waiting request.
struct Waiting<'a>(&'a AtomicUsize);

impl Permits {
    /// Shares `connections` among users. A request waits for its permits for at most `max_wait`.
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

    /// Waits for a permit for this caller. The server itself needs none.
    ///
    /// # Errors
    /// [`DbError::TooManyOfCaller`] if the user's other requests occupy all connections that one
    /// user may have, and [`DbError::PoolExhausted`] if all users together do.
    pub(super) async fn acquire(&self, caller: &Claims) -> Result<Permit, DbError> {
        if caller.is_of_service() {
            return Ok(Permit::default());
        }
        let deadline = Instant::now() + self.max_wait;
        let of_user = match caller.user_id() {
            Some(user_id) => Some(self.of_user(user_id, deadline).await?),
            None => None,
        };
        let of_all = self.of_all(deadline).await?;
        Ok(Permit {
            _of_all: Some(of_all),
            _of_user: of_user,
        })
    }

    /// Returns the number of requests that wait for a connection.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Refuses all further permits.
    pub(super) fn close(&self) {
        self.all.close();
    }

    async fn of_user(
        &self,
        user_id: Uuid,
        deadline: Instant,
    ) -> Result<(OwnedSemaphorePermit, Request), DbError> {
        let (permits, request) = self.enter(user_id)?;
        let permit = timeout_at(deadline, permits.acquire_owned()).await;
        match permit {
            Ok(Ok(permit)) => Ok((permit, request)),
            Ok(Err(_)) | Err(_) => Err(DbError::TooManyOfCaller),
        }
    }

    /// Counts a request of this user.
    fn enter(&self, user_id: Uuid) -> Result<(Arc<Semaphore>, Request), DbError> {
        let mut user = self.users.entry(user_id).or_insert_with(|| User {
            permits: Arc::new(Semaphore::new(self.max_per_user)),
            requests: 0,
        });
        if user.requests >= self.max_per_user * (1 + MAX_WAITING_PER_CONNECTION) {
            return Err(DbError::TooManyOfCaller);
        }
        user.requests += 1;
        let permits = Arc::clone(&user.permits);
        drop(user);
        let request = Request {
            user: user_id,
            users: Arc::clone(&self.users),
        };
        Ok((permits, request))
    }

    async fn of_all(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, DbError> {
        let all = Arc::clone(&self.all);
        if let Ok(permit) = Arc::clone(&all).try_acquire_owned() {
            return Ok(permit);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.max_waiting {
            return Err(DbError::PoolExhausted);
        }
        match timeout_at(deadline, all.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
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
        let permits = Permits::new(6, Duration::from_millis(50));
        let [ana, ben, eve, zoe] = [1, 2, 3, 4].map(user);
        let first = permits.acquire(&ana).await.unwrap();
        let second = permits.acquire(&ana).await.unwrap();
        let third = permits.acquire(&ana).await;
        assert!(matches!(third, Err(DbError::TooManyOfCaller)));
        let mut others = Vec::new();
        for caller in [&ben, &ben, &eve, &eve] {
            others.push(permits.acquire(caller).await.unwrap());
        }
        let refused = permits.acquire(&zoe).await;
        assert!(matches!(refused, Err(DbError::PoolExhausted)));
        assert!(permits.acquire(&Claims::of_service()).await.is_ok());
        // A request that waits gets the permit of one that ends.
        let (waited, ()) = tokio::join!(permits.acquire(&zoe), async {
            tokio::task::yield_now().await;
            assert_eq!(permits.waiting(), 1);
            drop(first);
        });
        assert!(waited.is_ok());
        drop((waited, others, second));
        assert!(permits.users.is_empty());
        assert_eq!(permits.waiting(), 0);
    }

    #[test]
    fn the_waiting_requests_of_one_user_are_bounded() {
        let permits = Permits::new(2, Duration::from_secs(2));
        let [ana, ben] = [1, 2].map(Uuid::from_u128);
        let allowed = MIN_PER_USER * (1 + MAX_WAITING_PER_CONNECTION);
        let entered: Vec<_> = (0..=allowed).map(|_| permits.enter(ana)).collect();
        assert_eq!(
            entered.iter().filter(|permit| permit.is_ok()).count(),
            allowed
        );
        assert!(permits.enter(ben).is_ok());
        drop(entered);
        assert!(permits.users.is_empty());
    }
}
