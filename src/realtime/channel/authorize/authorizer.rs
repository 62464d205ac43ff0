//! Checks what a caller may do on a private channel. The policies of `realtime.messages` decide
//! (protocol 4.3), exactly as they would for a message of the topic.
//!
//! Questions are answered in *flights*. All questions that arrive during one flight form the next
//! one and share a connection. Some questions can only be answered with a row in the table. Those
//! are answered by insertion, with one transaction per question. While the database is known to be
//! unavailable, questions fail immediately, without waiting for a connection.
//!
//! Known difference from an insertion: a policy may call a function that reads `realtime.messages`
//! without naming it. Such a function does not find the row that the question is about.

mod catalog;
mod error;
mod evaluate;
mod insert;

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, Row};

use self::catalog::{Evaluation, Reading, STRUCTURE_TTL, Way};
pub use self::error::AuthorizeError;
use self::evaluate::Evaluator;
use self::insert::Prober;
use crate::auth::Claims;
use crate::db::connect::Connector;
use crate::observability::metrics::{PermissionWay, RealtimeMetrics};
use crate::shutdown::Tasks;

/// Maximum connections for flights, and also for insertions. Many questions arrive at once only
/// when all clients reconnect. Supabase Realtime uses 2 to 15 connections, depending on the size of
/// the machine.
const MAX_CONNECTIONS: usize = 4;

/// Maximum questions per flight. More would only increase the number that one slow policy delays.
const MAX_FLIGHT: usize = 32;

/// Another connection starts a flight once this many questions per running flight wait. A few large
/// flights cost the database less than many small ones.
const WAITING_PER_FLIGHT: usize = 16;

/// How long a question waits for the current flight, and how long one answer may delay the
/// questions behind it. After that, another connection answers them.
const SLOW: Duration = Duration::from_millis(100);

/// How long each flight carries only one question after a slow one. The database evaluates every
/// question of a flight in order, so a slow question delays those behind it.
const CAUTION: Duration = Duration::from_secs(2);

/// The statement timeout that the server enforces. The session sets it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum questions in the queue. Further questions would exceed [`QUEUE_TIMEOUT`] anyway.
const MAX_QUEUED: usize = 20_000;

/// Maximum questions from the queue per flight, including duplicates. Duplicates share one place of
/// the flight.
const MAX_BOARDING: usize = 512;

/// How long a question waits in the queue. Clients give up on a join after ten seconds. Together
/// with [`ANSWER_TIMEOUT`], this leaves time to send the reason before that.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an answer may take. It exceeds [`STATEMENT_TIMEOUT`], so it only applies when the
/// network loses packets.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a failure to connect applies to all questions. It is short, so that a client that
/// retries reaches a database that is available again.
const FAILURE_SHARED_FOR: Duration = Duration::from_millis(500);

/// Maximum consecutive catalog readings of one flight that turn out to be outdated.
const MAX_READINGS: usize = 5;

/// The role `none`, which `set_config` interprets as a reset to the login's own role.
const NO_ROLE: &str = "none";

/// The permissions that a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// The extensions that may be read.
    Read {
        /// Presence is checked too. Otherwise its answer is no.
        presence: bool,
    },
    /// The extensions that may be written. As in Supabase Realtime, both are always checked.
    Write,
}

/// The names of the extensions in messages.
const BROADCAST: &str = "broadcast";
const PRESENCE: &str = "presence";

impl Question {
    /// Returns the extensions that the question is about.
    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Read { presence: false } => &[BROADCAST],
            Self::Read { presence: true } | Self::Write => &[BROADCAST, PRESENCE],
        }
    }

    /// Limits `permissions` to the extensions that the question is about.
    fn mask(self, permissions: Permissions) -> Permissions {
        Permissions {
            broadcast: permissions.broadcast,
            presence: permissions.presence && self != Self::Read { presence: false },
        }
    }
}

/// The permissions for a topic, per extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Broadcasts.
    pub broadcast: bool,
    /// Presence.
    pub presence: bool,
}

