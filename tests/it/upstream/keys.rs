//! API keys of requests to services that are reached directly.

use rapport::auth::mint;
use serde_json::json;

use super::Forwarder;
use super::recorder::{EMPTY, Recorded, Recorder};
use crate::key_sets::server::{A, KeyServer, Reply, set};
use crate::support::eventually::eventually;
use crate::support::token::{JWT_SECRET, now_s, user_token};

const PUBLISHABLE: &str = "sb_publishable_0123456789012345678901_01234567";
const SECRET: &str = "sb_secret_0123456789012345678901_01234567";

async fn direct(recorder: &Recorder, settings: &[(&str, &str)]) -> Forwarder {
    let url = format!("http://{}", recorder.address);
    let own = [
        ("RAPPORT_UPSTREAM_REST_URL", &*url),
        ("RAPPORT_UPSTREAM_AUTH_URL", &url),
        ("RAPPORT_UPSTREAM_STORAGE_URL", &url),
        ("RAPPORT_UPSTREAM_FUNCTIONS_URL", &url),
        ("RAPPORT_AUTH_PUBLISHABLE_KEYS", PUBLISHABLE),
        ("RAPPORT_AUTH_SECRET_KEYS", SECRET),
    ];
    Forwarder::start(&[&own, settings].concat()).await
}

