//! Authentication: tokens, cookies, keys and forged requests.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::chat_server::Person::{Ana, Ben};
use crate::support::chat_server::{Answer, ChatServer, answer};
use crate::support::token::{
    CRITICAL_HEADER, anon_key, mint, mint_with, mint_with_header, now_s, service_role_key,
    user_claims, user_token,
};

fn claims_with(changes: Value) -> Value {
    let mut claims = user_claims(Ana.id());
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn session(token: &str) -> String {
    let session = json!({ "access_token": token, "refresh_token": "r", "expires_at": 1, "user": { "name": "x".repeat(4000) } });
    format!("base64-{}", URL_SAFE_NO_PAD.encode(session.to_string()))
}

async fn ask(server: &ChatServer, change: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Answer {
    answer(change(server.anonymous(Method::GET, "/conversations"))).await
}

#[tokio::test]
async fn only_a_valid_user_token_is_accepted() {
    let server = ChatServer::start().await;
    let with = async |token: String| ask(&server, |request| request.bearer_auth(token)).await;
    assert_eq!(with(user_token(Ana.id())).await.status, 200);
    assert_eq!(
        with(mint(&claims_with(json!({ "exp": now_s() - 20 }))))
            .await
            .status,
        200,
        "a small clock difference is tolerated"
    );

    with(mint(&claims_with(json!({ "exp": now_s() - 60 }))))
        .await
        .assert_refused(401, "token_expired");
    with(service_role_key())
        .await
        .assert_refused(403, "forbidden");
    for token in [
        "nonsense".to_owned(),
        mint_with(
            &user_claims(Ana.id()),
            "another secret that is long enough for it",
        ),
        mint(&claims_with(json!({ "aud": "others" }))),
        mint(&claims_with(json!({ "sub": "ana" }))),
        mint(&claims_with(json!({ "role": "postgres" }))),
        mint(&claims_with(json!({ "exp": null }))),
        format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
            URL_SAFE_NO_PAD.encode(user_claims(Ana.id()).to_string())
        ),
        mint_with_header(CRITICAL_HEADER, &user_claims(Ana.id())),
        anon_key(),
        "sb_publishable_abc".to_owned(),
        "sb_secret_abc".to_owned(),
    ] {
        let refused = with(token.clone()).await;
        refused.assert_refused(401, "unauthorized");
        assert_eq!(refused.body["error"], "Unauthorized");
        assert_eq!(
            refused.header("www-authenticate"),
            Some("Bearer error=\"invalid_token\"")
        );
        assert!(
            !refused.body.to_string().contains(&token),
            "a response does not contain the token"
        );
    }
    ask(&server, |request| request)
        .await
        .assert_refused(401, "unauthorized");
    ask(&server, |request| {
        request.header("authorization", "Basic YTpi")
    })
    .await
    .assert_refused(401, "unauthorized");
    let in_query = server.anonymous(
        Method::GET,
        &format!("/conversations?access_token={}", user_token(Ana.id())),
    );
    answer(in_query).await.assert_refused(401, "unauthorized");
}

#[tokio::test]
async fn a_configured_issuer_is_required_and_both_secrets_are_accepted() {
    let next = "the next secret, long enough for an HS256 signature";
    let settings = [
        ("RAPPORT_AUTH_ISSUER", "https://a.example/auth/v1"),
        ("RAPPORT_AUTH_JWT_SECRET_NEXT", next),
    ];
    let server = ChatServer::start_with(&settings).await;
    let with = async |token: String| {
        ask(&server, |request| request.bearer_auth(token))
            .await
            .status
            .as_u16()
    };
    let good = claims_with(json!({ "iss": "https://a.example/auth/v1" }));
    assert_eq!(with(mint(&good)).await, 200);
    assert_eq!(with(mint_with(&good, next)).await, 200);
    assert_eq!(with(user_token(Ana.id())).await, 401);
}

#[tokio::test]
async fn sessions_are_read_from_cookies() {
    let server = ChatServer::start().await;
    let whole = session(&user_token(Ana.id()));
    let (first, second) = whole.split_at(3180);
    let chunks = format!("theme=dark; sb-abc-auth-token.0={first}; sb-abc-auth-token.1={second}");
    for cookie in [format!("sb-abc-auth-token={whole}"), chunks] {
        let list = ask(&server, |request| request.header("cookie", &cookie)).await;
        assert_eq!(list.status, 200, "{list:?}");
    }
    let expired = session(&mint(&claims_with(json!({ "exp": now_s() - 60 }))));
    let cookie = format!("sb-abc-auth-token={expired}");
    ask(&server, |request| request.header("cookie", &cookie))
        .await
        .assert_refused(401, "token_expired");
    let broken = format!("sb-abc-auth-token.0={first}");
    ask(&server, |request| request.header("cookie", &broken))
        .await
        .assert_refused(401, "unauthorized");

    // A token takes precedence over a cookie. An opaque key is not a token.
    let bens = format!("sb-abc-auth-token={}", session(&user_token(Ben.id())));
    let presence = |token: String| {
        let request = server
            .anonymous(Method::POST, "/presence")
            .bearer_auth(token);
        answer(
            request
                .header("cookie", &bens)
                .header("sec-fetch-site", "same-origin")
                .json(&json!({})),
        )
    };
    assert_eq!(
        presence(user_token(Ana.id())).await.body["user_id"],
        json!(Ana.id())
    );
    assert_eq!(
        presence("sb_publishable_abc".to_owned()).await.body["user_id"],
        json!(Ben.id())
    );
}

#[tokio::test]
async fn a_write_with_a_cookie_must_come_from_an_allowed_page() {
    let server =
        ChatServer::start_with(&[("RAPPORT_SERVER_ALLOWED_ORIGINS", "https://app.example")]).await;
    let cookie = format!("sb-abc-auth-token={}", session(&user_token(Ana.id())));
    let host = server.origin.clone();
    let write = |headers: Vec<(&'static str, String)>| {
        let mut request = server
            .anonymous(Method::POST, "/presence")
            .header("cookie", &cookie)
            .json(&json!({}));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        answer(request)
    };
    let text = str::to_owned;
    for headers in [
        vec![("sec-fetch-site", text("same-origin"))],
        vec![
            ("origin", text("https://app.example")),
            ("sec-fetch-site", text("cross-site")),
        ],
        vec![("origin", host)],
    ] {
        assert_eq!(write(headers.clone()).await.status, 200, "{headers:?}");
    }
    for headers in [
        vec![],
        vec![("sec-fetch-site", text("cross-site"))],
        vec![("sec-fetch-site", text("same-site"))],
        vec![("origin", text("https://evil.example"))],
        vec![("origin", text("null"))],
        // A sandboxed page. Its origin is `null`, although a browser could report it as
        // same-origin.
        vec![
            ("origin", text("null")),
            ("sec-fetch-site", text("same-origin")),
        ],
        vec![
            ("origin", text("https://evil.example")),
            ("content-type", text("text/plain")),
        ],
    ] {
        write(headers).await.assert_refused(403, "forbidden");
    }
    let read = ask(&server, |request| request.header("cookie", &cookie)).await;
    assert_eq!(
        read.status, 200,
        "reading needs no proof, because another page cannot read the response"
    );
}

#[tokio::test]
async fn the_key_of_another_project_is_refused_if_a_key_is_configured() {
    let server = ChatServer::start_with(&[("SUPABASE_ANON_KEY", "sb_publishable_ours")]).await;
    let with = async |key: String| {
        ask(&server, |request| {
            request
                .bearer_auth(user_token(Ana.id()))
                .header("apikey", key)
        })
        .await
    };
    assert_eq!(with("sb_publishable_ours".to_owned()).await.status, 200);
    assert_eq!(
        with(anon_key()).await.status,
        200,
        "a token of this project also serves as a key"
    );
    with("sb_publishable_theirs".to_owned())
        .await
        .assert_refused(401, "unauthorized");
    let without = ask(&server, |request| request.bearer_auth(user_token(Ana.id()))).await;
    assert_eq!(without.status, 200, "the apikey header is optional");

    let unknowing = ChatServer::start().await;
    let any = ask(&unknowing, |request| {
        request
            .bearer_auth(user_token(Ana.id()))
            .header("apikey", "x")
    })
    .await;
    assert_eq!(any.status, 200);
}

#[tokio::test]
async fn a_user_unknown_to_the_application_sees_nothing() {
    let server = ChatServer::start().await;
    let stranger = ask(&server, |request| {
        request.bearer_auth(user_token(Uuid::new_v4()))
    })
    .await;
    assert_eq!(
        (stranger.status.as_u16(), &stranger.body),
        (200, &json!([]))
    );
}

#[tokio::test]
async fn sessions_are_read_only_from_the_configured_cookie_names() {
    let server = ChatServer::start_with(&[("RAPPORT_AUTH_COOKIE_NAMES", "mine,other")]).await;
    let session = session(&user_token(Ana.id()));
    for (name, status) in [("mine", 200), ("other", 200), ("sb-abc-auth-token", 401)] {
        let cookie = format!("{name}={session}");
        let list = ask(&server, |request| request.header("cookie", &cookie)).await;
        assert_eq!(list.status, status, "{name}");
    }
}

#[tokio::test]
async fn anonymous_users_and_sign_ins_without_a_second_factor_are_refused_where_required() {
    let (anonymous, with_factor) = (json!({ "is_anonymous": true }), json!({ "aal": "aal2" }));
    let allowing = ("RAPPORT_CHAT_ALLOW_ANONYMOUS", "true");
    let requiring = ("RAPPORT_CHAT_REQUIRED_AAL", "aal2");
    for (settings, changes, refusal) in [
        (vec![], &anonymous, Some("anonymous_not_allowed")),
        (vec![allowing], &anonymous, None),
        (
            vec![requiring],
            &json!({ "aal": "aal1" }),
            Some("mfa_required"),
        ),
        (vec![requiring], &with_factor, None),
    ] {
        let server = ChatServer::start_with(&settings).await;
        let token = mint(&claims_with(changes.clone()));
        let answer = ask(&server, |request| request.bearer_auth(token)).await;
        match refusal {
            Some(code) => answer.assert_refused(403, code),
            None => assert_eq!(answer.status, 200, "{settings:?}"),
        }
    }
}
