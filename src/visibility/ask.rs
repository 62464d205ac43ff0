//! Asks PostgreSQL in many identities' names, over a bounded set of connections.
//!
//! Each question runs under one identity's role and claims in a read-only transaction or
//! subtransaction of its own, which is always rolled back: whatever a policy's functions set or
//! remember is gone before the next identity's turn. Between transactions a connection is
//! parked on [`PARKED_ROLE`], which may do nothing, so a question whose settings did not take
//! meets no power; its answer is thrown away with the connection besides.
//!
//! A question about the same rows for many identities is put as one call of a PL/pgSQL function
//! (`ask_loop`) that takes on one identity after the other and runs the statement for each: the same
//! executions, each with its own settings and its own evaluation of every sub-select, without
//! a transaction and three messages around each of them.
//!
//! Statements are *prepared* as the login role and *executed* as the identity's. PostgreSQL
//! checks USAGE on the schema of a function when it resolves the name, and a policy's
//! functions were resolved when the policy was made; a `select` of that role does not resolve
//! them either. EXECUTE on functions and rights on tables are checked at execution, as the
//! identity's role, here as in a `select`.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::{MaybeDone, maybe_done};
use futures_util::{StreamExt as _, poll, stream};
use tokio::sync::Semaphore;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Row, Statement};

use super::Identity;
use super::ask_loop::AskLoop;
use super::error::AskError;
use crate::db::PARKED_ROLE;
use crate::db::connect::Connector;
use crate::shutdown::Tasks;

/// Questions put to one connection in one flight. More would only make one connection busy
/// while others idle, and lengthen what an error throws away; fewer leave the server waiting
/// for the next flight.
const FLIGHT: usize = 32;

/// Identities for which a question is put in one call. The call costs as much as a few of them,
/// and an error that ends it is everybody's.
const LOOP_FLIGHT: usize = 128;

/// Identities that make a call worth while: below this, the call itself costs more than it saves.
const LOOP_MINIMUM: usize = 4;

/// Identities in a call at least before a further connection is used.
const LOOP_SHARE: usize = 24;

/// Prepared statements kept per connection. Each is one (table, role, kind); beyond this all
/// are forgotten and made anew as needed.
const MAX_STATEMENTS: usize = 512;

/// What is added to the server's limit for one statement before a flight is given up. It only
/// matters when the network swallows packets.
const NETWORK_ALLOWANCE: Duration = Duration::from_secs(2);

/// Makes the session the identity's for one transaction. A session that is not parked gets no
/// identity at all.
const BECOME: &str = "\
    select \
        pg_catalog.set_config('request.jwt.claims', $1, true), \
        pg_catalog.set_config('request.jwt.claim.sub', $2, true), \
        pg_catalog.set_config('request.jwt.claim.role', $3, true), \
        pg_catalog.set_config('plan_cache_mode', $4, true), \
        pg_catalog.set_config('statement_timeout', coalesce($5, pg_catalog.current_setting('statement_timeout')), true), \
        pg_catalog.set_config('role', case current_user when 'rapport_request' then $3 \
            else 'rapport_request' end, true)";

/// Position of the role among the answers of [`BECOME`].
const ROLE_ANSWER: usize = 5;

/// A statement that can be asked in different names. Its parameters are `text[]` each, its
/// answer is one row.
#[derive(Debug)]
pub(super) struct Question {
    /// Distinguishes it from every other question of this process.
    pub(super) id: u64,
    pub(super) sql: String,
    pub(super) parameters: usize,
    /// Whether the plan is made anew for every identity.
    is_planned_anew: bool,
    /// How long it may take, if less than other statements.
    time_limit: Option<Duration>,
    /// A [`Way`] as its number.
    way: AtomicU8,
}

/// How a question can be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// For many identities in one call, as a prepared statement for a few.
    Loop,
    /// As a prepared statement: a call for many has failed as a whole.
    Prepared,
    /// As a function. PostgreSQL analyses a prepared statement anew under the executing role
    /// when it reads tables under row-level security, and then that role cannot resolve a name
    /// in a schema it has no USAGE on, which in a `select` it need not. The body of an SQL
    /// function with `begin atomic` is stored resolved, as policies are.
    Function,
    /// Not at all on row images: it means something that only a stored row has, such as a
    /// system column.
    Impossible,
}

