//! Deleted content is in no response, whatever the request or user.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::chat_server::Person::{self, Ana, Ben};
use crate::support::chat_server::{Answer, ChatServer, answer};

/// A word that occurs in every version of the deleted messages and in everything sent with them,
/// and nowhere else.
const WORD: &str = "zanzibar";

/// Three messages from Ana: a message with an earlier version, a pin, a reaction and a reply; a
/// file for Ben, whose only text is its name; and the newest message of the conversation.
struct Scene {
    server: ChatServer,
    conversation: String,
    quoted: String,
    newest: String,
    file: String,
    reply: String,
    /// A cursor that precedes all messages.
    cursor: String,
}

fn id(message: &Value) -> String {
    message["id"].as_str().unwrap().to_owned()
}

async fn keyed(server: &ChatServer, key: &str, method: Method, path: &str, body: &Value) -> Answer {
    let request = server.request(Ana, method, path);
    answer(request.header("idempotency-key", key).json(body)).await
}

impl Scene {
    async fn start() -> Self {
        let server = ChatServer::start().await;
        let conversation = server.open(Ana, Ben).await;
        let cursor = server.get(Ben, "/sync").await.body["cursor"].clone();
        let scene = Self {
            cursor: cursor.as_str().unwrap().to_owned(),
            quoted: String::new(),
            newest: String::new(),
            file: String::new(),
            reply: String::new(),
            conversation,
            server,
        };
        let sent = scene.send_quoted().await;
        assert_eq!(sent.status, 201);
        let quoted = id(&sent.body);
        let scene = Self { quoted, ..scene };
        assert_eq!(scene.edit_quoted().await.status, 200);

        let server = &scene.server;
        let path = format!("/messages/{}", scene.quoted);
        let pinned = server
            .send(Ben, Method::PUT, &format!("{path}/pin"), json!({}))
            .await;
        assert_eq!(pinned.status, 204);
        let reacted = server
            .send(Ben, Method::PUT, &format!("{path}/reactions/x"), json!({}))
            .await;
        assert_eq!(reacted.status, 200);
        let reported = json!({ "reason": "spam" });
        assert_eq!(
            server
                .post(Ben, &format!("{path}/report"), reported)
                .await
                .status,
            201
        );
        let answered = json!({
            "conversation_id": scene.conversation, "content": "an answer", "reply_to_id": scene.quoted,
        });
        let reply = id(&server.post(Ben, "/messages", answered).await.body);
        let file = json!({
            "conversation_id": scene.conversation, "message_type": "file", "content": "see there", "mentions": [Ben.id()],
            "file_name": "zanzibar.pdf", "file_url": "https://files.example/zanzibar.pdf", "metadata": { "place": WORD },
        });
        let storage =
            "update chat.config set value = '\"https://files.example\"' where key = 'storage_url'";
        let database = server.database.connect().await;
        database.execute(storage, &[]).await.unwrap();
        let file = server.post(Ana, "/messages", file).await;
        assert_eq!(file.status, 201, "{file:?}");
        let file = id(&file.body);
        let newest = id(&server.say(Ana, &scene.conversation, "zanzibar again").await);
        Self {
            newest,
            file,
            reply,
            ..scene
        }
    }

    /// Sends the first message, or repeats that request.
    async fn send_quoted(&self) -> Answer {
        let body = json!({
            "conversation_id": self.conversation, "content": "zanzibar one", "client_message_id": "c",
        });
        keyed(&self.server, "send", Method::POST, "/messages", &body).await
    }

    async fn edit_quoted(&self) -> Answer {
        let path = format!("/messages/{}", self.quoted);
        let body = json!({ "content": "zanzibar two" });
        keyed(&self.server, "edit", Method::PATCH, &path, &body).await
    }

