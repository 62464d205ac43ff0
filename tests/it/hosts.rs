//! Applications around the chat: which preset fits each, what it finds, and whether users could
//! raise their own rights.

use std::path::Path;

use rapport::config::HostPreset;
use rapport::schema::{self, InstallOptions, SchemaError};
use serde_json::Value;
use tokio_postgres::Client;

use crate::commands::findings;
use crate::support::database::TestDatabase;
use crate::support::process::{rapport, run, text};

/// Returns a file of `tests/sql/hosts`.
fn file(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql/hosts");
    std::fs::read_to_string(folder.join(name).with_extension("sql")).unwrap()
}

/// Creates a database with accounts of Supabase Auth and the applications of these fixtures.
async fn applications(fixtures: &[&str]) -> (TestDatabase, Client) {
    let database = TestDatabase::bare().await;
    let client = database.connect().await;
    client.batch_execute(&file("accounts")).await.unwrap();
    for fixture in fixtures {
        // Each fixture states what is expected, and only the last one counts.
        client
            .batch_execute("delete from expected.people")
            .await
            .unwrap();
        client.batch_execute(&file(fixture)).await.unwrap();
    }
    (database, client)
}

async fn install(database: &TestDatabase, preset: &str) -> Result<String, SchemaError> {
    let options = InstallOptions {
        host_preset: preset.to_owned(),
        ..InstallOptions::default()
    };
    let installed = schema::install(&mut database.connect().await, &options).await?;
    Ok(installed.host_preset)
}

/// Returns the outcomes of all attempts of a user to raise their own rights.
async fn outcomes(client: &Client) -> Vec<String> {
    let rows = client
        .query("select outcome from chat.attempt_self_promotion()", &[])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Grants users everything on the tables that decide about roles and teams.
const OPEN_TABLES: &str = "
    do $$
    declare
      opened regclass;
    begin
      for opened in
        select (w ->> 'table')::regclass
        from chat.recorded_host() r, jsonb_array_elements((chat.host_source_of(r ->> 'preset', r)).watched) w
      loop
        execute format('grant all on %s to authenticated', opened);
        execute format('grant usage on schema %s to authenticated', (select relnamespace::regnamespace from pg_class where oid = opened));
        execute format('alter table %s disable row level security', opened);
      end loop;
    end
    $$";

/// Installs into the application of a fixture, with `chosen` as the configured preset. Compares
/// what the preset finds with what the fixture expects. Then checks that users cannot raise their
/// own rights, and that the attempts have the outcomes in `allowed` once users may write to the
/// tables.
async fn check(fixture: &str, chosen: &str, allowed: &[&str]) {
    let (database, client) = applications(&[fixture]).await;
    match install(&database, chosen).await {
        Ok(preset) => assert_eq!(preset, fixture),
        Err(error) => panic!("{error}"),
    }
    client.batch_execute(&file("check")).await.unwrap();
    // The choice stays in force.
    assert_eq!(install(&database, "auto").await.unwrap(), fixture);

    let refused = vec!["refused"; allowed.len()];
    assert_eq!(outcomes(&client).await, refused);
    client.batch_execute(OPEN_TABLES).await.unwrap();
    assert_eq!(outcomes(&client).await, allowed);
}

macro_rules! presets {
    ($($name:ident from $chosen:literal allows $allowed:expr),* $(,)?) => {
        mod presets {
            use super::ALLOWED;

            $(
                #[tokio::test]
                async fn $name() {
                    super::check(stringify!($name), $chosen, &$allowed).await;
                }
            )*
        }

        #[test]
        fn every_preset_has_a_fixture() {
            let mut tested = [$(stringify!($name)),*];
            let mut names = HostPreset::NAMES;
            tested.sort_unstable();
            names.sort_unstable();
            assert_eq!(tested, names);
        }
    };
}

const ALLOWED: [&str; 3] = ["allowed"; 3];

presets!(
    basejump from "auto" allows ALLOWED,
    makerkit from "auto" allows ALLOWED,
    users_members from "auto" allows ALLOWED,
    profiles_members from "auto" allows ALLOWED,
    users_table from "auto" allows ALLOWED,
    profiles_team from "auto" allows ALLOWED,
    makerkit_v1 from "auto" allows ALLOWED,
    claims from "auto" allows ["allowed"; 2],
    one_team from "one_team" allows ["allowed"; 2],
    // An ordinary user has no row in `public.user_roles` that could be updated.
    rbac from "rbac" allows ["refused", "allowed"],
    own_views from "own_views" allows [],
);

#[tokio::test]
async fn the_program_and_the_database_know_the_same_presets() {
    let database = TestDatabase::new().await;
    let rows = database
        .connect()
        .await
        .query("select preset from chat.host_presets() order by place", &[])
        .await
        .unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, HostPreset::NAMES);
}

