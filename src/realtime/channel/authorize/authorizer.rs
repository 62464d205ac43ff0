//! Answers permission checks, here called *questions*. Those that wait together are sent in one
//! pipeline, a *flight* (see [`super`]).

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::super::super::permissions::Permissions;
use super::catalog::{CheckMethod, Evaluation, Reading, STRUCTURE_TTL};
use super::connections::Connections;
use super::error::AuthorizeError;
use super::evaluate::Evaluator;
use super::insertions::Insertions;
use super::limits::{ANSWER_TIMEOUT, MAX_CONNECTIONS, QUEUE_TIMEOUT, STATEMENT_TIMEOUT};
use super::question::{Answer, Group, Question, Subject};
use super::queue::Queue;
use crate::auth::Claims;
use crate::db::connect::Connector;
use crate::observability::excerpt::Excerpt;
use crate::observability::metrics::{PermissionWay, RealtimeMetrics};
use crate::shutdown::Tasks;

/// How long a question waits for the current flight, and how long one answer may delay the
/// questions behind it. When this time has passed, another connection answers the waiting
/// questions.
const SLOW: Duration = Duration::from_millis(100);

/// Maximum number of attempts to answer the questions of one flight. An attempt fails if the
/// reading of the catalogue turns out to be outdated, or if statements must be prepared again.
const MAX_READINGS: usize = 5;

/// A role name that `set_config` interprets as a reset to the login's own role.
const NO_ROLE: &str = "none";

/// Checks permissions in the database. Clones share their connections.
#[derive(Clone)]
pub struct Authorizer {
    inner: Arc<Inner>,
}

struct Inner {
    metrics: RealtimeMetrics,
    tasks: Tasks,
    /// Questions that wait for a flight. A plain mutex: it is held only to add and remove entries.
    queue: Mutex<Queue>,
    connections: Arc<Connections>,
    insertions: Arc<Insertions>,
    /// The latest reading of the catalogue, and the time when it began. A plain mutex: it is held
    /// only to copy or replace them.
    reading: Mutex<Option<(Arc<Reading>, Instant)>>,
}

impl Authorizer {
    /// Creates an authorizer without opening a connection. The login of `connector` must be allowed
    /// to switch to the roles of tokens, and to insert into `realtime.messages`.
    pub fn new(connector: Connector, metrics: RealtimeMetrics, tasks: &Tasks) -> Self {
        let connections = Arc::new(Connections::new(connector, tasks.clone()));
        let insertions = Insertions::new(Arc::clone(&connections), metrics.clone(), tasks.clone());
        Self {
            inner: Arc::new(Inner {
                metrics,
                tasks: tasks.clone(),
                queue: Mutex::default(),
                connections,
                insertions: Arc::new(insertions),
                reading: Mutex::default(),
            }),
        }
    }

    /// Returns what the caller with `claims` may do on a topic, whose name is given without
    /// `realtime:`. `headers` is the text of a JSON object that policies read as `request.headers`.
    ///
    /// # Errors
    /// See [`AuthorizeError`]. Fails immediately while the database is known to be unavailable.
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
            // The headers are shared, because there may be thousands of questions and clients
            // decide how long the headers are.
            headers: Arc::clone(headers),
        };
        let answer = self.inner.ask(subject).await;
        if let Err(error) = &answer {
            tracing::warn!(error = %Excerpt(&error), ?question, "permission check of a private channel failed");
        }
        answer
    }
}

impl Inner {
    async fn ask(self: &Arc<Self>, subject: Subject) -> Answer {
        if subject.claims.role == NO_ROLE {
            return Err(AuthorizeError::no_such_role());
        }
        if let Some(error) = self.connections.known_failure() {
            return Err(error);
        }
        let (sender, mut receiver) = oneshot::channel();
        let is_taken = Arc::new(AtomicBool::new(false));
        lock(&self.queue).push(Group {
            subject: Arc::new(subject),
            receivers: vec![sender],
            is_taken: Arc::clone(&is_taken),
            is_repeated: false,
        })?;
        self.take_off(false);
        // The sender is dropped only if the task of the flight has failed.
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
        if !lock(&self.queue).begin_flight(is_urgent, MAX_CONNECTIONS) {
            return;
        }
        let inner = Arc::clone(self);
        self.tasks
            .spawn("permission checks", async move { inner.fly().await });
    }