impl Permissions {
    /// All permissions, as on public channels.
    pub const ALL: Self = Self {
        broadcast: true,
        presence: true,
    };

    /// Reads rows that contain an extension and whether it is allowed.
    fn of_rows(rows: &[Row]) -> Result<Self, AuthorizeError> {
        let mut permissions = Self::default();
        for row in rows {
            permissions.set(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(permissions)
    }

    fn set(&mut self, extension: &str, is_allowed: bool) {
        match extension {
            BROADCAST => self.broadcast = is_allowed,
            PRESENCE => self.presence = is_allowed,
            _ => {}
        }
    }

    /// Whether anything is allowed.
    pub fn any(self) -> bool {
        self.broadcast || self.presence
    }
}

/// A question and the caller that it is about.
#[derive(Debug)]
struct Subject {
    question: Question,
    /// The topic without `realtime:`.
    topic: Arc<str>,
    claims: Claims,
    headers: Arc<str>,
}

/// A question and the receivers of its answer.
struct Group {
    subject: Arc<Subject>,
    receivers: Vec<oneshot::Sender<Answer>>,
    /// Set when the question leaves the queue.
    is_taken: Arc<AtomicBool>,
    /// The question was sent before, and the connection broke.
    is_repeated: bool,
}

type Answer = Result<Permissions, AuthorizeError>;

impl Group {
    fn answer(self, answer: &Answer) {
        for receiver in self.receivers {
            // A receiver that was dropped no longer needs the answer.
            let _ = receiver.send(answer.clone());
        }
    }

    fn is_waited_for(&self) -> bool {
        self.receivers.iter().any(|receiver| !receiver.is_closed())
    }
}

/// Checks permissions in the database. Clones share the connections.
#[derive(Clone)]
pub struct Authorizer {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    metrics: RealtimeMetrics,
    tasks: Tasks,
    /// Questions that wait for a flight. A plain mutex: it is held only to add and remove entries.
    queue: Mutex<Queue>,
    /// Connections that no flight uses. A plain mutex: it is held only for a push or a pop.
    evaluators: Mutex<Vec<Evaluator>>,
    /// The latest catalog reading and when it began. A plain mutex: it is held only to copy.
    reading: Mutex<Option<(Arc<Reading>, Instant)>>,
    /// One permit per connection for insertions.
    permits: Semaphore,
    /// Number of questions that are being answered by insertion or wait for it.
    insertions: AtomicUsize,
    /// Idle connections for insertions. A plain mutex: it is held only for a push or a pop.
    probers: Mutex<Vec<Prober>>,
    /// The time and the reason of the last failure to connect. A plain mutex: it is held only to
    /// copy.
    failure: Mutex<Option<(Instant, AuthorizeError)>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Group>,
    /// Number of running flights.
    flights: usize,
    /// Until this time, each flight carries only one question.
    caution: Option<Instant>,
}

impl Authorizer {
    /// Creates an authorizer without opening a connection. The login of `connector` must be allowed
    /// to switch to the roles of tokens, and to insert into `realtime.messages`.
    pub fn new(connector: Connector, metrics: RealtimeMetrics, tasks: &Tasks) -> Self {
        Self {
            inner: Arc::new(Inner {
                connector,
                metrics,
                tasks: tasks.clone(),
                queue: Mutex::default(),
                evaluators: Mutex::default(),
                reading: Mutex::default(),
                permits: Semaphore::new(MAX_CONNECTIONS),
                insertions: AtomicUsize::new(0),
                probers: Mutex::default(),
                failure: Mutex::default(),
            }),
        }
    }

    /// Returns what `claims` may do on a topic, which is named without `realtime:`. `headers` is
    /// the text of a JSON object that policies read as `request.headers`.
    ///
    /// # Errors
    /// See [`AuthorizeError`]. While the database is known to be unavailable, this fails
    /// immediately.
    pub async fn ask(
        &self,
        question: Question,
        topic: &str,
        claims: &Claims,
        headers: &Arc<str>,
    ) -> Result<Permissions, AuthorizeError> {
        let subject = Subject {
            question,
            topic: topic.into(),
            claims: claims.clone(),
            // Shared, because there may be thousands of questions and the client decides how long
            // its headers are.
            headers: Arc::clone(headers),
        };
        let answer = self.inner.ask(subject).await;
        if let Err(error) = &answer {
            tracing::warn!(%error, ?question, "permission check of a private channel failed");
        }
        answer
    }
}

impl Inner {
    async fn ask(self: &Arc<Self>, subject: Subject) -> Answer {
        if subject.claims.role == NO_ROLE {
            return Err(AuthorizeError::no_such_role());
        }
        if let Some(error) = self.recent_failure()
            && lock(&self.evaluators).is_empty()
        {
            return Err(error);
        }
        let (sender, mut receiver) = oneshot::channel();
        let is_taken = Arc::new(AtomicBool::new(false));
        {
            let mut queue = lock(&self.queue);
            if queue.waiting.len() >= MAX_QUEUED {
                return Err(AuthorizeError::PoolExhausted);
            }
            queue.waiting.push_back(Group {
                subject: Arc::new(subject),
                receivers: vec![sender],
                is_taken: Arc::clone(&is_taken),
                is_repeated: false,
            });
        }
        self.take_off(false);
        // The sender is dropped only if the whole task failed.
        let unwrap =
            |answer: Result<Answer, _>| answer.unwrap_or(Err(AuthorizeError::unexpected()));
        if let Ok(answer) = timeout(SLOW, &mut receiver).await {
            return unwrap(answer);
        }
        self.take_off(true);
        if let Ok(answer) = timeout(QUEUE_TIMEOUT, &mut receiver).await {
            return unwrap(answer);
        }
        if !is_taken.load(Ordering::Relaxed) {
            return Err(AuthorizeError::PoolExhausted);
        }
        timeout(ANSWER_TIMEOUT, receiver)
            .await
            .map_or(Err(AuthorizeError::Unavailable), unwrap)
    }

    /// Starts a flight if questions wait and another connection is worthwhile.
    fn take_off(self: &Arc<Self>, is_urgent: bool) {
        {
            let mut queue = lock(&self.queue);
            let is_worth_it = queue.flights == 0
                || is_urgent
                || queue.waiting.len() >= WAITING_PER_FLIGHT * queue.flights;
            if queue.waiting.is_empty() || queue.flights >= MAX_CONNECTIONS || !is_worth_it {
                return;
            }
            queue.flights += 1;
        }
        let inner = Arc::clone(self);
        self.tasks.spawn(
            "questions for permissions",
            async move { inner.fly().await },
        );
    }

    /// Runs one flight after another over one connection, until the queue is empty.
    async fn fly(self: Arc<Self>) {
        let mut connection = self.take_evaluator();
        while let Some(mut groups) = self.board() {
            let mut evaluator = match connection.take() {
                Some(evaluator) => evaluator,
                None => match self
                    .connect(Evaluator::open(&self.connector, &self.tasks))
                    .await
                {
                    Ok(evaluator) => evaluator,
                    // The login may not park a connection.
                    Err(AuthorizeError::Policy { .. }) => {
                        self.insert_all(&mut groups);
                        continue;
                    }
                    Err(error) => {
                        self.fail_all(groups, &error);
                        continue;
                    }
                },
            };
            let statements = u32::try_from(groups.len()).unwrap_or(u32::MAX);
            let limit = STATEMENT_TIMEOUT * statements.saturating_add(1);
            let flight = self.flight(&mut evaluator, &mut groups);
            let is_sound = timeout(limit, Box::pin(flight)).await.unwrap_or(false);
            if is_sound && !evaluator.client().is_closed() {
                connection = Some(evaluator);
            }
            self.repeat(groups);
        }
        if let Some(evaluator) = connection {
            lock(&self.evaluators).push(evaluator);
        }
    }

    /// Takes questions off the queue for one flight. Returns `None` if no questions wait,
    /// which ends the flights of the connection.
    fn board(&self) -> Option<Vec<Group>> {
        let mut queue = lock(&self.queue);
        let is_cautious = queue.caution.is_some_and(|until| Instant::now() < until);
        let places = if is_cautious { 1 } else { MAX_FLIGHT };
        let mut places_of = HashMap::new();
        let mut groups: Vec<Group> = Vec::new();
        for _ in 0..MAX_BOARDING {
            let Some(group) = queue.waiting.pop_front() else {
                break;
            };
            if !group.is_waited_for() {
                continue;
            }
            let subject = &group.subject;
            // The claims identify the caller, including its role and subject.
            let same = (
                subject.question,
                Arc::clone(&subject.topic),
                Arc::clone(&subject.claims.json),
                Arc::clone(&subject.headers),
            );
            if let Some(place) = places_of.get(&same) {
                let other: &mut Group = &mut groups[*place];
                group.is_taken.store(true, Ordering::Relaxed);
                other.receivers.extend(group.receivers);
                other.is_repeated |= group.is_repeated;
                continue;
            }
            if groups.len() == places {
                queue.waiting.push_front(group);
                break;
            }
            group.is_taken.store(true, Ordering::Relaxed);
            places_of.insert(same, groups.len());
            groups.push(group);
        }
        if groups.is_empty() {
            queue.flights -= 1;
            return None;
        }
        Some(groups)
    }

    /// Answers questions over one connection, or passes them on to be answered by insertion or by
    /// another connection. Questions remain in `groups` if the connection broke. Returns whether
    /// the connection can be used again.
    async fn flight(self: &Arc<Self>, evaluator: &mut Evaluator, groups: &mut Vec<Group>) -> bool {
        let mut may_be_stale = true;
        for _ in 0..MAX_READINGS {
            let reading = match self.read(evaluator, groups).await {
                Ok(reading) => reading,
                Err(AuthorizeError::Unavailable) => return false,
                Err(error) => {
                    tracing::warn!(%error, "cannot read the policies; checking by insertion");
                    self.insert_all(groups);
                    return true;
                }
            };
            let mut ways: Vec<Way> = groups
                .iter()
                .map(|group| reading.way(&group.subject.claims.role, group.subject.question))
                .collect();
            let Ok(refused) = evaluator.prepare(evaluations(&ways)).await else {
                return false;
            };
            for way in &mut ways {
                if let Way::Evaluate(evaluation) = way
                    && refused.contains(&evaluation.id)
                {
                    evaluation.give_up();
                    *way = Way::Insert;
                }
            }
            let flown = self
                .ask_all(evaluator, &reading, groups, ways, may_be_stale)
                .await;
            match flown {
                Flown::Sound => return true,
                Flown::Broken => return false,
                Flown::Outdated => *lock(&self.reading) = None,
                Flown::Stale => may_be_stale = false,
            }
        }
        // The policies change faster than they can be read.
        self.insert_all(groups);
        true
    }

    /// Sends one flight. The questions that remain in `groups` must be sent again.
    ///
    /// With `may_be_stale`, these include questions whose statement failed. The server replans a
    /// statement after certain schema changes, for instance whenever a schema is created. It does
    /// this under a caller's role, which may be unable to resolve the names in the statement.
    async fn ask_all(
        self: &Arc<Self>,
        evaluator: &mut Evaluator,
        reading: &Reading,
        groups: &mut Vec<Group>,
        ways: Vec<Way>,
        may_be_stale: bool,
    ) -> Flown {
        let subjects: Vec<(Arc<Subject>, Arc<Evaluation>)> = groups
            .iter()
            .zip(&ways)
            .filter_map(|(group, way)| match way {
                Way::Evaluate(evaluation) => {
                    Some((Arc::clone(&group.subject), Arc::clone(evaluation)))
                }
                _ => None,
            })
            .collect();
        let mut flight = evaluator.send(&subjects).await;
        match flight.fingerprint().await {
            Ok(fingerprint) if fingerprint == reading.fingerprint => {}
            Ok(_) => {
                return match flight.land().await {
                    true => Flown::Outdated,
                    false => Flown::Broken,
                };
            }
            Err(_) => return Flown::Broken,
        }
        let mut asked = VecDeque::new();
        for (group, way) in groups.drain(..).zip(ways) {
            match way {
                Way::Known(answer) => {
                    self.metrics.permission_asked(PermissionWay::Known);
                    group.answer(&answer);
                }
                Way::Insert => self.insert(group, None),
                Way::Evaluate(_) => asked.push_back(group),
            }
        }
        let mut failed = Vec::new();
        let mut is_stale = false;
        for (_, evaluation) in &subjects {
            let Some(group) = asked.pop_front() else {
                break;
            };
            let answer = {
                let mut next = pin!(flight.next());
                match timeout(SLOW, next.as_mut()).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        self.go_around(&mut asked);
                        next.await
                    }
                }
            };
            match answer {
                // The connection failed, not the question.
                Err(AuthorizeError::Unavailable) => groups.push(group),
                Ok(_) | Err(AuthorizeError::Canceled(_)) => {
                    self.metrics.permission_asked(PermissionWay::Evaluated);
                    group.answer(&answer);
                }
                Err(error) if may_be_stale && error.concerns_statement() => {
                    failed.push(evaluation.id);
                    is_stale = true;
                    groups.push(group);
                }
                // An insertion shows whether PostgreSQL fails here as well, and with which error.
                Err(error) => {
                    failed.push(evaluation.id);
                    let is_systematic = error.concerns_statement();
                    self.insert(group, is_systematic.then(|| Arc::clone(evaluation)));
                }
            }
        }
        let is_sound = flight.land().await;
        for id in failed {
            evaluator.forget(id);
        }
        match is_sound {
            true if is_stale => Flown::Stale,
            true => Flown::Sound,
            false => Flown::Broken,
        }
    }