impl Question {
    /// A question of this text with so many `text[]` parameters.
    pub(super) fn new(sql: String, parameters: usize, is_planned_anew: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            sql,
            parameters,
            is_planned_anew,
            time_limit: None,
            way: AtomicU8::new(0),
        }
    }

    /// Less time than other statements have, for each identity: so each is asked about alone.
    pub(super) fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self.way = AtomicU8::new(Way::Prepared as u8);
        self
    }

    /// The `plan_cache_mode` it runs under.
    pub(super) fn plan_cache_mode(&self) -> &'static str {
        if self.is_planned_anew {
            "force_custom_plan"
        } else {
            "force_generic_plan"
        }
    }

    /// How it is put now.
    pub(super) fn way(&self) -> Way {
        match self.way.load(Ordering::Relaxed) {
            0 => Way::Loop,
            1 => Way::Prepared,
            2 => Way::Function,
            _ => Way::Impossible,
        }
    }

    /// Takes another way after an error of `asked` that the other may not meet.
    /// `is_systematic` says that it fails without any input too. Returns whether to ask again.
    pub(super) fn give_way(&self, asked: Way, error: &AskError, is_systematic: bool) -> bool {
        const INSUFFICIENT_PRIVILEGE: &str = "42501";
        const UNDEFINED_COLUMN: &str = "42703";
        if asked != self.way() {
            return true;
        }
        let other = match (asked, error.sqlstate(), error) {
            (Way::Loop, _, AskError::Together(_)) => Way::Prepared,
            (Way::Loop | Way::Prepared, Some(UNDEFINED_COLUMN), AskError::Unpreparable(_)) => {
                Way::Impossible
            }
            (Way::Loop | Way::Prepared, Some(INSUFFICIENT_PRIVILEGE), _) if is_systematic => {
                Way::Function
            }
            _ => return false,
        };
        self.way.store(other as u8, Ordering::Relaxed);
        true
    }
}

/// How the askings of a flight are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    /// Each as a prepared statement, whatever they are about.
    Statements,
    /// All as one function.
    Function,
    /// All in one call, which has one set of inputs: an asking about others would be answered
    /// with what somebody may see of these.
    Loop,
}

/// An identity with what its transactions need, worked out once.
#[derive(Debug)]
pub(super) struct Asker {
    /// Who.
    pub(super) identity: Arc<Identity>,
    /// The `sub` claim, empty when there is none.
    pub(super) subject: String,
}

impl Asker {
    /// Takes the subject from the claims.
    pub(super) fn new(identity: Arc<Identity>) -> Self {
        let claims: Option<serde_json::Value> = serde_json::from_str(&identity.claims).ok();
        let subject = claims
            .as_ref()
            .and_then(|claims| claims.get("sub"))
            .and_then(serde_json::Value::as_str)
            // A text of PostgreSQL's has no NUL; a setting refused for one would fail every question.
            .filter(|subject| !subject.contains('\0'))
            .unwrap_or_default()
            .to_owned();
        Self { identity, subject }
    }
}

/// A question in one identity's name.
pub(super) struct Asking {
    pub(super) asker: Arc<Asker>,
    pub(super) question: Arc<Question>,
    /// How the question is put.
    pub(super) way: Way,
    pub(super) parameters: Arc<[TextArray]>,
}

/// What a question is answered with.
pub(super) enum Answer {
    /// The row of a statement.
    Row(Row),
    /// What [`AskLoop`] took out of it: its first column, ordinals of inputs.
    Ordinals(Vec<i64>),
}

impl Answer {
    /// The answer to a question that asks for ordinals.
    pub(super) fn ordinals(self) -> Result<Vec<i64>, AskError> {
        match self {
            Self::Row(row) => Ok(row.try_get(0)?),
            Self::Ordinals(ordinals) => Ok(ordinals),
        }
    }

    /// The answer to any other question, which is never put for many.
    pub(super) fn row(self) -> Result<Row, AskError> {
        match self {
            Self::Row(row) => Ok(row),
            Self::Ordinals(_) => Err(AskError::Unavailable(None)),
        }
    }
}

impl Asking {
    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.parameters
            .iter()
            .map(|parameter| parameter as &(dyn ToSql + Sync))
            .collect()
    }
}

/// A `text[]` parameter, encoded once for all identities it is sent for.
#[derive(Clone, Debug)]
pub(super) struct TextArray(Bytes);

