//! `messages.*`: the table `realtime.messages`, its partitions, and the policies of the chat's
//! private channels.

use tokio_postgres::Error;

use super::inspection::Inspection;
use super::report::Verdict;

/// What is known about `realtime.messages`.
struct Table {
    is_partitioned: bool,
    /// Whether Rapport created the table, and therefore maintains its partitions.
    is_own: bool,
    /// Whether the policies of the table apply to the login.
    is_limited: bool,
    /// Whether the login may insert rows.
    may_insert: bool,
    owner: String,
}

async fn read_table(inspection: &Inspection<'_>) -> Result<Option<Table>, Error> {
    const SQL: &str = "
        select c.relkind = 'p'
             , coalesce(pg_catalog.obj_description(c.oid, 'pg_class') like 'Made by Rapport%', false)
             , pg_catalog.row_security_active(c.oid)
             , pg_catalog.has_table_privilege(c.oid, 'INSERT')
             , pg_catalog.pg_get_userbyid(c.relowner)::text
          from pg_catalog.pg_class as c
         where c.oid = pg_catalog.to_regclass('realtime.messages')";
    let Some(row) = inspection.client.query_opt(SQL, &[]).await? else {
        return Ok(None);
    };
    Ok(Some(Table {
        is_partitioned: row.try_get(0)?,
        is_own: row.try_get(1)?,
        is_limited: row.try_get(2)?,
        may_insert: row.try_get(3)?,
        owner: row.try_get(4)?,
    }))
}

fn without_table() -> Verdict {
    Verdict::skip("the table realtime.messages does not exist")
}

/// Whether the table exists.
pub(super) async fn table(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    Ok(match read_table(inspection).await? {
        Some(table) => Verdict::ok("the table realtime.messages exists")
            .fact("owner", table.owner)
            .fact("partitioned", table.is_partitioned)
            .fact("created_by_rapport", table.is_own),
        None => Verdict::fail("the table realtime.messages does not exist").because(
            "Private channels and broadcasts from the database need it. Run `rapport migrate`.",
        ),
    })
}

/// Whether the login may insert into the table, and reads and writes it regardless of its policies.
pub(super) async fn rights(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    let Some(table) = read_table(inspection).await? else {
        return Ok(without_table());
    };
    let verdict = if table.is_limited || !table.may_insert {
        Verdict::warn(
            "the login is subject to the policies of realtime.messages, or may not insert",
        )
        .because(
            "Replay and the check of access to a private channel, which inserts a row, need this. \
                 Let the login own the table, or bypass row-level security.",
        )
    } else {
        Verdict::ok("the login bypasses the policies of realtime.messages")
    };
    Ok(verdict
        .fact("subject_to_policies", table.is_limited)
        .fact("may_insert", table.may_insert))
}

/// Whether the policies of the chat's private channels exist. On Supabase, the login can create
/// them only because the extension supautils permits it.
pub(super) async fn policies(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select exists (
          select
            from pg_catalog.pg_policy as p
            join pg_catalog.pg_depend as d
              on d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
             and d.refobjid = pg_catalog.to_regprocedure('chat.may_listen(text)')
           where p.polrelid = pg_catalog.to_regclass('realtime.messages'))";
    if read_table(inspection).await?.is_none()
        || !inspection.has_function("chat.may_listen(text)").await?
    {
        return Ok(Verdict::skip("the schema of the chat is not installed"));
    }
    let row = inspection.client.query_one(SQL, &[]).await?;
    Ok(if row.try_get(0)? {
        Verdict::ok("the policies of the chat's private channels exist")
    } else {
        Verdict::warn("the policies of the chat's private channels are missing").because(
            "Users cannot join conversation:<id> and user:<id>. \
             As the owner of realtime.messages, run sql/definitions/realtime/30_policies.sql.",
        )
    })
}

/// Whether today and tomorrow have a partition. Messages of a day without one are lost unless there
/// is a default partition. If Rapport did not create the table, it does not maintain its
/// partitions.
pub(super) async fn partitions(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select array(select to_char(day, 'YYYY-MM-DD')
                       from (select (now() at time zone 'utc') + n * interval '1 day' as day
                               from generate_series(0, 1) as n) as days
                      where not exists (select from pg_catalog.pg_inherits as i
                                          join pg_catalog.pg_class as c on c.oid = i.inhrelid
                                         where i.inhparent = 'realtime.messages'::regclass
                                           and c.relname = 'messages_' || to_char(day, 'YYYY_MM_DD'))
                      order by day)
             , exists (select from pg_catalog.pg_partitioned_table as t
                        where t.partrelid = 'realtime.messages'::regclass and t.partdefid <> 0)";
    let Some(table) = read_table(inspection).await? else {
        return Ok(without_table());
    };
    if !table.is_partitioned {
        return Ok(Verdict::ok("realtime.messages has no partitions"));
    }
    let row = inspection.client.query_one(SQL, &[]).await?;
    let (missing, has_default): (Vec<String>, bool) = (row.try_get(0)?, row.try_get(1)?);
    let what = format!(
        "realtime.messages has no partition for {}",
        missing.join(" and ")
    );
    let verdict = if missing.is_empty() {
        Verdict::ok("realtime.messages has partitions for today and tomorrow")
    } else if !table.is_own {
        Verdict::warn(format!("{what}, and belongs to {}", table.owner)).because(
            "Broadcasts from the database and replay do not work until Supabase's own Realtime server creates \
             the partition. Chat, row changes, private channels and broadcasts between clients do.",
        )
    } else {
        let verdict = if has_default {
            Verdict::warn(what)
        } else {
            Verdict::fail(what)
        };
        verdict
            .because("The server creates it when it starts.")
            .remedy("select chat.maintain_message_partitions();")
    };
    Ok(verdict
        .fact("missing", missing)
        .fact("has_default", has_default))
}
