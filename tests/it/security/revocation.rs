//! Channels of users who lose a right. The channel is closed, or the presence is removed, without
//! waiting for a new token.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::{database, join};
use crate::support::chat_server::Person::{self, Ana, Ben};
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::socket::PhoenixSocket;
use crate::support::token::user_token;
use crate::support::whole_server::WholeServer;

/// The server guarantees one second. The limit is longer for busy machines; a passing test never
/// waits this long.
const SOON: Duration = Duration::from_secs(15);

/// A server, its database, and the conversation of Ana and Ben.
struct Scene {
    server: WholeServer,
    owner: Client,
    conversation: String,
    _database: TestDatabase,
}

impl Scene {
    async fn start() -> Self {
        let database = database().await;
        let owner = database.connect().await;
        let server = WholeServer::start(database.url(), &[]).await.ready().await;
        let conversation = server.open(Ana, Ben).await;
        Self {
            server,
            owner,
            conversation,
            _database: database,
        }
    }

    /// Returns the topic of the conversation.
    fn topic(&self) -> String {
        format!("conversation:{}", self.conversation)
    }

    async fn run(&self, sql: &str) {
        let sql = sql
            .replace("<conversation>", &self.conversation)
            .replace("<ana>", &Ana.id().to_string())
            .replace("<ben>", &Ben.id().to_string());
        self.owner.batch_execute(&sql).await.unwrap();
    }

    /// Waits for a comparison of standings that started after this call.
    async fn compared(&self) {
        let count = async || {
            let metrics = self.server.metrics().await;
            let value = metrics
                .lines()
                .find_map(|line| line.strip_prefix("rapport_chat_standings_compared_total "));
            value.unwrap().parse::<u64>().unwrap()
        };
        // The comparison that is running may have read its data before this call.
        let enough = count().await + 2;
        eventually("a comparison", async || {
            (count().await >= enough).then_some(())
        })
        .await;
    }

    /// Opens a socket of this user and joins a private topic.
    async fn enter(&self, person: Person, topic: &str, presence: bool) -> PhoenixSocket {
        let config = json!({ "private": true, "presence": { "enabled": presence } });
        let token = user_token(person.id());
        let (mut socket, reason) = join(self.server.address(), &token, topic, config).await;
        assert_eq!(reason, None, "{topic}");
        if presence {
            let topic = format!("realtime:{topic}");
            socket.expect(&topic, "presence_state").await;
        }
        socket
    }

    /// Sends a broadcast on a topic and waits until this socket receives it.
    async fn broadcast(&self, topic: &str, event: &str, witness: &mut PhoenixSocket) {
        let sql = "select realtime.send('{}', $1, $2, true)";
        self.owner.execute(sql, &[&event, &topic]).await.unwrap();
        until(witness, "a broadcast", |name, payload| {
            name == "broadcast" && payload["event"] == event
        })
        .await;
    }
}

/// Returns the payload of the next message that `is_meant` accepts.
async fn until(
    socket: &mut PhoenixSocket,
    what: &str,
    mut is_meant: impl FnMut(&str, &Value) -> bool,
) -> Value {
    let looking = async {
        loop {
            let message = socket.receive().await;
            if is_meant(&message.event, &message.payload) {
                return message.payload;
            }
        }
    };
    timeout(SOON, looking)
        .await
        .unwrap_or_else(|_| panic!("{what} did not arrive"))
}

/// Waits until the channel is closed. Returns the text that the client receives.
async fn closed(socket: &mut PhoenixSocket) -> String {
    let mut text = String::new();
    until(socket, "the end of the channel", |event, payload| {
        if event == "system" {
            payload["message"].as_str().unwrap().clone_into(&mut text);
        }
        event == "phx_close"
    })
    .await;
    text
}

fn cannot_read(topic: &str) -> String {
    format!("You do not have permissions to read from this Channel topic: {topic}")
}

#[tokio::test]
async fn a_removed_member_receives_nothing_more() {
    let scene = Scene::start().await;
    let topic = scene.topic();
    let full = format!("realtime:{topic}");
    let mut ana = scene.enter(Ana, &topic, false).await;
    for ending in [
        "update public.user_conversation_members set left_at = now()
         where conversation_id = '<conversation>' and user_id = '<ben>'",
        "delete from public.user_conversation_members
         where conversation_id = '<conversation>' and user_id = '<ben>'",
        // Ends many memberships at once, as when a team is dissolved.
        "update public.user_conversation_members set left_at = now() where user_id = '<ben>'",
    ] {
        scene
            .run(
                "insert into public.user_conversation_members (conversation_id, user_id)
                 values ('<conversation>', '<ben>')
                 on conflict (conversation_id, user_id) do update set left_at = null",
            )
            .await;
        let mut ben = scene.enter(Ben, &topic, false).await;
        scene.broadcast(&topic, "before", &mut ben).await;
        scene.broadcast(&topic, "after", &mut ana).await;
        ben.until_quiet().await;

        scene.run(ending).await;
        assert_eq!(closed(&mut ben).await, cannot_read(&topic), "{ending}");
        // The socket stays open. The other member still receives broadcasts, and the removed member
        // does not.
        scene.broadcast(&topic, "afterwards", &mut ana).await;
        ben.expect_quiet().await;
        let config = json!({ "config": { "private": true } });
        ben.join("9", &full, config).await;
        ben.expect_reply("9", "error").await;
    }
}

