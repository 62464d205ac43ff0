//! One server that accepts the tokens of several issuers.

use rapport::auth::TokenError;
use serde_json::{Value, json};

use super::server::{A, B, KeyServer, OTHER_A, Reply, set};
use super::{Fetcher, claims};
use crate::support::chat_server::Person::Ben;

const FIRST: &str = "https://first.example/auth/v1";
const SECOND: &str = "https://second.example";

#[tokio::test]
async fn a_key_verifies_only_tokens_of_its_issuer() {
    // Both issuers use the same key id.
    let (first, second) = (set(&[&A]), set(&[&OTHER_A]));
    let (first, second) = (
        KeyServer::start(first).await,
        KeyServer::start(second).await,
    );
    // With and without a fixed `iss` of the first issuer.
    for issuer in [format!("issuer = '{FIRST}'"), String::new()] {
        let fetcher = Fetcher::with_file(&format!(
            "[auth]\njwks = '{}'\n{issuer}\n[[auth.issuers]]\nissuer = ['{SECOND}', 'inner']\njwks = '{}'",
            first.url(),
            second.url(),
        ));
        let mine = |iss: &str| claims(&json!({ "iss": iss }));
        let verify = async |token: String| fetcher.verify(&token).await.map(drop);
        let bad = Err(TokenError::BadSignature);
        assert_eq!(verify(A.sign(&mine(FIRST))).await, Ok(()));
        assert_eq!(verify(OTHER_A.sign(&mine(SECOND))).await, Ok(()));
        assert_eq!(verify(OTHER_A.sign(&mine("inner"))).await, Ok(()));
        assert_eq!(verify(A.sign(&mine(SECOND))).await, bad);
        assert_eq!(verify(OTHER_A.sign(&mine(FIRST))).await, bad);
        assert_eq!(verify(OTHER_A.sign(&claims(&json!({})))).await, bad);
        for inexact in ["https://second.example/", "HTTPS://second.example", ""] {
            assert_eq!(verify(OTHER_A.sign(&mine(inexact))).await, bad, "{inexact}");
        }
        let not_text = OTHER_A.sign(&claims(&json!({ "iss": [SECOND] })));
        assert_eq!(verify(not_text).await, bad);
    }
}

#[tokio::test]
async fn an_issuer_has_its_own_audience_roles_and_claim_of_the_user() {
    let server = KeyServer::start(set(&[&A])).await;
    let (file, url) = (Fetcher::with_file, server.url());
    let issuer = format!("[[auth.issuers]]\nissuer = '{SECOND}'\njwks = '{url}'\n");
    let of = |changes: Value| {
        let mut claims = claims(&changes);
        claims["iss"] = SECOND.into();
        A.sign(&claims)
    };
    let plain = file(&issuer);
    assert!(plain.verify(&of(json!({}))).await.is_ok());
    for role in ["service_role", "anon", "postgres"] {
        let verified = plain.verify(&of(json!({ "role": role }))).await.map(drop);
        assert_eq!(verified, Err(TokenError::RoleOfIssuer), "{role}");
    }
    // There are no keys at all for an issuer that is not configured.
    let stranger = plain.verify(&A.sign(&claims(&json!({})))).await;
    assert_eq!(
        stranger.map(drop),
        Err(TokenError::Signer {
            kid: Some("a".into())
        })
    );

    let special = file(&format!(
        "{issuer}audience = ['x', 'y']\nroles = ['nurse']\nperson = 'account'"
    ));
    let nurse = json!({ "aud": ["z", "y"], "role": "nurse", "account": Ben.id() });
    let verified = special.verify(&of(nurse)).await.unwrap();
    let id = Ben.id().to_string();
    assert_eq!(verified.subject.as_ref(), Some(&id));
    let seen: Value = serde_json::from_str(&verified.json).unwrap();
    assert_eq!(seen["sub"], id, "policies see the account");
    let other = special
        .verify(&of(json!({ "aud": "z", "role": "nurse" })))
        .await;
    assert_eq!(other.map(drop), Err(TokenError::WrongAudience));
    // The issuer's own `sub` is never taken for an account.
    for account in [json!(null), json!("user_2abc"), json!(7)] {
        let claims = json!({ "aud": "x", "role": "nurse", "account": account });
        let verified = special.verify(&of(claims)).await.unwrap();
        assert_eq!(verified.subject, None, "{account}");
        assert!(!verified.json.contains("\"sub\""), "{}", verified.json);
    }
}

#[tokio::test]
async fn a_discovery_document_names_the_key_set() {
    let server = KeyServer::responding(|_, _| Reply::ok("{}")).await;
    let origin = format!("http://{}", server.address);
    let fetcher = Fetcher::with_file(&format!(
        "[[auth.issuers]]\nissuer = '{origin}/tenant/'\ndiscovery = true"
    ));
    let token = B.sign(&claims(&json!({ "iss": format!("{origin}/tenant/") })));
    let document =
        |issuer: &str, url: &str| json!({ "issuer": issuer, "jwks_uri": url }).to_string();
    let keys = format!("{origin}/keys");
    let own = format!("{origin}/tenant/");
    let is_found = async |document: String| {
        server.respond(move |path, _| match path {
            "/tenant/.well-known/openid-configuration" => Reply::ok(&document),
            "/keys" => Reply::ok(set(&[&B])),
            _ => Reply {
                status: 404,
                ..Reply::ok("")
            },
        });
        fetcher.refresh().await;
        fetcher.verify(&token).await.map(drop)
    };
    let unavailable = Err(TokenError::KeysUnavailable);
    let other_issuer = document("https://second.example", &keys);
    assert_eq!(is_found(other_issuer).await, unavailable);
    assert_eq!(is_found(document(&own, "file:///keys")).await, unavailable);
    assert_eq!(
        is_found(document(&own, &format!("{origin}/gone"))).await,
        unavailable
    );
    assert_eq!(is_found(document(&own, &keys)).await, Ok(()));
}
