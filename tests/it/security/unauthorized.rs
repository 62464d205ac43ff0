//! With `visibility.tell_unauthorized` off, a subscriber who may not select from a table learns
//! nothing about it, not even when rows change.

use serde_json::json;

use super::{database, join};
use crate::support::chat_server::Person::{self, Ana, Ben};
use crate::support::socket::PhoenixSocket;
use crate::support::token::{mint, user_claims};
use crate::support::whole_server::WholeServer;

/// Only `service_role` may select from `secrets`. An insert into `news` ends each round.
const SECRETS: &str = "
    create table public.secrets (id int primary key, secret text);
    grant select on public.secrets to service_role;
    create table public.news (id int primary key);
    grant select on public.news to authenticated, service_role;
    alter publication supabase_realtime add table public.secrets, public.news;";

async fn follow(server: &WholeServer, person: Person, role: &str) -> PhoenixSocket {
    let mut claims = user_claims(person.id());
    claims["role"] = role.into();
    let binding = |table| json!({ "event": "*", "schema": "public", "table": table });
    let bindings = [binding("secrets"), binding("news")];
    let config = json!({ "postgres_changes": bindings, "presence": { "enabled": false } });
    let (mut socket, reason) = join(server.address(), &mint(&claims), "secrets", config).await;
    assert_eq!(reason, None);
    let (status, text) = socket.expect_system("realtime:secrets").await;
    assert_eq!(status, "ok", "{text}");
    socket
}

/// Returns the record and the errors of each change before the one in `news`.
async fn until_news(socket: &mut PhoenixSocket) -> Vec<String> {
    let mut received = Vec::new();
    loop {
        let message = socket.expect("realtime:secrets", "postgres_changes").await;
        let data = &message.payload["data"];
        if data["table"] == "news" {
            return received;
        }
        received.push(format!("{} {}", data["record"], data["errors"]));
    }
}

#[tokio::test]
async fn a_setting_hides_changes_from_subscribers_who_may_not_select_the_rows() {
    let database = database().await;
    let owner = database.connect().await;
    owner.batch_execute(SECRETS).await.unwrap();
    for (tells, id) in [("true", 1), ("false", 2)] {
        let settings = [("RAPPORT_VISIBILITY_TELL_UNAUTHORIZED", tells)];
        let server = WholeServer::start(database.url(), &settings)
            .await
            .ready()
            .await;
        let mut ana = follow(&server, Ana, "authenticated").await;
        let mut service = follow(&server, Ben, "service_role").await;
        let insert =
            format!("insert into secrets values ({id}, 'hush'); insert into news values ({id})");
        owner.batch_execute(&insert).await.unwrap();
        let refused = [r#"{} ["Error 401: Unauthorized"]"#.to_owned()];
        let expected: &[String] = if tells == "true" { &refused } else { &[] };
        assert_eq!(until_news(&mut ana).await, expected, "{tells}");
        let whole = format!(r#"{{"id":{id},"secret":"hush"}} null"#);
        assert_eq!(until_news(&mut service).await, [whole], "{tells}");
    }
}