impl TextArray {
    /// Encodes `values`; `None` is null.
    pub(super) fn new<'a>(values: impl ExactSizeIterator<Item = Option<&'a [u8]>>) -> Self {
        const TEXT_OID: i32 = 25;
        // PostgreSQL's `array_recv`: dimensions, has-null flag, element type, then per dimension
        // its size and lower bound, then the elements. A message holds at most 1 GiB, so no
        // length in it exceeds an i32.
        let length = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
        let mut out = BytesMut::new();
        out.put_i32(1);
        out.put_i32(1);
        out.put_i32(TEXT_OID);
        out.put_i32(length(values.len()));
        out.put_i32(1);
        for value in values {
            match value {
                Some(text) => {
                    out.put_i32(length(text.len()));
                    out.put_slice(text);
                }
                None => out.put_i32(-1),
            }
        }
        Self(out.freeze())
    }
}

impl ToSql for TextArray {
    fn to_sql(
        &self,
        _type: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(expected: &Type) -> bool {
        *expected == Type::TEXT_ARRAY
    }

    to_sql_checked!();
}

/// The connections.
pub(super) struct AskPool {
    connector: Connector,
    tasks: Tasks,
    size: usize,
    statement_timeout: Duration,
    /// Idle connections. A std lock: held to push or pop one.
    idle: Mutex<Vec<Connection>>,
    /// One permit per connection that may exist.
    permits: Semaphore,
}

struct Connection {
    client: Client,
    become_identity: Statement,
    /// By the question's number, as the other.
    statements: HashMap<u64, Statement>,
    loops: HashMap<u64, AskLoop>,
}

impl AskPool {
    pub(super) fn new(
        connector: Connector,
        size: usize,
        statement_timeout: Duration,
        tasks: &Tasks,
    ) -> Self {
        let size = size.max(1);
        Self {
            connector,
            tasks: tasks.clone(),
            size,
            statement_timeout,
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(size),
        }
    }

    /// Asks everything, spread over the connections; one answer for each, in the same order.
    pub(super) async fn ask(&self, askings: &[Asking]) -> Vec<Result<Answer, AskError>> {
        let mut flights = Vec::new();
        for (kind, places) in self.flights(askings) {
            let flight: Vec<&Asking> = places.iter().map(|place| &askings[*place]).collect();
            flights.push(self.fly(kind, flight, places));
        }
        let mut answers: Vec<Result<Answer, AskError>> = askings
            .iter()
            .map(|_| Err(AskError::Unavailable(None)))
            .collect();
        let mut landed = stream::iter(flights).buffer_unordered(self.size);
        while let Some((places, found)) = landed.next().await {
            for (place, answer) in places.into_iter().zip(found) {
                answers[place] = answer;
            }
        }
        answers
    }

    /// Places of askings that go to one connection together, and how they are put there.
    fn flights(&self, askings: &[Asking]) -> Vec<(Flight, Vec<usize>)> {
        let mut statements = Vec::new();
        let mut functions: HashMap<u64, Vec<usize>> = HashMap::new();
        let mut loops: HashMap<(u64, usize), Vec<usize>> = HashMap::new();
        for (place, asking) in askings.iter().enumerate() {
            let id = asking.question.id;
            match asking.way {
                Way::Loop => {
                    let inputs = Arc::as_ptr(&asking.parameters).addr();
                    loops.entry((id, inputs)).or_default().push(place);
                }
                Way::Function => functions.entry(id).or_default().push(place),
                Way::Prepared | Way::Impossible => statements.push(place),
            }
        }
        let mut flights = Vec::new();
        let mut add = |kind, places: &[usize], smallest: usize, largest: usize| {
            let size = places.len().div_ceil(self.size).clamp(smallest, largest);
            let chunks = places.chunks(size);
            flights.extend(chunks.map(|places| (kind, places.to_vec())));
        };
        for places in loops.into_values() {
            if places.len() < LOOP_MINIMUM {
                statements.extend(places);
            } else {
                add(Flight::Loop, &places, LOOP_SHARE, LOOP_FLIGHT);
            }
        }
        for places in functions.values() {
            add(Flight::Function, places, 1, FLIGHT);
        }
        add(Flight::Statements, &statements, 1, FLIGHT);
        flights
    }

    /// One flight, with the places of its askings handed through.
    async fn fly<P>(
        &self,
        kind: Flight,
        flight: Vec<&Asking>,
        places: P,
    ) -> (P, Vec<Result<Answer, AskError>>) {
        (places, self.put(kind, &flight).await)
    }