#[tokio::test]
async fn a_deleted_conversation_closes_its_channels() {
    let scene = Scene::start().await;
    let topic = scene.topic();
    let mut ana = scene.enter(Ana, &topic, false).await;
    let mut ben = scene.enter(Ben, &topic, true).await;
    let other = format!("user:{}", Ana.id());
    let mut elsewhere = scene.enter(Ana, &other, false).await;
    scene
        .run("delete from public.user_conversations where id = '<conversation>'")
        .await;
    assert_eq!(closed(&mut ana).await, cannot_read(&topic));
    assert_eq!(closed(&mut ben).await, cannot_read(&topic));
    scene.broadcast(&other, "still", &mut elsewhere).await;
}

#[tokio::test]
async fn changes_that_revoke_nothing_leave_channels_open() {
    let scene = Scene::start().await;
    let topic = scene.topic();
    let mut ana = scene.enter(Ana, &topic, false).await;
    let mut ben = scene.enter(Ben, &topic, false).await;
    for change in [
        "update public.user_conversation_members set muted_until = now() + interval '1 hour'
         where conversation_id = '<conversation>'",
        // The policies are checked again for both users, with the same result.
        "insert into public.user_blocks (blocker_id, blocked_id) values ('<ana>', '<ben>')",
        "delete from public.user_blocks",
        "update public.users set status = 'suspended' where id = '<ben>'",
        "update public.users set status = 'active' where id = '<ben>'",
        // Ends the memberships of all users who are not in this conversation.
        "delete from public.user_conversation_members where user_id not in ('<ana>', '<ben>')",
    ] {
        scene.run(change).await;
        scene.compared().await;
        for socket in [&mut ana, &mut ben] {
            let mut unexpected = Vec::new();
            scene
                .owner
                .execute("select realtime.send('{}', 'news', $1, true)", &[&topic])
                .await
                .unwrap();
            until(socket, "a broadcast", |event, payload| {
                if event == "system" || event == "phx_close" {
                    unexpected.push((event.to_owned(), payload.clone()));
                }
                event == "broadcast" && payload["event"] == "news"
            })
            .await;
            assert!(unexpected.is_empty(), "{change}: {unexpected:?}");
        }
    }
    let metrics = scene.server.metrics().await;
    assert!(
        metrics.contains("rapport_realtime_channels_revoked_total 0"),
        "{metrics}"
    );
}

/// Returns whether the server accepts a track.
async fn may_track(socket: &mut PhoenixSocket, full: &str) -> bool {
    let push = json!({ "type": "presence", "event": "track", "payload": {} });
    socket.push(json!("1"), "t", full, "presence", push).await;
    loop {
        let message = socket.receive().await;
        if message.reference == json!("t") {
            return message.payload["status"] == "ok";
        }
    }
}

#[tokio::test]
async fn a_presence_that_may_no_longer_be_shown_is_removed() {
    let scene = Scene::start().await;
    let topic = scene.topic();
    let full = format!("realtime:{topic}");
    let mut ana = scene.enter(Ana, &topic, true).await;
    let mut ben = scene.enter(Ben, &topic, true).await;
    // A change that concerns one user, and how it is undone. It affects both users, because neither
    // may write to the other.
    let changes = [
        (
            "a block",
            "insert into public.user_blocks (blocker_id, blocked_id) values ('<ana>', '<ben>')",
            "delete from public.user_blocks",
        ),
        (
            "a suspension",
            "update public.users set status = 'suspended' where id = '<ben>'",
            "update public.users set status = 'active' where id = '<ben>'",
        ),
        (
            "a user without a team",
            "with kept as (insert into public.teams_before select id, team_id from public.users)
             update public.users set team_id = null where id = '<ana>'",
            "update public.users u set team_id = b.team_id from public.teams_before b where b.id = u.id",
        ),
    ];
    scene
        .run("create table public.teams_before (id uuid, team_id uuid)")
        .await;
    for (what, change, undo) in changes {
        scene.compared().await;
        for socket in [&mut ana, &mut ben] {
            eventually("they may be seen", async || {
                may_track(socket, &full).await.then_some(())
            })
            .await;
        }
        let both = [Ana, Ben].map(|person| person.id().to_string());
        for socket in [&mut ana, &mut ben] {
            socket.until_quiet().await;
        }
        scene.run(change).await;
        for socket in [&mut ana, &mut ben] {
            let mut gone = Vec::new();
            until(socket, what, |event, payload| {
                if event == "presence_diff" {
                    let leaves = payload["leaves"].as_object().unwrap();
                    gone.extend(leaves.keys().cloned());
                    for joined in payload["joins"].as_object().unwrap().keys() {
                        gone.retain(|key| key != joined);
                    }
                }
                both.iter().all(|key| gone.contains(key))
            })
            .await;
            assert!(!may_track(socket, &full).await, "{what}");
        }
        // Both users may still receive broadcasts. Such a change does not end that right.
        scene.broadcast(&topic, "x", &mut ana).await;
        scene.compared().await;
        scene.run(undo).await;
    }
}

#[tokio::test]
async fn policies_against_suspended_users_close_their_channels() {
    let scene = Scene::start().await;
    scene
        .run(
            "create function public.is_suspended() returns boolean language sql stable security definer
             as $$ select exists (select from public.users where id = auth.uid() and status = 'suspended') $$;
             create policy \"not the suspended\" on realtime.messages as restrictive for select
             to authenticated using (not public.is_suspended());",
        )
        .await;
    let topic = scene.topic();
    let own = format!("user:{}", Ben.id());
    let mut channels = Vec::new();
    for topic in [&topic, &own] {
        channels.push((scene.enter(Ben, topic, false).await, topic));
    }
    let mut ana = scene.enter(Ana, &topic, false).await;
    scene
        .run("update public.users set status = 'suspended' where id = '<ben>'")
        .await;
    for (channel, topic) in &mut channels {
        assert_eq!(closed(channel).await, cannot_read(topic));
    }
    scene.broadcast(&topic, "x", &mut ana).await;
}
