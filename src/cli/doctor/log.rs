//! `log.*`: the WAL, from which the server reads changes, and the replication slots. Also
//! `run.two_realtimes`, which reads the same slots.

use tokio_postgres::Error;

use super::inspection::Inspection;
use super::report::Verdict;

/// Whether the WAL contains what logical decoding needs.
pub(super) async fn level(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    let row = inspection
        .client
        .query_one("select current_setting('wal_level')", &[])
        .await?;
    let level: String = row.try_get(0)?;
    let verdict = if level == "logical" {
        Verdict::ok("wal_level is logical")
    } else {
        Verdict::fail(format!("wal_level is {level}"))
            .because("The server reads changes by logical decoding. Restart PostgreSQL after the change.")
            .remedy("alter system set wal_level = logical;")
    };
    Ok(verdict.fact("wal_level", level))
}

/// Whether a replication slot is free, or the server already has one.
pub(super) async fn slots(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select current_setting('max_replication_slots')::bigint
             , (select count(*) from pg_catalog.pg_replication_slots)
             , (select count(*) from pg_catalog.pg_replication_slots
                 where database = current_database() and starts_with(slot_name, $1))";
    let prefix = &inspection.config.replication.slot_name;
    let row = inspection.client.query_one(SQL, &[prefix]).await?;
    let (maximum, used): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let ours: i64 = row.try_get(2)?;
    let what = format!("{used} of {maximum} replication slots are in use");
    let verdict = if ours > 0 || used < maximum {
        Verdict::ok(what)
    } else {
        Verdict::fail(what)
            .because("The server needs one. Raise max_replication_slots, or drop an unused slot.")
    };
    Ok(verdict
        .fact("maximum", maximum)
        .fact("in_use", used)
        .fact("own", ours))
}

/// Whether a replication connection is free, or the server already has one.
pub(super) async fn senders(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select current_setting('max_wal_senders')::bigint
             , (select count(*) from pg_catalog.pg_stat_replication)
             , exists (select from pg_catalog.pg_replication_slots
                        where database = current_database() and starts_with(slot_name, $1) and active)";
    let prefix = &inspection.config.replication.slot_name;
    let row = inspection.client.query_one(SQL, &[prefix]).await?;
    let (maximum, used): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let what = format!("{used} of {maximum} replication connections are in use");
    let verdict = if used < maximum || row.try_get(2)? {
        Verdict::ok(what)
    } else {
        Verdict::fail(what).because("The server needs one. Raise max_wal_senders.")
    };
    Ok(verdict.fact("maximum", maximum).fact("in_use", used))
}

/// Whether the server's slot still has the WAL that it needs, and how much WAL it makes the
/// database keep.
pub(super) async fn held(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select slot_name::text
             , active
             , coalesce(wal_status, '') = 'lost'
             , case when pg_catalog.pg_is_in_recovery() or restart_lsn is null then 0
                    else pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::bigint end
          from pg_catalog.pg_replication_slots
         where database = current_database() and starts_with(slot_name, $1)
         order by 4 desc
         limit 1";
    let prefix = &inspection.config.replication.slot_name;
    let Some(row) = inspection.client.query_opt(SQL, &[prefix]).await? else {
        return Ok(Verdict::ok("the server has no replication slot yet"));
    };
    let (name, is_active): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
    let (is_lost, held): (bool, i64) = (row.try_get(2)?, row.try_get(3)?);
    let limit = inspection.config.replication.max_wal_held_bytes;
    let verdict = if is_lost && !is_active {
        Verdict::warn(format!("replication slot {name} has lost the WAL that it needs"))
            .because("The next start of the server creates it again. Clients miss the changes made until then.")
    } else if !is_active && u64::try_from(held).is_ok_and(|held| held > limit) {
        Verdict::warn(format!("replication slot {name} is not read and makes the database keep {held} bytes of WAL"))
            .because("The WAL could fill the disk. Start the server, or drop the slot if no server uses it any more.")
            .remedy(format!("select pg_drop_replication_slot('{name}');"))
    } else if is_active {
        Verdict::ok("a server reads the replication slot")
    } else {
        Verdict::ok("no server reads the replication slot, which keeps little WAL")
    };
    Ok(verdict
        .fact("slot", name)
        .fact("active", is_active)
        .fact("lost", is_lost)
        .fact("held_bytes", held)
        .fact("limit_bytes", limit))
}

/// Whether the login may replicate.
pub(super) async fn right(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select rolreplication or rolsuper, pg_catalog.quote_ident(rolname)
          from pg_catalog.pg_roles where rolname = current_user";
    let row = inspection.client.query_one(SQL, &[]).await?;
    let (may_replicate, login): (bool, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(if may_replicate {
        Verdict::ok("the login has the REPLICATION attribute")
    } else {
        Verdict::fail("the login lacks the REPLICATION attribute")
            .because(
                "Without it, the server cannot read changes. A superuser must run the statement.",
            )
            .remedy(format!("alter role {login} replication;"))
    })
}

/// Whether Supabase's own Realtime server reads the same database.
pub(super) async fn two_realtimes(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select slot_name::text
          from pg_catalog.pg_replication_slots
         where database = current_database() and starts_with(slot_name, 'supabase_realtime') and active
         order by 1";
    let rows = inspection.client.query(SQL, &[]).await?;
    let slots: Vec<String> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let verdict = if slots.is_empty() {
        Verdict::ok("Supabase's own Realtime server does not read this database")
    } else {
        Verdict::ok("Supabase's own Realtime server also reads this database")
            .because("Both can run. Broadcasts and presence reach only clients of the same server.")
    };
    Ok(verdict.fact("slots", slots))
}
