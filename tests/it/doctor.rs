//! Each check of `rapport doctor` finds its fault, and the statements that it prints solve the
//! fault.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::commands::findings;
use crate::support::database::TestDatabase;

/// Faults that the printed remedy solves: the id of the check that finds the fault, the level of
/// the finding, and the statement that causes the fault.
const WITH_REMEDY: &[(&str, &str, &str)] = &[
    (
        "pub.changes",
        "warn",
        "alter publication supabase_realtime set (publish = 'insert')",
    ),
    (
        "pub.identity",
        "fail",
        "create table public.without_key (a int); alter publication supabase_realtime add table public.without_key",
    ),
    (
        "pub.messages",
        "warn",
        "alter publication supabase_realtime_messages_publication drop table realtime.messages",
    ),
    (
        "role.create",
        "warn",
        "grant create on schema public to authenticated",
    ),
    (
        "schema.policies",
        "warn",
        r#"create policy "Everyone reads" on public.user_messages for select to authenticated using (true)"#,
    ),
    (
        "host.self_promotion",
        "warn",
        "grant update on public.users to authenticated",
    ),
    (
        "host.open_insert",
        "warn",
        "grant insert on public.users to authenticated;
         create policy own_new_row on public.users for insert to authenticated with check (id = auth.uid())",
    ),
];

/// Faults for which no remedy is printed: the same three values, and the statement that undoes the
/// fault.
const WITHOUT_REMEDY: &[(&str, &str, &str, &str)] = &[
    (
        "schema.exposed",
        "warn",
        "do $$ begin execute format('alter role authenticator in database %I set pgrst.db_schemas = %L', current_database(), 'public, chat'); end $$",
        "do $$ begin execute format('alter role authenticator in database %I reset pgrst.db_schemas', current_database()); end $$",
    ),
    (
        "schema.policies",
        "fail",
        r#"alter policy "members send messages" on public.user_messages rename to "former""#,
        r#"alter policy "former" on public.user_messages rename to "members send messages""#,
    ),
    (
        "schema.version",
        "fail",
        "update chat.schema_definitions set checksum = 'x' || checksum where path like '%90_policies.sql'",
        "update chat.schema_definitions set checksum = substr(checksum, 2) where path like '%90_policies.sql'",
    ),
    (
        "host.no_team",
        "warn",
        "create table public.kept as table public.users; update public.users set team_id = null",
        "update public.users u set team_id = k.team_id from public.kept k where k.id = u.id; drop table public.kept",
    ),
    (
        "host.owner",
        "fail",
        "alter table public.users owner to authenticated",
        "alter table public.users owner to current_user",
    ),
    (
        "host.preset",
        "fail",
        "alter table public.users drop constraint users_team_id_fkey; alter table public.users rename to former",
        "alter table public.former rename to users",
    ),
    (
        "host.ambiguous",
        "fail",
        "alter table public.users rename to former",
        "alter table public.former rename to users",
    ),
];

fn level<'a>(checks: &'a BTreeMap<String, Value>, id: &str) -> &'a str {
    checks[id]["level"].as_str().unwrap()
}

#[tokio::test]
async fn every_fault_is_found_by_its_id_and_solved_by_the_printed_statement() {
    let database = TestDatabase::new().await;
    let client = database.connect().await;
    let url = ("DATABASE_URL", database.url());
    for (id, expected, statement) in WITH_REMEDY {
        assert_eq!(level(&findings(&[url]).await.1, id), "ok", "before: {id}");
        client.batch_execute(statement).await.unwrap();
        let (code, checks) = findings(&[url]).await;
        assert_eq!(level(&checks, id), *expected, "{id}: {}", checks[*id]);
        assert_eq!(code, i32::from(*expected == "fail"), "{id}");
        let remedy = checks[*id]["remedy_sql"].as_str().unwrap();
        client.batch_execute(remedy).await.unwrap();
        let (_, checks) = findings(&[url]).await;
        assert_eq!(level(&checks, id), "ok", "after {remedy}: {}", checks[*id]);
    }
    for (id, expected, statement, undo) in WITHOUT_REMEDY {
        client.batch_execute(statement).await.unwrap();
        let (_, checks) = findings(&[url]).await;
        assert_eq!(level(&checks, id), *expected, "{id}: {}", checks[*id]);
        client.batch_execute(undo).await.unwrap();
        let (_, checks) = findings(&[url]).await;
        assert_eq!(level(&checks, id), "ok", "after {undo}: {}", checks[*id]);
    }
}

