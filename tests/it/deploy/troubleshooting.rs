//! Produces the errors that `docs/troubleshooting.md` explains, and compares their texts with its
//! headings.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::documents::{address, run_document, without_database};
use super::least_rights::{STORED_ROW_POLICY, prepared};
use crate::supabase::{ACCOUNTS, PRIVATE_CHANNELS, Project};
use crate::support::chat_server::Person;
use crate::support::database::{TestDatabase, connect, own_cluster, own_cluster_with};
use crate::support::process::{self, PATIENCE, Process, free_port, rapport, text};
use crate::support::socket::{PhoenixSocket, Version};
use crate::support::token::{JWT_SECRET, anon_key, mint_with, user_claims, user_token};

const GUIDE: &str = "docs/troubleshooting.md";

/// Headings whose errors this test cannot produce, with the reason.
const NOT_PRODUCED: &[(&str, &str)] = &[
    (
        "no pg_hba.conf entry",
        "the test clusters permit every login to replicate",
    ),
    ("CREATE_REPLICATION_SLOT", "requires a pooler"),
    (
        "password authentication failed",
        "PostgreSQL produces it; see `a_wrong_password`",
    ),
    ("has been blocked by CORS policy", "a browser prints it"),
    ("Everyone is signed out", "happens in a browser"),
];

/// Returns the headings of all entries.
fn headings() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GUIDE);
    let guide = fs::read_to_string(path).unwrap();
    let headings = guide.lines().filter_map(|line| line.strip_prefix("### "));
    headings.map(str::to_owned).collect()
}

/// Returns whether `text` contains the parts of the heading between its ellipses, in order.
fn shows(text: &str, heading: &str) -> bool {
    let mut rest = text;
    heading.split('…').map(str::trim).all(|part| {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
        true
    })
}

/// Runs a command that must fail, and returns what it prints.
async fn failure(command: &mut Command) -> String {
    let output = process::run(command).await;
    let printed = text(&output.stdout) + &text(&output.stderr);
    assert!(!output.status.success(), "{command:?}:\n{printed}");
    printed
}

/// Starts the server and returns the first line of its log that contains `wanted`.
async fn logged(url: &str, more: &[(&str, &str)], wanted: &str) -> String {
    let mut child = rapport(&["serve"])
        .env("DATABASE_URL", url)
        .env("SUPABASE_JWT_SECRET", JWT_SECRET)
        .env("PORT", free_port().to_string())
        .envs(more.iter().copied())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let found = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(wanted) {
                return line;
            }
        }
        panic!("the server ended without the line `{wanted}`");
    };
    let line = timeout(PATIENCE, found).await.expect("the line appears");
    child.kill().await.unwrap();
    line
}

/// Errors of commands that do not need a database.
async fn errors_at_the_start(seen: &mut Vec<String>) {
    let nowhere = "postgresql://nobody@127.0.0.1:1/none";
    let complete = |command: &mut Command| {
        command
            .env("DATABASE_URL", nowhere)
            .env("SUPABASE_JWT_SECRET", JWT_SECRET);
    };
    seen.push(failure(rapport(&["serve"]).env_remove("DATABASE_URL")).await);
    for (name, value) in [
        ("SUPABASE_JWT_SECRET", "short"),
        ("RAPPORT_SERVER_PROT", "1"),
        ("DATABASE_URL_FILE", "/etc/hostname"),
        ("RAPPORT_AUTH_ANON_KEY_FILE", "/does/not/exist"),
    ] {
        let mut command = rapport(&["serve"]);
        complete(&mut command);
        seen.push(failure(command.env(name, value)).await);
    }
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let program = env!("CARGO_BIN_EXE_rapport");
    let mut limited = Command::new("bash");
    limited.args(["-c", "ulimit -Hn 2000; exec \"$0\" serve", program]);
    complete(&mut limited);
    seen.push(failure(limited.env("PORT", port)).await);
    seen.push(failure(rapport(&["migrate"]).env("DATABASE_URL", nowhere)).await);
    let free = free_port().to_string();
    seen.push(failure(&mut rapport(&["health", "--port", &free])).await);
}

