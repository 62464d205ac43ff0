//! The server runs with a login that may read the change stream and switch to the roles of
//! requests, and has no other right. Another login owns the schema.

use rapport::schema::{DEV_HOST, DEV_PEOPLE};
use serde_json::json;

use crate::supabase::{ACCOUNTS, PRIVATE_CHANNELS, Project, talk};
use crate::support::chat_server::Person;
use crate::support::database::connect;
use crate::support::process::Process;
use crate::support::socket::{PhoenixSocket, Version};
use crate::support::token::user_token;

/// Creates the login. PostgreSQL 15 allows only a superuser to create a role with REPLICATION. On
/// Supabase, an extension also allows it to `postgres`.
const LOGIN: &str = "create role rapport_server login replication password 'secret'";

/// What the owner of the schema then grants.
const GRANTS: &str = "grant rapport_request, anon, authenticated, service_role to rapport_server;
     revoke temporary on database postgres from public;
     grant temporary on database postgres to rapport_server;";

/// A policy that is evaluated on a stored row, because its function reads the table.
pub(super) const STORED_ROW_POLICY: &str = "
    create function public.is_stored(wanted uuid) returns boolean
    language sql stable security definer set search_path = ''
    as 'select exists (select from realtime.messages where id = wanted)';
    create policy stored on realtime.messages for select to authenticated
    using (topic = 'stored' and public.is_stored(id));";

/// Installs Rapport with the project's login, runs `more` as superuser, and creates the login of
/// the server. Returns the connection string of the latter.
pub(super) async fn prepared(project: &Project, more: &str) -> String {
    project.migrate().await;
    project.run_as_superuser(more).await;
    project.run_as_superuser(LOGIN).await;
    connect(&project.url)
        .await
        .batch_execute(GRANTS)
        .await
        .unwrap();
    let (_, address) = project.url.split_once('@').unwrap();
    let (address, _) = address.split_once('/').unwrap();
    format!("postgresql://rapport_server:secret@{address}/postgres")
}

/// Stops the server. Its log must contain no warning or error, not even from background tasks.
async fn stop(server: Process) {
    let (status, _, log) = server.stop().await;
    assert!(status.success(), "{status}\n{log}");
    let problems = log.lines().filter(|line| {
        let is_problem = line.contains(" WARN ") || line.contains(" ERROR ");
        // This warning concerns a limit of the machine, not the rights of the login.
        is_problem && !line.contains("rapport::cli::open_files")
    });
    assert_eq!(problems.collect::<Vec<_>>(), Vec::<&str>::new());
}

/// Joins the private channel `stored` as Ana and returns the status of the reply.
async fn join_stored(server: &Process) -> String {
    let token = user_token(Person::Ana.id());
    let mut socket = PhoenixSocket::connect(server.address, &token, Version::One).await;
    let config = json!({"config": {"private": true}});
    socket.join("1", "realtime:stored", config).await;
    let reply = socket.receive().await;
    reply.payload["status"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_login_of_least_rights_serves_a_hosted_project() {
    let project = Project::hosted().await;
    project.run_as_superuser(ACCOUNTS).await;
    let url = prepared(&project, PRIVATE_CHANNELS).await;
    let server = Process::start(&url, &[]).await;
    let (_, said) = talk(server.address, "hello").await;
    assert_eq!(said, ["hello"]);
    stop(server).await;
    project.end().await;
}

#[tokio::test]
async fn a_login_of_least_rights_serves_a_plain_cluster() {
    let project = Project::plain().await;
    let owner = connect(&project.url).await;
    owner.batch_execute(DEV_HOST).await.unwrap();
    let url = prepared(&project, DEV_PEOPLE).await;
    // A partition is missing, so the server must create it.
    let tomorrow = "'realtime.messages_' || to_char((now() at time zone 'utc') + interval '1 day', 'YYYY_MM_DD')";
    owner
        .batch_execute(&format!(
            "do $$ begin execute 'drop table ' || {tomorrow}; end $$"
        ))
        .await
        .unwrap();
    let server = Process::start(&url, &[]).await;
    let (_, said) = talk(server.address, "hello").await;
    assert_eq!(said, ["hello"]);
    let is_there = owner
        .query_one(&format!("select to_regclass({tomorrow}) is not null"), &[])
        .await
        .unwrap();
    assert!(is_there.get::<_, bool>(0));
    stop(server).await;

    // A policy that is evaluated on a stored row requires BYPASSRLS. Without it, joins are refused.
    owner.batch_execute(STORED_ROW_POLICY).await.unwrap();
    let server = Process::start(&url, &[]).await;
    assert_eq!(join_stored(&server).await, "error");
    let (_, _, log) = server.stop().await;
    assert!(
        log.contains("The policies cannot be evaluated for this caller: 42501"),
        "{log}"
    );
    owner
        .batch_execute("alter role rapport_server bypassrls")
        .await
        .unwrap();
    let server = Process::start(&url, &[]).await;
    assert_eq!(join_stored(&server).await, "ok");
    stop(server).await;
    drop(owner);
    project.end().await;
}

/// The login owns nothing and cannot change the schema. It sees no row of a user before it switches
/// to a role.
#[tokio::test]
async fn a_login_of_least_rights_cannot_change_the_schema() {
    let project = Project::plain().await;
    connect(&project.url)
        .await
        .batch_execute(DEV_HOST)
        .await
        .unwrap();
    let url = prepared(&project, DEV_PEOPLE).await;
    let login = connect(&url).await;
    for statement in [
        "alter table public.user_messages add column x int",
        "create or replace function chat.my_id() returns uuid language sql as 'select null::uuid'",
        "alter table realtime.messages disable row level security",
        "create table chat.x ()",
        "delete from chat.schema_migrations",
        "set role postgres",
    ] {
        let error = login.batch_execute(statement).await.err();
        let code = error.as_ref().and_then(tokio_postgres::Error::code);
        let code = code.map(tokio_postgres::error::SqlState::code);
        assert!(
            matches!(code, Some("42501" | "22023")),
            "{statement}: {error:?}"
        );
    }
    let conversation = "insert into public.user_conversations (participant_1_id, participant_2_id)
         values ('00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-00000000000b')";
    connect(&project.url)
        .await
        .batch_execute(conversation)
        .await
        .unwrap();
    let seen = login
        .query("select from public.user_conversations", &[])
        .await
        .unwrap();
    assert!(seen.is_empty());
    login.batch_execute("set role service_role").await.unwrap();
    let seen = login
        .query("select from public.user_conversations", &[])
        .await
        .unwrap();
    assert_eq!(seen.len(), 1);
    drop(login);
    project.end().await;
}
