//! `rapport doctor`: checks that the configured database has what the server needs, and prints a
//! remedy for each problem. It changes nothing.

use std::fmt;

use tokio_postgres::Client;

use super::{CliError, print, runtime, with_source};
use crate::config::{DoctorConfig, Inputs};
use crate::db::PARKED_ROLE;
use crate::db::connect::Connector;
use crate::schema;
use crate::shutdown::Tasks;

/// The oldest PostgreSQL version that the schema supports.
const OLDEST_VERSION: i32 = 15;

/// The roles that the server switches to. Idle connections use the first, requests the others.
const ASSUMED_ROLES: &[&str] = &[PARKED_ROLE, "anon", "authenticated", "service_role"];

/// The publication through which broadcasts from the database are read (`replication`).
const MESSAGES_PUBLICATION: &str = "supabase_realtime_messages_publication";

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// No problem.
    Ok,
    /// Something does not work, or will soon stop working.
    Warn,
    /// The server cannot run in this state.
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    text: String,
    /// How to fix the problem.
    remedy: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        write!(f, "{level:<4}  {}", self.text)?;
        match &self.remedy {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

/// The findings so far.
#[derive(Debug, Default)]
struct Report(Vec<Finding>);

impl Report {
    fn ok(&mut self, text: impl Into<String>) {
        self.add(Level::Ok, text.into(), None);
    }

    fn warn(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Warn, text.into(), Some(remedy.into()));
    }

    fn fail(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Fail, text.into(), Some(remedy.into()));
    }

    fn add(&mut self, level: Level, text: String, remedy: Option<String>) {
        self.0.push(Finding {
            level,
            text,
            remedy,
        });
    }

    fn failures(&self) -> usize {
        self.0
            .iter()
            .filter(|finding| finding.level == Level::Fail)
            .count()
    }
}

/// Runs all checks and prints one line per finding.
pub(super) fn run(inputs: &Inputs<'_>) -> Result<(), CliError> {
    let config = DoctorConfig::load(inputs)?;
    let report = runtime()?.block_on(examine(&config))?;
    let lines: String = report
        .0
        .iter()
        .map(|finding| format!("{finding}\n"))
        .collect();
    print(&lines)?;
    match report.failures() {
        0 => Ok(()),
        failures => Err(CliError::ChecksFailed(failures)),
    }
}

async fn examine(config: &DoctorConfig) -> Result<Report, CliError> {
    let tasks = Tasks::new();
    let mut report = Report::default();
    let owner = Connector::new(config.database.url.expose())?;
    let mut client = match owner.connect("rapport doctor", &tasks).await {
        Ok(client) => client,
        Err(error) => {
            report.fail(
                format!("database: {}", with_source(&error)),
                "check database.url, and that PostgreSQL is running and accepts this login",
            );
            return Ok(report);
        }
    };
    let seen = run_checks(&mut client, config, &mut report).await;
    report_query_error(seen, &mut report);
    let requests = Connector::new(config.database.request_url.expose())?;
    match requests.connect("rapport doctor", &tasks).await {
        Ok(mut client) => {
            report.ok("login for user requests: connects");
            let seen = check_roles(&mut client, "database.request_url", &mut report).await;
            report_query_error(seen, &mut report);
        }
        Err(error) => report.fail(
            format!("login for user requests: {}", with_source(&error)),
            "check database.request_url",
        ),
    }
    Ok(report)
}

fn report_query_error(seen: Result<(), tokio_postgres::Error>, report: &mut Report) {
    let Err(error) = seen else {
        return;
    };
    let cause = error
        .as_db_error()
        .map_or_else(|| error.to_string(), |cause| cause.message().to_owned());
    report.fail(
        format!("database: a query failed ({cause})"),
        "run this again; the remaining checks were skipped",
    );
}

async fn run_checks(
    client: &mut Client,
    config: &DoctorConfig,
    report: &mut Report,
) -> Result<(), tokio_postgres::Error> {
    check_server(client, report).await?;
    check_replication(client, &config.replication.slot_name, report).await?;
    check_publications(client, &config.replication.publication, report).await?;
    check_roles(client, "database.url", report).await?;
    check_users(client, report).await?;
    check_host_columns(client, report).await?;
    check_temporary_objects(client, report).await?;
    check_creating_in_public(client, report).await?;
    check_policy_functions(client, &config.replication.publication, report).await?;
    check_messages(client, report).await?;
    match schema::plan(client).await {
        Ok(pending) if pending.is_empty() => report.ok("schema: up to date"),
        Ok(pending) => report.fail(
            format!("schema: {} files have not been applied", pending.len()),
            "run `rapport migrate`",
        ),
        Err(error) => report.fail(
            format!("schema: {error}"),
            "run `rapport migrate --dry-run` for details",
        ),
    }
    Ok(())
}

