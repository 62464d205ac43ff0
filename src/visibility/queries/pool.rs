//! A pool that runs queries over a bounded number of connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;

use super::connection::{GroupKind, QueryConnection};
use super::query::{Execution, ExecutionMode, QueryOutput, same_error};
use super::state::DatabaseState;
use crate::db::connect::Connector;
use crate::observability::excerpt::Excerpt;
use crate::shutdown::Tasks;
use crate::visibility::error::QueryError;

/// Maximum executions in one group. With larger groups, one connection would be busy while others
/// are idle, and an error would discard more results. With smaller groups, PostgreSQL would often
/// wait for the next one.
const MAX_GROUP: usize = 32;

/// Maximum identities in one call. The overhead of a call equals the cost of a few identities, so
/// larger calls would save little, and an error that ends the call affects all its identities.
const MAX_LOOP_GROUP: usize = 128;

/// Minimum identities for a call. With fewer, the call costs more than it saves.
const MIN_LOOP_GROUP: usize = 4;

/// Minimum identities per call before another connection is used.
const MIN_LOOP_SHARE: usize = 24;

/// Time that a group may take beyond the server's limits for its statements before it fails. This
/// only matters if the network loses packets.
const NETWORK_ALLOWANCE: Duration = Duration::from_secs(2);

/// A pool of connections on which queries run.
pub(in crate::visibility) struct QueryPool {
    connector: Connector,
    tasks: Tasks,
    size: usize,
    statement_timeout: Duration,
    /// The idle connections. A std lock, because it is held only to push or pop one.
    idle: Mutex<Vec<QueryConnection>>,
    /// One permit per allowed connection.
    permits: Semaphore,
}

impl QueryPool {
    pub(in crate::visibility) fn new(
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

    /// Runs all executions in one database state, distributed over the connections. Returns one
    /// result for each execution, in the same order.
    pub(in crate::visibility) async fn execute(
        &self,
        executions: &[Execution],
        state: &DatabaseState,
    ) -> Vec<Result<QueryOutput, QueryError>> {
        let mut groups = Vec::new();
        for (kind, places) in self.groups(executions) {
            let group: Vec<&Execution> = places.iter().map(|place| &executions[*place]).collect();
            groups.push(self.send_group(kind, group, state, places));
        }
        let mut answers: Vec<Result<QueryOutput, QueryError>> = executions
            .iter()
            .map(|_| Err(QueryError::Unavailable(None)))
            .collect();
        let mut finished = stream::iter(groups).buffer_unordered(self.size);
        while let Some((places, found)) = finished.next().await {
            for (place, answer) in places.into_iter().zip(found) {
                answers[place] = answer;
            }
        }
        answers
    }

    /// Groups the executions. Returns the indexes of each group's executions, and how the group is
    /// sent.
    fn groups(&self, executions: &[Execution]) -> Vec<(GroupKind, Vec<usize>)> {
        let mut statements = Vec::new();
        let mut functions: HashMap<u64, Vec<usize>> = HashMap::new();
        let mut loops: HashMap<(u64, usize), Vec<usize>> = HashMap::new();
        for (place, execution) in executions.iter().enumerate() {
            let id = execution.query.id;
            match execution.mode {
                ExecutionMode::Loop => {
                    let inputs = Arc::as_ptr(&execution.parameters).addr();
                    loops.entry((id, inputs)).or_default().push(place);
                }
                ExecutionMode::Function => functions.entry(id).or_default().push(place),
                ExecutionMode::Prepared | ExecutionMode::Impossible => statements.push(place),
            }
        }
        let mut groups = Vec::new();
        let mut add = |kind, places: &[usize], smallest: usize, largest: usize| {
            let size = places.len().div_ceil(self.size).clamp(smallest, largest);
            let chunks = places.chunks(size);
            groups.extend(chunks.map(|places| (kind, places.to_vec())));
        };
        for places in loops.into_values() {
            if places.len() < MIN_LOOP_GROUP {
                statements.extend(places);
            } else {
                add(GroupKind::Loop, &places, MIN_LOOP_SHARE, MAX_LOOP_GROUP);
            }
        }
        for places in functions.values() {
            add(GroupKind::Function, places, 1, MAX_GROUP);
        }
        add(GroupKind::Statements, &statements, 1, MAX_GROUP);
        groups
    }

    /// Executes one group. Returns the results together with the indexes of the executions.
    async fn send_group<P>(
        &self,
        kind: GroupKind,
        group: Vec<&Execution>,
        state: &DatabaseState,
        places: P,
    ) -> (P, Vec<Result<QueryOutput, QueryError>>) {
        (places, self.execute_group(kind, &group, state).await)
    }

    /// Executes one group. A connection whose state is unknown is closed.
    async fn execute_group(
        &self,
        kind: GroupKind,
        group: &[&Execution],
        state: &DatabaseState,
    ) -> Vec<Result<QueryOutput, QueryError>> {
        let unavailable = || same_error(group, || QueryError::Unavailable(None));
        // The semaphore is closed only when the pool is dropped.
        let Ok(_permit) = self.permits.acquire().await else {
            return unavailable();
        };
        let statements = u32::try_from(group.len()).unwrap_or(u32::MAX);
        let limit = self.statement_timeout * statements + NETWORK_ALLOWANCE;
        let attempt = async {
            let mut connection = match self.take_idle() {
                Some(connection) => connection,
                None => match self.connect().await {
                    Ok(connection) => connection,
                    Err(error) => {
                        tracing::debug!(error = %error, "failed to connect for row visibility");
                        return unavailable();
                    }
                },
            };
            let result = match connection.execute(kind, group, state).await {
                Ok(result) => result,
                // The state of the connection is unknown, so it is closed.
                Err(error) => {
                    tracing::debug!(error = %Excerpt(&error), "row visibility queries failed; closing the connection");
                    return unavailable();
                }
            };
            if result.is_sound && !connection.is_closed() {
                self.idle
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(connection);
            }
            result.answers
        };
        tokio::time::timeout(limit, attempt)
            .await
            .unwrap_or_else(|_| unavailable())
    }

    fn take_idle(&self) -> Option<QueryConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The most recently used connection has the most prepared statements.
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<QueryConnection, QueryError> {
        let client = self
            .connector
            .connect("rapport visibility", &self.tasks)
            .await?;
        QueryConnection::park(client, self.statement_timeout).await
    }
}