#[tokio::test]
async fn self_promotion_is_tried_and_changes_nothing() {
    let database = TestDatabase::new().await;
    let client = database.connect().await;
    let url = ("DATABASE_URL", database.url());
    let users = async || {
        let row = client
            .query_one(
                "select string_agg(u::text, ' ' order by id) from public.users u",
                &[],
            )
            .await
            .unwrap();
        row.get::<_, String>(0)
    };
    client
        .batch_execute("grant update on public.users to authenticated")
        .await
        .unwrap();
    let before = users().await;
    let (code, checks) = findings(&[url]).await;
    let found = &checks["host.self_promotion"];
    assert_eq!((code, &found["level"]), (0, &Value::from("warn")));
    let columns: Vec<&str> = found["facts"]["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|attempt| attempt["outcome"] == "allowed")
        .map(|attempt| attempt["column"].as_str().unwrap())
        .collect();
    assert_eq!(columns, ["team_id", "role"]);
    assert_eq!(users().await, before);

    // If another transaction has locked the row, the attempt gives up instead of waiting for it.
    let holder = database.connect().await;
    holder
        .batch_execute("begin; select from public.users for update")
        .await
        .unwrap();
    let (_, checks) = findings(&[url]).await;
    let found = &checks["host.self_promotion"];
    let why = found["why"].as_str().unwrap();
    assert_eq!(found["level"], "warn");
    assert!(why.contains("lock timeout"), "{why}");
    holder.batch_execute("rollback").await.unwrap();

    // A trigger that restores the role and the team is sufficient protection.
    client
        .batch_execute(
            "create function public.keep() returns trigger language plpgsql as $$
             begin
               new.role := old.role;
               new.team_id := old.team_id;
               return new;
             end
             $$;
             create trigger keep before update on public.users for each row execute function public.keep();",
        )
        .await
        .unwrap();
    let (_, checks) = findings(&[url]).await;
    assert_eq!(level(&checks, "host.self_promotion"), "ok");
}

#[tokio::test]
async fn a_slot_that_no_server_reads_is_found_when_it_holds_too_much_wal() {
    let database = TestDatabase::new().await;
    let client = database.connect().await;
    let slot = format!("rapport_{}", database.name());
    let variables = [
        ("DATABASE_URL", database.url()),
        // The smallest value that the setting accepts.
        ("RAPPORT_REPLICATION_MAX_WAL_HELD_BYTES", "16777216"),
    ];
    client
        .batch_execute(&format!(
            "select pg_create_logical_replication_slot('{slot}', 'pgoutput')"
        ))
        .await
        .unwrap();
    assert_eq!(level(&findings(&variables).await.1, "log.held"), "ok");
    client
        .batch_execute(
            "select pg_logical_emit_message(false, '', repeat('x', 1000000)) from generate_series(1, 20)",
        )
        .await
        .unwrap();
    let (_, checks) = findings(&variables).await;
    let found = &checks["log.held"];
    assert_eq!(
        (&found["level"], &found["facts"]["slot"]),
        (&"warn".into(), &slot.into())
    );
    let remedy = found["remedy_sql"].as_str().unwrap();
    client.batch_execute(remedy).await.unwrap();
    assert_eq!(level(&findings(&variables).await.1, "log.held"), "ok");
}

#[tokio::test]
async fn tables_with_the_names_of_the_chat_are_found_before_the_installation() {
    let database = TestDatabase::bare().await;
    let client = database.connect().await;
    client
        .batch_execute("create table public.user_messages (id int)")
        .await
        .unwrap();
    let (code, checks) = findings(&[("DATABASE_URL", database.url())]).await;
    assert_eq!((code, level(&checks, "schema.foreign_tables")), (1, "fail"));
    assert_eq!(level(&checks, "host.preset"), "skip");
}