async fn check_server(client: &Client, report: &mut Report) -> Result<(), tokio_postgres::Error> {
    let row = client
        .query_one(
            "select current_setting('server_version_num')::int / 10000
                  , current_setting('server_version')
                  , current_database()::text
                  , current_user::text",
            &[],
        )
        .await?;
    let (major, version): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    let (database, login): (String, String) = (row.try_get(2)?, row.try_get(3)?);
    let text = format!("database: PostgreSQL {version}, {database} as {login}");
    if major >= OLDEST_VERSION {
        report.ok(text);
    } else {
        report.fail(
            text,
            format!("PostgreSQL {OLDEST_VERSION} or newer is required"),
        );
    }
    Ok(())
}

async fn check_replication(
    client: &Client,
    slot_name: &str,
    report: &mut Report,
) -> Result<(), tokio_postgres::Error> {
    let row = client
        .query_one(
            "select current_setting('wal_level')
                  , current_setting('max_replication_slots')::bigint
                  , (select count(*) from pg_catalog.pg_replication_slots)
                  , (select count(*) from pg_catalog.pg_replication_slots
                      where database = current_database() and starts_with(slot_name, $1))
                  , current_setting('max_wal_senders')::bigint
                  , (select count(*) from pg_catalog.pg_stat_replication)
                  , (select rolreplication or rolsuper from pg_catalog.pg_roles where rolname = current_user)",
            &[&slot_name],
        )
        .await?;
    let wal_level: String = row.try_get(0)?;
    if wal_level == "logical" {
        report.ok("WAL: wal_level is logical");
    } else {
        report.fail(
            format!("WAL: wal_level is {wal_level}"),
            "`alter system set wal_level = logical` and restart PostgreSQL",
        );
    }
    let number = |at| row.try_get::<_, i64>(at);
    let (slots, used, ours) = (number(1)?, number(2)?, number(3)?);
    let text = format!("replication slots: {used} of {slots} in use");
    if ours > 0 || used < slots {
        report.ok(text);
    } else {
        report.fail(text, "raise max_replication_slots, or drop an unused slot");
    }
    let (senders, used) = (number(4)?, number(5)?);
    let text = format!("replication connections: {used} of {senders} in use");
    if used < senders || ours > 0 {
        report.ok(text);
    } else {
        report.fail(text, "raise max_wal_senders");
    }
    if row.try_get(6)? {
        report.ok("login: has the REPLICATION attribute");
    } else {
        report.fail(
            "login: lacks the REPLICATION attribute",
            "run `alter role … replication` as a superuser",
        );
    }
    Ok(())
}

async fn check_publications(
    client: &Client,
    changes: &str,
    report: &mut Report,
) -> Result<(), tokio_postgres::Error> {
    // `pg_get_publication_tables` omits a partitioned table without partitions, although it is a
    // member.
    const TABLES: &str = "
        select count(member.oid)
             , pg_catalog.concat_ws(', ', case when not p.pubinsert then 'insert' end
                 , case when not p.pubupdate then 'update' end, case when not p.pubdelete then 'delete' end)
          from pg_catalog.pg_publication as p
          left join lateral (
            select t.relid as oid from pg_catalog.pg_get_publication_tables(p.pubname) as t
            union
            select r.prrelid from pg_catalog.pg_publication_rel as r where r.prpubid = p.oid
          ) as member on true
         where p.pubname = $1
         group by p.oid";
    const HAS_MESSAGES: &str = "
        select exists (
          select
            from pg_catalog.pg_publication as p
            join pg_catalog.pg_class as c on c.oid = pg_catalog.to_regclass('realtime.messages')
           where p.pubname = $1
             and (p.puballtables
               or exists (select from pg_catalog.pg_publication_rel as r where r.prpubid = p.oid and r.prrelid = c.oid)
               or exists (select from pg_catalog.pg_publication_namespace as s
                           where s.pnpubid = p.oid and s.pnnspid = c.relnamespace)))";
    match client.query_opt(TABLES, &[&changes]).await? {
        None => report.fail(
            format!("publication {changes}: missing"),
            format!("run `create publication {changes}`, or `rapport migrate` with a login that may create it"),
        ),
        Some(row) => {
            match row.try_get::<_, i64>(0)? {
                0 => report.warn(
                    format!("publication {changes}: contains no tables"),
                    format!(
                        "clients can subscribe only to its tables; run `alter publication {changes} add table …`"
                    ),
                ),
                tables => report.ok(format!("publication {changes}: {tables} tables")),
            }
            let unpublished: String = row.try_get(1)?;
            if !unpublished.is_empty() {
                report.warn(
                    format!("publication {changes}: does not publish {unpublished}"),
                    format!(
                        "subscribers do not receive such changes; run \
                         `alter publication {changes} set (publish = 'insert, update, delete')`"
                    ),
                );
            }
        }
    }
    let is_good: bool = client
        .query_one(HAS_MESSAGES, &[&MESSAGES_PUBLICATION])
        .await?
        .try_get(0)?;
    if is_good {
        report.ok(format!(
            "publication {MESSAGES_PUBLICATION}: realtime.messages"
        ));
    } else {
        report.warn(
            format!(
                "publication {MESSAGES_PUBLICATION}: missing, or does not contain realtime.messages"
            ),
            format!(
                "without it broadcasts from the database are not sent; run `create publication \
                 {MESSAGES_PUBLICATION} for table realtime.messages` as the table's owner"
            ),
        );
    }
    Ok(())
}