    /// One flight. A connection with any doubt about its state is closed instead of kept.
    async fn put(&self, kind: Flight, flight: &[&Asking]) -> Vec<Result<Answer, AskError>> {
        let unavailable = || {
            flight
                .iter()
                .map(|_| Err(AskError::Unavailable(None)))
                .collect()
        };
        // Closed only by dropping the pool.
        let Ok(_permit) = self.permits.acquire().await else {
            return unavailable();
        };
        let statements = u32::try_from(flight.len()).unwrap_or(u32::MAX);
        let limit = self.statement_timeout * statements + NETWORK_ALLOWANCE;
        let attempt = async {
            let mut connection = match self.take_idle() {
                Some(connection) => connection,
                None => match self.connect().await {
                    Ok(connection) => connection,
                    Err(error) => {
                        tracing::debug!(error = %error, "no connection for questions about row visibility");
                        return unavailable();
                    }
                },
            };
            let mut answers = Vec::with_capacity(flight.len());
            let is_sound = match connection.answer(kind, flight, &mut answers).await {
                Ok(is_sound) => is_sound,
                // The connection's state is uncertain now.
                Err(error) => {
                    tracing::debug!(%error, "questions about row visibility were not put");
                    return unavailable();
                }
            };
            if is_sound {
                self.idle
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(connection);
            }
            answers
        };
        tokio::time::timeout(limit, attempt)
            .await
            .unwrap_or_else(|_| unavailable())
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The one used last knows the most statements.
        while let Some(connection) = idle.pop() {
            if !connection.client.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Connection, AskError> {
        let client = self
            .connector
            .connect("rapport visibility", &self.tasks)
            .await?;
        client
            .batch_execute(&format!(
                // Compiling a plan takes longer than any of these statements.
                "set statement_timeout = {}; set idle_in_transaction_session_timeout = '30s'; set jit = off",
                self.statement_timeout.as_millis().max(1)
            ))
            .await?;
        let become_identity = client.prepare(BECOME).await?;
        let connection = Connection {
            client,
            become_identity,
            statements: HashMap::new(),
            loops: HashMap::new(),
        };
        connection.park().await?;
        Ok(connection)
    }
}

impl Connection {
    /// Puts the questions of a flight. Returns whether the connection can be used again.
    async fn answer(
        &mut self,
        kind: Flight,
        flight: &[&Asking],
        answers: &mut Vec<Result<Answer, AskError>>,
    ) -> Result<bool, AskError> {
        let is_sound = match kind {
            Flight::Function => {
                self.run_function(flight, answers).await?;
                return Ok(true);
            }
            Flight::Loop => self.run_loop(flight, answers).await?,
            Flight::Statements => self.run(flight, answers).await?,
        };
        if !is_sound {
            return Ok(false);
        }
        self.repeat_stale(flight, answers).await
    }

    /// Asks once more, with statements prepared anew, what failed by its statement. A plan that the
    /// server had to make anew, which it does when anybody makes a schema, was made under an
    /// identity's role, which need not be able to resolve the names in it. Such a failure must not
    /// leave its connection: the next one may have as old a plan, and two of them in a row look like
    /// a fault of the question. Returns whether the connection can be used again.
    async fn repeat_stale(
        &mut self,
        flight: &[&Asking],
        answers: &mut [Result<Answer, AskError>],
    ) -> Result<bool, AskError> {
        let is_stale = |error: &AskError| {
            error.concerns_statement() && !matches!(error, AskError::Unpreparable(_))
        };
        let (stale, again): (Vec<usize>, Vec<&Asking>) = flight
            .iter()
            .enumerate()
            .zip(answers.iter())
            .filter(|(_, answer)| answer.as_ref().is_err_and(is_stale))
            .map(|(asking, _)| asking)
            .unzip();
        self.forget(&again);
        let mut found = Vec::with_capacity(again.len());
        let is_sound = self.run(&again, &mut found).await?;
        for (place, answer) in stale.into_iter().zip(found) {
            answers[place] = answer;
        }
        Ok(is_sound)
    }

    fn forget(&mut self, flight: &[&Asking]) {
        for asking in flight {
            self.loops.remove(&asking.question.id);
            self.statements.remove(&asking.question.id);
        }
    }

    /// Makes sure that every statement of the flight is prepared, as the login role. A statement
    /// that cannot be prepared is an answer of its own; an error of anything else is returned.
    async fn prepare(
        &mut self,
        flight: &[&Asking],
    ) -> Result<HashMap<u64, Arc<tokio_postgres::Error>>, AskError> {
        let mut refused = HashMap::new();
        let mut is_parked = true;
        for asking in flight {
            let question = &asking.question;
            if self.statements.contains_key(&question.id) || refused.contains_key(&question.id) {
                continue;
            }
            if is_parked {
                if self.statements.len() >= MAX_STATEMENTS {
                    self.statements.clear();
                }
                self.client.batch_execute("reset role").await?;
                is_parked = false;
            }
            match self.client.prepare(&question.sql).await {
                Ok(statement) => {
                    self.statements.insert(question.id, statement);
                }
                Err(error) if error.as_db_error().is_some() => {
                    refused.insert(question.id, Arc::new(error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !is_parked {
            self.park().await?;
        }
        Ok(refused)
    }

    async fn park(&self) -> Result<(), AskError> {
        self.client
            .batch_execute(&format!("set role {PARKED_ROLE}"))
            .await?;
        Ok(())
    }

    /// Asks in one call. Returns whether the connection can be used again.
    async fn run_loop(
        &mut self,
        flight: &[&Asking],
        answers: &mut Vec<Result<Answer, AskError>>,
    ) -> Result<bool, AskError> {
        let Some(first) = flight.first() else {
            return Ok(true);
        };
        let question = &first.question;
        if !self.loops.contains_key(&question.id) {
            let one = std::slice::from_ref(first);
            if let Some(error) = self.prepare(one).await?.remove(&question.id) {
                let refused = || Err(AskError::Unpreparable(Arc::clone(&error)));
                answers.extend(flight.iter().map(|_| refused()));
                return Ok(true);
            }
            self.client.batch_execute("reset role").await?;
            if self.loops.len() >= MAX_STATEMENTS {
                self.loops.clear();
                self.client.batch_execute("discard temp").await?;
            }
            let made = AskLoop::make(&self.client, question).await;
            self.park().await?;
            match made {
                Ok(made) => {
                    self.loops.insert(question.id, made);
                }
                Err(error) if error.as_db_error().is_some() => {
                    tracing::debug!(%error, "identities are asked about one by one");
                    let error = Arc::new(error);
                    let refused = || Err(AskError::Together(Arc::clone(&error)));
                    answers.extend(flight.iter().map(|_| refused()));
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let Some(ask_loop) = self.loops.get(&question.id) else {
            return Ok(true);
        };
        let found = match ask_loop.run(&self.client, flight).await {
            Ok(found) => found,
            Err(AskError::Together(error)) => {
                self.loops.remove(&question.id);
                answers.extend(
                    flight
                        .iter()
                        .map(|_| Err(AskError::Together(Arc::clone(&error)))),
                );
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        answers.extend(found.into_iter().map(|answer| answer.map(Answer::Ordinals)));
        Ok(!self.client.is_closed())
    }

    /// Asks by a function that exists for this transaction only, and is thus never in the way of
    /// anybody's `drop`. It is made as the login role; each identity has a savepoint of its own.
    /// A refusal to make it is everybody's answer.
    async fn run_function(
        &mut self,
        flight: &[&Asking],
        answers: &mut Vec<Result<Answer, AskError>>,
    ) -> Result<(), AskError> {
        let Some(first) = flight.first() else {
            return Ok(());
        };
        let client = &self.client;
        let lists = vec!["text[]"; first.question.parameters].join(", ");
        let arguments: Vec<_> = (1..=first.question.parameters)
            .map(|n| format!("${n}"))
            .collect();
        client.batch_execute("begin; set local role none").await?;
        let made = client
            .batch_execute(&format!(
                "create function pg_temp.rapport_ask({lists}) returns pg_catalog.int8[] \
                   language sql begin atomic {}; end; \
                 grant execute on function pg_temp.rapport_ask to public; \
                 set local role {PARKED_ROLE}; set transaction read only",
                first.question.sql
            ))
            .await;
        if let Err(error) = made {
            client.batch_execute("rollback").await?;
            if error.as_db_error().is_none() {
                return Err(error.into());
            }
            let error = Arc::new(error);
            answers.extend(
                flight
                    .iter()
                    .map(|_| Err(AskError::Unpreparable(Arc::clone(&error)))),
            );
            return Ok(());
        }
        let call = client
            .prepare(&format!(
                "select pg_temp.rapport_ask({})",
                arguments.join(", ")
            ))
            .await?;
        for asking in flight {
            client.batch_execute("savepoint identity").await?;
            let answer = match become_identity(client, &self.become_identity, asking).await {
                Ok(()) => client
                    .query_one(&call, &asking.parameters())
                    .await
                    .map_err(AskError::from),
                Err(error) => Err(error),
            };
            answers.push(answer.map(Answer::Row));
            client
                .batch_execute("rollback to savepoint identity; release savepoint identity")
                .await?;
        }
        client.batch_execute("rollback").await?;
        Ok(())
    }

    /// Sends the whole flight and then reads the answers. Returns whether the connection can
    /// be used again.
    async fn run(
        &mut self,
        flight: &[&Asking],
        answers: &mut Vec<Result<Answer, AskError>>,
    ) -> Result<bool, AskError> {
        if flight.is_empty() {
            return Ok(true);
        }
        let refused = self.prepare(flight).await?;
        let client = &self.client;
        let mut begin = pin!(maybe_done(client.batch_execute("begin read only")));
        // Each message is written when its future is first polled, so polling them in order
        // puts them on the wire in order without waiting for any.
        let _ = poll!(begin.as_mut());
        let mut in_flight = Vec::with_capacity(flight.len());
        for (position, asking) in flight.iter().enumerate() {
            let Some(statement) = self.statements.get(&asking.question.id) else {
                continue;
            };
            let mut settings = Box::pin(maybe_done(become_identity(
                client,
                &self.become_identity,
                asking,
            )));
            let _ = poll!(settings.as_mut());
            let mut rows = Box::pin(maybe_done(async move {
                client.query_one(statement, &asking.parameters()).await
            }));
            let _ = poll!(rows.as_mut());
            let mut end = Box::pin(maybe_done(client.batch_execute("rollback and chain")));
            let _ = poll!(end.as_mut());
            in_flight.push((position, settings, rows, end));
        }
        let mut rollback = pin!(maybe_done(client.batch_execute("rollback")));
        let _ = poll!(rollback.as_mut());

        begin.as_mut().await;
        let mut is_sound = matches!(begin.as_mut().take_output(), Some(Ok(())));
        let mut outcomes: HashMap<usize, Result<Row, AskError>> = HashMap::new();
        for (position, mut settings, mut rows, mut end) in in_flight {
            settings.as_mut().await;
            rows.as_mut().await;
            end.as_mut().await;
            let settings = take(settings.as_mut());
            // A role that was not taken on means a session that is not what it should be.
            is_sound = is_sound && !matches!(settings, Err(AskError::Unavailable(_)));
            let rows = take(rows.as_mut());
            let is_ended = matches!(end.as_mut().take_output(), Some(Ok(())));
            let outcome = if is_sound {
                settings.and(rows)
            } else {
                Err(AskError::Unavailable(None))
            };
            outcomes.insert(position, outcome);
            is_sound = is_sound && is_ended;
        }
        rollback.as_mut().await;
        is_sound = is_sound && matches!(rollback.as_mut().take_output(), Some(Ok(())));

        for (position, asking) in flight.iter().enumerate() {
            let answer = outcomes.remove(&position).unwrap_or_else(|| {
                Err(refused
                    .get(&asking.question.id)
                    .map_or(AskError::Unavailable(None), |error| {
                        AskError::Unpreparable(Arc::clone(error))
                    }))
            });
            answers.push(answer.map(Answer::Row));
        }
        Ok(is_sound && !client.is_closed())
    }
}

fn take<F, T, E>(future: std::pin::Pin<&mut MaybeDone<F>>) -> Result<T, AskError>
where
    F: Future<Output = Result<T, E>>,
    AskError: From<E>,
{
    match future.take_output() {
        Some(result) => Ok(result?),
        None => Err(AskError::Unavailable(None)),
    }
}

/// Takes on the identity. An answer that names another role than the one asked for counts as
/// an unreachable database: the connection is not in the state it should be in.
async fn become_identity(
    client: &Client,
    statement: &Statement,
    asking: &Asking,
) -> Result<(), AskError> {
    let identity = &asking.asker.identity;
    let plan_cache_mode = asking.question.plan_cache_mode();
    let time_limit = asking
        .question
        .time_limit
        .map(|limit| limit.as_millis().to_string());
    let row: Row = client
        .query_one(
            statement,
            &[
                &&*identity.claims,
                &asking.asker.subject,
                &identity.role,
                &plan_cache_mode,
                &time_limit,
            ],
        )
        .await?;
    if row.try_get::<_, &str>(ROLE_ANSWER)? == identity.role {
        Ok(())
    } else {
        Err(AskError::Unavailable(None))
    }
}
