//! What a caller may do on a private channel: the policies of `realtime.messages` decide
//! (protocol 4.3), exactly as they would for a message of the topic.
//!
//! A question waits for a connection for a bounded time. While the database is known to be away,
//! questions are answered so at once, without waiting for a connection each.

mod error;
mod insert;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

pub use self::error::AuthorizeError;
use self::insert::Prober;
use crate::auth::Claims;
use crate::db::connect::Connector;
use crate::shutdown::Tasks;

/// Connections at most. Questions come in crowds only when everybody reconnects; the original uses
/// 2 to 15 by the size of the machine.
const MAX_CONNECTIONS: usize = 4;

/// How long a question waits for its turn. Clients give up on a join after ten seconds; with
/// [`ANSWER_TIMEOUT`] behind it they are told why before that.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an answer may take: longer than the server's own limit for a statement, so it
/// only matters when the network swallows packets.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection that could not be made stands for all others. Short enough for a client
/// that tries again to find a database that is back.
const FAILURE_SHARED_FOR: Duration = Duration::from_millis(500);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// Which extensions may be read.
    Read {
        /// Presence is asked for as well; otherwise the answer for it is no.
        presence: bool,
    },
    /// Which extensions may be written. Always both, as in the original.
    Write,
}

/// What the policies say of a topic, for each extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Broadcasts.
    pub broadcast: bool,
    /// Presence.
    pub presence: bool,
}

impl Permissions {
    /// Everything, as on public channels.
    pub const ALL: Self = Self {
        broadcast: true,
        presence: true,
    };

    /// Whether anything is allowed.
    pub fn any(self) -> bool {
        self.broadcast || self.presence
    }
}

/// A question with what it is about.
struct Request<'a> {
    question: Question,
    topic: &'a str,
    claims: &'a Claims,
    headers: &'a str,
}

/// Asks the database. Clones share its connections.
#[derive(Clone)]
pub struct Authorizer {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    tasks: Tasks,
    permits: Semaphore,
    /// Connections nobody uses. A plain mutex: held for a push or a pop.
    idle: Mutex<Vec<Prober>>,
    /// The last connection that could not be made, and why. A plain mutex: held to copy.
    failure: Mutex<Option<(Instant, AuthorizeError)>>,
}

impl Authorizer {
    /// Opens nothing yet. The login of `connector` must be allowed to insert into
    /// `realtime.messages` and to take on the roles of tokens.
    pub fn new(connector: Connector, tasks: &Tasks) -> Self {
        Self {
            inner: Arc::new(Inner {
                connector,
                tasks: tasks.clone(),
                permits: Semaphore::new(MAX_CONNECTIONS),
                idle: Mutex::default(),
                failure: Mutex::default(),
            }),
        }
    }

    /// What `claims` may do on a topic, which is named without `realtime:`. `headers` is the text
    /// of a JSON object, which policies read as `request.headers`.
    ///
    /// # Errors
    /// See [`AuthorizeError`]. While the database is known to be away this fails at once.
    pub async fn ask(
        &self,
        question: Question,
        topic: &str,
        claims: &Claims,
        headers: &str,
    ) -> Result<Permissions, AuthorizeError> {
        let request = Request {
            question,
            topic,
            claims,
            headers,
        };
        let answer = self.inner.answer(&request).await;
        if let Err(error) = &answer {
            tracing::warn!(%error, ?question, "the permissions of a private channel are not known");
        }
        answer
    }
}

impl Inner {
    async fn answer(&self, request: &Request<'_>) -> Result<Permissions, AuthorizeError> {
        if let Some(error) = self.recent_failure()
            && self.lock_idle().is_empty()
        {
            return Err(error);
        }
        let _permit = tokio::time::timeout(QUEUE_TIMEOUT, self.permits.acquire())
            .await
            .map_err(|_| AuthorizeError::PoolExhausted)?
            // Never closed: this error cannot be.
            .map_err(|_| AuthorizeError::unexpected())?;
        tokio::time::timeout(ANSWER_TIMEOUT, self.answer_in_turn(request))
            .await
            .map_err(|_| AuthorizeError::Unavailable)?
    }

    async fn answer_in_turn(&self, request: &Request<'_>) -> Result<Permissions, AuthorizeError> {
        if let Some(idle) = self.take_idle() {
            match self.ask(idle, request).await {
                // It broke while nobody looked.
                Err(AuthorizeError::Unavailable) => {}
                answer => return answer,
            }
        }
        let prober = self.connect().await?;
        self.ask(prober, request).await
    }

    /// Dropped half-way, or with a transaction that may still be open, a connection is closed.
    async fn ask(
        &self,
        prober: Prober,
        request: &Request<'_>,
    ) -> Result<Permissions, AuthorizeError> {
        let (answer, is_sound) = prober.ask(request).await;
        if is_sound {
            self.lock_idle().push(prober);
        }
        answer
    }

    async fn connect(&self) -> Result<Prober, AuthorizeError> {
        if let Some(error) = self.recent_failure() {
            return Err(error);
        }
        let opening = Box::pin(Prober::open(&self.connector, &self.tasks));
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, opening)
            .await
            .unwrap_or(Err(AuthorizeError::Unavailable));
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = opened
            .as_ref()
            .err()
            .map(|error| (Instant::now(), error.clone()));
        opened
    }

    fn recent_failure(&self) -> Option<AuthorizeError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure
            .as_ref()
            .filter(|(at, _)| at.elapsed() < FAILURE_SHARED_FOR)
            .map(|(_, error)| error.clone())
    }

    fn take_idle(&self) -> Option<Prober> {
        let mut idle = self.lock_idle();
        while let Some(prober) = idle.pop() {
            if !prober.client.is_closed() {
                return Some(prober);
            }
        }
        None
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<Prober>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
