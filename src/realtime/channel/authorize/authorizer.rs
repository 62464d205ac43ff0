//! Runs permission checks. Those that wait together are sent in one pipeline (see [`super`]).

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::super::super::permissions::Permissions;
use super::catalog::{CheckMethod, Evaluation, Reading, STRUCTURE_TTL};
use super::check::{Check, CheckKind, CheckResult, PendingCheck};
use super::connections::Connections;
use super::error::AuthorizeError;
use super::evaluate::Evaluator;
use super::insertions::Insertions;
use super::limits::{CHECK_TIMEOUT, MAX_CONNECTIONS, QUEUE_TIMEOUT, STATEMENT_TIMEOUT};
use super::queue::Queue;
use crate::auth::Claims;
use crate::db::connect::Connector;
use crate::observability::excerpt::Excerpt;
use crate::observability::metrics::{PermissionWay, RealtimeMetrics};
use crate::shutdown::Tasks;

/// How long a check waits for the current pipeline, and how long one check may delay those behind
/// it. When this time has passed, another worker runs the waiting checks.
const SLOW_CHECK: Duration = Duration::from_millis(100);

/// Maximum number of attempts to run the checks of one pipeline. An attempt fails if the reading of
/// the catalogue turns out to be outdated, or if statements must be prepared again.
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
    /// Checks that wait for a worker. A plain mutex: it is held only to add and remove entries.
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
    pub async fn check(
        &self,
        kind: CheckKind,
        topic: &str,
        claims: &Claims,
        headers: &Arc<str>,
    ) -> Result<Permissions, AuthorizeError> {
        let check = Check {
            kind,
            topic: topic.into(),
            claims: claims.clone(),
            // The headers are shared, because there may be thousands of checks and clients decide
            // how long the headers are.
            headers: Arc::clone(headers),
        };
        let result = self.inner.check(check).await;
        if let Err(error) = &result {
            tracing::warn!(error = %Excerpt(&error), ?kind, "permission check of a private channel failed");
        }
        result
    }
}

impl Inner {
    async fn check(self: &Arc<Self>, check: Check) -> CheckResult {
        if check.claims.role == NO_ROLE {
            return Err(AuthorizeError::no_such_role());
        }
        if let Some(error) = self.connections.known_failure() {
            return Err(error);
        }
        let (sender, mut receiver) = oneshot::channel();
        let is_taken = Arc::new(AtomicBool::new(false));
        lock(&self.queue).push(PendingCheck {
            check: Arc::new(check),
            receivers: vec![sender],
            is_taken: Arc::clone(&is_taken),
            is_repeated: false,
        })?;
        self.start_worker(false);
        // The sender is dropped only if the task of the worker has failed.
        let unwrap =
            |result: Result<CheckResult, _>| result.unwrap_or(Err(AuthorizeError::unexpected()));
        if let Ok(result) = timeout(SLOW_CHECK, &mut receiver).await {
            return unwrap(result);
        }
        self.start_worker(true);
        if let Ok(result) = timeout(QUEUE_TIMEOUT, &mut receiver).await {
            return unwrap(result);
        }
        if !is_taken.load(Ordering::Relaxed) {
            return Err(AuthorizeError::PoolExhausted);
        }
        timeout(CHECK_TIMEOUT, receiver)
            .await
            .map_or(Err(AuthorizeError::Unavailable), unwrap)
    }

    /// Starts a worker if checks wait and another connection is worthwhile.
    fn start_worker(self: &Arc<Self>, is_urgent: bool) {
        if !lock(&self.queue).add_worker(is_urgent, MAX_CONNECTIONS) {
            return;
        }
        let inner = Arc::clone(self);
        self.tasks
            .spawn("permission checks", async move { inner.run_worker().await });
    }

