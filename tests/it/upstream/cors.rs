//! Web pages may read every response, and their preflight requests succeed even if a service is
//! down.

use super::Forwarder;
use super::recorder::{EMPTY, Recorder};

const NAMES: [&str; 5] = [
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-max-age",
    "access-control-allow-credentials",
];

fn preflight(path: &str) -> String {
    format!(
        "OPTIONS {path} HTTP/1.1\r\nhost: x\r\norigin: https://app.example\r\n\
         access-control-request-method: PATCH\r\n\
         access-control-request-headers: apikey, x-upsert, tus-resumable\r\n\r\n"
    )
}

/// Returns a URL at which connections are refused.
async fn closed() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn preflights_are_answered_while_the_service_is_down() {
    let url = closed().await;
    let down = Forwarder::start(&[("SUPABASE_URL", &url)]).await;
    let missing = Forwarder::start(&[]).await;
    for path in [
        "/auth/v1/token",
        "/rest/v1/todos",
        "/graphql/v1",
        "/storage/v1/upload/resumable",
        "/functions/v1/hello",
    ] {
        let answer = down.send(&preflight(path)).await;
        assert_eq!(answer.status(), 204, "{path}");
        assert_eq!(
            NAMES.map(|name| answer.header(name)),
            [
                Some("*"),
                Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
                Some("apikey, x-upsert, tus-resumable"),
                Some("3600"),
                None
            ],
            "{path}"
        );
        // The page then reads why its request fails.
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\norigin: https://app.example\r\n\r\n");
        for (server, status, code) in [
            (&down, 502, "upstream_unavailable"),
            (&missing, 503, "upstream_not_configured"),
        ] {
            let answer = server.send(&request).await;
            assert_eq!((answer.status(), &*answer.code()), (status, code), "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            assert_eq!(answer.header("access-control-expose-headers"), Some("*"));
            let relay = path.starts_with("/functions").then_some("true");
            assert_eq!(answer.header("x-relay-error"), relay, "{path}");
        }
    }
}

#[tokio::test]
async fn functions_answer_their_own_preflights() {
    let own = "HTTP/1.1 200 OK\r\naccess-control-allow-origin: https://app.example\r\n\
               access-control-allow-headers: x-mine\r\ncontent-length: 2\r\n\r\nok";
    let mut recorder = Recorder::start(own).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    let answer = server.send(&preflight("/functions/v1/hello")).await;
    assert_eq!(
        answer.header("access-control-allow-headers"),
        Some("x-mine")
    );
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(answer.body, b"ok");
    assert!(recorder.next().await.line().starts_with("OPTIONS"));

    let broken = Recorder::start("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
    let server = Forwarder::before(broken.address, &[]).await;
    let answer = server.send(&preflight("/functions/v1/hello")).await;
    assert_eq!(answer.status(), 204);
}

#[tokio::test]
async fn options_without_a_preflight_reach_the_service() {
    let mut recorder = Recorder::start(EMPTY).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    let request = "OPTIONS /storage/v1/upload/resumable HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(server.send(request).await.status(), 200);
    assert!(recorder.next().await.line().starts_with("OPTIONS"));
    server
        .send(&preflight("/storage/v1/upload/resumable"))
        .await;
    assert!(recorder.arrived().is_none());
}

#[tokio::test]
async fn a_response_never_allows_two_origins() {
    for sent in ["", "access-control-allow-origin: *\r\n"] {
        let response = format!("HTTP/1.1 200 OK\r\n{sent}{sent}content-length: 0\r\n\r\n");
        let recorder = Recorder::start(&response).await;
        let server = Forwarder::before(recorder.address, &[]).await;
        let answer = server.get("/rest/v1/todos").await;
        let lines = answer
            .head
            .lines()
            .filter(|line| line.starts_with("access-control-allow-origin"));
        assert_eq!(lines.count(), 1, "{answer:?}");
    }
}
