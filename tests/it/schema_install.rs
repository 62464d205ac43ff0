//! Both installers of the schema give the same result, even if they run twice, and the generated
//! files are up to date.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rapport::config::source::{ProcessEnvironment, Source as _};
use rapport::db::plans::MUST_PLAN_PER_CALLER;
use rapport::schema::{self, InstallOptions, Installed, SchemaError};

use crate::support::database::{TestDatabase, binaries, client_program, connect, own_cluster};

fn sql_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(name)
}

async fn migrate(url: &str) -> Result<Installed, SchemaError> {
    schema::install(&mut connect(url).await, &InstallOptions::default()).await
}

pub(crate) async fn migrated(url: &str) -> Installed {
    match migrate(url).await {
        Ok(installed) => installed,
        Err(error) => panic!("{error}"),
    }
}

/// Runs a program of PostgreSQL and returns its output.
pub(crate) async fn run(program: &'static str, arguments: Vec<String>) -> Result<String, String> {
    tokio::task::spawn_blocking(move || {
        let output = Command::new(client_program(program))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        if output.status.success() {
            Ok(text)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    })
    .await
    .unwrap()
}

async fn run_install_script(url: &str) -> Result<String, String> {
    check_or_write("install.sql", &schema::install_script().unwrap());
    let script = sql_file("install.sql").display().to_string();
    run("psql", vec!["-X".into(), url.into(), "-f".into(), script]).await
}

/// Returns the major version of `pg_dump`, which prints it as in `pg_dump (PostgreSQL) 15.18`.
async fn dump_major() -> u32 {
    let printed = run("pg_dump", vec!["--version".to_owned()]).await.unwrap();
    let version = printed.split("(PostgreSQL) ").nth(1).unwrap();
    let mut numbers = version.split(|letter: char| !letter.is_ascii_digit());
    numbers.next().unwrap().parse().unwrap()
}

/// Returns the definition of everything, without the differences between versions of `pg_dump` and
/// without the daily partitions, which change from day to day. Returns `None` if the only available
/// `pg_dump` is older than the server, because it refuses such a server. In that case, only the
/// ledgers are compared. Runs on other versions compare the definitions.
pub(crate) async fn dump(url: &str) -> Option<String> {
    if dump_major().await < binaries().major() {
        return None;
    }
    let days = "--exclude-table=realtime.messages_20*";
    let arguments = ["--schema-only", "--no-owner", days, url];
    let text = run("pg_dump", arguments.map(str::to_owned).to_vec())
        .await
        .unwrap();
    Some(normalised(&text))
}

fn normalised(dump: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in dump.lines() {
        let is_noise = line.starts_with("-- Dumped ")
            || line.starts_with("SET ")
            || line.starts_with("SELECT pg_catalog.set_config")
            // A random word that differs in each dump (PostgreSQL 15.14 and later).
            || line.starts_with("\\restrict")
            || line.starts_with("\\unrestrict")
            || line == "--"
            || (line.is_empty() && lines.last().is_none_or(|last| last.is_empty()));
        if !is_noise {
            lines.push(line);
        }
    }
    let mut text = lines.join("\n").trim_end().to_owned();
    text.push('\n');
    text
}

/// Returns the contents of the ledger without the times.
pub(crate) async fn ledger(url: &str) -> Vec<(String, String)> {
    let rows = connect(url)
        .await
        .query(
            "select version || ' ' || name, checksum from chat.schema_migrations
             union all
             select path, checksum from chat.schema_definitions
             order by 1",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Makes every DDL command in this database fail. Returns the objects of the whole cluster, which
/// event triggers do not cover.
pub(crate) async fn forbid_ddl(url: &str) -> Vec<String> {
    connect(url)
        .await
        .batch_execute(
            "create function public.refuse_ddl() returns event_trigger language plpgsql as $$
             begin
               raise exception 'DDL: %', tg_tag;
             end
             $$;
             create event trigger refuse_ddl on ddl_command_start
               execute function public.refuse_ddl();",
        )
        .await
        .unwrap();
    shared_objects(url).await
}

async fn allow_ddl(url: &str) {
    connect(url)
        .await
        .batch_execute("drop event trigger refuse_ddl; drop function public.refuse_ddl();")
        .await
        .unwrap();
}

/// Returns rows of the catalogues that all databases share, with the transactions that wrote the
/// rows.
pub(crate) async fn shared_objects(url: &str) -> Vec<String> {
    let rows = connect(url)
        .await
        .query(
            "select 'role ' || rolname || ' ' || xmin::text from pg_catalog.pg_authid
             union all
             select 'member ' || roleid || ' ' || member || ' ' || xmin::text
             from pg_catalog.pg_auth_members
             union all
             select 'setting ' || setrole || ' ' || xmin::text from pg_catalog.pg_db_role_setting
             union all
             select 'database ' || xmin::text from pg_catalog.pg_database
             where datname = current_database()
             order by 1",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_second_run_of_either_installer_executes_no_ddl() {
    // A separate cluster, because other tests write to the catalogues that all databases share.
    let cluster = own_cluster().await;
    let url = &cluster.url_for("postgres");
    let first = migrated(url).await;
    assert!(!first.migrations.is_empty() && !first.definitions.is_empty());
    let before = (dump(url).await, ledger(url).await);

    let shared = forbid_ddl(url).await;
    let second = migrated(url).await;
    assert_eq!((second.migrations, second.definitions), (vec![], vec![]));
    run_install_script(url).await.unwrap();
    assert_eq!(shared_objects(url).await, shared);

    allow_ddl(url).await;
    assert_eq!((dump(url).await, ledger(url).await), before);
    tokio::task::spawn_blocking(|| drop(cluster)).await.unwrap();
}

#[tokio::test]
async fn the_script_and_the_program_give_the_same_result_in_either_order() {
    let (by_program, by_script) = (TestDatabase::bare().await, TestDatabase::bare().await);
    migrated(by_program.url()).await;
    run_install_script(by_script.url()).await.unwrap();
    assert_eq!(
        ledger(by_program.url()).await,
        ledger(by_script.url()).await
    );
    assert_eq!(dump(by_program.url()).await, dump(by_script.url()).await);

    forbid_ddl(by_script.url()).await;
    let after_script = migrated(by_script.url()).await;
    assert_eq!(
        (after_script.migrations, after_script.definitions),
        (vec![], vec![])
    );
}

#[tokio::test]
async fn the_printed_statements_give_the_same_result() {
    let (by_program, by_statements) = (TestDatabase::bare().await, TestDatabase::bare().await);
    migrated(by_program.url()).await;
    let mut client = by_statements.connect().await;
    let sql = schema::pending_sql(&mut client, &InstallOptions::default())
        .await
        .unwrap();
    client.batch_execute(&sql).await.unwrap();
    assert_eq!(
        ledger(by_program.url()).await,
        ledger(by_statements.url()).await
    );
    assert_eq!(
        dump(by_program.url()).await,
        dump(by_statements.url()).await
    );
}

#[tokio::test]
async fn a_plan_changes_nothing_and_lists_what_would_run() {
    let database = TestDatabase::bare().await;
    let plan = schema::plan(&mut connect(database.url()).await)
        .await
        .unwrap();
    assert_eq!(plan[0], "ledger.sql");
    let exists = connect(database.url())
        .await
        .query_one("select to_regnamespace('chat') is not null", &[])
        .await
        .unwrap();
    assert!(!exists.get::<_, bool>(0));

    let installed = migrated(database.url()).await;
    assert_eq!(
        plan[1..],
        [installed.migrations, installed.definitions].concat()
    );
    let plan = schema::plan(&mut connect(database.url()).await)
        .await
        .unwrap();
    assert_eq!(plan, Vec::<String>::new());
}

#[tokio::test]
async fn two_installers_at_once_wait_for_each_other() {
    let database = TestDatabase::bare().await;
    let (left, right) = tokio::join!(migrated(database.url()), migrated(database.url()));
    assert!(
        left.migrations.is_empty() != right.migrations.is_empty(),
        "one of them did the work"
    );
}

#[tokio::test]
async fn both_installers_refuse_a_ledger_that_does_not_match() {
    type Case = (&'static str, fn(&SchemaError) -> bool, &'static str);
    let broken: &[Case] = &[
        (
            "insert into chat.schema_migrations (version, name, checksum)
             select max(version) + 1, 'future', '' from chat.schema_migrations",
            |error| matches!(error, SchemaError::Newer { .. }),
            "The schema is at version",
        ),
        (
            "update chat.schema_migrations set checksum = 'another' where version = 1",
            |error| matches!(error, SchemaError::Edited { version: 1, .. }),
            "Migration 1 (",
        ),
        (
            "delete from chat.schema_migrations where version = 1",
            |error| matches!(error, SchemaError::Gap { missing: 1 }),
            "Migration 1 is not in the ledger",
        ),
    ];
    for (statement, expected, words) in broken {
        let database = TestDatabase::new().await;
        connect(database.url())
            .await
            .batch_execute(statement)
            .await
            .unwrap();
        let error = migrate(database.url()).await.unwrap_err();
        assert!(expected(&error), "{error}");
        let refusal = run_install_script(database.url()).await.unwrap_err();
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[tokio::test]
async fn an_unreadable_ledger_is_not_treated_as_missing() {
    let database = TestDatabase::new().await;
    let mut client = connect(database.url()).await;
    client
        .batch_execute("create role test_stranger; set role test_stranger")
        .await
        .unwrap();
    let result = schema::install(&mut client, &InstallOptions::default()).await;
    client
        .batch_execute("reset role; drop role test_stranger")
        .await
        .unwrap();
    assert!(
        matches!(result, Err(SchemaError::LedgerUnreadable)),
        "{result:?}"
    );
}

/// If another role has created an object before the installation, that role could later replace
/// what is installed there. Both installers refuse such an object and name it.
#[tokio::test]
async fn objects_of_other_roles_are_not_adopted() {
    const FUNCTION: &str =
        "function public.mark_conversation_read(p_conversation_id uuid, p_up_to uuid default null)";
    let prepared = [
        ("create schema chat", "schema chat"),
        ("create schema auth", "schema auth"),
        (
            &*format!("create {FUNCTION} returns int language sql as 'select 1'"),
            "mark_conversation_read",
        ),
    ];
    for (statement, object) in prepared {
        let database = TestDatabase::bare().await;
        let role = format!("test_{}", database.name());
        let client = connect(database.url()).await;
        client
            .batch_execute(&format!(
                "create role {role}; grant create on database {} to {role};
                 grant create on schema public to {role}; set role {role}; {statement}; reset role",
                database.name()
            ))
            .await
            .unwrap();
        let refusals = [
            migrate(database.url()).await.unwrap_err().to_string(),
            run_install_script(database.url()).await.unwrap_err(),
        ];
        for refusal in refusals {
            let names_both = refusal.contains(object) && refusal.contains(&role);
            assert!(names_both, "{refusal}");
        }
        // Once the objects belong to the installing login, they are used.
        client
            .batch_execute(&format!("reassign owned by {role} to current_user"))
            .await
            .unwrap();
        migrated(database.url()).await;
        client
            .batch_execute(&format!("drop owned by {role}; drop role {role}"))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_failing_statement_is_rolled_back_and_reported() {
    let database = TestDatabase::bare().await;
    // This table conflicts with one that a migration creates.
    let client = connect(database.url()).await;
    client
        .batch_execute("create table public.user_conversations (mine int)")
        .await
        .unwrap();
    let error = migrate(database.url()).await.unwrap_err().to_string();
    assert!(error.contains("user_conversations"), "{error}");
    assert!(error.starts_with("migrations/"), "{error}");
    let row = client
        .query_one("select to_regnamespace('chat') is null", &[])
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0), "the ledger was also rolled back");
}

/// Policies that earlier versions created under other names: the table, the name, and the former
/// name.
const RENAMED_POLICIES: &[(&str, &str, &str)] = &[
    (
        "public.user_conversation_members",
        "people change their own memberships",
        "people arrange their own memberships",
    ),
    (
        "public.user_messages",
        "members send messages",
        "members send as themselves where they may",
    ),
    (
        "public.message_hides",
        "people see their own hidden messages",
        "people see what they hid",
    ),
    (
        "public.message_reactions",
        "members add reactions",
        "members react as themselves where they may write",
    ),
    (
        "public.message_reactions",
        "people remove their own reactions",
        "people take back their own reactions",
    ),
    (
        "public.user_blocks",
        "people see their own blocks",
        "people see whom they blocked",
    ),
    (
        "public.user_blocks",
        "people add their own blocks",
        "people block for themselves",
    ),
    (
        "public.user_blocks",
        "people remove their own blocks",
        "people lift their own blocks",
    ),
    (
        "realtime.messages",
        "members appear in their conversations",
        "members show themselves in their conversations",
    ),
    (
        "realtime.messages",
        "only permitted users listen to chat topics",
        "others do not listen to chat topics",
    ),
    (
        "realtime.messages",
        "users do not update messages of chat topics",
        "nobody rewrites messages of chat topics",
    ),
    (
        "realtime.messages",
        "only people and the server use chat topics",
        "nobody without a name uses chat topics",
    ),
    (
        "realtime.messages",
        "messages belong to the requested topic",
        "messages are of the topic that was asked about",
    ),
];

#[tokio::test]
async fn an_update_replaces_policies_under_their_former_names() {
    let database = TestDatabase::new().await;
    let client = database.connect().await;
    let policies = async || -> Vec<String> {
        let names = "select format('%s.%s: %s', schemaname, tablename, policyname) from pg_policies order by 1";
        let rows = client.query(names, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let fresh = policies().await;
    for (table, name, former) in RENAMED_POLICIES {
        let rename = format!("alter policy \"{name}\" on {table} rename to \"{former}\"");
        client.batch_execute(&rename).await.unwrap();
    }
    client
        .batch_execute("delete from chat.schema_definitions where path like '%policies.sql'")
        .await
        .unwrap();
    migrated(database.url()).await;
    assert_eq!(policies().await, fresh);
}

fn check_or_write(name: &str, fresh: &str) {
    check_or_write_file(&sql_file(name), fresh);
}

/// Compares a generated file with its source, or writes it (`make schema-dump`).
fn check_or_write_file(path: &Path, fresh: &str) {
    if ProcessEnvironment.get("WRITE_GENERATED_SQL").is_some() {
        std::fs::write(path, fresh).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == fresh,
        "{} is stale: run `make schema-dump`",
        path.display()
    );
}

/// Fails if the caller expects this version of PostgreSQL to write a file that it cannot write.
fn assert_not_writing() {
    assert!(
        ProcessEnvironment.get("WRITE_GENERATED_SQL").is_none(),
        "`make schema-dump` requires PostgreSQL {DUMP_MAJOR} and its pg_dump"
    );
}

#[test]
fn generated_install_script_is_fresh() {
    check_or_write("install.sql", &schema::install_script().unwrap());
}

/// The version whose `pg_dump` writes `sql/schema.sql`. Other versions format some things
/// differently.
const DUMP_MAJOR: u32 = 15;

#[tokio::test]
async fn generated_dump_of_the_schema_is_fresh() {
    if binaries().major() != DUMP_MAJOR || dump_major().await != DUMP_MAJOR {
        return assert_not_writing();
    }
    let database = TestDatabase::bare().await;
    migrated(database.url()).await;
    let fresh = format!(
        "-- GENERATED by `make schema-dump`: the whole schema on a bare PostgreSQL, for reading.\n\n{}",
        dump(database.url()).await.unwrap()
    );
    check_or_write("schema.sql", &fresh);
}

/// The statement that generates `docs/schema.md` from the tables, policies and functions.
const DOCUMENT: &str = include_str!("schema_document.sql");

#[tokio::test]
async fn generated_document_of_the_schema_is_fresh() {
    if binaries().major() != DUMP_MAJOR {
        return assert_not_writing();
    }
    let database = TestDatabase::bare().await;
    migrated(database.url()).await;
    let client = connect(database.url()).await;
    let lines = client.query(DOCUMENT, &[]).await.unwrap();
    let lines: Vec<String> = lines.iter().map(|line| line.get("line")).collect();
    assert!(lines.len() > 300, "{} lines", lines.len());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema.md");
    check_or_write_file(&path, &format!("{}\n", lines.join("\n")));
}

/// Planning for each caller took more than half of the database's time for a private join, and
/// delayed each message. Policies of the application that need it are in `realtime::permissions`
/// and `visibility::row_security`.
#[tokio::test]
async fn one_plan_of_each_policy_serves_all_callers() {
    let database = TestDatabase::new().await;
    let client = connect(database.url()).await;
    client
        .batch_execute(
            "create function public.seems_constant() returns bool language sql immutable return true;
             create policy \"of the application\" on realtime.messages for select
               using (public.seems_constant());",
        )
        .await
        .unwrap();
    let found = client
        .query(
            &format!(
                "select distinct p.polname::text
                 from pg_policy p
                 join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid
                   and d.refclassid = 'pg_proc'::regclass
                 join pg_proc f on f.oid = d.refobjid
                 where {MUST_PLAN_PER_CALLER}"
            ),
            &[],
        )
        .await
        .unwrap();
    let names: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, ["of the application"]);
}

/// Editors show the comment of a table or function, so each one that clients can use has a comment.
#[tokio::test]
async fn tables_and_functions_for_clients_have_comments() {
    let database = TestDatabase::bare().await;
    migrated(database.url()).await;
    let rows = connect(database.url())
        .await
        .query(
            "select c.oid::regclass::text
             from pg_class c
             where c.relnamespace in ('public'::regnamespace, 'chat'::regnamespace)
               and c.relkind in ('r', 'v') and obj_description(c.oid, 'pg_class') is null
             union all
             select p.oid::regprocedure::text
             from pg_proc p
             where p.pronamespace in ('public'::regnamespace, 'chat'::regnamespace)
               and p.prorettype <> 'trigger'::regtype
               and has_function_privilege('authenticated', p.oid, 'execute')
               and obj_description(p.oid, 'pg_proc') is null",
            &[],
        )
        .await
        .unwrap();
    let without: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(without.is_empty(), "without a comment: {without:?}");
}
