//! Takes an empty project to a delivered message with the program's commands only. The tests run on
//! a hosted Supabase project as `shape.sql` creates it, where no login is a superuser, and on a
//! plain cluster.

mod lints;

use std::net::SocketAddr;

use rapport::chat;
use rapport::dev::postgres::Cluster;
use rapport::schema::{DEV_HOST, DEV_PEOPLE};
use reqwest::Method;
use serde_json::{Value, json};

use crate::schema_install::{forbid_ddl, shared_objects};
use crate::support::chat_server::{Person, answer};
use crate::support::database::{connect, own_cluster, own_cluster_of};
use crate::support::process::{Process, rapport, run, text};
use crate::support::socket::{PhoenixSocket, Version};
use crate::support::token::user_token;
use crate::support::whole_server::next_event;

/// The objects that Supabase creates in the cluster before the application uses it.
const SHAPE: &str = include_str!("shape.sql");

/// The policies of the private channels. On Supabase, `postgres` can create them through an
/// extension that is missing here, so the superuser creates them instead.
pub(crate) const PRIVATE_CHANNELS: &str =
    include_str!("../../../sql/definitions/realtime/30_policies.sql");

/// Two accounts with a team, as Supabase Auth creates them for a project that has no tables of
/// users.
pub(crate) const ACCOUNTS: &str = r#"
    set role supabase_auth_admin;
    insert into auth.users (id, aud, role, email, raw_app_meta_data, raw_user_meta_data)
    select id::uuid, 'authenticated', 'authenticated', name || '@example.com', '{"team_id": "support"}',
      jsonb_build_object('full_name', name)
    from (values ('00000000-0000-4000-8000-00000000000a', 'ana'), ('00000000-0000-4000-8000-00000000000b', 'ben'))
      as people (id, name);
    reset role;"#;

/// Profiles of the accounts, and a table of memberships. The application's login owns them.
const MEMBERSHIPS: &str = "
    create table public.profiles (id uuid primary key references auth.users (id), full_name text);
    create table public.organizations (id uuid primary key, name text not null);
    create table public.organization_members (
      organization_id uuid not null references public.organizations (id),
      user_id uuid not null references public.profiles (id),
      role text not null,
      primary key (organization_id, user_id)
    );
    alter table public.profiles enable row level security;
    alter table public.organizations enable row level security;
    alter table public.organization_members enable row level security;
    insert into public.profiles select id, raw_user_meta_data ->> 'full_name' from auth.users;
    insert into public.organizations values (gen_random_uuid(), 'Support');
    insert into public.organization_members select o.id, p.id, 'member' from public.organizations o, public.profiles p;";

/// A database with accounts, before Rapport is installed.
pub(crate) struct Project {
    cluster: Cluster,
    /// The connection string of the login for the application.
    pub(crate) url: String,
}

impl Project {
    /// Starts a hosted project.
    pub(crate) async fn hosted() -> Self {
        let cluster = own_cluster_of("supabase_admin").await;
        let admin = connect(&cluster.url_for("postgres")).await;
        admin.batch_execute(SHAPE).await.unwrap();
        admin
            .batch_execute("alter role postgres password 'secret'")
            .await
            .unwrap();
        let url = format!(
            "postgresql://postgres:secret@127.0.0.1:{}/postgres",
            cluster.port()
        );
        Self { cluster, url }
    }

    /// Starts a plain cluster. Its superuser installs Rapport and runs the server.
    pub(crate) async fn plain() -> Self {
        let cluster = own_cluster().await;
        let url = cluster.url_for("postgres");
        Self { cluster, url }
    }

    /// Returns the connection string of the superuser.
    pub(crate) fn admin_url(&self) -> String {
        self.cluster.url_for("postgres")
    }

    pub(crate) async fn run_as_superuser(&self, sql: &str) {
        connect(&self.admin_url())
            .await
            .batch_execute(sql)
            .await
            .unwrap();
    }