/// Returns the role of the token that a service received.
fn role(recorded: &Recorded) -> String {
    use base64::Engine as _;
    let token = recorded.header("authorization").unwrap();
    let payload = token.strip_prefix("Bearer ").unwrap().split('.').nth(1);
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload.unwrap())
        .unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    claims["role"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn requests_need_a_key_of_the_project() {
    let mut recorder = Recorder::start(EMPTY).await;
    let server = direct(&recorder, &[]).await;
    let browser = "user-agent: Mozilla/5.0\r\n";
    let service = json!({ "role": "service_role", "exp": 4_000_000_000_i64 });
    let service = mint(JWT_SECRET, &service).unwrap();
    // (path, headers, error code)
    let cases = [
        ("/rest/v1/todos", String::new(), "api_key_missing"),
        ("/auth/v1/user", String::new(), "api_key_missing"),
        ("/graphql/v1", String::new(), "api_key_missing"),
        (
            "/rest/v1/todos",
            "apikey: sb_publishable_y\r\n".into(),
            "api_key_invalid",
        ),
        ("/rest/v1/todos?apikey=x", String::new(), "api_key_invalid"),
        (
            "/rest/v1/",
            format!("apikey: {PUBLISHABLE}\r\n"),
            "api_key_invalid",
        ),
        (
            "/rest/v1/todos",
            format!("apikey: {SECRET}\r\n{browser}"),
            "secret_key_in_browser",
        ),
        (
            "/storage/v1/object/x",
            format!("apikey: {SECRET}\r\norigin: https://app.example\r\n"),
            "secret_key_in_browser",
        ),
        (
            "/rest/v1/todos",
            format!("apikey: {PUBLISHABLE}\r\nauthorization: Bearer {SECRET}\r\n{browser}"),
            "secret_key_in_browser",
        ),
        (
            "/storage/v1/object/x",
            format!("authorization: Bearer {service}\r\norigin: https://app.example\r\n"),
            "secret_key_in_browser",
        ),
        // A header that `Connection` names does not reach the service, so it does not count.
        (
            "/rest/v1/todos",
            format!("apikey: {PUBLISHABLE}\r\nconnection: apikey\r\n"),
            "api_key_missing",
        ),
    ];
    for (path, headers, code) in cases {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        let answer = server.send(&request).await;
        assert_eq!(
            (answer.status(), &*answer.code()),
            (401, code),
            "{path} {headers}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    let missing = server.get("/rest/v1/todos").await.json();
    for field in ["message", "msg", "error"] {
        assert_eq!(missing[field], "No API key found in request");
    }
    assert_eq!(missing["statusCode"], "401");
    assert_eq!(missing["error_code"], missing["code"]);
    assert!(recorder.arrived().is_none());

    let errors = "rapport_upstream_errors_total{service=\"rest\",code=\"api_key_missing\"}";
    assert_eq!(server.metric(errors), Some(3.0));
}

#[tokio::test]
async fn services_receive_tokens_in_place_of_opaque_keys() {
    let mut recorder = Recorder::start(EMPTY).await;
    let server = direct(&recorder, &[]).await;
    let legacy = mint(
        JWT_SECRET,
        &json!({ "role": "anon", "exp": 4_000_000_000_i64 }),
    )
    .unwrap();
    let user = user_token(uuid::Uuid::from_u128(7));
    // (key, Authorization, role at the service)
    for (key, sent, expected) in [
        (PUBLISHABLE, None, "anon"),
        (PUBLISHABLE, Some(PUBLISHABLE), "anon"),
        (SECRET, Some(SECRET), "service_role"),
        (&*legacy, None, "anon"),
        (&*legacy, Some(&*legacy), "anon"),
        (PUBLISHABLE, Some(&*user), "authenticated"),
        (PUBLISHABLE, Some(SECRET), "anon"),
    ] {
        let sent = sent.map_or(String::new(), |token| {
            format!("authorization: Bearer {token}\r\n")
        });
        let request =
            format!("GET /rest/v1/todos HTTP/1.1\r\nhost: x\r\napikey: {key}\r\n{sent}\r\n");
        assert_eq!(server.send(&request).await.status(), 200, "{key} {sent}");
        let recorded = recorder.next().await;
        assert_eq!(role(&recorded), expected, "{key} {sent}");
        assert_eq!(recorded.header("apikey"), Some(key));
    }
    let request = format!("GET /rest/v1/ HTTP/1.1\r\nhost: x\r\napikey: {SECRET}\r\n\r\n");
    assert_eq!(server.send(&request).await.status(), 200);
    assert_eq!(recorder.next().await.line(), "GET / HTTP/1.1");
}

#[tokio::test]
async fn a_signed_request_for_storage_keeps_its_authorization() {
    let mut recorder = Recorder::start(EMPTY).await;
    let server = direct(&recorder, &[]).await;
    let signed = "AWS4-HMAC-SHA256 Credential=a/20260101/local/s3/aws4_request, Signature=b";
    for (path, headers, expected) in [
        (
            "/storage/v1/s3/b/k",
            format!("authorization: {signed}\r\n"),
            Some(signed),
        ),
        (
            "/storage/v1/s3/b/k?X-Amz-Signature=ab",
            format!("apikey: {PUBLISHABLE}\r\n"),
            None,
        ),
        ("/storage/v1/object/public/b/k", String::new(), None),
        (
            "/storage/v1/object/public/b/k",
            "authorization:\r\n".to_owned(),
            None,
        ),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        assert_eq!(server.send(&request).await.status(), 200);
        let recorded = recorder.next().await;
        assert_eq!(
            recorded.header("authorization"),
            expected,
            "{path} {headers}"
        );
    }
}

#[tokio::test]
async fn a_function_receives_the_key_as_a_token() {
    let mut recorder = Recorder::start(EMPTY).await;
    let server = direct(&recorder, &[]).await;
    let request = format!(
        "POST /functions/v1/hello HTTP/1.1\r\nhost: x\r\napikey: {PUBLISHABLE}\r\nsb-api-key: forged\r\n\
         content-length: 0\r\n\r\n"
    );
    assert_eq!(server.send(&request).await.status(), 200);
    let recorded = recorder.next().await;
    let token = recorded.header("authorization").unwrap();
    assert_eq!(recorded.header("sb-api-key"), Some(token));
}

#[tokio::test]
async fn a_key_that_cannot_be_verified_yet_can_be_sent_again() {
    let recorder = Recorder::start(EMPTY).await;
    let failing = |_: &str, _: &_| Reply {
        status: 500,
        ..Reply::ok("")
    };
    let keys = KeyServer::responding(failing).await;
    let settings = [
        ("SUPABASE_JWT_SECRET", ""),
        ("RAPPORT_AUTH_JWKS", &keys.url()),
        ("RAPPORT_UPSTREAM_ANON_JWT", "a.b.c"),
        ("RAPPORT_UPSTREAM_SERVICE_JWT", "a.b.c"),
    ];
    let server = direct(&recorder, &settings).await;
    let key = A.sign(&json!({ "role": "anon", "exp": now_s() + 3_600 }));
    let get = async |path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nhost: rapport.example\r\napikey: {key}\r\n\r\n");
        server.send(&head).await
    };
    let refused = get("/rest/v1/todos").await;
    assert_eq!(
        (refused.status(), &*refused.code()),
        (503, "keys_unavailable")
    );
    assert_eq!(refused.header("retry-after"), Some("2"));
    // Storage checks keys itself.
    assert_eq!(get("/storage/v1/object/a").await.status(), 200);

    keys.publish(set(&[&A]));
    eventually("the key is accepted", async || {
        (get("/rest/v1/todos").await.status() == 200).then_some(())
    })
    .await;
}