/// Checks that the login of this setting can switch to each role that the server uses.
async fn check_roles(
    client: &mut Client,
    setting: &str,
    report: &mut Report,
) -> Result<(), tokio_postgres::Error> {
    const SQL: &str = "
        select wanted.name, r.oid is not null, coalesce(r.rolbypassrls or r.rolsuper, false), current_user::text
             , current_setting('server_version_num')::int >= 160000
          from unnest($1::text[]) as wanted (name)
          left join pg_catalog.pg_roles as r on r.rolname = wanted.name
         order by pg_catalog.array_position($1::text[], wanted.name)";
    for row in client.query(SQL, &[&ASSUMED_ROLES]).await? {
        let (name, exists, bypasses): (&str, bool, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (login, has_set_option): (&str, bool) = (row.try_get(3)?, row.try_get(4)?);
        if !exists {
            report.fail(format!("role {name}: missing"), "run `rapport migrate`");
            continue;
        }
        match try_role(client, name).await? {
            Ok(()) if name == "service_role" && !bypasses => report.warn(
                "role service_role: does not bypass row-level security",
                "run `alter role service_role bypassrls` as a superuser",
            ),
            Ok(()) => report.ok(format!(
                "role {name}: the login of {setting} can switch to it"
            )),
            Err(refusal) => report.fail(
                format!("role {name}: the login of {setting} cannot switch to it ({refusal})"),
                format!(
                    "run `grant {name} to \"{login}\"{}`",
                    // Since PostgreSQL 16 a membership may lack the SET option, as the membership
                    // of a role's creator does.
                    if has_set_option {
                        " with set true, inherit false"
                    } else {
                        ""
                    }
                ),
            ),
        }
    }
    Ok(())
}

/// Switches to the role in a transaction that is rolled back. The catalogue is not sufficient: a
/// membership may lack the SET option, and extensions may refuse their own roles.
async fn try_role(
    client: &mut Client,
    name: &str,
) -> Result<Result<(), String>, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    // The names in `ASSUMED_ROLES` need no quoting.
    let tried = transaction
        .batch_execute(&format!("set local role {name}"))
        .await;
    let answer = match tried {
        Ok(()) => Ok(()),
        Err(error) => match error.as_db_error() {
            Some(refusal) => Err(refusal.message().to_owned()),
            None => return Err(error),
        },
    };
    transaction.rollback().await?;
    Ok(answer)
}

/// Checks that users exist and at least one has a team. Without teams, no user may write to
/// another.
async fn check_users(client: &Client, report: &mut Report) -> Result<(), tokio_postgres::Error> {
    const INSTALLED: &str = "
        select coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass('chat.directory'), 'SELECT')
                    and pg_catalog.has_table_privilege(pg_catalog.to_regclass('chat.memberships'), 'SELECT'), false)";
    const SQL: &str = "
        select exists (select from chat.directory), exists (select from chat.memberships)
             , (select value ->> 'preset' from chat.config where key = 'host_mapping')";
    // Without the schema, there is nothing to check. Its absence has its own finding.
    if !client.query_one(INSTALLED, &[]).await?.try_get(0)? {
        return Ok(());
    }
    let row = client.query_one(SQL, &[]).await?;
    let preset: Option<&str> = row.try_get(2)?;
    let preset = preset.unwrap_or("none");
    match (row.try_get(0)?, row.try_get(1)?) {
        (true, true) => report.ok(format!("users: found by host mapping {preset}")),
        (false, _) => report.warn(
            format!("users: none found by host mapping {preset}"),
            "users appear once they have an account; if accounts exist, choose another chat.host_preset",
        ),
        (true, false) => report.warn(
            format!("users: none has a team under host mapping {preset}, so no user may write to another"),
            "assign users to teams, or choose another chat.host_preset and run `rapport migrate`",
        ),
    }
    Ok(())
}