    /// Returns all responses with message content, by request: to every read, to repeated writes,
    /// and to writes that return a row.
    async fn read(&self, person: Person) -> Vec<(String, String)> {
        let Self {
            conversation,
            quoted,
            newest,
            file,
            reply,
            cursor,
            ..
        } = self;
        let messages = format!("/messages?conversation_id={conversation}");
        let mut told = Vec::new();
        for path in [
            "/conversations".to_owned(),
            "/conversations?format=page&archived=all".to_owned(),
            format!("/conversations/{conversation}"),
            messages.clone(),
            format!("{messages}&include_deleted=true&format=page"),
            format!("{messages}&include_deleted=true&before=99"),
            format!("{messages}&include_deleted=true&after=0"),
            format!("{messages}&include_deleted=true&around={quoted}"),
            format!("{messages}&since_rev=0"),
            format!("/messages/{quoted}"),
            format!("/messages/{quoted}/history"),
            format!("/messages/{newest}"),
            format!("/messages/{file}"),
            format!("/conversations/{conversation}/media"),
            format!("/messages/{reply}"),
            format!("/conversations/{conversation}/pins"),
            format!("/sync?since={cursor}"),
            "/sync".to_owned(),
            format!("/search?type=messages&q={WORD}"),
            format!("/search?type=messages&q={WORD}&has=file"),
            format!("/search?type=all&q={WORD}"),
        ] {
            let answer = self.server.get(person, &path).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            told.push((path, answer.body.to_string()));
        }
        let opened = json!({ "other_user_id": if person == Ana { Ben.id() } else { Ana.id() } });
        let settings = json!({ "is_pinned": true });
        let writes = [
            (Method::POST, "/conversations".to_owned(), opened),
            (
                Method::PATCH,
                format!("/conversations/{conversation}"),
                settings,
            ),
            (
                Method::POST,
                format!("/conversations/{conversation}/unread"),
                json!({}),
            ),
        ];
        for (method, path, body) in writes {
            let answer = self.server.send(person, method, &path, body).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            told.push((path, answer.body.to_string()));
        }
        if person == Ana {
            for (what, answer) in [
                ("sent again", self.send_quoted().await),
                ("edited again", self.edit_quoted().await),
            ] {
                assert_eq!(
                    answer.header("idempotency-replayed"),
                    Some("true"),
                    "{what}: {answer:?}"
                );
                told.push((what.to_owned(), answer.body.to_string()));
            }
            let body = json!({
                "conversation_id": conversation, "content": "zanzibar one", "client_message_id": "c",
            });
            let answer = self.server.post(Ana, "/messages", body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            told.push((
                "sent again without the key".to_owned(),
                answer.body.to_string(),
            ));
        }
        told
    }
}

#[tokio::test]
async fn deleted_content_is_in_no_response() {
    let scene = Scene::start().await;
    for person in [Ana, Ben] {
        for (request, answer) in scene.read(person).await {
            assert!(
                answer.contains(WORD),
                "{person:?}, {request}, before: {answer}"
            );
        }
    }

    for message in [&scene.quoted, &scene.file, &scene.newest] {
        let path = format!("/messages/{message}");
        let deleted = scene
            .server
            .send(Ana, Method::DELETE, &path, json!({}))
            .await;
        assert_eq!(deleted.status, 200);
        assert!(!deleted.body.to_string().contains(WORD), "{deleted:?}");
        let edited = json!({ "content": "anything" });
        let refused = scene.server.send(Ana, Method::PATCH, &path, edited).await;
        refused.assert_refused(409, "message_deleted");
        assert!(!refused.body.to_string().contains(WORD), "{refused:?}");
    }
    for person in [Ana, Ben] {
        for (request, answer) in scene.read(person).await {
            assert!(
                !answer.contains(WORD),
                "{person:?}, {request}, after: {answer}"
            );
        }
    }

    for person in [Ana, Ben] {
        let path = format!("/messages/{}", scene.file);
        let file = scene.server.get(person, &path).await.body;
        assert_eq!(
            (&file["mentions"], &file["metadata"]),
            (&json!([]), &json!({}))
        );
        for name in ["file_url", "file_name", "file_size", "file_type"] {
            assert_eq!(file[name], Value::Null, "{name}");
        }
    }

    // The rows that a client of the data API can read do not contain the word either.
    let database = scene.server.database.connect().await;
    let kept: Vec<String> = database
        .query(
            "select 'message: ' || to_jsonb(m)::text from public.user_messages m \
             union all select 'wording: ' || e.previous_content from public.message_edits e \
             union all select 'draft: ' || d.content from public.message_drafts d",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(!kept.iter().any(|text| text.contains(WORD)), "{kept:?}");
}
