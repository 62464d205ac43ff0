//! One connection on which queries run, each in its execution mode.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::loop_function::LoopFunction;
use super::query::{CALLER_SETTINGS, Execution, QueryOutput, same_error};
use super::sql_function;
use super::state::DatabaseState;
use crate::db::parked::{ParkedConnection, ParkedError};
use crate::visibility::error::QueryError;

/// Maximum number of loop functions per connection. There is one for each table, role and kind of
/// query. Beyond this number, all functions are dropped, and created again as needed.
const MAX_LOOPS: usize = 512;

/// How a group of executions is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupKind {
    /// Sends each execution as a prepared statement.
    Statements,
    /// Sends all executions as calls of one SQL function.
    Function,
    /// Sends all executions in one call with one set of inputs. An execution with other inputs
    /// would receive a result for the wrong rows.
    Loop,
}

/// A connection with its loop functions.
pub(super) struct QueryConnection {
    parked: ParkedConnection,
    /// The loop functions, by the query's id.
    loops: HashMap<u64, LoopFunction>,
    /// The value of the setting `statement_timeout`, in milliseconds.
    statement_timeout: String,
}

/// The results of a group.
pub(super) struct GroupResult {
    /// One result for each execution, in the same order.
    pub(super) answers: Vec<Result<QueryOutput, QueryError>>,
    /// Whether the connection can be reused.
    pub(super) is_sound: bool,
}

impl QueryConnection {
    /// Prepares a new connection. Between executions it has the parked role, which has no rights.
    /// Each statement may take at most `statement_timeout`.
    ///
    /// # Errors
    /// If the server refuses the connection's settings.
    pub(super) async fn park(
        client: Client,
        statement_timeout: Duration,
    ) -> Result<Self, QueryError> {
        let statement_timeout = statement_timeout.as_millis().max(1).to_string();
        let settings = format!(
            "set statement_timeout = {statement_timeout}; \
             set idle_in_transaction_session_timeout = '30s'"
        );
        Ok(Self {
            parked: ParkedConnection::park(client, &settings, &CALLER_SETTINGS).await?,
            loops: HashMap::new(),
            statement_timeout,
        })
    }

