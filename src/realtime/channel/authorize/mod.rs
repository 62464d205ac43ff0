//! What a caller may do on a private channel: the policies of `realtime.messages` decide
//! (protocol 4.3), exactly as they would for a message of the topic.
//!
//! Questions are answered in *flights*: whatever gathered while the last flight was under way goes out
//! together over one connection. What a flight cannot answer, because only a row in the table
//! can, is asked by insertion, one question at a time. While the database is known to be away,
//! questions are answered so at once, without waiting for a connection each.
//!
//! Known differences from an insertion, all of them in policies that call functions which read
//! `realtime.messages` without naming it: such a function finds no row of the question in the table.

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

/// Connections for flights, and as many for insertions, at most. Questions come in crowds only when
/// everybody reconnects; the original uses 2 to 15 by the size of the machine.
const MAX_CONNECTIONS: usize = 4;

/// Questions of one flight. More would only lengthen what one slow policy holds up.
const MAX_FLIGHT: usize = 32;

/// Questions that wait for each flight under way before another connection joins in: a few
/// large flights cost the database less than many small ones.
const WAITING_PER_FLIGHT: usize = 16;

/// How long a question waits for the flight before it, and how long one answer may hold up those
/// behind it: after that they take another connection.
const SLOW: Duration = Duration::from_millis(100);

/// How long questions fly alone after one was slow: what is behind a slow one in a flight is
/// evaluated by the database all the same, after it.
const CAUTION: Duration = Duration::from_secs(2);

/// The server's own limit for a statement, which the session sets.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Questions that wait at most. Beyond this the wait would outlast its limit anyway.
const MAX_QUEUED: usize = 20_000;

/// Of them, how many board at once. Those that are the same as others take no place in the flight.
const MAX_BOARDING: usize = 512;

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

/// Readings of the catalogue in a row that one flight may find to be old.
const MAX_READINGS: usize = 5;

/// `set_config` takes this for the end of a role, which would be the login's own.
const NO_ROLE: &str = "none";

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

/// The extensions as messages name them.
const BROADCAST: &str = "broadcast";
const PRESENCE: &str = "presence";

impl Question {
    /// The extensions that are asked about.
    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Read { presence: false } => &[BROADCAST],
            Self::Read { presence: true } | Self::Write => &[BROADCAST, PRESENCE],
        }
    }

    /// What of `permissions` was asked about.
    fn mask(self, permissions: Permissions) -> Permissions {
        Permissions {
            broadcast: permissions.broadcast,
            presence: permissions.presence && self != Self::Read { presence: false },
        }
    }
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

    /// The answer in rows of an extension and whether it is allowed.
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

/// What a question is, and whom it is about.
#[derive(Debug)]
struct Subject {
    question: Question,
    /// Without `realtime:`.
    topic: Arc<str>,
    claims: Claims,
    headers: Arc<str>,
}

/// A question with those who wait for its answer.
struct Group {
    subject: Arc<Subject>,
    receivers: Vec<oneshot::Sender<Answer>>,
    /// Set when it is taken off the queue.
    is_taken: Arc<AtomicBool>,
    /// It was asked before, and the connection broke.
    is_repeated: bool,
}

type Answer = Result<Permissions, AuthorizeError>;

impl Group {
    fn answer(self, answer: &Answer) {
        for receiver in self.receivers {
            // Whoever left does not miss it.
            let _ = receiver.send(answer.clone());
        }
    }

    fn is_waited_for(&self) -> bool {
        self.receivers.iter().any(|receiver| !receiver.is_closed())
    }
}

/// Asks the database. Clones share its connections.
#[derive(Clone)]
pub struct Authorizer {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    metrics: RealtimeMetrics,
    tasks: Tasks,
    /// What waits for a flight. A plain mutex: held to push and to take.
    queue: Mutex<Queue>,
    /// Connections that no flight uses. A plain mutex: held for a push or a pop.
    evaluators: Mutex<Vec<Evaluator>>,
    /// The latest reading of the catalogue, and when it was begun. A plain mutex: held to copy.
    reading: Mutex<Option<(Arc<Reading>, Instant)>>,
    /// One for each connection that may insert.
    permits: Semaphore,
    /// Questions that are asked by insertion, or wait for it.
    insertions: AtomicUsize,
    /// Connections that nobody inserts on. A plain mutex: held for a push or a pop.
    probers: Mutex<Vec<Prober>>,
    /// The last connection that could not be made, and why. A plain mutex: held to copy.
    failure: Mutex<Option<(Instant, AuthorizeError)>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Group>,
    /// How many are under way.
    flights: usize,
    /// Until then questions fly alone.
    caution: Option<Instant>,
}

