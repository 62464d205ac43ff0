//! Maintains the daily partitions of `realtime.messages`: creates partitions for the coming days
//! and drops expired ones. This is done only if Rapport's schema created the table. For a table
//! that Supabase created, `chat.maintain_message_partitions` does nothing.

use std::time::Duration;

use thiserror::Error;

use crate::db::connect::{ConnectError, Connector};
use crate::shutdown::Tasks;

/// How often partitions are maintained. Supabase Realtime does this every four hours and keeps
/// three days ahead. Rapport keeps enough days ahead that even weeks of failed maintenance lose no
/// messages.
const INTERVAL: Duration = Duration::from_secs(4 * 60 * 60);

/// The pause after a failure. Either the database was unavailable, or an open transaction uses the
/// table.
const RETRY: Duration = Duration::from_secs(60);

/// Settings of the connection. They limit the wait for another process that maintains the
/// partitions. For locks on the table, the SQL function waits even less, because other statements
/// queue behind a waiting lock.
const CONNECTION_SETTINGS: &str = "set lock_timeout = '2s'; set statement_timeout = '5min'";

/// Maximum time for one run. Without a limit, a network that drops packets could stop the
/// maintenance.
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

/// Runs until the server stops. Keeps partitions for `days_ahead` days after today and `days_kept`
/// days before today.
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
                // Only the first failure is logged, because an unavailable database is already
                // reported repeatedly elsewhere.
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

/// Creates and drops partitions. Returns the number of created ones, which is zero if Supabase
/// created the table or the schema is not installed.
async fn maintain(
    connector: &Connector,
    days_ahead: i32,
    days_kept: i32,
    tasks: &Tasks,
) -> Result<i32, MaintenanceError> {
    let connecting = Box::pin(connector.connect("rapport partitions", tasks));
    let client = connecting.await?;
    client.batch_execute(CONNECTION_SETTINGS).await?;
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
