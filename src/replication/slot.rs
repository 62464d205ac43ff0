//! Creates, inspects and drops the replication slot.
//!
//! The slot is permanent: it survives a broken connection and a crash of either side. Statements
//! run on an ordinary connection.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;
use tokio_util::sync::CancellationToken;

use super::connection_error::ConnectionError;
use super::names::SlotName;
use super::timeout::with_timeout;
use crate::change::Lsn;
use crate::db::connect::Connector;
use crate::observability::readiness::{self, SlotReport};

/// Interval of the warnings that the slot has not been created yet. The creation waits for all
/// transactions that are open when it begins.
const SLOW_CREATION: Duration = Duration::from_secs(5);

/// Time after which the creation is restarted, because the connection may be dead without an error.
/// If the server is only waiting for a long transaction, the next attempt waits for it as well.
const CREATION_LIMIT: Duration = Duration::from_secs(600);

/// The slot as `pg_replication_slots` and `pg_stat_replication` show it.
#[derive(Clone, Debug)]
pub(super) struct SlotInfo {
    /// Whether the slot is a logical pgoutput slot of this database.
    pub is_ours: bool,
    /// The walsender that reads the slot.
    pub active_pid: Option<i32>,
    /// Whether `wal_status` is `lost`: the slot was invalidated and can no longer be read.
    pub is_lost: bool,
    /// The acknowledged position.
    pub confirmed: Option<Lsn>,
    /// Bytes of WAL between the oldest position that the slot keeps and the end of the WAL.
    pub held_bytes: u64,
    /// Bytes of WAL between the acknowledged position and the end of the WAL.
    pub lag_bytes: u64,
    /// Seconds between the writing of WAL and its acknowledgement
    /// (`pg_stat_replication.flush_lag`). `None` if nothing was written recently.
    pub lag_seconds: Option<f64>,
}

impl SlotInfo {
    /// Returns the report for operators. `own_pid` is the walsender that should read the slot.
    pub(super) fn report(&self, own_pid: i32) -> SlotReport {
        let state = match self.active_pid {
            _ if self.is_lost => readiness::SlotState::Lost,
            None => readiness::SlotState::Inactive,
            Some(pid) if pid == own_pid => readiness::SlotState::Active,
            Some(_) => readiness::SlotState::Taken,
        };
        SlotReport {
            state,
            lag_bytes: self.lag_bytes,
            lag_seconds: self.lag_seconds,
            wal_held_bytes: self.held_bytes,
        }
    }
}

/// Reads the slot's state. Returns `None` if the slot does not exist.
pub(super) async fn inspect(
    client: &Client,
    name: &SlotName,
) -> Result<Option<SlotInfo>, tokio_postgres::Error> {
    const SQL: &str = "
        select slot_type = 'logical' and plugin = 'pgoutput' and database = current_database()
             , active_pid
             , wal_status is not distinct from 'lost'
             , confirmed_flush_lsn
             , coalesce(greatest(pg_wal_lsn_diff(tip.lsn, restart_lsn), 0), 0)::bigint
             , coalesce(greatest(pg_wal_lsn_diff(tip.lsn, confirmed_flush_lsn), 0), 0)::bigint
             , (select extract(epoch from flush_lag)::float8
                  from pg_catalog.pg_stat_replication
                 where pid = active_pid)
          from pg_catalog.pg_replication_slots
             , (select case when pg_is_in_recovery()
                            then pg_last_wal_replay_lsn()
                            else pg_current_wal_lsn() end) as tip (lsn)
         where slot_name = $1::text";
    let row = client.query_opt(SQL, &[&name.as_str()]).await?;
    row.map(|row| {
        Ok(SlotInfo {
            is_ours: row.try_get::<_, Option<bool>>(0)?.unwrap_or(false),
            active_pid: row.try_get(1)?,
            is_lost: row.try_get(2)?,
            confirmed: row
                .try_get::<_, Option<PgLsn>>(3)?
                .map(|lsn| Lsn(lsn.into())),
            held_bytes: row.try_get::<_, i64>(4)?.unsigned_abs(),
            lag_bytes: row.try_get::<_, i64>(5)?.unsigned_abs(),
            lag_seconds: row.try_get(6)?,
        })
    })
    .transpose()
}

