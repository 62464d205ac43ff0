//! Tests that subscribers receive a deleted row even if the rows that its policy reads are deleted
//! with it.

use serde_json::{Value, json};
use uuid::Uuid;

use super::postgres_changes::{Stack, subscribe, with_bindings};
use crate::support::socket::{PhoenixSocket, Version};
use crate::support::token::{anon_key, service_role_key, user_token};

const TOPIC: &str = "realtime:posts";

/// Publishes only the posts and a fence table. A row of the fence table shows that everything
/// before it has arrived.
const TABLES: &str = "
set synchronous_commit = on;
create table rooms (id int8 primary key);
create table room_members (
  room_id int8 references rooms on delete cascade, user_id uuid, left_at timestamptz, primary key (room_id, user_id)
);
create table posts (id int8 primary key, room_id int8 references rooms on delete cascade, text text);
create table fence (id int8 generated always as identity primary key);
alter table posts replica identity full;
alter table posts enable row level security;
grant select on rooms, room_members, posts, fence to anon, authenticated, service_role;
alter publication supabase_realtime add table posts, fence;
";

const BY_SUBSELECT: &str = "
create policy members on posts for select to authenticated using (exists (
  select from room_members m where m.room_id = posts.room_id and m.user_id = auth.uid() and m.left_at is null));
";

/// A policy with a function whose reads cannot be analysed.
const BY_FUNCTION: &str = "
create function is_member(room int8) returns boolean language plpgsql stable security definer set search_path = '' as
  $$ begin
    return exists (select from public.room_members m
      where m.room_id = room and m.user_id = auth.uid() and m.left_at is null);
  end $$;
create policy members on posts for select to authenticated using (is_member(room_id));
";

fn user(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

struct Listener {
    name: &'static str,
    client: PhoenixSocket,
}

impl Listener {
    async fn join(stack: &Stack, name: &'static str, token: String, filter: Option<&str>) -> Self {
        let mut client =
            PhoenixSocket::connect(stack.server.address, &anon_key(), Version::Two).await;
        let mut posts = json!({"event": "*", "schema": "public", "table": "posts"});
        if let Some(filter) = filter {
            posts["filter"] = json!(filter);
        }
        let fence = json!({"event": "*", "schema": "public", "table": "fence"});
        let mut join = with_bindings(&json!([posts, fence]));
        join["access_token"] = json!(token);
        subscribe(&mut client, "1", TOPIC, join).await;
        Self { name, client }
    }

    /// Returns type and record of the changes before the fence.
    async fn received_before_fence(&mut self) -> Vec<(String, Value)> {
        let mut received = Vec::new();
        loop {
            let message = self.client.expect(TOPIC, "postgres_changes").await;
            let data = &message.payload["data"];
            if data["table"] == "fence" {
                return received;
            }
            let kind = data["type"].as_str().unwrap().to_owned();
            let record = match &*kind {
                "DELETE" => "old_record",
                _ => "record",
            };
            received.push((kind, data[record].clone()));
        }
    }
}

/// Starts a server with a member of room 1, a user outside, each with and without a filter, and a
/// subscriber who sees everything.
async fn start(policy: &str) -> (Stack, Vec<Listener>) {
    let stack = Stack::start(&format!("{TABLES}{policy}")).await;
    let mut listeners = Vec::new();
    for (name, token, filter) in [
        ("member", user_token(user(1)), None),
        (
            "member of room 1",
            user_token(user(1)),
            Some("room_id=eq.1"),
        ),
        ("outsider", user_token(user(2)), None),
        (
            "outsider of room 1",
            user_token(user(2)),
            Some("room_id=eq.1"),
        ),
        ("service", service_role_key(), None),
    ] {
        listeners.push(Listener::join(&stack, name, token, filter).await);
    }
    (stack, listeners)
}

/// Returns statements that create rooms 1 and 2 with a post each. User 1 is a member of room 1.
fn rooms() -> String {
    format!(
        "insert into rooms values (1), (2);
         insert into room_members values (1, '{}'), (2, '{}');
         insert into posts values (10, 1, 'one'), (20, 2, 'two')",
        user(1),
        user(3),
    )
}

/// Runs statements, and checks which subscribers receive which deleted posts.
async fn deletes(
    stack: &Stack,
    listeners: &mut [Listener],
    sql: &str,
    expected: &[(&str, &[i64])],
) {
    stack.run(sql).await;
    stack.run("insert into fence default values").await;
    for listener in listeners {
        let ids = expected.iter().find(|(name, _)| *name == listener.name);
        let ids = ids.map_or(&[][..], |(_, ids)| ids);
        let expected: Vec<_> = ids
            .iter()
            .map(|id| ("DELETE".to_owned(), json!({ "id": id })))
            .collect();
        let received = listener.received_before_fence().await;
        assert_eq!(received, expected, "{}: {sql}", listener.name);
    }
}

async fn run_and_receive(stack: &Stack, listeners: &mut [Listener], sql: &str) {
    stack.run(sql).await;
    stack.run("insert into fence default values").await;
    for listener in listeners {
        let received = listener.received_before_fence().await;
        assert!(
            received.iter().all(|(kind, _)| kind == "INSERT"),
            "{received:?}"
        );
        let count = match listener.name {
            "service" => 2,
            "member" | "member of room 1" => 1,
            _ => 0,
        };
        assert_eq!(received.len(), count, "{}: {received:?}", listener.name);
    }
}

#[tokio::test]
async fn a_deletion_is_delivered_although_the_rows_that_made_it_visible_are_deleted() {
    for policy in [BY_SUBSELECT, BY_FUNCTION] {
        let (stack, mut listeners) = start(policy).await;
        for sql in [
            "delete from rooms",
            "begin; delete from room_members; delete from posts; delete from rooms; commit",
            "begin; delete from posts; delete from room_members; commit; delete from rooms",
            "begin; update room_members set left_at = now(); delete from posts; commit; delete from rooms",
            // This deletion leaves everything that the policy reads.
            "delete from posts; delete from rooms",
        ] {
            // A row that a client has received is visible in the newest snapshot, so it can now be
            // deleted.
            run_and_receive(&stack, &mut listeners, &rooms()).await;
            let told = [
                ("member", &[10][..]),
                ("member of room 1", &[10]),
                ("service", &[10, 20]),
            ];
            let (stack, listeners) = (&stack, &mut listeners);
            deletes(stack, listeners, sql, &told).await;
        }
    }
}

#[tokio::test]
async fn a_deletion_is_not_delivered_after_the_row_became_invisible() {
    let (stack, mut listeners) = start(BY_SUBSELECT).await;
    run_and_receive(&stack, &mut listeners, &rooms()).await;
    stack
        .run("delete from room_members where room_id = 1; insert into posts values (11, 1, 'eleven')")
        .await;
    stack.run("insert into fence default values").await;
    for listener in &mut listeners {
        let count = usize::from(listener.name == "service");
        assert_eq!(
            listener.received_before_fence().await.len(),
            count,
            "{}",
            listener.name
        );
    }
    let told = [("service", &[10, 11, 20][..])];
    deletes(&stack, &mut listeners, "delete from rooms", &told).await;
}
