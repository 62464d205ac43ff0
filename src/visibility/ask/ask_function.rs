//! One question as a function that exists for one transaction only, and is thus never in the way of
//! anybody's `drop`.
//!
//! It is made as the login; each identity has a savepoint of its own.

use std::sync::Arc;

use super::connection::everyone;
use super::question::{Answer, Asking};
use super::state::State;
use crate::db::PARKED_ROLE;
use crate::db::parked::{ParkedConnection, ParkedError};
use crate::visibility::error::AskError;

/// Asks for all of a flight, which must have the question in common. A refusal to make the function
/// is everybody's answer.
///
/// # Errors
/// After which the connection's state is uncertain.
pub(super) async fn ask(
    connection: &ParkedConnection,
    flight: &[&Asking],
    state: &State,
    statement_timeout: &str,
) -> Result<Vec<Result<Answer, AskError>>, AskError> {
    let Some(first) = flight.first() else {
        return Ok(Vec::new());
    };
    let client = connection.client();
    let lists = vec!["text[]"; first.question.parameters].join(", ");
    let arguments: Vec<_> = (1..=first.question.parameters)
        .map(|n| format!("${n}"))
        .collect();
    let begin = state.begin("read write");
    client
        .batch_execute(&format!("{begin}; set local role none"))
        .await?;
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
        return Ok(everyone(flight, || {
            AskError::Unpreparable(Arc::clone(&error))
        }));
    }
    let call = client
        .prepare(&format!(
            "select pg_temp.rapport_ask({})",
            arguments.join(", ")
        ))
        .await?;
    let mut answers = Vec::with_capacity(flight.len());
    for asking in flight {
        client.batch_execute("savepoint identity").await?;
        let caller = asking.caller(statement_timeout);
        let answer = match connection.become_caller(&caller).await {
            Ok(()) => client
                .query_one(&call, &asking.parameters())
                .await
                .map_err(AskError::from),
            Err(ParkedError::Doubtful) => return Err(ParkedError::Doubtful.into()),
            Err(ParkedError::Database(error)) => Err(error.into()),
        };
        answers.push(answer.map(Answer::Row));
        client
            .batch_execute("rollback to savepoint identity; release savepoint identity")
            .await?;
    }
    client.batch_execute("rollback").await?;
    Ok(answers)
}
