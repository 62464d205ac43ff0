//! What a service learns about the address of a client, and about the proxies in between.

use super::Forwarder;
use super::recorder::{EMPTY, Recorder};

const SECRET: &str = "sb_secret_0123456789012345678901_01234567";
const PUBLISHABLE: &str = "sb_publishable_0123456789012345678901_01234567";

/// Headers that no client has a reason to send.
const CLAIMS: [&str; 13] = [
    "cf-connecting-ip",
    "forwarded",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-consumer-username",
    "x-envoy-external-address",
    "x-forwarded-path",
    "x-forwarded-ssl",
    "x_forwarded_for",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

#[tokio::test]
async fn the_addresses_from_a_trusted_proxy_are_forwarded() {
    let mut recorder = Recorder::start(EMPTY).await;
    let url = format!("http://{}", recorder.address);
    for (trusted, hops, host) in [
        ("", "127.0.0.1", "x:81"),
        ("127.0.0.1", "9.9.9.9, 127.0.0.1", "app.example"),
    ] {
        let server = Forwarder::start(&[
            ("RAPPORT_UPSTREAM_STORAGE_URL", &url),
            ("RAPPORT_SERVER_TRUSTED_PROXIES", trusted),
        ])
        .await;
        server
            .send(
                "GET /storage/v1/object/x HTTP/1.1\r\nhost: x:81\r\nx-forwarded-for: 9.9.9.9\r\n\
                 x-forwarded-host: app.example\r\n\r\n",
            )
            .await;
        let recorded = recorder.next().await;
        assert_eq!(recorded.header("x-forwarded-for"), Some(hops));
        assert_eq!(recorded.header("x-forwarded-host"), Some(host));
    }
}

#[tokio::test]
async fn a_claim_of_a_client_reaches_no_service() {
    let mut recorder = Recorder::start(EMPTY).await;
    let url = format!("http://{}", recorder.address);
    let claims: String = CLAIMS.map(|name| format!("{name}: 6.6.6.6\r\n")).concat();
    for name in ["SUPABASE_URL", "RAPPORT_UPSTREAM_FUNCTIONS_URL"] {
        // A trusted proxy does not make a difference: it may pass on what its client sent.
        for trusted in ["", "127.0.0.1"] {
            let server =
                Forwarder::start(&[(name, &url), ("RAPPORT_SERVER_TRUSTED_PROXIES", trusted)])
                    .await;
            let request = format!(
                "POST /functions/v1/x HTTP/1.1\r\nhost: x\r\n{claims}\
                 x-client-info: a/1\r\nx-forwarded-for: 9.9.9.9\r\ncontent-length: 0\r\n\r\n"
            );
            assert_eq!(server.send(&request).await.status(), 200);
            let recorded = recorder.next().await;
            assert!(!recorded.head.contains("6.6.6.6"), "{}", recorded.head);
            // The controls are a header that passes, and the address of the peer.
            assert_eq!(recorded.header("x-client-info"), Some("a/1"));
            let last = recorded.header("x-forwarded-for").unwrap();
            assert!(last.ends_with("127.0.0.1"), "{last}");
        }
    }
}

#[tokio::test]
async fn only_a_server_side_key_may_name_the_address_of_its_client() {
    let mut recorder = Recorder::start(EMPTY).await;
    let url = format!("http://{}", recorder.address);
    for name in ["SUPABASE_URL", "RAPPORT_UPSTREAM_AUTH_URL"] {
        let server = Forwarder::start(&[
            (name, &url),
            ("RAPPORT_AUTH_PUBLISHABLE_KEYS", PUBLISHABLE),
            ("RAPPORT_AUTH_SECRET_KEYS", SECRET),
        ])
        .await;
        for (headers, expected) in [
            (format!("apikey: {SECRET}\r\n"), Some("6.6.6.6")),
            (format!("apikey: {PUBLISHABLE}\r\n"), None),
            (
                format!("apikey: {PUBLISHABLE}\r\nauthorization: Bearer {SECRET}\r\n"),
                None,
            ),
        ] {
            let request = format!(
                "POST /auth/v1/token HTTP/1.1\r\nhost: x\r\nsb-forwarded-for: 6.6.6.6\r\n\
                 {headers}content-length: 0\r\n\r\n"
            );
            assert_eq!(server.send(&request).await.status(), 200, "{headers}");
            let recorded = recorder.next().await;
            assert_eq!(
                recorded.header("sb-forwarded-for"),
                expected,
                "{name} {headers}"
            );
        }
    }
}
