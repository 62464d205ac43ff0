//! When a key set is fetched, what of it is used, and which responses are refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rapport::auth::TokenError;
use serde_json::{Value, json};

use super::server::{A, B, KeyServer, OTHER_A, Reply, set};
use super::{Fetcher, claims, unknown};

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let server = KeyServer::start(set(&[&A])).await;
    let fetcher = Fetcher::start(&server.url());
    let (of_a, of_b) = (A.sign(&claims(&json!({}))), B.sign(&claims(&json!({}))));
    assert!(fetcher.verify(&of_a).await.is_ok());
    assert_eq!(server.requests(), 1);

    server.publish(set(&[&A, &B]));
    let verified = tokio::join!(fetcher.verify(&of_b), fetcher.verify(&of_b));
    assert!(verified.0.is_ok() && verified.1.is_ok());
    assert!(fetcher.verify(&of_a).await.is_ok());
    assert_eq!(server.requests(), 2, "all waiters share one request");

    // Made-up keys cause no further requests.
    for kid in ["c", "d", "e"] {
        let made_up = super::server::Pair { kid, ..B };
        let token = made_up.sign(&claims(&json!({})));
        assert_eq!(fetcher.verify(&token).await.map(drop), unknown(kid));
    }
    assert_eq!(server.requests(), 2);
    assert_eq!(fetcher.metric("rapport_auth_unknown_kid_total"), Some(6.0));
}

#[tokio::test]
async fn a_key_that_disappears_verifies_nothing() {
    let server = KeyServer::start(set(&[&A, &B])).await;
    let fetcher = Fetcher::start(&server.url());
    let (of_a, of_b) = (A.sign(&claims(&json!({}))), B.sign(&claims(&json!({}))));
    let verified = fetcher.verify(&of_a).await.unwrap();
    assert!(fetcher.verifier.check_signer(&verified).is_ok());

    // A different key with the same id does not replace the key that has disappeared.
    for keys in [set(&[&B]), set(&[&OTHER_A, &B])] {
        server.publish(keys);
        fetcher.refresh().await;
        assert!(fetcher.verify(&of_a).await.is_err());
        assert_eq!(fetcher.verifier.check_signer(&verified), unknown("a"));
        assert!(fetcher.verify(&of_b).await.is_ok());
    }
    // The token with the unknown key caused one more fetch of the first of these sets.
    assert_eq!(fetcher.attempts("changed"), Some(3.0));
    assert_eq!(fetcher.attempts("unchanged"), Some(1.0));
    // The order of the keys and other members of the set do not matter.
    let mut same = set(&[&B, &OTHER_A]);
    same["version"] = 2.into();
    server.publish(same);
    fetcher.refresh().await;
    assert_eq!(fetcher.attempts("unchanged"), Some(2.0));
    assert!(fetcher.verify(&of_b).await.is_ok());
    // An issuer may withdraw all keys.
    server.publish(set(&[]));
    fetcher.refresh().await;
    assert_eq!(fetcher.verify(&of_b).await.map(drop), unknown("b"));
}

#[tokio::test]
async fn an_unchanged_set_is_not_transferred_again() {
    let server = KeyServer::responding(|_, headers| {
        if headers
            .get("if-none-match")
            .is_some_and(|tag| tag == "\"1\"")
        {
            return Reply {
                status: 304,
                ..Reply::ok("")
            };
        }
        Reply::ok(set(&[&A])).with("etag", "\"1\"")
    })
    .await;
    let fetcher = Fetcher::start(&server.url());
    let token = A.sign(&claims(&json!({})));
    assert!(fetcher.verify(&token).await.is_ok());
    fetcher.refresh().await;
    assert_eq!(fetcher.attempts("unchanged"), Some(1.0));
    assert!(fetcher.verify(&token).await.is_ok());
    let age = "rapport_auth_key_set_age_seconds{source=\"project\"}";
    assert!(fetcher.metric(age).is_some_and(|age| age < 60.0));
}

#[tokio::test]
async fn unusable_responses_are_refused_and_the_previous_set_stays() {
    let good = set(&[&A]);
    let many: Vec<Value> = (0..33).map(|_| A.public()).collect();
    let elsewhere = KeyServer::start(good.clone()).await;
    let moved = Reply {
        status: 302,
        ..Reply::ok(&good)
    };
    let cases = [
        (
            "an error",
            Reply {
                status: 500,
                ..Reply::ok(&good)
            },
        ),
        ("a redirect", moved.with("location", elsewhere.url())),
        (
            "a change that was not asked for",
            Reply {
                status: 304,
                ..Reply::ok("")
            },
        ),
        ("no JSON", Reply::ok("<html>")),
        ("no set", Reply::ok("[]")),
        (
            "too large",
            Reply::ok(format!("{good}{}", " ".repeat(64 * 1024))),
        ),
        ("too many keys", Reply::ok(json!({ "keys": many }))),
    ];
    let token = A.sign(&claims(&json!({})));
    for (name, reply) in cases {
        let server = KeyServer::start(good.clone()).await;
        let (before, after) = (Fetcher::start(&server.url()), reply.clone());
        assert!(before.verify(&token).await.is_ok());
        server.respond(move |_, _| after.clone());
        before.refresh().await;
        assert!(before.verify(&token).await.is_ok(), "{name}");
        assert_eq!(before.attempts("failed"), Some(1.0), "{name}");

        let never = Fetcher::start(&server.url());
        let verified = never.verify(&token).await.map(drop);
        assert_eq!(verified, Err(TokenError::KeysUnavailable), "{name}");
    }
    assert_eq!(elsewhere.requests(), 0, "a redirect is not followed");
}

#[tokio::test]
async fn unusable_keys_do_not_affect_the_others() {
    let secret = "a published secret of more than thirty-two bytes";
    let keys = json!({ "keys": [
        { "kty": "oct", "kid": "oct", "k": URL_SAFE_NO_PAD.encode(secret) },
        { "kty": "RSA", "kid": "short", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode([255; 128]) },
        { "kty": "EC", "crv": "P-521", "kid": "p521", "x": "AA", "y": "AA" },
        { "kty": "EC", "crv": "P-256", "kid": "broken", "x": "!", "y": "!" },
        "nonsense",
        A.public(),
    ]});
    let server = KeyServer::start(keys).await;
    let fetcher = Fetcher::start(&server.url());
    assert!(fetcher.verify(&A.sign(&claims(&json!({})))).await.is_ok());
    // Everyone can sign with a published secret.
    for kid in [Some("oct"), None] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = kid.map(str::to_owned);
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token = encode(&header, &claims(&json!({})), &key).unwrap();
        let expected = Err(TokenError::Signer {
            kid: kid.map(str::to_owned),
        });
        assert_eq!(fetcher.verify(&token).await.map(drop), expected);
    }
}
