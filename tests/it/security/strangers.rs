//! Requests without a sign-in are limited per address, whatever their route.

use std::collections::BTreeMap;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::support::chat_server::{ChatServer, Person};
use crate::support::contract::DOCUMENT;
use crate::support::database::TestDatabase;
use crate::support::token::{anon_key, service_role_key, user_token};
use crate::support::whole_server::WholeServer;

/// Limits that are low enough to be used up in a test.
const LIMITS: [(&str, &str); 2] = [
    ("RAPPORT_SERVER_ANONYMOUS_REQUESTS_PER_SECOND", "1"),
    ("RAPPORT_SERVER_ANONYMOUS_REQUEST_BURST", "3"),
];

/// Sends requests until one is refused by the limit. Returns the refusal.
async fn until_refused(request: impl Fn() -> RequestBuilder) -> (BTreeMap<String, String>, Value) {
    for _ in 0..100 {
        let answer = request().send().await.unwrap();
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            let headers = answer.headers().iter();
            let headers =
                headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            return (headers.collect(), answer.json().await.unwrap());
        }
    }
    panic!("no request was refused");
}

#[tokio::test]
async fn anonymous_requests_are_limited_and_signed_in_users_are_not() {
    let server = ChatServer::start_with(&LIMITS).await;
    let path = "/conversations";
    // Requests without a token, with the public key or with an invalid token use the same limit.
    let (headers, body) = until_refused(|| server.anonymous(Method::GET, path)).await;
    assert_eq!(body["code"], "rate_limited");
    assert_eq!(headers["retry-after"], body["retry_after"].to_string());
    assert_eq!(headers["retry-after"], "1");
    for token in [anon_key(), "nonsense".to_owned()] {
        until_refused(|| server.anonymous(Method::GET, path).bearer_auth(&token)).await;
    }
    assert!(server.metrics.http.rate_limited.get() >= 3);
    // Users at the same address, services and health checks are not limited.
    for _ in 0..20 {
        assert_eq!(server.get(Person::Ana, path).await.status, StatusCode::OK);
        let service = server.anonymous(Method::GET, path);
        let service = service
            .bearer_auth(service_role_key())
            .send()
            .await
            .unwrap();
        assert_eq!(service.status(), StatusCode::FORBIDDEN);
        let ready = reqwest::Client::new().get(format!("{}/ready", server.origin));
        assert_ne!(
            ready.send().await.unwrap().status(),
            StatusCode::TOO_MANY_REQUESTS
        );
    }
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_read_the_refusal() {
    const ORIGIN: &str = "https://app.example.com";
    let mut settings = LIMITS.to_vec();
    settings.push(("RAPPORT_SERVER_ALLOWED_ORIGINS", ORIGIN));
    let server = ChatServer::start_with(&settings).await;
    let request = || {
        server
            .anonymous(Method::GET, "/conversations")
            .header("origin", ORIGIN)
    };
    let (headers, _) = until_refused(request).await;
    assert_eq!(headers["access-control-allow-origin"], ORIGIN);
    assert!(headers["access-control-expose-headers"].contains("retry-after"));
}

#[tokio::test]
async fn each_address_has_its_own_limit_behind_a_trusted_proxy() {
    let mut settings = LIMITS.to_vec();
    settings.push(("RAPPORT_SERVER_TRUSTED_PROXIES", "127.0.0.1"));
    let server = ChatServer::start_with(&settings).await;
    let from = |address: &str| {
        server
            .anonymous(Method::GET, "/conversations")
            .header("x-forwarded-for", address)
    };
    until_refused(|| from("192.0.2.1")).await;
    // Only a few of these addresses share an entry in the limiter's table.
    let mut admitted = 0;
    for last in 2..22 {
        let answer = from(&format!("192.0.2.{last}")).send().await.unwrap();
        admitted += u32::from(answer.status() == StatusCode::UNAUTHORIZED);
    }
    assert!(admitted > 10, "{admitted}");
}

#[tokio::test]
async fn every_route_is_limited() {
    /// Routes for the operators of the server, which are not limited. Sockets have separate limits.
    const FREE: [&str; 4] = ["/health", "/ready", "/healthcheck", "/metrics"];
    let database = TestDatabase::new().await;
    let server = WholeServer::start(database.url(), &LIMITS)
        .await
        .ready()
        .await;
    let client = reqwest::Client::new();
    let origin = format!("http://{}", server.address());
    let person = user_token(Person::Ana.id());
    let mut seen = 0;
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let documented = paths.iter().flat_map(|(path, verbs)| {
        let verbs = verbs.as_object().unwrap().keys();
        verbs.map(move |verb| (path.clone(), verb.to_uppercase()))
    });
    let lost = ["/", "/api/supabase/user-chat/nowhere", "/api/nowhere"];
    let lost = lost.map(|path| (path.to_owned(), "GET".to_owned()));
    for (path, verb) in documented.chain(lost) {
        let method: Method = verb.parse().unwrap();
        let address = format!("{origin}{}", path.replace(['{', '}'], ""));
        let request = || client.request(method.clone(), &address).body("{}");
        if FREE.contains(&&*path) {
            for _ in 0..10 {
                let status = request().send().await.unwrap().status();
                assert_ne!(status, StatusCode::TOO_MANY_REQUESTS, "{path}");
            }
            continue;
        }
        let (headers, body) = until_refused(request).await;
        assert!(headers.contains_key("retry-after"), "{verb} {path}");
        assert_eq!(body["code"], "rate_limited", "{verb} {path}");
        let known = request()
            .bearer_auth(&person)
            .send()
            .await
            .unwrap()
            .status();
        assert_ne!(known, StatusCode::TOO_MANY_REQUESTS, "{verb} {path}");
        seen += 1;
    }
    assert!(seen > 40, "{seen}");
    let answer = client
        .post(format!("{origin}/api/broadcast"))
        .header("apikey", service_role_key())
        .body(json!({ "messages": [] }).to_string());
    assert_ne!(
        answer.send().await.unwrap().status(),
        StatusCode::TOO_MANY_REQUESTS
    );
}

/// The last API key of a query counts, as in the handshake. If every key counted, an anonymous
/// client could make the server verify hundreds of keys.
#[tokio::test]
async fn only_the_last_api_key_of_a_query_counts() {
    let server = ChatServer::start_with(&LIMITS).await;
    let client = reqwest::Client::new();
    let ask = |keys: [String; 2]| {
        let [first, last] = keys;
        client.get(format!(
            "{}/nothing?apikey={first}&apikey={last}",
            server.origin
        ))
    };
    until_refused(|| ask([service_role_key(), anon_key()])).await;
    for _ in 0..20 {
        let known = ask([anon_key(), service_role_key()]).send().await.unwrap();
        assert_ne!(known.status(), StatusCode::TOO_MANY_REQUESTS);
    }
}
