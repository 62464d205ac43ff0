//! The program as users run it: `rapport dev`, `migrate`, `token`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use insta::assert_snapshot;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use rapport::http::demo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::timeout;

use crate::support::database::{TestDatabase, connect};
use crate::support::eventually::eventually;
use crate::support::process::{PATIENCE, rapport, run, text};
use crate::support::snapshot::redacted;
use crate::support::token::JWT_SECRET;

/// Creates a directory that PostgreSQL's user can access.
fn open_directory() -> TempDir {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    tempfile::Builder::new()
        .permissions(permissions)
        .tempdir()
        .unwrap()
}

/// A running `rapport dev`.
struct DevServer {
    child: Child,
    variables: BTreeMap<String, String>,
}

impl DevServer {
    /// Starts a server on any free port, and waits until it has written its file of variables.
    async fn start(file: &Path, more: &[&str]) -> Self {
        let file_argument = file.display().to_string();
        let mut arguments = vec!["dev", "--port", "0", "--env-file", &file_argument];
        arguments.extend(more);
        let mut child = rapport(&arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A configured database, which `rapport dev` must ignore.
            .env(
                "DATABASE_URL",
                "postgresql://nobody:nothing@127.0.0.1:1/none",
            )
            .spawn()
            .unwrap();
        let variables = eventually("the server is ready", async || {
            assert_eq!(child.try_wait().unwrap(), None, "the server ended");
            let text = std::fs::read_to_string(file).ok()?;
            Some(
                text.lines()
                    .filter_map(variable)
                    .collect::<BTreeMap<_, _>>(),
            )
        })
        .await;
        Self { child, variables }
    }

    fn get(&self, name: &str) -> &str {
        &self.variables[name]
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let status = std::process::Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap();
        assert!(status.success());
    }

    async fn end(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("the server ends")
            .unwrap()
    }
}

fn variable(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    Some((name.to_owned(), value.trim_matches('"').to_owned()))
}

fn database_port(url: &str) -> u16 {
    url.parse::<tokio_postgres::Config>().unwrap().get_ports()[0]
}

async fn wait_until_closed(port: u16) {
    eventually("the database's port is closed", async || {
        TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn dev_is_ready_when_its_file_is_written_and_stops_everything() {
    for signal in ["INT", "TERM", "KILL"] {
        let directory = open_directory();
        let server = DevServer::start(&directory.path().join("server.env"), &["--ephemeral"]).await;
        let ready = reqwest::get(format!("{}/ready", server.get("API_URL")))
            .await
            .unwrap();
        assert_eq!(ready.status(), 200);
        let people = connect(server.get("DB_URL"))
            .await
            .query_one(
                "select count(*) from public.users where id = $1::text::uuid",
                &[&server.get("USER_ID_ANA")],
            )
            .await
            .unwrap();
        assert_eq!(people.get::<_, i64>(0), 1);

        let port = database_port(server.get("DB_URL"));
        let status = server.end(signal).await;
        assert_eq!(status.success(), signal != "KILL", "{status}");
        wait_until_closed(port).await;
    }
}

#[tokio::test]
async fn dev_lists_all_users_in_its_file() {
    let directory = open_directory();
    let server = DevServer::start(&directory.path().join("server.env"), &["--ephemeral"]).await;
    let key = DecodingKey::from_secret(server.get("JWT_SECRET").as_bytes());
    for name in ["ANA", "BEN", "ZOE", "ADA", "SUE"] {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&["authenticated"]);
        let token = server.get(&format!("USER_TOKEN_{name}"));
        let claims = decode::<serde_json::Value>(token, &key, &validation)
            .unwrap()
            .claims;
        assert_eq!(claims["sub"], server.get(&format!("USER_ID_{name}")));
        let lifetime = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
        assert_eq!(lifetime, 24 * 60 * 60);
    }
    // The list of users who can sign in, and the demonstration page if the program embeds it.
    for (path, is_there) in [
        ("/dev/people", true),
        ("/demo/", !demo::embedded().is_empty()),
    ] {
        let address = format!("{}{path}", server.get("API_URL"));
        let status = reqwest::get(address).await.unwrap().status();
        assert_eq!(status == 200, is_there, "{path}: {status}");
    }
    assert!(server.end("TERM").await.success());
}

#[tokio::test]
async fn dev_handles_requests_without_superuser_rights() {
    let directory = open_directory();
    let server = DevServer::start(&directory.path().join("server.env"), &["--ephemeral"]).await;
    let opened = reqwest::Client::new()
        .post(format!(
            "{}/api/supabase/user-chat/conversations",
            server.get("API_URL")
        ))
        .bearer_auth(server.get("USER_TOKEN_ANA"))
        .header("content-type", "application/json")
        .body(format!(
            r#"{{"other_user_id":"{}"}}"#,
            server.get("USER_ID_BEN")
        ))
        .send()
        .await
        .unwrap();
    assert_eq!(opened.status(), 201);
    let logins = connect(server.get("DB_URL"))
        .await
        .query(
            "select distinct r.rolname::text, r.rolsuper or r.rolbypassrls or r.rolinherit
             from pg_stat_activity a
             join pg_roles r on r.oid = a.usesysid
             where a.application_name = 'rapport'",
            &[],
        )
        .await
        .unwrap();
    let logins: Vec<(String, bool)> = logins.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(logins, [("authenticator".to_owned(), false)]);
    assert!(server.end("TERM").await.success());
}

#[tokio::test]
async fn dev_keeps_data_and_keys_and_locks_its_directory() {
    let directory = open_directory();
    let data: PathBuf = directory.path().join("data");
    let data_argument = data.display().to_string();
    let more = ["--data-dir", data_argument.as_str()];
    let first = DevServer::start(&directory.path().join("first.env"), &more).await;
    connect(first.get("DB_URL"))
        .await
        .batch_execute("create table kept ()")
        .await
        .unwrap();

    let second = run(&mut rapport(&[
        "dev",
        "--port",
        "0",
        "--data-dir",
        &data_argument,
    ]))
    .await;
    assert!(!second.status.success());
    assert!(
        text(&second.stderr).contains("in use by another process"),
        "{}",
        text(&second.stderr)
    );

    let (url, key) = (
        first.get("DB_URL").to_owned(),
        first.get("ANON_KEY").to_owned(),
    );
    // The next start finds the data directory as after a crash, perhaps still in use.
    first.end("KILL").await;
    let again = DevServer::start(&directory.path().join("again.env"), &more).await;
    assert_eq!(
        (again.get("DB_URL"), again.get("ANON_KEY")),
        (url.as_str(), key.as_str())
    );
    connect(&url)
        .await
        .batch_execute("select from kept")
        .await
        .unwrap();
    assert!(again.end("INT").await.success());
}

#[tokio::test]
async fn migrate_shows_applies_and_is_then_up_to_date() {
    let database = TestDatabase::bare().await;
    let migrate = async |more: &[&str]| {
        let arguments = [&["migrate"], more].concat();
        let output = run(rapport(&arguments).env("DATABASE_URL", database.url())).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(
        migrate(&["--dry-run"])
            .await
            .contains("would be applied: ledger.sql")
    );
    assert!(migrate(&["--sql"]).await.starts_with("begin;"));
    assert!(migrate(&[]).await.contains("applied: migrations/0001_"));
    assert!(migrate(&[]).await.contains("up to date"));
    assert!(migrate(&["--dry-run"]).await.contains("up to date"));
}

#[tokio::test]
async fn migrate_reports_missing_settings() {
    let output = run(rapport(&["migrate"]).env_remove("DATABASE_URL")).await;
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("DATABASE_URL"),
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test]
async fn a_token_is_signed_with_the_configured_secret() {
    let sub = "00000000-0000-4000-8000-00000000000a";
    let mut command = rapport(&["token", "--sub", sub, "--expires-in", "60"]);
    let output = run(command.env("SUPABASE_JWT_SECRET", JWT_SECRET)).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&["authenticated"]);
    let key = DecodingKey::from_secret(JWT_SECRET.as_bytes());
    let claims = decode::<serde_json::Value>(text(&output.stdout).trim(), &key, &validation)
        .unwrap()
        .claims;
    assert_eq!(
        (claims["sub"].as_str(), claims["role"].as_str()),
        (Some(sub), Some("authenticated"))
    );

    let without_person = run(&mut rapport(&["token"])).await;
    assert!(!without_person.status.success());
}

/// The parts of a `doctor` report that differ between runs, machines and versions of PostgreSQL.
const VOLATILE: &[(&str, &str)] = &[
    (r"PostgreSQL [^,]+, \S+ as \S+", "PostgreSQL …, … as …"),
    (r"rapport_test_[0-9a-f]+", "…"),
    (r"\d+ of \d+ replication", "… of … replication"),
    (r"allows \d+ connections", "allows … connections"),
    (r"\d+ files have not", "… files have not"),
    (r"\d{4}-\d\d-\d\d", "YYYY-MM-DD"),
    // Printed since PostgreSQL 16.
    (" with set true, inherit false", ""),
    (r"\(os error \d+\)", "(os error …)"),
];

/// Runs `rapport doctor` with these variables and compares its report and exit code.
async fn doctor(snapshot: &str, variables: &[(&str, &str)]) {
    let output = run(rapport(&["doctor"]).envs(variables.iter().copied())).await;
    let code = output.status.code().unwrap();
    let report = format!("{}exit code {code}\n", text(&output.stdout));
    redacted(VOLATILE).bind(|| assert_snapshot!(format!("doctor_{snapshot}"), report));
}

/// Returns the exit code of `rapport doctor --json`, and its findings by id.
pub(crate) async fn findings(variables: &[(&str, &str)]) -> (i32, BTreeMap<String, Value>) {
    let output = run(rapport(&["doctor", "--json"]).envs(variables.iter().copied())).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["version"], 1);
    assert_eq!(report["ok"], output.status.success());
    let checks = report["checks"].as_array().unwrap().iter();
    let checks = checks.map(|check| (check["id"].as_str().unwrap().to_owned(), check.clone()));
    (output.status.code().unwrap(), checks.collect())
}

#[tokio::test]
async fn doctor_reports_what_is_missing_and_how_to_fix_it() {
    // Roles belong to the cluster. They exist as soon as one of its databases has the schema.
    let database = TestDatabase::new().await;
    let bare = TestDatabase::bare().await;
    // `doctor` changes nothing, so a second report is the same.
    for _ in 0..2 {
        doctor("without_schema", &[("DATABASE_URL", bare.url())]).await;
    }

    let client = database.connect().await;
    client
        .batch_execute(
            "do $$ begin execute format('revoke temporary on database %I from public', current_database()); end $$",
        )
        .await
        .unwrap();
    let url = ("DATABASE_URL", database.url());
    doctor("complete", &[url]).await;

    // Removes the partition of a day, and the publication.
    client
        .batch_execute(
            "do $$ begin
               execute 'drop table realtime.messages_' || to_char((now() at time zone 'utc') + interval '1 day', 'YYYY_MM_DD');
             end $$;
             drop publication supabase_realtime_messages_publication;
             alter publication supabase_realtime set (publish = 'insert, delete');",
        )
        .await
        .unwrap();
    doctor("warnings", &[url]).await;
    client
        .batch_execute("drop table realtime.messages_default")
        .await
        .unwrap();
    doctor("without_partition", &[url]).await;

    // Allows users to change their rows in a table of the application without restriction, and adds
    // a request login without the service role.
    client
        .batch_execute(
            "create policy own_row on public.users for update to authenticated using (id = auth.uid());
             grant update on public.users to authenticated;
             do $$ begin execute format('grant temporary on database %I to public', current_database()); end $$;
             create role doctored login password 'secret' in role anon, authenticated;",
        )
        .await
        .unwrap();
    let (_, address) = database.url().split_once('@').unwrap();
    let requests = format!("postgres://doctored:secret@{address}");
    let requests = ("RAPPORT_DATABASE_REQUEST_URL", requests.as_str());
    doctor("rights", &[url, requests]).await;
    client.batch_execute("drop role doctored").await.unwrap();

    let nowhere = "postgres://nobody@127.0.0.1:1/none";
    doctor("without_database", &[("DATABASE_URL", nowhere)]).await;
}

#[tokio::test]
async fn migrate_stops_if_no_user_would_have_a_team() {
    let database = TestDatabase::bare().await;
    let migrate = |preset: &'static str| {
        let mut command = rapport(&["migrate"]);
        command
            .env("DATABASE_URL", database.url())
            .env("RAPPORT_CHAT_HOST_PRESET", preset);
        command
    };
    // Without any account, the migration continues and reports the chosen mapping.
    let output = run(&mut migrate("auto")).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("No user has an account yet"));

    let client = database.connect().await;
    client
        .batch_execute("insert into auth.users (email) values ('a@example.com'), ('b@example.com')")
        .await
        .unwrap();
    let output = run(&mut migrate("auto")).await;
    let refusal = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{refusal}");
    for part in [
        "2 users, 2 without a team",
        "one_team (everybody is in one team): 2 users, 0 without a team",
        "users: select u.id as user_id",
        "to choose it: rapport host --use one_team",
    ] {
        assert!(refusal.contains(part), "{part} is missing in\n{refusal}");
    }
    // Only the missing choice counts as a failure.
    let url = ("DATABASE_URL", database.url());
    let (code, checks) = findings(&[url]).await;
    assert_eq!(code, 3, "{checks:?}");
    assert_eq!(checks["host.no_team"]["level"], "warn");
    assert_eq!(checks["host.ambiguous"]["level"], "fail");

    // The operator's choice is kept, even by a later "auto".
    for preset in ["one_team", "auto"] {
        let output = run(&mut migrate(preset)).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).ends_with("are found by: one_team\n"));
    }
}