    pub(crate) async fn migrate(&self) -> String {
        let output = run(rapport(&["migrate"]).env("DATABASE_URL", &self.url)).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    pub(crate) async fn doctor(&self) {
        let output = run(rapport(&["doctor"]).env("DATABASE_URL", &self.url)).await;
        let report = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{report}");
    }

    pub(crate) async fn end(self) {
        tokio::task::spawn_blocking(|| drop(self.cluster))
            .await
            .unwrap();
    }
}

/// Sends a request as a user. Returns the body of the response, which must be successful.
async fn ask(
    address: SocketAddr,
    person: Person,
    method: Method,
    path: &str,
    body: Value,
) -> Value {
    let url = format!("http://{address}{}{path}", chat::BASE_PATH);
    let request = reqwest::Client::new()
        .request(method, url)
        .bearer_auth(user_token(person.id()));
    let answer = answer(if body.is_null() {
        request
    } else {
        request.json(&body)
    })
    .await;
    assert!(answer.status.is_success(), "{path}: {answer:?}");
    answer.body
}

/// Opens a user's socket and joins a topic.
async fn joined(address: SocketAddr, person: Person, topic: &str, config: Value) -> PhoenixSocket {
    let token = user_token(person.id());
    let mut socket = PhoenixSocket::connect(address, &token, Version::One).await;
    socket.join("1", topic, json!({"config": config})).await;
    socket.expect_reply("1", "ok").await;
    socket
}

/// Opens a user's socket that receives new messages.
async fn follower(address: SocketAddr, person: Person) -> PhoenixSocket {
    let binding = json!({"event": "INSERT", "schema": "public", "table": "user_messages"});
    let config = json!({"postgres_changes": [binding]});
    let mut socket = joined(address, person, "realtime:messages", config).await;
    let (status, said) = socket.expect_system("realtime:messages").await;
    assert_eq!((&*status, &*said), ("ok", "Subscribed to PostgreSQL"));
    socket
}

/// Sends a message from Ana to Ben. Ben must receive it on his sockets and find it in the history.
/// Returns the conversation and the contents of all its messages.
pub(crate) async fn talk(address: SocketAddr, content: &str) -> (String, Vec<String>) {
    let (ana, ben) = (Person::Ana, Person::Ben);
    let mut rows = follower(address, ben).await;
    let topic = format!("realtime:user:{}", ben.id());
    let mut events = joined(address, ben, &topic, json!({"private": true})).await;

    let with_ben = json!({"other_user_id": ben.id()});
    let opened = ask(address, ana, Method::POST, "/conversations", with_ben).await;
    let conversation = opened["id"].as_str().unwrap().to_owned();
    let message = json!({"conversation_id": conversation, "content": content});
    ask(address, ana, Method::POST, "/messages", message).await;

    let row = loop {
        // The presence state arrives after the join.
        let message = rows.receive().await;
        if message.event == "postgres_changes" {
            break message;
        }
    };
    let record = &row.payload["data"]["record"];
    assert_eq!(
        (&record["content"], &record["sender_id"]),
        (&json!(content), &json!(ana.id()))
    );
    let event = next_event(&mut events, "conversation.updated").await;
    assert_eq!(event["conversation_id"], conversation.as_str());

    let path = format!("/messages?conversation_id={conversation}");
    let history = ask(address, ben, Method::GET, &path, Value::Null).await;
    let said = history.as_array().unwrap().iter();
    let said = said.map(|message| message["content"].as_str().unwrap().to_owned());
    (conversation, said.collect())
}

/// Installs, checks and uses Rapport in the order of a first setup. The installation must choose
/// `preset`. The superuser runs `more` after it.
async fn works(project: Project, preset: &str, more: &str) {
    let applied = project.migrate().await;
    assert!(applied.contains("applied: migrations/0001_"), "{applied}");
    let chosen = format!("are found by: {preset}\n");
    assert!(applied.ends_with(&chosen), "{applied}");
    project.run_as_superuser(more).await;
    project.doctor().await;

    let server = Process::start(&project.url, &[]).await;
    let (first, said) = talk(server.address, "first").await;
    assert_eq!(said, ["first"]);
    let (status, _, log) = server.stop().await;
    assert!(status.success(), "{status}\n{log}");

    // The second start finds what the first one left in the database, such as partitions.
    let server = Process::start(&project.url, &[]).await;
    let (again, mut said) = talk(server.address, "second").await;
    said.sort_unstable();
    assert_eq!(
        (again, said),
        (first, vec!["first".to_owned(), "second".to_owned()])
    );
    let (status, _, log) = server.stop().await;
    assert!(status.success(), "{status}\n{log}");

    let shared = forbid_ddl(&project.admin_url()).await;
    let applied = project.migrate().await;
    assert!(applied.contains("up to date"), "{applied}");
    assert_eq!(shared_objects(&project.admin_url()).await, shared);
    project.end().await;
}

#[tokio::test]
async fn messages_are_delivered_on_hosted_supabase_between_accounts() {
    let project = Project::hosted().await;
    project.run_as_superuser(ACCOUNTS).await;
    works(project, "claims", PRIVATE_CHANNELS).await;
}

#[tokio::test]
async fn messages_are_delivered_on_hosted_supabase_between_members_of_an_organization() {
    let project = Project::hosted().await;
    project.run_as_superuser(ACCOUNTS).await;
    let application = connect(&project.url).await;
    application.batch_execute(MEMBERSHIPS).await.unwrap();
    works(project, "profiles_members", PRIVATE_CHANNELS).await;
}

#[tokio::test]
async fn messages_are_delivered_on_hosted_supabase_between_users_of_the_application() {
    let project = Project::hosted().await;
    // The application's login owns its tables. The superuser creates the accounts in place of
    // Supabase Auth.
    let application = connect(&project.url).await;
    application.batch_execute(DEV_HOST).await.unwrap();
    project.run_as_superuser(DEV_PEOPLE).await;
    works(project, "users_table", PRIVATE_CHANNELS).await;
}

#[tokio::test]
async fn messages_are_delivered_on_a_plain_cluster() {
    let project = Project::plain().await;
    let application = connect(&project.url).await;
    application.batch_execute(DEV_HOST).await.unwrap();
    // The migrations create the table of accounts.
    works(project, "users_table", DEV_PEOPLE).await;
}