/// Installations that must not choose a preset: the fixtures, statements that change them, and what
/// the refusal contains.
const UNDECIDED: &[(&[&str], &str, &str)] = &[
    (
        &["users_table", "basejump"],
        "",
        "Several presets fit this database",
    ),
    (
        &["users_table"],
        "update public.users set organization_id = null",
        "Preset users_table cannot be chosen: no user would have a team",
    ),
    (
        &["users_table"],
        "delete from public.users",
        "it finds no users",
    ),
    (
        &["users_table"],
        "alter table public.users drop constraint users_id_fkey;
         update public.users set id = gen_random_uuid() where name <> 'Ana A.'",
        "5 of 6 sampled ids of users are not accounts in auth.users",
    ),
    (
        &["users_table"],
        "alter table public.users add column workspace_id int",
        "several columns that could be the team: organization_id, workspace_id",
    ),
    (
        &["profiles_members"],
        "create table public.user_teams (user_id uuid references public.profiles, team_id int)",
        "several tables could contain the memberships",
    ),
    (
        &["users_table"],
        "alter table public.users owner to authenticated",
        "users of the API could own public.users",
    ),
    (&[], "", "Preset claims cannot be chosen: no user"),
];

#[tokio::test]
async fn without_a_safe_choice_nothing_is_installed() {
    // The roles exist as soon as one database of the cluster has the schema.
    let _roles = TestDatabase::new().await;
    for (fixtures, statements, expected) in UNDECIDED {
        let (database, client) = applications(fixtures).await;
        client.batch_execute(statements).await.unwrap();
        match install(&database, "auto").await {
            Err(SchemaError::HostUndecided(refusal)) => {
                assert!(
                    refusal.contains(expected),
                    "{expected}\nis not in\n{refusal}"
                );
            }
            other => panic!("{expected}: {other:?}"),
        }
        let row = client
            .query_one("select to_regnamespace('chat') is null", &[])
            .await
            .unwrap();
        assert!(row.get::<_, bool>(0), "{expected}");
    }
}

#[tokio::test]
async fn tables_that_appear_later_change_nothing() {
    let (database, client) = applications(&["profiles_members"]).await;
    assert_eq!(
        install(&database, "auto").await.unwrap(),
        "profiles_members"
    );
    client
        .batch_execute(
            "create table public.user_teams (user_id uuid references public.profiles, team_id int);
             alter table public.organization_members add column team_id int;
             create table public.users (id uuid primary key, role text, team_id uuid);",
        )
        .await
        .unwrap();
    for preset in ["auto", "profiles_members"] {
        assert_eq!(
            install(&database, preset).await.unwrap(),
            "profiles_members"
        );
        client.batch_execute(&file("check")).await.unwrap();
    }
    // If the table in use disappears, no other one takes its place automatically.
    client
        .batch_execute("alter table public.organization_members rename to former_members")
        .await
        .unwrap();
    let refusal = install(&database, "auto").await.unwrap_err().to_string();
    let expected = "the table public.organization_members is missing or has changed";
    assert!(refusal.contains(expected), "{refusal}");
    assert_eq!(
        install(&database, "profiles_members").await.unwrap(),
        "profiles_members"
    );
}