/// Errors of the installation.
async fn errors_of_the_schema(seen: &mut Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let parts = directory.path().display().to_string();
    let written = process::run(&mut rapport(&["migrate", "--sql", "--parts", &parts])).await;
    let last = text(&written.stdout).lines().last().unwrap().to_owned();
    let bare = TestDatabase::bare().await;
    let mut psql = Command::new(crate::support::database::client_program("psql"));
    seen.push(failure(psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-f", &last, bare.url()])).await);

    let database = TestDatabase::new().await;
    let mut migrate = rapport(&["migrate"]);
    migrate.env("DATABASE_URL", database.url());
    let client = database.connect().await;
    for statement in [
        "update chat.schema_definitions set checksum = 'earlier' where path = 'chat/90_policies.sql'",
        "begin; lock table public.user_messages in access exclusive mode",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    seen.push(failure(&mut migrate).await);
    client
        .batch_execute(
            "rollback;
             insert into chat.schema_migrations (version, name, checksum) values (9999, 'later', 'x')",
        )
        .await
        .unwrap();
    seen.push(failure(&mut migrate).await);
}

/// Errors of the server's login and of replication.
async fn errors_of_the_database(seen: &mut Vec<String>) {
    let cluster = own_cluster_with(&[("wal_level", "replica")]).await;
    seen.push(failure(rapport(&["doctor"]).env("DATABASE_URL", cluster.url_for("postgres"))).await);
    tokio::task::spawn_blocking(|| drop(cluster)).await.unwrap();

    let project = Project::hosted().await;
    project.run_as_superuser(ACCOUNTS).await;
    let url = prepared(&project, PRIVATE_CHANNELS).await;
    let admin = connect(&project.admin_url()).await;
    // Since PostgreSQL 16, only the role that made a grant revokes it.
    let owner = connect(&project.url).await;
    owner
        .batch_execute("revoke rapport_request from rapport_server")
        .await
        .unwrap();
    seen.push(failure(rapport(&["doctor"]).env("DATABASE_URL", &url)).await);
    owner
        .batch_execute("grant rapport_request to rapport_server")
        .await
        .unwrap();
    drop(owner);

    let first = Process::start(&url, &[]).await;
    seen.push(logged(&url, &[], "The slot is in use").await);
    errors_of_clients(&first, seen).await;
    admin.batch_execute(STORED_ROW_POLICY).await.unwrap();
    let token = user_token(Person::Ana.id());
    seen.push(joined(&first, &token, "realtime:stored").await);
    admin
        .batch_execute("create table realtime.messages_rest partition of realtime.messages default")
        .await
        .unwrap();
    let reply = joined(&first, &token, "realtime:stored").await;
    assert!(reply.contains("Unauthorized"), "{reply}");
    let (_, _, log) = first.stop().await;
    seen.push(log);

    // The other publication must exist, because without any, the server reports another error.
    // Since PostgreSQL 16, only the superuser can create it here.
    admin
        .batch_execute(
            "drop publication if exists supabase_realtime_messages_publication;
             create publication supabase_realtime_messages_publication for table realtime.messages;
             drop publication supabase_realtime",
        )
        .await
        .unwrap();
    seen.push(logged(&url, &[], "publication is missing").await);
    drop(admin);
    project.end().await;
}

/// The error of a server on a cluster whose slots are all taken.
async fn errors_of_slots(seen: &mut Vec<String>) {
    let cluster = own_cluster_with(&[("max_replication_slots", "1")]).await;
    let url = cluster.url_for("postgres");
    connect(&url)
        .await
        .batch_execute("select pg_create_physical_replication_slot('taken')")
        .await
        .unwrap();
    seen.push(logged(&url, &[], "all replication slots are in use").await);
    tokio::task::spawn_blocking(|| drop(cluster)).await.unwrap();
}

/// Errors that clients receive.
async fn errors_of_clients(server: &Process, seen: &mut Vec<String>) {
    let wrong = mint_with(
        &user_claims(Person::Ana.id()),
        "another-secret-that-is-also-long-enough",
    );
    seen.push(joined(server, &wrong, "realtime:any").await);
    let answer = reqwest::Client::new()
        .get(format!(
            "http://{}/api/supabase/user-chat/me",
            server.address
        ))
        .bearer_auth(&wrong)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    let foreign = "realtime:conversation:00000000-0000-4000-8000-0000000000ff";
    seen.push(joined(server, &user_token(Person::Ana.id()), foreign).await);
    let answer = reqwest::get(format!("http://{}/rest/v1/users", server.address))
        .await
        .unwrap();
    assert_eq!(answer.status(), 503);
    seen.push(answer.text().await.unwrap());
}

/// Joins a private channel with this token, which must fail, and returns the reason in the reply.
async fn joined(server: &Process, token: &str, topic: &str) -> String {
    let mut socket = PhoenixSocket::connect(server.address, &anon_key(), Version::One).await;
    let payload = json!({"config": {"private": true}, "access_token": token});
    socket.join("1", topic, payload).await;
    socket.expect_reply("1", "error").await["reason"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn every_heading_is_the_text_of_an_error() {
    let mut seen = Vec::new();
    errors_at_the_start(&mut seen).await;
    errors_of_the_schema(&mut seen).await;
    errors_of_the_database(&mut seen).await;
    errors_of_slots(&mut seen).await;
    let headings = headings();
    for (part, _) in NOT_PRODUCED {
        let found = headings
            .iter()
            .filter(|heading| heading.contains(part))
            .count();
        assert_eq!(found, 1, "{part}");
    }
    let missing: Vec<&String> = headings
        .iter()
        .filter(|heading| !NOT_PRODUCED.iter().any(|(part, _)| heading.contains(part)))
        .filter(|heading| !seen.iter().any(|text| shows(text, heading)))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}\nare not among\n{seen:#?}");
    let unique: BTreeSet<&String> = headings.iter().collect();
    assert_eq!(unique.len(), headings.len());
}

#[tokio::test]
async fn the_commands_for_troubleshooting_succeed() {
    let project = Project::hosted().await;
    project.run_as_superuser(ACCOUNTS).await;
    prepared(&project, PRIVATE_CHANNELS).await;
    let printed = run_document(
        GUIDE,
        &without_database(&project.admin_url()),
        &without_database(&project.url),
        &[
            ("DB", address(&project.url)),
            ("SUPABASE_JWT_SECRET", JWT_SECRET),
        ],
    )
    .await;
    assert!(
        printed.contains("user_conversation_members") || printed.contains("people"),
        "{printed}"
    );
    project.end().await;
}

/// The error comes from PostgreSQL, so `every_heading_is_the_text_of_an_error` does not produce it.
#[tokio::test]
async fn a_wrong_password() {
    let cluster = own_cluster().await;
    let url = cluster.url_for("postgres");
    connect(&url)
        .await
        .batch_execute("create role someone login password 'secret'")
        .await
        .unwrap();
    let url = format!("postgresql://someone:wrong@{}/postgres", address(&url));
    let error = failure(rapport(&["migrate"]).env("DATABASE_URL", url)).await;
    let heading = headings()
        .into_iter()
        .find(|heading| heading.contains("password authentication"));
    assert!(shows(&error, &heading.unwrap()), "{error}");
    tokio::task::spawn_blocking(|| drop(cluster)).await.unwrap();
}

#[test]
fn a_heading_is_found_by_its_parts_in_order() {
    assert!(shows("a: x is y", "a: … is …"));
    assert!(!shows("is a: x", "a: … is …"));
}