    /// Runs one pipeline after another over one connection, until the queue is empty.
    async fn run_worker(self: Arc<Self>) {
        let mut connection = self.connections.take_evaluator();
        while let Some(mut checks) = self.take_next() {
            let mut evaluator = match connection.take() {
                Some(evaluator) => evaluator,
                None => match self.connections.open_evaluator().await {
                    Ok(evaluator) => evaluator,
                    // The login may not switch to the role of idle connections (see `db::parked`),
                    // so no connection can evaluate the policies.
                    Err(AuthorizeError::Policy { .. }) => {
                        self.insertions.start_all(&mut checks);
                        continue;
                    }
                    Err(error) => {
                        self.fail_all(checks, &error);
                        continue;
                    }
                },
            };
            let statements = u32::try_from(checks.len()).unwrap_or(u32::MAX);
            let limit = STATEMENT_TIMEOUT * statements.saturating_add(1);
            let running = self.run_checks(&mut evaluator, &mut checks);
            let is_sound = timeout(limit, Box::pin(running)).await.unwrap_or(false);
            if is_sound && !evaluator.client().is_closed() {
                connection = Some(evaluator);
            }
            self.requeue(checks);
        }
        if let Some(evaluator) = connection {
            self.connections.keep_evaluator(evaluator);
        }
    }

    /// Takes checks from the queue for one pipeline; see [`Queue::take_next`].
    fn take_next(&self) -> Option<Vec<PendingCheck>> {
        lock(&self.queue).take_next(Instant::now())
    }

    /// Runs checks over one connection, or starts insertions for them. Checks that remain in
    /// `checks` must be repeated, because the connection broke. Returns whether the connection can
    /// be used again.
    async fn run_checks(
        self: &Arc<Self>,
        evaluator: &mut Evaluator,
        checks: &mut Vec<PendingCheck>,
    ) -> bool {
        let mut may_be_stale = true;
        for _ in 0..MAX_READINGS {
            let reading = match self.read(evaluator, checks).await {
                Ok(reading) => reading,
                Err(AuthorizeError::Unavailable) => return false,
                Err(error) => {
                    tracing::warn!(error = %Excerpt(&error), "cannot read the policies; checking by insertion");
                    self.insertions.start_all(checks);
                    return true;
                }
            };
            let mut methods: Vec<CheckMethod> = checks
                .iter()
                .map(|pending| reading.method(&pending.check.claims.role, pending.check.kind))
                .collect();
            let Ok(refused) = evaluator.prepare(evaluations(&methods)).await else {
                return false;
            };
            for method in &mut methods {
                if let CheckMethod::Evaluate(evaluation) = method
                    && refused.contains(&evaluation.id)
                {
                    evaluation.mark_unusable();
                    *method = CheckMethod::Insert;
                }
            }
            let end = self
                .run_pipeline(evaluator, &reading, checks, methods, may_be_stale)
                .await;
            match end {
                PipelineEnd::Sound => return true,
                PipelineEnd::Broken => return false,
                PipelineEnd::Outdated => *lock(&self.reading) = None,
                PipelineEnd::Stale => may_be_stale = false,
            }
        }
        // The policies change faster than they can be read, so insertions replace them.
        self.insertions.start_all(checks);
        true
    }

