//! Tests of tokens that expire, are refreshed, or are invalid.

use std::time::Duration;

use serde_json::json;

use super::{Server, config, plain_join};
use crate::support::socket::{VERSIONS, Version, refused_handshake, url};
use crate::support::token::{
    CRITICAL_HEADER, anon_key, mint, mint_with_header, now_s, user_claims, user_token,
};

fn token_for(seconds: u64) -> String {
    mint(&json!({ "role": "authenticated", "exp": now_s() + seconds }))
}

#[tokio::test]
async fn expiry_is_announced_and_ends_the_channel_but_not_the_socket() {
    let mut config = config();
    config.expiry_warning = Duration::from_secs(1);
    let server = Server::start(config).await;
    for version in VERSIONS {
        let mut client = server.client(version).await;
        let mut payload = plain_join();
        payload["access_token"] = token_for(3).into();
        client.join("1", "realtime:short", payload).await;
        client.expect_reply("1", "ok").await;
        client.join("2", "realtime:long", plain_join()).await;
        client.expect_reply("2", "ok").await;
        let (status, text) = client.expect_system("realtime:short").await;
        assert_eq!(status, "ok");
        assert!(text.starts_with("Token expires in "), "{text}");
        let (status, text) = client.expect_system("realtime:short").await;
        assert_eq!(status, "error");
        assert!(
            text.starts_with("Token has expired ") && text.ends_with(" seconds ago"),
            "{text}"
        );
        let close = client.expect("realtime:short", "phx_close").await;
        assert_eq!(close.reference, json!("1"));
        client
            .push(json!("2"), "3", "realtime:long", "phx_leave", json!({}))
            .await;
        client.expect_reply("3", "ok").await;
    }
}

#[tokio::test]
async fn a_refreshed_token_keeps_the_channel() {
    let mut config = config();
    config.expiry_warning = Duration::ZERO;
    let server = Server::start(config).await;
    let mut client = server.client(Version::Two).await;
    let mut payload = plain_join();
    let short = token_for(2);
    payload["access_token"] = short.clone().into();
    client.join("1", "realtime:room", payload).await;
    client.expect_reply("1", "ok").await;
    for token in [
        json!(null),
        json!("sb_publishable_x"),
        json!(short),
        json!(user_token(uuid::Uuid::new_v4())),
    ] {
        client
            .push(
                json!("1"),
                "2",
                "realtime:room",
                "access_token",
                json!({"access_token": token}),
            )
            .await;
    }
    // Another channel has a token of the same lifetime. When that channel is closed, the old token
    // of the first channel would have expired as well.
    let mut payload = plain_join();
    payload["access_token"] = token_for(2).into();
    client.join("3", "realtime:witness", payload).await;
    client.expect_reply("3", "ok").await;
    client.expect_system("realtime:witness").await;
    client.expect("realtime:witness", "phx_close").await;
    client
        .push(json!("1"), "4", "realtime:room", "phx_leave", json!({}))
        .await;
    client.expect_reply("4", "ok").await;
}

#[tokio::test]
async fn an_invalid_token_ends_the_channel() {
    let server = Server::start(config()).await;
    for version in VERSIONS {
        let mut client = server.client(version).await;
        for (token, text) in [
            (
                "nonsense".to_owned(),
                "The token provided is not a valid JWT",
            ),
            (String::new(), "The token provided is not a valid JWT"),
            (
                mint(&json!({ "exp": now_s() + 100 })),
                "Fields `role` and `exp` are required in JWT",
            ),
        ] {
            client.join("1", "realtime:room", plain_join()).await;
            client.expect_reply("1", "ok").await;
            client
                .push(
                    json!("1"),
                    "2",
                    "realtime:room",
                    "access_token",
                    json!({"access_token": token}),
                )
                .await;
            assert_eq!(
                client.expect_system("realtime:room").await,
                ("error".to_owned(), text.to_owned())
            );
            client.expect("realtime:room", "phx_close").await;
        }
    }
}

#[tokio::test]
async fn an_expired_token_cannot_join() {
    let server = Server::start(config()).await;
    let mut client = server.client(Version::Two).await;
    let expired = mint(&json!({ "role": "authenticated", "exp": now_s() - 10 }));
    client
        .join(
            "1",
            "realtime:room",
            json!({"config": {}, "access_token": expired}),
        )
        .await;
    let response = client.expect_reply("1", "error").await;
    let reason = response["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("InvalidJWTToken: Token has expired 1"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_token_with_an_unknown_critical_extension_is_refused_everywhere() {
    let server = Server::start(config()).await;
    let token = mint_with_header(CRITICAL_HEADER, &user_claims(uuid::Uuid::new_v4()));
    let text = "The token provided is not a valid JWT";

    let (status, _, body) = refused_handshake(&url(server.address, &token, None)).await;
    assert_eq!(status, 401);
    assert!(body.contains(text), "{body}");

    let mut client = server.client(Version::Two).await;
    let mut payload = plain_join();
    payload["access_token"] = token.clone().into();
    client.join("1", "realtime:room", payload).await;
    let refusal = client.expect_reply("1", "error").await;
    assert_eq!(refusal["reason"], format!("MalformedJWT: {text}"));

    client.join("2", "realtime:room", plain_join()).await;
    client.expect_reply("2", "ok").await;
    let refresh = json!({"access_token": token});
    client
        .push(json!("2"), "3", "realtime:room", "access_token", refresh)
        .await;
    let notice = client.expect_system("realtime:room").await;
    assert_eq!(notice, ("error".to_owned(), text.to_owned()));
    client.expect("realtime:room", "phx_close").await;

    let single = "/api/broadcast/room/events/hi";
    let batch = "/api/broadcast";
    let body = json!({"messages": [{"topic": "room", "event": "hi", "payload": {}}]});
    for path in [single, batch] {
        let request = reqwest::Client::new()
            .post(format!("http://{}{path}", server.address))
            .header("apikey", anon_key())
            .bearer_auth(&token)
            .json(&body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
    }
}
