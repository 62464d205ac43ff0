//! Asks PostgreSQL in many identities' names, over a bounded set of connections.
//!
//! Each question runs in a read-only transaction of its own under one identity's role and
//! claims, and the transaction is always rolled back: whatever a policy's functions set or
//! remember is gone before the next identity's turn. Between transactions a connection is
//! parked on [`PARKED_ROLE`], which may do nothing, so a question whose settings did not take
//! meets no power; its answer is thrown away with the connection besides.
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
use super::error::AskError;
use crate::db::PARKED_ROLE;
use crate::db::connect::Connector;
use crate::shutdown::Tasks;

/// Questions put to one connection in one flight. More would only make one connection busy
/// while others idle, and lengthen what an error throws away; fewer leave the server waiting
/// for the next flight.
const FLIGHT: usize = 32;

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
    id: u64,
    sql: String,
    parameters: usize,
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
    /// As a prepared statement.
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

    /// Less time than other statements have.
    pub(super) fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// How it is put now.
    pub(super) fn way(&self) -> Way {
        match self.way.load(Ordering::Relaxed) {
            0 => Way::Prepared,
            1 => Way::Function,
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
            (Way::Prepared, Some(UNDEFINED_COLUMN), AskError::Unpreparable(_)) => Way::Impossible,
            (Way::Prepared, Some(INSUFFICIENT_PRIVILEGE), _) if is_systematic => Way::Function,
            _ => return false,
        };
        self.way.store(other as u8, Ordering::Relaxed);
        true
    }
}

/// An identity with what its transactions need, worked out once.
#[derive(Debug)]
pub(super) struct Asker {
    /// Who.
    pub(super) identity: Arc<Identity>,
    /// The `sub` claim, empty when there is none.
    subject: String,
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

impl Asking {
    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
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
    statements: HashMap<u64, Statement>,
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
    pub(super) async fn ask(&self, askings: &[Asking]) -> Vec<Result<Row, AskError>> {
        let per_flight = askings.len().div_ceil(self.size).clamp(1, FLIGHT);
        // A flight is all prepared statements or all one function.
        let alike = askings.chunk_by(|one, next| match (one.way, next.way) {
            (Way::Function, Way::Function) => one.question.id == next.question.id,
            (one, next) => one == next,
        });
        let mut flights = Vec::with_capacity(self.size);
        for askings in alike {
            for flight in askings.chunks(per_flight) {
                flights.push(self.fly(flight));
            }
        }
        let mut answers = Vec::with_capacity(askings.len());
        let mut landed = stream::iter(flights).buffered(self.size);
        while let Some(flight) = landed.next().await {
            answers.extend(flight);
        }
        answers
    }

    /// One flight. A connection with any doubt about its state is closed instead of kept.
    async fn fly(&self, flight: &[Asking]) -> Vec<Result<Row, AskError>> {
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
            let is_sound = if flight
                .first()
                .is_some_and(|asking| asking.way == Way::Function)
            {
                match connection.run_function(flight, &mut answers).await {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::debug!(%error, "a function for questions cannot be made");
                        return unavailable();
                    }
                }
            } else {
                match connection.prepare(flight).await {
                    Ok(refused) => connection.run(flight, &refused, &mut answers).await,
                    // The connection's role is uncertain now.
                    Err(_) => return unavailable(),
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
                "set statement_timeout = {}; set idle_in_transaction_session_timeout = '30s'",
                self.statement_timeout.as_millis().max(1)
            ))
            .await?;
        let become_identity = client.prepare(BECOME).await?;
        client
            .batch_execute(&format!("set role {PARKED_ROLE}"))
            .await?;
        Ok(Connection {
            client,
            become_identity,
            statements: HashMap::new(),
        })
    }
}

impl Connection {
    /// Makes sure that every statement of the flight is prepared, as the login role. A statement
    /// that cannot be prepared is an answer of its own; an error of anything else is returned.
    async fn prepare(
        &mut self,
        flight: &[Asking],
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
            self.client
                .batch_execute(&format!("set role {PARKED_ROLE}"))
                .await?;
        }
        Ok(refused)
    }

    /// Asks by a function that exists for this transaction only, and is thus never in the way of
    /// anybody's `drop`. It is made as the login role; each identity has a savepoint of its own.
    /// A refusal to make it is everybody's answer.
    async fn run_function(
        &mut self,
        flight: &[Asking],
        answers: &mut Vec<Result<Row, AskError>>,
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
            answers.push(answer);
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
        flight: &[Asking],
        refused: &HashMap<u64, Arc<tokio_postgres::Error>>,
        answers: &mut Vec<Result<Row, AskError>>,
    ) -> bool {
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

        let mut stale = Vec::new();
        for (position, asking) in flight.iter().enumerate() {
            let answer = outcomes.remove(&position).unwrap_or_else(|| {
                Err(refused
                    .get(&asking.question.id)
                    .map_or(AskError::Unavailable(None), |error| {
                        AskError::Unpreparable(Arc::clone(error))
                    }))
            });
            if answer.as_ref().is_err_and(AskError::concerns_statement) {
                stale.push(asking.question.id);
            }
            answers.push(answer);
        }
        for id in stale {
            self.statements.remove(&id);
        }
        is_sound && !client.is_closed()
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
    let plan_cache_mode = if asking.question.is_planned_anew {
        "force_custom_plan"
    } else {
        "force_generic_plan"
    };
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