/// Checks that users cannot change their own role or team, because such a user could message
/// everyone. The dependencies of the views over the application's tables show which columns matter.
async fn check_host_columns(
    client: &Client,
    report: &mut Report,
) -> Result<(), tokio_postgres::Error> {
    const SQL: &str = "
        select distinct c.oid::pg_catalog.regclass::text, a.attname::text
          from pg_catalog.pg_rewrite as w
          join pg_catalog.pg_depend as d
            on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid and d.refobjsubid > 0
          join pg_catalog.pg_class as c on c.oid = d.refobjid and c.relkind in ('r', 'p')
          join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum = d.refobjsubid
         where w.ev_class in (pg_catalog.to_regclass('chat.directory'), pg_catalog.to_regclass('chat.memberships'))
           and a.attname ~ '(role|team|account|org)'
           and pg_catalog.to_regrole('authenticated') is not null
           and pg_catalog.has_column_privilege('authenticated', c.oid, a.attnum, 'UPDATE')
           and (not c.relrowsecurity
                or exists (select from pg_catalog.pg_policy as p
                            where p.polrelid = c.oid and p.polpermissive and p.polcmd in ('w', '*')
                              and (p.polroles = '{0}' or pg_catalog.to_regrole('authenticated') = any (p.polroles))))
         order by 1, 2";
    let rows = client.query(SQL, &[]).await?;
    if rows.is_empty() {
        report.ok("users: may not write the columns that determine roles and teams");
    }
    for row in rows {
        let (table, column): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        report.warn(
            format!("users: authenticated may write {table}.{column}, which determines roles or teams"),
            format!(
                "run `revoke update on {table} from authenticated` and grant it only on the columns that users \
                 may write, unless a policy or trigger keeps users from changing this one"
            ),
        );
    }
    Ok(())
}

/// Checks that users cannot create temporary types. An expression that runs with the caller's
/// `search_path`, such as a policy of the application that calls `auth.uid()`, uses them instead of
/// the real types. On a pooled connection, they remain for the next user.
async fn check_temporary_objects(
    client: &Client,
    report: &mut Report,
) -> Result<(), tokio_postgres::Error> {
    const SQL: &str = "
        select r.name, pg_catalog.quote_ident(current_database())
          from unnest(array['anon', 'authenticated']) with ordinality as r (name, place)
         where pg_catalog.to_regrole(r.name) is not null
           and pg_catalog.has_database_privilege(r.name, current_database(), 'TEMPORARY')
         order by r.place";
    let rows = client.query(SQL, &[]).await?;
    let Some(row) = rows.first() else {
        report.ok("users: may not create temporary objects");
        return Ok(());
    };
    let roles: Vec<String> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let database: String = row.try_get(1)?;
    report.warn(
        format!(
            "users: {} may create temporary objects, which matters if users can run SQL",
            roles.join(" and ")
        ),
        format!(
            "run `revoke temporary on database {database} from public`, and grant it to the login of \
             database.url if that does not own the database (docs/security.md)"
        ),
    );
    Ok(())
}

/// Checks whether users may create objects in the schema `public`. A user could create a table that
/// the next migration takes for the application's table of users or teams.
async fn check_creating_in_public(
    client: &Client,
    report: &mut Report,
) -> Result<(), tokio_postgres::Error> {
    const SQL: &str = "
        select coalesce(bool_or(pg_catalog.has_schema_privilege(r.name, n.oid, 'CREATE')), false)
          from unnest(array['anon', 'authenticated']) as r (name)
          join pg_catalog.pg_namespace as n on n.nspname = 'public'
         where pg_catalog.to_regrole(r.name) is not null";
    if client.query_one(SQL, &[]).await?.try_get(0)? {
        report.warn(
            "users: may create objects in the schema public",
            "run `revoke create on schema public from public` and from each role of users that has \
             it (docs/security.md)",
        );
    } else {
        report.ok("users: may not create objects in the schema public");
    }
    Ok(())
}