    /// Returns the latest catalog reading, including the rights of all roles in `groups`.
    async fn read(
        &self,
        evaluator: &Evaluator,
        groups: &[Group],
    ) -> Result<Arc<Reading>, AuthorizeError> {
        let latest = lock(&self.reading).clone();
        let reading = match latest {
            Some((reading, at)) if at.elapsed() < STRUCTURE_TTL => reading,
            latest => {
                let at = Instant::now();
                let previous = latest.map(|(reading, _)| reading);
                let reading = Reading::load(evaluator.client(), previous).await?;
                *lock(&self.reading) = Some((Arc::clone(&reading), at));
                reading
            }
        };
        let roles = groups.iter().map(|group| &*group.subject.claims.role);
        let unknown = reading.unknown(roles);
        if !unknown.is_empty() {
            reading.load_roles(evaluator.client(), &unknown).await?;
        }
        Ok(reading)
    }

    /// Handles a slow question. Another connection answers the questions behind it. For a while,
    /// each new flight carries only one question.
    fn go_around(self: &Arc<Self>, groups: &mut VecDeque<Group>) {
        {
            let mut queue = lock(&self.queue);
            queue.caution = Some(Instant::now() + CAUTION);
            while let Some(group) = groups.pop_back() {
                group.is_taken.store(false, Ordering::Relaxed);
                queue.waiting.push_front(group);
            }
        }
        self.take_off(true);
    }