/// Creates the slot, from which everything that is committed later can be read. The server first
/// waits until all open transactions have ended, no matter how long that takes.
///
/// While the server waits, it does not notice that the client has disconnected, and it would leave
/// a slot that no process reads. A stop therefore cancels the statement and waits for its result.
pub(super) async fn create(
    client: &Client,
    connector: &Connector,
    name: &SlotName,
    stop: &CancellationToken,
) -> Result<(), ConnectionError> {
    // A `statement_timeout` of the role or database would interrupt the wait at every attempt.
    client.batch_execute("set statement_timeout = 0").await?;
    let parameters = [&name.as_str() as &(dyn tokio_postgres::types::ToSql + Sync)];
    let statement = client.execute(
        "select pg_catalog.pg_create_logical_replication_slot($1::text, 'pgoutput')",
        &parameters,
    );
    tokio::pin!(statement);
    let limit = tokio::time::sleep(CREATION_LIMIT);
    tokio::pin!(limit);
    loop {
        tokio::select! {
            biased;
            made = &mut statement => {
                made?;
                return Ok(());
            }
            () = stop.cancelled() => {
                cancel(client, connector).await;
                // The slot may have been created nevertheless. In that case, the clean stop
                // releases it.
                return match with_timeout("cancelling the creation of the slot", statement).await {
                    Ok(_) => Ok(()),
                    Err(_) => Err(ConnectionError::Stopped),
                };
            }
            () = &mut limit => {
                cancel(client, connector).await;
                return Err(ConnectionError::Timeout(CREATION_LIMIT.as_secs(), "creating the slot"));
            }
            () = tokio::time::sleep(SLOW_CREATION) => tracing::warn!(
                slot = %name,
                "waiting for open transactions to end before the replication slot can be created"
            ),
        }
    }
}

/// Cancels the statement that is running on `client`.
async fn cancel(client: &Client, connector: &Connector) {
    let token = client.cancel_token();
    if let Err(error) = with_timeout("cancelling", token.cancel_query(connector.tls())).await {
        tracing::warn!(%error, "failed to cancel the creation of the replication slot");
    }
}

/// Drops the slot. A slot that does not exist (42704) is not an error.
pub(super) async fn drop(client: &Client, name: &SlotName) -> Result<(), tokio_postgres::Error> {
    let dropped = client
        .execute(
            "select pg_catalog.pg_drop_replication_slot($1::text)",
            &[&name.as_str()],
        )
        .await;
    match dropped {
        Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::UNDEFINED_OBJECT) => {
            Ok(())
        }
        other => other.map(|_| ()),
    }
}

/// Acknowledges everything up to `lsn` on a slot that is not in use.
pub(super) async fn advance(
    client: &Client,
    name: &SlotName,
    lsn: Lsn,
) -> Result<(), tokio_postgres::Error> {
    client
        .execute(
            "select pg_catalog.pg_replication_slot_advance($1::text, $2::pg_lsn)",
            &[&name.as_str(), &PgLsn::from(lsn.0)],
        )
        .await
        .map(|_| ())
}

/// The backend that uses a slot, as far as this role may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotHolder {
    /// The backend's process id.
    pub pid: i32,
    /// The backend's `application_name`.
    pub application_name: Option<String>,
    /// The time of the client's last message by the client's clock, as text that is only compared
    /// for equality.
    pub last_reply: Option<String>,
}

/// Returns the backend with this `pid`, which uses a slot.
pub(super) async fn holder(client: &Client, pid: i32) -> Result<SlotHolder, tokio_postgres::Error> {
    let row = client
        .query_opt(
            "select application_name, reply_time::text
               from pg_catalog.pg_stat_replication
              where pid = $1",
            &[&pid],
        )
        .await?;
    let (application_name, last_reply) = match row {
        Some(row) => (row.try_get(0)?, row.try_get(1)?),
        None => (None, None),
    };
    Ok(SlotHolder {
        pid,
        application_name,
        last_reply,
    })
}

/// Terminates the backend `pid`.
pub(super) async fn terminate(client: &Client, pid: i32) -> Result<(), tokio_postgres::Error> {
    client
        .execute("select pg_catalog.pg_terminate_backend($1)", &[&pid])
        .await
        .map(|_| ())
}