/// Checks the schemas of functions that policies call. The login evaluates policies in its own
/// statements, so it needs USAGE on these schemas.
async fn check_policy_functions(
    client: &Client,
    changes: &str,
    report: &mut Report,
) -> Result<(), tokio_postgres::Error> {
    const SQL: &str = "
        select distinct n.nspname::text
          from pg_catalog.pg_policy as p
          join pg_catalog.pg_depend as d
            on d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
           and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
          join pg_catalog.pg_proc as f on f.oid = d.refobjid
          join pg_catalog.pg_namespace as n on n.oid = f.pronamespace
         where (p.polrelid = pg_catalog.to_regclass('realtime.messages')
                or p.polrelid in (select t.relid
                                    from pg_catalog.pg_publication as pub
                                   cross join lateral pg_catalog.pg_get_publication_tables(pub.pubname) as t
                                   where pub.pubname = $1))
           and not pg_catalog.has_schema_privilege(current_user, n.oid, 'USAGE')
         order by 1";
    let rows = client.query(SQL, &[&changes]).await?;
    if rows.is_empty() {
        report.ok("policies: the login may use all functions that they call");
    }
    for row in rows {
        let schema: String = row.try_get(0)?;
        report.fail(
            format!("policies: call functions of schema {schema}, on which the login lacks USAGE"),
            format!("run `grant usage on schema {schema} to` the login of database.url"),
        );
    }
    Ok(())
}

async fn check_messages(client: &Client, report: &mut Report) -> Result<(), tokio_postgres::Error> {
    const TABLE: &str = "
        select c.relkind = 'p'
             , coalesce(pg_catalog.obj_description(c.oid, 'pg_class') like 'Made by Rapport%', false)
             , pg_catalog.row_security_active(c.oid)
             , pg_catalog.has_table_privilege(c.oid, 'INSERT')
             , pg_catalog.pg_get_userbyid(c.relowner)::text
          from pg_catalog.pg_class as c
         where c.oid = pg_catalog.to_regclass('realtime.messages')";
    let Some(row) = client.query_opt(TABLE, &[]).await? else {
        report.fail(
            "realtime.messages: missing",
            "run `rapport migrate`; private channels and broadcasts from the database need it",
        );
        return Ok(());
    };
    let (is_partitioned, is_ours): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    let (is_limited, may_insert): (bool, bool) = (row.try_get(2)?, row.try_get(3)?);
    if is_limited || !may_insert {
        report.warn(
            "realtime.messages: the login is subject to its policies, or may not insert",
            "let the login own the table, or bypass row-level security; replay needs this, and so does \
             the check of access to a private channel, which inserts a row",
        );
    } else {
        report.ok("realtime.messages: the login bypasses its policies");
    }
    if is_partitioned {
        let owner: String = row.try_get(4)?;
        check_partitions(client, (!is_ours).then_some(owner), report).await?;
    }
    Ok(())
}

/// Checks today's and tomorrow's partitions. Messages of a day without a partition are lost unless
/// there is a default partition. If Rapport did not create the table, it does not maintain its
/// partitions, and `foreign_owner` is the table's owner.
async fn check_partitions(
    client: &Client,
    foreign_owner: Option<String>,
    report: &mut Report,
) -> Result<(), tokio_postgres::Error> {
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
    let row = client.query_one(SQL, &[]).await?;
    let missing: Vec<String> = row.try_get(0)?;
    if missing.is_empty() {
        report.ok("partitions of realtime.messages: today and tomorrow");
        return Ok(());
    }
    let days = missing.join(" and ");
    match (foreign_owner, row.try_get(1)?) {
        (Some(owner), _) => report.warn(
            format!("partitions of realtime.messages: none for {days}, and the table belongs to {owner}"),
            "broadcasts from the database and replay do not work until Supabase's own Realtime server creates the \
             partition; chat, row changes, private channels and broadcasts between clients do",
        ),
        (None, has_default) => {
            let text = format!("partitions of realtime.messages: none for {days}");
            let remedy = "run the server, or `select chat.maintain_message_partitions()`";
            if has_default {
                report.warn(text, remedy);
            } else {
                report.fail(text, remedy);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_severity_and_remedy() {
        let mut report = Report::default();
        report.ok("log: wal_level is logical");
        report.warn("a", "do b");
        report.fail("c", "do d");
        let lines: Vec<_> = report.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "ok    log: wal_level is logical",
                "warn  a: do b",
                "fail  c: do d"
            ]
        );
        assert_eq!(report.failures(), 1);
    }
}
