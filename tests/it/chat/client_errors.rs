//! Error reports of clients.

use reqwest::Method;
use serde_json::json;

use crate::support::chat_server::Person::Ana;
use crate::support::chat_server::{ChatServer, answer};
use crate::support::log::Log;
use crate::support::token::user_token;

#[tokio::test]
async fn a_report_is_one_log_line_without_secrets() {
    let log = Log::of_this_thread();
    let server = ChatServer::start().await;
    let token = user_token(Ana.id());
    let report = json!({
        "message": format!("refused with {token}\nWARN forged line"),
        "stack": "x".repeat(100_000),
        "code": "E1",
        "context": { "email": "ana@example.org", "password": "hunter2", "n": 1 },
        "url": "https://app.example/chat?access_token=abc#d",
        "userAgent": "Tester/1",
        "sdk_version": "1.2.3",
        "unknown": { "a": [] },
    });
    let request = server
        .request(Ana, Method::POST, "/client-errors")
        .header("content-type", "text/plain;charset=UTF-8")
        .body(report.to_string());
    assert_eq!(answer(request).await.status, 204);
    let text = log.text();
    let line = text
        .lines()
        .find(|line| line.contains("rapport::client_error"))
        .unwrap_or_else(|| panic!("{text}"));
    for told in [
        "WARN",
        "[token] WARN forged line",
        "E1",
        "Tester/1",
        "1.2.3",
        "https://app.example/chat",
        "\\\"n\\\":1",
    ] {
        assert!(line.contains(told), "{told}: {line}");
    }
    for secret in [token.as_str(), "ana@", "hunter2", "access_token", "unknown"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert!(line.len() < 12_000, "{}", line.len());
    assert_eq!(server.metrics.chat.client_errors.get(), 1);
}

#[tokio::test]
async fn reports_require_a_user_and_are_limited() {
    let server =
        ChatServer::start_with(&[("RAPPORT_CHAT_LIMITS_CLIENT_ERRORS_PER_MINUTE", "2")]).await;
    let report = json!({ "message": "x" });
    let request = server
        .anonymous(Method::POST, "/client-errors")
        .json(&report);
    answer(request).await.assert_refused(401, "unauthorized");
    for _ in 0..2 {
        let reported = server.post(Ana, "/client-errors", report.clone()).await;
        assert_eq!(reported.status, 204);
    }
    server
        .post(Ana, "/client-errors", report)
        .await
        .assert_refused(429, "rate_limited");
    assert_eq!(server.metrics.chat.client_errors.get(), 2);
}
