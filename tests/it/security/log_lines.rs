//! A client cannot fill the log with few requests: the texts that it chooses are cut.

use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::chat_server::{ChatServer, Person};
use crate::support::log::Log;
use crate::support::token::user_token;

/// Nearly as much as a request head may contain.
const LONG: usize = 50_000;

/// Maximum length of a line about a request, in bytes.
const LINE: usize = 1_000;

#[tokio::test]
async fn the_log_repeats_no_long_text_of_a_request() {
    let server = ChatServer::start().await;
    let token = user_token(Person::Ada.id());
    let long = "X".repeat(LONG);
    let heads = [
        // A normal request shows that lines are written and found.
        "GET /nowhere HTTP/1.1\r\nhost: a".to_owned(),
        format!("{long} / HTTP/1.1\r\nhost: a"),
        format!(
            "{long} /api/supabase/user-chat/conversations HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}"
        ),
        format!("GET /{long} HTTP/1.1\r\nhost: a"),
        format!("GET /?{long} HTTP/1.1\r\nhost: a"),
        format!("GET / HTTP/1.1\r\nhost: {long}"),
        format!("GET / HTTP/1.1\r\nhost: a\r\norigin: http://{long}"),
        format!("GET / HTTP/1.1\r\nhost: a\r\nuser-agent: {long}"),
        format!("GET / HTTP/1.1\r\nhost: a\r\nreferer: {long}"),
        format!("GET / HTTP/1.1\r\nhost: a\r\nx-request-id: {long}"),
        format!("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {long}"),
        format!("GET / HTTP/1.1\r\nhost: a\r\n{long}: a"),
        format!(
            "GET /api/supabase/user-chat/conversations HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {long}"
        ),
    ];
    for head in heads {
        let log = Log::of_this_thread();
        let request = format!("{head}\r\nconnection: close\r\n\r\n");
        let mut stream = TcpStream::connect(server.origin.trim_start_matches("http://"))
            .await
            .unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        check(&log, &head[..60.min(head.len())]);
    }
    // Texts in a body: names and values of fields, and values that the database refuses.
    for body in [
        format!(r#"{{"{long}": 1}}"#),
        format!(r#"{{"conversation_id": "{long}"}}"#),
        format!(r#"{{"other_user_id": "{long}"}}"#),
        format!(r#"{{"content": "{long}"}}"#),
        long.clone(),
    ] {
        let log = Log::of_this_thread();
        let sent = server
            .request(Person::Ada, Method::POST, "/messages")
            .header("content-type", "application/json")
            .body(body.clone());
        assert!(sent.send().await.unwrap().status().is_client_error());
        check(&log, &body[..60]);
    }
}

/// Checks that the request was logged, in short lines.
fn check(log: &Log, request: &str) {
    let text = log.text();
    assert!(text.contains("request"), "{request}: {text}");
    let longest = text.lines().map(str::len).max().unwrap_or_default();
    assert!(longest < LINE, "{request}: {longest} bytes");
}