    /// Runs one flight after another over one connection, until the queue is empty.
    async fn fly(self: Arc<Self>) {
        let mut connection = self.connections.take_evaluator();
        while let Some(mut groups) = self.board() {
            let mut evaluator = match connection.take() {
                Some(evaluator) => evaluator,
                None => match self.connections.open_evaluator().await {
                    Ok(evaluator) => evaluator,
                    // The login may not switch to the role of idle connections (see `db::parked`),
                    // so no connection can evaluate the policies.
                    Err(AuthorizeError::Policy { .. }) => {
                        self.insertions.start_all(&mut groups);
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
            self.connections.keep_evaluator(evaluator);
        }
    }

    /// Takes questions from the queue for one flight; see [`Queue::board`].
    fn board(&self) -> Option<Vec<Group>> {
        lock(&self.queue).board(Instant::now())
    }

    /// Answers questions over one connection, or starts insertions that answer them. Questions that
    /// remain in `groups` must be repeated, because the connection broke. Returns whether the
    /// connection can be used again.
    async fn flight(self: &Arc<Self>, evaluator: &mut Evaluator, groups: &mut Vec<Group>) -> bool {
        let mut may_be_stale = true;
        for _ in 0..MAX_READINGS {
            let reading = match self.read(evaluator, groups).await {
                Ok(reading) => reading,
                Err(AuthorizeError::Unavailable) => return false,
                Err(error) => {
                    tracing::warn!(error = %Excerpt(&error), "cannot read the policies; checking by insertion");
                    self.insertions.start_all(groups);
                    return true;
                }
            };
            let mut methods: Vec<CheckMethod> = groups
                .iter()
                .map(|group| reading.method(&group.subject.claims.role, group.subject.question))
                .collect();
            let Ok(refused) = evaluator.prepare(evaluations(&methods)).await else {
                return false;
            };
            for method in &mut methods {
                if let CheckMethod::Evaluate(evaluation) = method
                    && refused.contains(&evaluation.id)
                {
                    evaluation.give_up();
                    *method = CheckMethod::Insert;
                }
            }
            let flown = self
                .ask_all(evaluator, &reading, groups, methods, may_be_stale)
                .await;
            match flown {
                Flown::Sound => return true,
                Flown::Broken => return false,
                Flown::Outdated => *lock(&self.reading) = None,
                Flown::Stale => may_be_stale = false,
            }
        }
        // The policies change faster than they can be read, so insertions answer the questions.
        self.insertions.start_all(groups);
        true
    }

    /// Sends one flight. The questions that remain in `groups` must be sent again.
    ///
    /// If `may_be_stale` is set, questions whose statement failed remain as well. PostgreSQL
    /// replans a statement after certain schema changes, for instance whenever a schema is created.
    /// It does so under a caller's role, which may be unable to resolve the names in the statement.
    async fn ask_all(
        self: &Arc<Self>,
        evaluator: &mut Evaluator,
        reading: &Reading,
        groups: &mut Vec<Group>,
        methods: Vec<CheckMethod>,
        may_be_stale: bool,
    ) -> Flown {
        let subjects: Vec<(Arc<Subject>, Arc<Evaluation>)> = groups
            .iter()
            .zip(&methods)
            .filter_map(|(group, method)| match method {
                CheckMethod::Evaluate(evaluation) => {
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
        for (group, method) in groups.drain(..).zip(methods) {
            match method {
                CheckMethod::Known(answer) => {
                    self.metrics.permission_asked(PermissionWay::Known);
                    group.answer(&answer);
                }
                CheckMethod::Insert => self.insertions.start(group, None),
                CheckMethod::Evaluate(_) => asked.push_back(group),
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
                // The connection failed, so the question is sent again.
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
                // An insertion shows whether PostgreSQL fails in the same way, and with which
                // error.
                Err(error) => {
                    failed.push(evaluation.id);
                    let is_systematic = error.concerns_statement();
                    self.insertions
                        .start(group, is_systematic.then(|| Arc::clone(evaluation)));
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

    /// Returns the latest reading of the catalogue, including the rights of all roles in `groups`.
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

    /// Handles a slow question: another connection answers the questions behind it. For a while,
    /// each new flight carries only one question.
    fn go_around(self: &Arc<Self>, groups: &mut VecDeque<Group>) {
        lock(&self.queue).take_back(groups, Instant::now());
        self.take_off(true);
    }

    /// Returns questions to the front of the queue after their connection broke. A question that is
    /// repeated for the second time fails instead.
    fn repeat(&self, groups: Vec<Group>) {
        for mut group in groups.into_iter().rev() {
            if std::mem::replace(&mut group.is_repeated, true) {
                group.answer(&Err(AuthorizeError::Unavailable));
            } else {
                lock(&self.queue).push_front(group);
            }
        }
    }

    /// Fails these and all queued questions, because the database is unavailable.
    fn fail_all(&self, groups: Vec<Group>, error: &AuthorizeError) {
        let waiting = lock(&self.queue).take_all();
        for group in groups.into_iter().chain(waiting) {
            group.answer(&Err(error.clone()));
        }
    }
}

/// The result of a flight.
enum Flown {
    /// Every question was answered or passed on to an insertion, and the connection can be used
    /// again.
    Sound,
    /// The connection cannot be used again.
    Broken,
    /// No question was answered, because the catalogue has changed.
    Outdated,
    /// Some statements failed and were dropped. They should be prepared again.
    Stale,
}

fn evaluations(methods: &[CheckMethod]) -> impl Iterator<Item = &Evaluation> {
    methods.iter().filter_map(|method| match method {
        CheckMethod::Evaluate(evaluation) => Some(&**evaluation),
        _ => None,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