impl Authorizer {
    /// Opens nothing yet. The login of `connector` must be allowed to take on the roles of tokens,
    /// and to insert into `realtime.messages`.
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
        headers: &Arc<str>,
    ) -> Result<Permissions, AuthorizeError> {
        let subject = Subject {
            question,
            topic: topic.into(),
            claims: claims.clone(),
            // Shared: there may be thousands of questions, and a client chooses how long its headers are.
            headers: Arc::clone(headers),
        };
        let answer = self.inner.ask(subject).await;
        if let Err(error) = &answer {
            tracing::warn!(%error, ?question, "the permissions of a private channel are not known");
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
        // A task that ends without an answer has failed as a whole.
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

    /// Starts a flight, if there is something to fly and a connection more is worth it.
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

    /// Flight after flight over one connection, until nothing waits.
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

    /// Takes questions off the queue for one flight; `None` ends the flights of a connection.
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
            // The claims say who it is, role and subject included.
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

    /// Answers questions over one connection, or sees to it that they are answered elsewhere. What
    /// stays in `groups` met no database. Whether the connection can be used again.
    async fn flight(self: &Arc<Self>, evaluator: &mut Evaluator, groups: &mut Vec<Group>) -> bool {
        let mut may_be_stale = true;
        for _ in 0..MAX_READINGS {
            let reading = match self.read(evaluator, groups).await {
                Ok(reading) => reading,
                Err(AuthorizeError::Unavailable) => return false,
                Err(error) => {
                    tracing::warn!(%error, "the policies of private channels cannot be read");
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
        // Somebody changes policies faster than they can be read.
        self.insert_all(groups);
        true
    }

    /// Sends one flight. What stays in `groups` is to be asked again. With `may_be_stale` so is what
    /// failed by its statement: a plan that the server had to make anew, which it does when anybody
    /// makes a schema, was made under a caller's role, which need not be able to resolve the names in it.
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
                // It is the connection that failed.
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
                // An insertion tells whether PostgreSQL fails at this as well, and how.
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

    /// The catalogue as last read, with the rights of everybody who asks.
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

    /// One question is slow: those behind it take another connection, and all that come take
    /// a connection each for a while.
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

    /// Puts questions whose connection broke in front again, once.
    fn repeat(&self, groups: Vec<Group>) {
        for mut group in groups.into_iter().rev() {
            if std::mem::replace(&mut group.is_repeated, true) {
                group.answer(&Err(AuthorizeError::Unavailable));
            } else {
                lock(&self.queue).waiting.push_front(group);
            }
        }
    }

    /// There is no database: that is the answer to everything that waits.
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

    /// Has a question asked by insertion. If that is answered, `evaluation`, which was not, is
    /// not tried again.
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
            // Never closed: this error cannot be.
            .map_err(|_| AuthorizeError::unexpected())?;
        timeout(ANSWER_TIMEOUT, self.answer_in_turn(subject))
            .await
            .map_err(|_| AuthorizeError::Unavailable)?
    }

    async fn answer_in_turn(&self, subject: &Subject) -> Answer {
        let idle = take_open(&self.probers, |prober| &prober.client);
        if let Some(idle) = idle {
            match self.probe(idle, subject).await {
                // It broke while nobody looked.
                Err(AuthorizeError::Unavailable) => {}
                answer => return answer,
            }
        }
        let prober = self
            .connect(Prober::open(&self.connector, &self.tasks))
            .await?;
        self.probe(prober, subject).await
    }

    /// Dropped half-way, or with a transaction that may still be open, a connection is closed.
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
            // That is about the login.
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

/// What became of a flight.
enum Flown {
    /// The connection can be used again.
    Sound,
    /// It cannot.
    Broken,
    /// Nothing was answered, because the catalogue has changed.
    Outdated,
    /// Statements that were not answered are forgotten, and worth preparing anew.
    Stale,
}

fn evaluations(ways: &[Way]) -> impl Iterator<Item = &Evaluation> {
    ways.iter().filter_map(|way| match way {
        Way::Evaluate(evaluation) => Some(&**evaluation),
        _ => None,
    })
}

/// The connection that was used last and is still open.
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