    /// Returns questions whose connection broke to the front of the queue, at most once each.
    fn repeat(&self, groups: Vec<Group>) {
        for mut group in groups.into_iter().rev() {
            if std::mem::replace(&mut group.is_repeated, true) {
                group.answer(&Err(AuthorizeError::Unavailable));
            } else {
                lock(&self.queue).waiting.push_front(group);
            }
        }
    }

    /// Fails all waiting questions because the database is unavailable.
    fn fail_all(&self, groups: Vec<Group>, error: &AuthorizeError) {
        let waiting = std::mem::take(&mut lock(&self.queue).waiting);
        for group in groups.into_iter().chain(waiting) {
            group.answer(&Err(error.clone()));
        }
    }

    fn insert_all(self: &Arc<Self>, groups: &mut Vec<Group>) {
        for group in groups.drain(..) {
            self.insert(group, None);
        }
    }

    /// Answers a question by insertion. If that succeeds where `evaluation` failed, the evaluation
    /// is not used again.
    fn insert(self: &Arc<Self>, group: Group, evaluation: Option<Arc<Evaluation>>) {
        if self.insertions.fetch_add(1, Ordering::Relaxed) >= MAX_QUEUED {
            self.insertions.fetch_sub(1, Ordering::Relaxed);
            group.answer(&Err(AuthorizeError::PoolExhausted));
            return;
        }
        let inner = Arc::clone(self);
        self.tasks.spawn("permission by insertion", async move {
            let answer = inner.answer_by_insertion(&group.subject).await;
            inner.metrics.permission_asked(PermissionWay::Inserted);
            if let Some(evaluation) = evaluation.filter(|_| answer.is_ok()) {
                evaluation.give_up();
            }
            inner.insertions.fetch_sub(1, Ordering::Relaxed);
            group.answer(&answer);
        });
    }