    /// Returns whether the connection is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.parked.client().is_closed()
    }

    /// Executes a group.
    ///
    /// # Errors
    /// After an error, the state of the connection is unknown, and the group has no results.
    pub(super) async fn execute(
        &mut self,
        kind: GroupKind,
        group: &[&Execution],
        state: &DatabaseState,
    ) -> Result<GroupResult, QueryError> {
        let mut result = match kind {
            GroupKind::Function => {
                let timeout = &self.statement_timeout;
                let answers = sql_function::execute(&self.parked, group, state, timeout);
                return Ok(GroupResult::sound(answers.await?));
            }
            GroupKind::Loop => GroupResult::sound(self.execute_loop(group, state).await?),
            GroupKind::Statements => self.execute_prepared(group, state).await?,
        };
        if result.is_sound {
            self.repeat_stale(group, state, &mut result).await?;
        }
        Ok(result)
    }

    /// Repeats, with newly prepared statements, the executions that failed because of their
    /// statement. PostgreSQL replans a statement after changes such as a new schema. It does so
    /// under the role of the current identity, which may be unable to resolve the names. This
    /// failure must be handled here: the next connection may have an equally old plan, and two such
    /// failures look like a fault of the query.
    async fn repeat_stale(
        &mut self,
        group: &[&Execution],
        state: &DatabaseState,
        result: &mut GroupResult,
    ) -> Result<(), QueryError> {
        let is_stale = |error: &QueryError| {
            error.is_statement_error() && !matches!(error, QueryError::Unpreparable(_))
        };
        let (stale, again): (Vec<usize>, Vec<&Execution>) = group
            .iter()
            .enumerate()
            .zip(&result.answers)
            .filter(|(_, answer)| answer.as_ref().is_err_and(is_stale))
            .map(|(execution, _)| execution)
            .unzip();
        if again.is_empty() {
            return Ok(());
        }
        for execution in &again {
            self.loops.remove(&execution.query.id);
            self.parked.forget(execution.query.id);
        }
        let repeated = self.execute_prepared(&again, state).await?;
        for (place, answer) in stale.into_iter().zip(repeated.answers) {
            result.answers[place] = answer;
        }
        result.is_sound = repeated.is_sound;
        Ok(())
    }

    /// Executes the group with prepared statements. If a statement cannot be prepared, its
    /// executions have that error as their result.
    async fn execute_prepared(
        &mut self,
        group: &[&Execution],
        state: &DatabaseState,
    ) -> Result<GroupResult, QueryError> {
        let refused = self.prepare(group).await?;
        let client = self.parked.client();
        let queries = group.iter().filter_map(|execution| {
            let statement = self.parked.statement(execution.query.id)?;
            let query = async move { client.query_one(statement, &execution.parameters()).await };
            Some((execution.caller(&self.statement_timeout), query))
        });
        let (begin, next) = (state.begin("read only"), state.next_transaction());
        let opening = client.batch_execute(&begin);
        let mut pipeline = self.parked.send_pipeline(opening, &next, queries).await;
        pipeline.opening().await?;
        let mut answers = Vec::with_capacity(group.len());
        for execution in group {
            answers.push(match refused.get(&execution.query.id) {
                Some(error) => Err(QueryError::Unpreparable(Arc::clone(error))),
                None => match pipeline.next().await {
                    Some(answer) => answer.map(QueryOutput::Row).map_err(QueryError::from),
                    None => Err(ParkedError::Doubtful.into()),
                },
            });
        }
        let is_sound = pipeline.finish().await;
        Ok(GroupResult { answers, is_sound })
    }

    /// Executes the group in one call. Creates the loop function if it does not exist.
    async fn execute_loop(
        &mut self,
        group: &[&Execution],
        state: &DatabaseState,
    ) -> Result<Vec<Result<QueryOutput, QueryError>>, QueryError> {
        let Some(first) = group.first() else {
            return Ok(Vec::new());
        };
        let id = first.query.id;
        let found = match self.loops.get(&id) {
            Some(call) => self.run(call, group, state).await,
            None => match self.create_function(first).await {
                Ok(call) => {
                    let found = self.run(&call, group, state).await;
                    self.loops.insert(id, call);
                    found
                }
                Err(error) => Err(error),
            },
        };
        match found {
            Ok(found) => Ok(found
                .into_iter()
                .map(|answer| answer.map(QueryOutput::Ordinals))
                .collect()),
            Err(QueryError::Unpreparable(error)) => Ok(same_error(group, || {
                QueryError::Unpreparable(Arc::clone(&error))
            })),
            Err(QueryError::WholeCall(error)) => {
                self.loops.remove(&id);
                Ok(same_error(group, || {
                    QueryError::WholeCall(Arc::clone(&error))
                }))
            }
            Err(error) => Err(error),
        }
    }

    /// Runs a call. If it reads another state than the current one, it runs in a transaction.
    async fn run(
        &self,
        call: &LoopFunction,
        group: &[&Execution],
        state: &DatabaseState,
    ) -> Result<Vec<Result<Vec<i64>, QueryError>>, QueryError> {
        let client = self.parked.client();
        if state.is_current() {
            return call.run(client, group).await;
        }
        client.batch_execute(&state.begin("read only")).await?;
        let found = call.run(client, group).await;
        client.batch_execute("rollback").await?;
        found
    }

    /// Creates the loop function for the query of `execution`.
    ///
    /// # Errors
    /// [`QueryError::Unpreparable`] or [`QueryError::WholeCall`] if the server refuses the query or
    /// the function. After any other error the state of the connection is unknown.
    async fn create_function(&mut self, execution: &Execution) -> Result<LoopFunction, QueryError> {
        let query = &execution.query;
        if let Some(error) = self.prepare(&[execution]).await?.remove(&query.id) {
            return Err(QueryError::Unpreparable(error));
        }
        self.parked.become_login().await?;
        if self.loops.len() >= MAX_LOOPS {
            self.loops.clear();
            self.parked.client().batch_execute("discard temp").await?;
        }
        let created = LoopFunction::create(self.parked.client(), query).await;
        self.parked.return_to_parked().await?;
        created.map_err(|error| match error.as_db_error() {
            Some(_) => {
                tracing::debug!(%error, "falling back to one query per identity");
                QueryError::WholeCall(Arc::new(error))
            }
            None => error.into(),
        })
    }

    /// Prepares all statements of the group. Returns the errors of those that cannot be prepared.
    async fn prepare(
        &mut self,
        group: &[&Execution],
    ) -> Result<HashMap<u64, Arc<tokio_postgres::Error>>, QueryError> {
        let wanted = group
            .iter()
            .map(|execution| (execution.query.id, &*execution.query.sql));
        let refused = self.parked.prepare(wanted).await?;
        let shared = |(id, error)| (id, Arc::new(error));
        Ok(refused.into_iter().map(shared).collect())
    }
}

impl GroupResult {
    fn sound(answers: Vec<Result<QueryOutput, QueryError>>) -> Self {
        Self {
            answers,
            is_sound: true,
        }
    }
}
