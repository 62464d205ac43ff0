//! Maintains the daily partitions of `realtime.messages`, if this schema created the table: creates
//! days ahead and drops expired days. A table created by Supabase is left alone: the SQL function
//! that this calls does nothing there.

use std::time::Duration;

use thiserror::Error;

use crate::db::connect::{ConnectError, Connector};
use crate::shutdown::Tasks;

/// How often partitions are maintained. Supabase Realtime does it every four hours and keeps three
/// days ahead. With the days that Rapport keeps ahead, weeks of failures lose nothing.
const INTERVAL: Duration = Duration::from_secs(4 * 60 * 60);

/// The pause after a failure: the database was unavailable, or an open transaction uses the table.
const RETRY: Duration = Duration::from_secs(60);

/// Limits the wait for another process that maintains the partitions. The function itself waits
/// even less for locks on the table, because others queue behind it.
const SESSION: &str = "set lock_timeout = '2s'; set statement_timeout = '5min'";

/// Maximum time for one run, so that a network that drops packets does not stop the maintenance.
const TIMEOUT: Duration = Duration::from_secs(360);

#[derive(Debug, Error)]
enum MaintenanceError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("The partitions of realtime.messages cannot be maintained")]
    Query(#[from] tokio_postgres::Error),
    #[error("Maintaining the partitions of realtime.messages took too long")]
    Late,
    #[error("An open transaction uses realtime.messages, so its partitions cannot be changed")]
    Held,
}

/// Runs until the server stops. Creates `days_ahead` days after today and keeps `days_kept` days
/// before it.
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
            Ok(created) => {
                if created > 0 {
                    tracing::info!(created, "created partitions of realtime.messages");
                }
                is_failing = false;
                INTERVAL
            }
            Err(error) => {
                // Logged once: an unavailable database is reported elsewhere, repeatedly.
                if !is_failing {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "maintenance of the partitions of realtime.messages failed; retrying");
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

/// Returns the number of created partitions; zero if Supabase created the table, or the schema is
/// not installed.
async fn maintain(
    connector: &Connector,
    days_ahead: i32,
    days_kept: i32,
    tasks: &Tasks,
) -> Result<i32, MaintenanceError> {
    let connecting = Box::pin(connector.connect("rapport partitions", tasks));
    let client = connecting.await?;
    client.batch_execute(SESSION).await?;
    let is_installed: bool = client
        .query_one(
            "select to_regprocedure('chat.maintain_message_partitions(int, int)') is not null",
            &[],
        )
        .await?
        .try_get(0)?;
    if !is_installed {
        return Ok(0);
    }
    let row = client
        .query_one(
            "select chat.maintain_message_partitions($1, $2)",
            &[&days_ahead, &days_kept],
        )
        .await?;
    let created: Option<i32> = row.try_get(0)?;
    created.ok_or(MaintenanceError::Held)
}
