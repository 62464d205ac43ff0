//! Runs one query as an SQL function that exists only within one transaction, so it does not
//! prevent users from dropping the objects that it uses.
//!
//! The login role creates the function. Each identity calls it within its own savepoint.

use std::sync::Arc;

use super::query::{Execution, QueryOutput, same_error};
use super::state::DatabaseState;
use crate::db::PARKED_ROLE;
use crate::db::parked::{ParkedConnection, ParkedError};
use crate::visibility::error::QueryError;

/// Executes a group of executions that have the same query. If the function cannot be created, all
/// executions have that error as their result.
///
/// # Errors
/// After an error, the state of the connection is unknown.
pub(super) async fn execute(
    connection: &ParkedConnection,
    group: &[&Execution],
    state: &DatabaseState,
    statement_timeout: &str,
) -> Result<Vec<Result<QueryOutput, QueryError>>, QueryError> {
    let Some(first) = group.first() else {
        return Ok(Vec::new());
    };
    let client = connection.client();
    let lists = vec!["text[]"; first.query.parameters].join(", ");
    let arguments: Vec<_> = (1..=first.query.parameters)
        .map(|n| format!("${n}"))
        .collect();
    let begin = state.begin("read write");
    client
        .batch_execute(&format!("{begin}; set local role none"))
        .await?;
    let created = client
        .batch_execute(&format!(
            "create function pg_temp.rapport_ask({lists}) returns pg_catalog.int8[] \
               language sql begin atomic {}; end; \
             grant execute on function pg_temp.rapport_ask to public; \
             set local role {PARKED_ROLE}; set transaction read only",
            first.query.sql
        ))
        .await;
    if let Err(error) = created {
        client.batch_execute("rollback").await?;
        if error.as_db_error().is_none() {
            return Err(error.into());
        }
        let error = Arc::new(error);
        return Ok(same_error(group, || {
            QueryError::Unpreparable(Arc::clone(&error))
        }));
    }
    let call = client
        .prepare(&format!(
            "select pg_temp.rapport_ask({})",
            arguments.join(", ")
        ))
        .await?;
    let mut answers = Vec::with_capacity(group.len());
    for execution in group {
        client.batch_execute("savepoint identity").await?;
        let caller = execution.caller(statement_timeout);
        let answer = match connection.become_caller(&caller).await {
            Ok(()) => client
                .query_one(&call, &execution.parameters())
                .await
                .map_err(QueryError::from),
            Err(ParkedError::Doubtful) => return Err(ParkedError::Doubtful.into()),
            Err(ParkedError::Database(error)) => Err(error.into()),
        };
        answers.push(answer.map(QueryOutput::Row));
        client
            .batch_execute("rollback to savepoint identity; release savepoint identity")
            .await?;
    }
    client.batch_execute("rollback").await?;
    Ok(answers)
}
