//! `rapport doctor`: whether the configured database has what the server needs, and what to do where
//! it has not. Changes nothing.

use std::fmt;

use tokio_postgres::Client;

use super::{CliError, print, runtime, with_source};
use crate::config::{DoctorConfig, Inputs};
use crate::db::PARKED_ROLE;
use crate::db::connect::Connector;
use crate::schema;
use crate::shutdown::Tasks;

/// The oldest PostgreSQL that the schema is written for.
const OLDEST_VERSION: i32 = 15;

/// The roles that the server takes on: its connections rest as the first and act as the others.
const ASSUMED_ROLES: &[&str] = &[PARKED_ROLE, "anon", "authenticated", "service_role"];

/// The publication by which broadcasts from the database are read (`replication`).
const MESSAGES_PUBLICATION: &str = "supabase_realtime_messages_publication";

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Ok,
    /// Something does not work, or will not before long.
    Warn,
    /// The server is of no use like this.
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    text: String,
    /// What to do about it.
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

/// What was found so far.
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

/// Looks at everything and prints one line for each thing.
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
        failures => Err(CliError::Unsound(failures)),
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
                "check database.url, and that PostgreSQL runs and lets this login in",
            );
            return Ok(report);
        }
    };
    let seen = look(&mut client, config, &mut report).await;
    unanswered(seen, &mut report);
    let requests = Connector::new(config.database.request_url.expose())?;
    match requests.connect("rapport doctor", &tasks).await {
        Ok(mut client) => {
            report.ok("login for people's requests: connects");
            let seen = roles(&mut client, "database.request_url", &mut report).await;
            unanswered(seen, &mut report);
        }
        Err(error) => report.fail(
            format!("login for people's requests: {}", with_source(&error)),
            "check database.request_url",
        ),
    }
    Ok(report)
}

fn unanswered(seen: Result<(), tokio_postgres::Error>, report: &mut Report) {
    let Err(error) = seen else {
        return;
    };
    let cause = error
        .as_db_error()
        .map_or_else(|| error.to_string(), |cause| cause.message().to_owned());
    report.fail(
        format!("database: a question was not answered ({cause})"),
        "run this again; the checks behind it were left out",
    );
}

async fn look(
    client: &mut Client,
    config: &DoctorConfig,
    report: &mut Report,
) -> Result<(), tokio_postgres::Error> {
    server(client, report).await?;
    replication(client, &config.replication.slot_name, report).await?;
    publications(client, &config.replication.publication, report).await?;
    roles(client, "database.url", report).await?;
    people(client, report).await?;
    host_columns(client, report).await?;
    policy_functions(client, &config.replication.publication, report).await?;
    messages(client, report).await?;
    match schema::plan(client).await {
        Ok(pending) if pending.is_empty() => report.ok("schema: up to date"),
        Ok(pending) => report.fail(
            format!("schema: {} files are not applied", pending.len()),
            "run `rapport migrate`",
        ),
        Err(error) => report.fail(
            format!("schema: {error}"),
            "see `rapport migrate --dry-run`",
        ),
    }
    Ok(())
}

async fn server(client: &Client, report: &mut Report) -> Result<(), tokio_postgres::Error> {
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
            format!("PostgreSQL {OLDEST_VERSION} or newer is needed"),
        );
    }
    Ok(())
}

async fn replication(
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
        report.ok("log: wal_level is logical");
    } else {
        report.fail(
            format!("log: wal_level is {wal_level}"),
            "`alter system set wal_level = logical` and restart PostgreSQL",
        );
    }
    let number = |at| row.try_get::<_, i64>(at);
    let (slots, used, ours) = (number(1)?, number(2)?, number(3)?);
    let text = format!("replication slots: {used} of {slots} in use");
    if ours > 0 || used < slots {
        report.ok(text);
    } else {
        report.fail(
            text,
            "raise max_replication_slots, or drop one that nobody reads",
        );
    }
    let (senders, used) = (number(4)?, number(5)?);
    let text = format!("replication connections: {used} of {senders} in use");
    if used < senders || ours > 0 {
        report.ok(text);
    } else {
        report.fail(text, "raise max_wal_senders");
    }
    if row.try_get(6)? {
        report.ok("login: may replicate");
    } else {
        report.fail(
            "login: may not replicate",
            "`alter role … replication` by a superuser",
        );
    }
    Ok(())
}