    async fn answer_by_insertion(&self, subject: &Subject) -> Answer {
        let _permit = timeout(QUEUE_TIMEOUT, self.permits.acquire())
            .await
            .map_err(|_| AuthorizeError::PoolExhausted)?
            // The semaphore is never closed, so this error cannot occur.
            .map_err(|_| AuthorizeError::unexpected())?;
        timeout(ANSWER_TIMEOUT, self.answer_in_turn(subject))
            .await
            .map_err(|_| AuthorizeError::Unavailable)?
    }

    async fn answer_in_turn(&self, subject: &Subject) -> Answer {
        let idle = take_open(&self.probers, |prober| &prober.client);
        if let Some(idle) = idle {
            match self.probe(idle, subject).await {
                // The connection broke while it was idle.
                Err(AuthorizeError::Unavailable) => {}
                answer => return answer,
            }
        }
        let prober = self
            .connect(Prober::open(&self.connector, &self.tasks))
            .await?;
        self.probe(prober, subject).await
    }

    /// Answers a question by insertion over this connection. The connection is closed if the future
    /// is dropped before it completes, or if a transaction may still be open.
    async fn probe(&self, prober: Prober, subject: &Subject) -> Answer {
        let (answer, is_sound) = prober.ask(subject).await;
        if is_sound {
            lock(&self.probers).push(prober);
        }
        answer
    }