#[tokio::test]
async fn a_view_is_given_to_a_role_that_sees_all_of_its_tables() {
    let (database, client) = applications(&["profiles_team"]).await;
    // As on Supabase, another role owns the accounts, and row-level security applies there. So
    // neither of the two owners sees all rows of both tables.
    let (auth, app) = (
        format!("auth_{}", database.name()),
        format!("app_{}", database.name()),
    );
    client
        .batch_execute(&format!(
            "create role {auth}; create role {app};
             alter table auth.users owner to {auth}; alter table public.profiles owner to {app};
             alter table public.profiles enable row level security;
             grant usage on schema auth to {app}; grant select on auth.users to {app};"
        ))
        .await
        .unwrap();
    install(&database, "auto").await.unwrap();
    let checked = client.batch_execute(&file("check")).await;
    let (_, checks) = findings(&[("DATABASE_URL", database.url())]).await;
    client
        .batch_execute(&format!("reassign owned by {auth}, {app} to current_user; drop owned by {auth}, {app}; drop role {auth}, {app}"))
        .await
        .unwrap();
    checked.unwrap();
    assert_eq!(
        checks["host.owner"]["level"], "ok",
        "{:?}",
        checks["host.owner"]
    );
}

/// Runs `rapport host` with these arguments. Returns the exit code and the output.
async fn host(database: &TestDatabase, arguments: &[&str]) -> (i32, String) {
    let arguments = [&["host"], arguments].concat();
    let output = run(rapport(&arguments).env("DATABASE_URL", database.url())).await;
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.code().unwrap(), said)
}

#[tokio::test]
async fn host_shows_the_presets_and_chooses_one() {
    let (database, client) = applications(&["users_table", "basejump"]).await;
    let (code, said) = host(&database, &[]).await;
    assert_eq!(code, 3, "{said}");
    for part in [
        "In force: none",
        "auto: Several presets fit",
        "users_table (the team column of public.users): 6 users, 2 without a team; 2 teams, 3 users in the largest",
        "teams: select u.id as user_id, u.organization_id::text as team_id from public.users u",
        "to choose it: rapport host --use basejump",
    ] {
        assert!(said.contains(part), "{part}\nis not in\n{said}");
    }
    // Nothing was installed by looking.
    let row = client
        .query_one("select to_regnamespace('chat') is null", &[])
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0));

    let output = run(rapport(&["host", "--json"]).env("DATABASE_URL", database.url())).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["version"], &report["auto"]),
        (&Value::from(1), &Value::Null)
    );
    let candidates = report["candidates"].as_array().unwrap();
    let users_table = candidates
        .iter()
        .find(|candidate| candidate["preset"] == "users_table")
        .unwrap();
    assert_eq!(users_table["people"], 6);
    assert_eq!(users_table["problem"], Value::Null);
    assert_eq!(users_table["command"], "rapport host --use users_table");

    let (code, said) = host(&database, &["--use", "users_table"]).await;
    assert_eq!(
        (code, &*said),
        (0, "Users and teams are found by: users_table\n")
    );
    let (code, said) = host(&database, &[]).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.starts_with("In force: users_table\nauto: users_table\n"),
        "{said}"
    );

    // The setting would replace the choice, so it must agree.
    let mut command = rapport(&["host", "--use", "basejump"]);
    command.env("DATABASE_URL", database.url());
    let refused = run(command.env("RAPPORT_CHAT_HOST_PRESET", "users_table")).await;
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("chat.host_preset"));
    let (code, said) = host(&database, &["--use", "anything"]).await;
    assert_eq!(code, 2, "{said}");
}