async fn publications(
    client: &Client,
    changes: &str,
    report: &mut Report,
) -> Result<(), tokio_postgres::Error> {
    // What PostgreSQL lists lacks a partitioned table without partitions, which is a member all the same.
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
            format!("`create publication {changes}`, or run `rapport migrate` as who may"),
        ),
        Some(row) => {
            match row.try_get::<_, i64>(0)? {
                0 => report.warn(
                    format!("publication {changes}: no table is in it"),
                    format!(
                        "`alter publication {changes} add table …`: nobody can subscribe to others"
                    ),
                ),
                tables => report.ok(format!("publication {changes}: {tables} tables")),
            }
            let unpublished: String = row.try_get(1)?;
            if !unpublished.is_empty() {
                report.warn(
                    format!("publication {changes}: does not publish {unpublished}"),
                    format!(
                        "`alter publication {changes} set (publish = 'insert, update, delete')`: \
                         subscribers are told nothing of such changes"
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
            format!("publication {MESSAGES_PUBLICATION}: missing, or without realtime.messages"),
            format!(
                "`create publication {MESSAGES_PUBLICATION} for table realtime.messages` as the table's \
                 owner: broadcasts from the database are not sent without it"
            ),
        );
    }
    Ok(())
}

/// Whether the login of this setting can take on each role that the server does.
async fn roles(
    client: &mut Client,
    setting: &str,
    report: &mut Report,
) -> Result<(), tokio_postgres::Error> {
    const SQL: &str = "
        select wanted.name, r.oid is not null, coalesce(r.rolbypassrls or r.rolsuper, false), current_user::text
             , current_setting('server_version_num')::int >= 160000
          from unnest($1::text[]) as wanted (name)
          left join pg_catalog.pg_roles as r on r.rolname = wanted.name";
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
                "`alter role service_role bypassrls` by a superuser",
            ),
            Ok(()) => report.ok(format!(
                "role {name}: the login of {setting} can take it on"
            )),
            Err(refusal) => report.fail(
                format!("role {name}: the login of {setting} cannot take it on ({refusal})"),
                format!(
                    "`grant {name} to \"{login}\"{}`",
                    // Since PostgreSQL 16 a membership may lack SET, as the one of a role's creator does.
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

/// Takes the role on in a transaction that is rolled back. The catalogue alone does not tell: a membership may be
/// without SET, and extensions refuse roles of their own.
async fn try_role(
    client: &mut Client,
    name: &str,
) -> Result<Result<(), String>, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    // Names of `ASSUMED_ROLES` need no quotes.
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

/// Whether people are found, and anybody has a team: without teams nobody may write to anybody.
async fn people(client: &Client, report: &mut Report) -> Result<(), tokio_postgres::Error> {
    const INSTALLED: &str = "
        select coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass('chat.directory'), 'SELECT')
                    and pg_catalog.has_table_privilege(pg_catalog.to_regclass('chat.memberships'), 'SELECT'), false)";
    const SQL: &str = "
        select exists (select from chat.directory), exists (select from chat.memberships)
             , (select value ->> 'preset' from chat.config where key = 'host_mapping')";
    // Without the schema, which has a line of its own, there is nothing to look at.
    if !client.query_one(INSTALLED, &[]).await?.try_get(0)? {
        return Ok(());
    }
    let row = client.query_one(SQL, &[]).await?;
    let preset: Option<&str> = row.try_get(2)?;
    let preset = preset.unwrap_or("none");
    match (row.try_get(0)?, row.try_get(1)?) {
        (true, true) => report.ok(format!("people: found by host mapping {preset}")),
        (false, _) => report.warn(
            format!("people: nobody is found by host mapping {preset}"),
            "people appear when they get an account; if they have one, choose another chat.host_preset",
        ),
        (true, false) => report.warn(
            format!("people: nobody has a team under host mapping {preset}, so that nobody may write to anybody"),
            "give people teams, or choose another chat.host_preset and run `rapport migrate`",
        ),
    }
    Ok(())
}

/// Whoever may write their own role or team may message everybody. What the views over the application's tables
/// are made of tells which columns those are.
async fn host_columns(client: &Client, report: &mut Report) -> Result<(), tokio_postgres::Error> {
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
        report.ok("people: nobody may write the columns that roles and teams come from");
    }
    for row in rows {
        let (table, column): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        report.warn(
            format!("people: authenticated may write {table}.{column}, which roles or teams come from"),
            format!(
                "`revoke update on {table} from authenticated` and grant it on the columns that are theirs to write, \
                 unless a policy or trigger keeps people from changing this one"
            ),
        );
    }
    Ok(())
}

/// Policies are evaluated in statements that the login writes: it has to be able to name what they
/// call.
async fn policy_functions(
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
        report.ok("policies: the login may name all that they call");
    }
    for row in rows {
        let schema: String = row.try_get(0)?;
        report.fail(
            format!(
                "policies: they call functions of schema {schema}, which the login may not use"
            ),
            format!("`grant usage on schema {schema} to` the login of database.url"),
        );
    }
    Ok(())
}

async fn messages(client: &Client, report: &mut Report) -> Result<(), tokio_postgres::Error> {
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
            "run `rapport migrate`: private channels and broadcasts from the database need it",
        );
        return Ok(());
    };
    let (is_partitioned, is_ours): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    let (is_limited, may_insert): (bool, bool) = (row.try_get(2)?, row.try_get(3)?);
    if is_limited || !may_insert {
        report.warn(
            "realtime.messages: its policies hold for the login, or it may not insert",
            "let the login own the table, or bypass row-level security: replay needs it, and whether \
             a private channel may be read is found out by inserting",
        );
    } else {
        report.ok("realtime.messages: the login may read and write past its policies");
    }
    if is_partitioned {
        let owner: String = row.try_get(4)?;
        partitions(client, (!is_ours).then_some(owner), report).await?;
    }
    Ok(())
}

/// A day without a partition loses what is stored on it, but for a default partition. `stranger` is the table's
/// owner where Rapport did not make the table, and so makes no partitions.
async fn partitions(
    client: &Client,
    stranger: Option<String>,
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
    match (stranger, row.try_get(1)?) {
        (Some(owner), _) => report.warn(
            format!("partitions of realtime.messages: none for {days}, and the table belongs to {owner}"),
            "chat, row changes, private channels and broadcasts between clients work without it; broadcasts from \
             the database and replay do not, until Supabase's own Realtime server makes the partition",
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
    fn a_line_says_how_bad_it_is_and_what_to_do() {
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
