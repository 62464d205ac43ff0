//! The replication slot: its name, its state, and making and dropping it.
//!
//! The slot is permanent: it survives a dropped connection and a crash of either side. Statements
//! run on an ordinary connection.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;
use tokio_util::sync::CancellationToken;

use super::names::SlotName;
use super::session_error::SessionError;
use super::timeout::answered;
use crate::change::Lsn;
use crate::db::connect::Connector;
use crate::observability::readiness::{self, SlotReport};

/// Making a slot waits for every transaction that is open at that moment. Longer than this is worth
/// telling the operator about.
const SLOW_CREATION: Duration = Duration::from_secs(5);

/// After this long the making is begun again: the connection may be dead without a word, and a
/// transaction this long may be followed by the next.
const CREATION_LIMIT: Duration = Duration::from_secs(600);

/// The row of `pg_replication_slots`.
#[derive(Clone, Debug)]
pub(super) struct SlotState {
    /// A logical pgoutput slot of this database.
    pub is_ours: bool,
    /// The walsender that reads it.
    pub active_pid: Option<i32>,
    /// `wal_status = 'lost'`: it was invalidated and cannot be read any more.
    pub is_lost: bool,
    /// What was acknowledged.
    pub confirmed: Option<Lsn>,
    /// Bytes of log between what it keeps and the end.
    pub held_bytes: u64,
    /// Bytes of log between what was acknowledged and the end.
    pub lag_bytes: u64,
    /// Seconds from writing log to its acknowledgement (`pg_stat_replication.flush_lag`); `None` when
    /// nothing was written lately.
    pub lag_seconds: Option<f64>,
}

impl SlotState {
    /// What operators are told, where the walsender `own_pid` ought to read the slot.
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

/// Reads the slot's state; `None` when there is no slot of that name.
pub(super) async fn inspect(
    client: &Client,
    name: &SlotName,
) -> Result<Option<SlotState>, tokio_postgres::Error> {
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
        Ok(SlotState {
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

/// Makes the slot. It sees what commits after it was made, and it is made only when all
/// transactions open at that moment have ended, however long that takes.
///
/// The server does not notice a client that leaves while it waits and would leave a slot nobody
/// reads, so a stop cancels the statement and waits for the server's word.
pub(super) async fn create(
    client: &Client,
    connector: &Connector,
    name: &SlotName,
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    // A role's or database's statement_timeout would end the waiting each time anew.
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
                // It may be made by now: then the clean end drops it.
                return match answered("cancelling the making of a slot", statement).await {
                    Ok(_) => Ok(()),
                    Err(_) => Err(SessionError::Stopped),
                };
            }
            () = &mut limit => {
                cancel(client, connector).await;
                return Err(SessionError::Timeout(CREATION_LIMIT.as_secs(), "making the slot"));
            }
            () = tokio::time::sleep(SLOW_CREATION) => tracing::warn!(
                slot = %name,
                "making the replication slot waits for open transactions to end"
            ),
        }
    }
}

/// Cancels the statement that runs on `client`.
async fn cancel(client: &Client, connector: &Connector) {
    let token = client.cancel_token();
    if let Err(error) = answered("cancelling", token.cancel_query(connector.tls())).await {
        tracing::warn!(%error, "making the replication slot cannot be cancelled");
    }
}

/// Drops the slot; no error when it is gone already (42704).
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

/// Acknowledges up to `lsn` on a slot that nobody reads.
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

/// The backend that reads a slot, as far as this role may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Its process id.
    pub pid: i32,
    /// The name it gave itself.
    pub application_name: Option<String>,
    /// When its client last spoke, by that client's clock, as text: only compared for equality.
    pub last_reply: Option<String>,
}

/// Who reads a slot with the walsender `pid`.
pub(super) async fn holder(client: &Client, pid: i32) -> Result<Holder, tokio_postgres::Error> {
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
    Ok(Holder {
        pid,
        application_name,
        last_reply,
    })
}

/// Ends the backend `pid`.
pub(super) async fn terminate(client: &Client, pid: i32) -> Result<(), tokio_postgres::Error> {
    client
        .execute("select pg_catalog.pg_terminate_backend($1)", &[&pid])
        .await
        .map(|_| ())
}