    /// Sends one pipeline. The checks that remain in `checks` must be sent again.
    ///
    /// If `may_be_stale` is set, checks whose statement failed remain as well. PostgreSQL replans a
    /// statement after certain schema changes, for instance whenever a schema is created. It does
    /// so under a caller's role, which may be unable to resolve the names in the statement.
    async fn run_pipeline(
        self: &Arc<Self>,
        evaluator: &mut Evaluator,
        reading: &Reading,
        checks: &mut Vec<PendingCheck>,
        methods: Vec<CheckMethod>,
        may_be_stale: bool,
    ) -> PipelineEnd {
        let evaluated: Vec<(Arc<Check>, Arc<Evaluation>)> = checks
            .iter()
            .zip(&methods)
            .filter_map(|(pending, method)| match method {
                CheckMethod::Evaluate(evaluation) => {
                    Some((Arc::clone(&pending.check), Arc::clone(evaluation)))
                }
                _ => None,
            })
            .collect();
        let mut pipeline = evaluator.send(&evaluated).await;
        match pipeline.fingerprint().await {
            Ok(fingerprint) if fingerprint == reading.fingerprint => {}
            Ok(_) => {
                return match pipeline.finish().await {
                    true => PipelineEnd::Outdated,
                    false => PipelineEnd::Broken,
                };
            }
            Err(_) => return PipelineEnd::Broken,
        }
        let mut sent = VecDeque::new();
        for (pending, method) in checks.drain(..).zip(methods) {
            match method {
                CheckMethod::Known(result) => {
                    self.metrics.permission_checked(PermissionWay::Known);
                    pending.send_result(&result);
                }
                CheckMethod::Insert => self.insertions.start(pending, None),
                CheckMethod::Evaluate(_) => sent.push_back(pending),
            }
        }
        let mut failed = Vec::new();
        let mut is_stale = false;
        for (_, evaluation) in &evaluated {
            let Some(pending) = sent.pop_front() else {
                break;
            };
            let result = {
                let mut next = pin!(pipeline.next());
                match timeout(SLOW_CHECK, next.as_mut()).await {
                    Ok(result) => result,
                    Err(_) => {
                        self.bypass_slow_check(&mut sent);
                        next.await
                    }
                }
            };
            match result {
                // The connection failed, so the check is sent again.
                Err(AuthorizeError::Unavailable) => checks.push(pending),
                Ok(_) | Err(AuthorizeError::Canceled(_)) => {
                    self.metrics.permission_checked(PermissionWay::Evaluated);
                    pending.send_result(&result);
                }
                Err(error) if may_be_stale && error.concerns_statement() => {
                    failed.push(evaluation.id);
                    is_stale = true;
                    checks.push(pending);
                }
                // An insertion shows whether PostgreSQL fails in the same way, and with which
                // error.
                Err(error) => {
                    failed.push(evaluation.id);
                    let is_systematic = error.concerns_statement();
                    self.insertions
                        .start(pending, is_systematic.then(|| Arc::clone(evaluation)));
                }
            }
        }
        let is_sound = pipeline.finish().await;
        for id in failed {
            evaluator.forget(id);
        }
        match is_sound {
            true if is_stale => PipelineEnd::Stale,
            true => PipelineEnd::Sound,
            false => PipelineEnd::Broken,
        }
    }

    /// Returns the latest reading of the catalogue, including the rights of all roles in `checks`.
    async fn read(
        &self,
        evaluator: &Evaluator,
        checks: &[PendingCheck],
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
        let roles = checks.iter().map(|pending| &*pending.check.claims.role);
        let unknown = reading.unknown(roles);
        if !unknown.is_empty() {
            reading.load_roles(evaluator.client(), &unknown).await?;
        }
        Ok(reading)
    }

    /// Lets another worker run the checks behind a slow one. For a while, each new pipeline
    /// contains only one check.
    fn bypass_slow_check(self: &Arc<Self>, checks: &mut VecDeque<PendingCheck>) {
        lock(&self.queue).take_back(checks, Instant::now());
        self.start_worker(true);
    }

    /// Returns checks to the front of the queue after their connection broke. A check whose
    /// connection breaks for the second time fails instead.
    fn requeue(&self, checks: Vec<PendingCheck>) {
        for mut pending in checks.into_iter().rev() {
            if std::mem::replace(&mut pending.is_repeated, true) {
                pending.send_result(&Err(AuthorizeError::Unavailable));
            } else {
                lock(&self.queue).push_front(pending);
            }
        }
    }

    /// Fails these and all queued checks, because the database is unavailable.
    fn fail_all(&self, checks: Vec<PendingCheck>, error: &AuthorizeError) {
        let waiting = lock(&self.queue).take_all();
        for pending in checks.into_iter().chain(waiting) {
            pending.send_result(&Err(error.clone()));
        }
    }
}

/// How a pipeline ended.
enum PipelineEnd {
    /// Every check has a result or was passed on to an insertion, and the connection can be used
    /// again.
    Sound,
    /// The connection cannot be used again.
    Broken,
    /// No check has a result, because the catalogue has changed.
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