    async fn connect<T>(
        &self,
        opening: impl Future<Output = Result<T, AuthorizeError>>,
    ) -> Result<T, AuthorizeError> {
        if let Some(error) = self.recent_failure() {
            return Err(error);
        }
        let opened = timeout(CONNECT_TIMEOUT, Box::pin(opening))
            .await
            .unwrap_or(Err(AuthorizeError::Unavailable));
        *lock(&self.failure) = match &opened {
            // This error is about the login, not the connection.
            Ok(_) | Err(AuthorizeError::Policy { .. }) => None,
            Err(error) => Some((Instant::now(), error.clone())),
        };
        opened
    }

    fn recent_failure(&self) -> Option<AuthorizeError> {
        lock(&self.failure)
            .as_ref()
            .filter(|(at, _)| at.elapsed() < FAILURE_SHARED_FOR)
            .map(|(_, error)| error.clone())
    }

    fn take_evaluator(&self) -> Option<Evaluator> {
        take_open(&self.evaluators, Evaluator::client)
    }
}

/// The result of a flight.
enum Flown {
    /// The connection can be used again.
    Sound,
    /// The connection cannot be used again.
    Broken,
    /// No question was answered because the catalog has changed.
    Outdated,
    /// Some statements failed and were dropped. They should be prepared again.
    Stale,
}

fn evaluations(ways: &[Way]) -> impl Iterator<Item = &Evaluation> {
    ways.iter().filter_map(|way| match way {
        Way::Evaluate(evaluation) => Some(&**evaluation),
        _ => None,
    })
}

/// Takes the most recently used connection that is still open.
fn take_open<T>(idle: &Mutex<Vec<T>>, client: impl Fn(&T) -> &Client) -> Option<T> {
    let mut idle = lock(idle);
    while let Some(connection) = idle.pop() {
        if !client(&connection).is_closed() {
            return Some(connection);
        }
    }
    None
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
