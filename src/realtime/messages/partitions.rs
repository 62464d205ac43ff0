//! Keeps the daily partitions of `realtime.messages`, where the schema made that table: days ahead
//! are made, days past keeping are dropped. What Supabase made is left alone: the function that
//! this calls does nothing there.

use std::time::Duration;

use thiserror::Error;

use crate::db::connect::{ConnectError, Connector};
use crate::shutdown::Tasks;

/// How often it is looked after. The original does so every four hours and keeps three days ahead;
/// with the days we keep ahead, weeks of failures lose nothing.
const INTERVAL: Duration = Duration::from_secs(4 * 60 * 60);

/// The pause after a failure: the database was away, or somebody held the table.
const RETRY: Duration = Duration::from_secs(60);

/// How long the table's locks are waited for. Whoever writes to the table queues up behind us, so
/// it is better to come again.
const SESSION: &str = "set lock_timeout = '2s'; set statement_timeout = '5min'";

/// How long it may take in all, so that a network that swallows packets does not end the care.
const TIMEOUT: Duration = Duration::from_secs(360);

#[derive(Debug, Error)]
enum MaintenanceError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("The partitions of realtime.messages cannot be looked after")]
    Query(#[from] tokio_postgres::Error),
    #[error("Looking after the partitions of realtime.messages took too long")]
    Late,
}

/// Runs until the server stops. `days_ahead` are made beyond today, `days_kept` stay behind it.
pub async fn run(connector: Connector, days_ahead: i32, days_kept: i32, tasks: Tasks) {
    let stop = tasks.token().clone();
    let mut is_failing = false;
    loop {
        let work = maintain(&connector, days_ahead, days_kept, &tasks);
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = tokio::time::timeout(TIMEOUT, work) => {
                result.unwrap_or(Err(MaintenanceError::Late))
            }
        };
        let pause = match result {
            Ok(made) => {
                if made > 0 {
                    tracing::info!(made, "partitions of realtime.messages made");
                }
                is_failing = false;
                INTERVAL
            }
            Err(error) => {
                // Said once: a database that is away is reported elsewhere, again and again.
                if !is_failing {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "the partitions of realtime.messages wait");
                }
                is_failing = true;
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Answers how many partitions were made; none where the table is not ours or the schema is not
/// installed.
async fn maintain(
    connector: &Connector,
    days_ahead: i32,
    days_kept: i32,
    tasks: &Tasks,
) -> Result<i32, MaintenanceError> {
    let connecting = Box::pin(connector.connect("rapport partitions", tasks));
    let client = connecting.await?;
    client.batch_execute(SESSION).await?;
    let is_there: bool = client
        .query_one(
            "select to_regprocedure('chat.maintain_message_partitions(int, int)') is not null",
            &[],
        )
        .await?
        .try_get(0)?;
    if !is_there {
        return Ok(0);
    }
    let row = client
        .query_one(
            "select chat.maintain_message_partitions($1, $2)",
            &[&days_ahead, &days_kept],
        )
        .await?;
    Ok(row.try_get(0)?)
}
