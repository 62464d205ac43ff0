//! Tests of API keys: the rules for admitting a request and for replacing its key.

use serde_json::Value;

use super::*;
use crate::auth::{KeySet, Requirements};

const SECRET: &str = "a-secret-that-signs-tokens-0123456789";
const PUBLISHABLE: &str = "sb_publishable_0123456789012345678901_01234567";
const SECRET_KEY: &str = "sb_secret_0123456789012345678901_01234567";

fn token(role: &str) -> String {
    mint(SECRET, &json!({ "role": role, "exp": 4_000_000_000_i64 })).unwrap()
}

fn keys(anon_token: Tokens) -> Keys {
    let set = KeySet::new(Some(SECRET), None, None).unwrap();
    let hash = |key: &str| Sha256::digest(key).into();
    Keys {
        known: vec![
            (hash(PUBLISHABLE), Role::Anon),
            (hash(SECRET_KEY), Role::Service),
            (hash("legacy.anon.key"), Role::Anon),
        ],
        verifier: Verifier::new(set, Requirements::default()),
        anon_token,
        service_token: minted(),
    }
}

fn minted() -> Tokens {
    Tokens::Minted {
        secret: Secret::new(SECRET),
        current: Mutex::new(None),
    }
}

type Pairs<'a> = Vec<(&'static str, &'a str)>;

/// The rule, the method, the headers and the query of a request, and the expected result.
type Case<'a> = (
    KeyRule,
    Method,
    Pairs<'a>,
    Option<&'a str>,
    Result<Option<Role>, Refusal>,
);

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )
    };
    pairs.iter().map(pair).collect()
}

#[test]
fn a_request_is_admitted_by_its_key() {
    use KeyRule::{Any, NotRequired, ServerSide};
    use Refusal::{KeyInvalid, KeyMissing, SecretKeyInBrowser};
    let (anon, service, user) = (token("anon"), token("service_role"), token("authenticated"));
    let in_query = format!("select=id&apikey={PUBLISHABLE}");
    let two_in_query = format!("apikey={PUBLISHABLE}&apikey=other");
    let browser = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)");
    let origin = ("origin", "https://app.example");
    let (service_token, user_token) = (format!("Bearer {service}"), format!("bearer {user}"));
    let opaque_token = format!("Bearer {SECRET_KEY}");
    let in_token = ("authorization", &*service_token);
    let opaque_in_token = ("authorization", &*opaque_token);
    let user_in_token = ("authorization", &*user_token);
    let cases: Vec<Case<'_>> = vec![
        (Any, Method::GET, vec![], None, Err(KeyMissing)),
        (
            Any,
            Method::GET,
            vec![("apikey", "")],
            None,
            Err(KeyMissing),
        ),
        (
            Any,
            Method::GET,
            vec![("authorization", &anon)],
            None,
            Err(KeyMissing),
        ),
        (NotRequired, Method::GET, vec![], None, Ok(None)),
        (
            Any,
            Method::GET,
            vec![("apikey", PUBLISHABLE)],
            None,
            Ok(Some(Role::Anon)),
        ),
        (
            Any,
            Method::POST,
            vec![("apikey", SECRET_KEY)],
            None,
            Ok(Some(Role::Service)),
        ),
        (
            Any,
            Method::GET,
            vec![("apikey", "legacy.anon.key")],
            None,
            Ok(Some(Role::Anon)),
        ),
        (
            Any,
            Method::GET,
            vec![("apikey", &anon)],
            None,
            Ok(Some(Role::Anon)),
        ),
        (
            Any,
            Method::GET,
            vec![("apikey", &service)],
            None,
            Ok(Some(Role::Service)),
        ),
        // A user's token identifies a user, not a project.
        (
            Any,
            Method::GET,
            vec![("apikey", &user)],
            None,
            Err(KeyInvalid),
        ),
        (
            Any,
            Method::GET,
            vec![("apikey", "sb_publishable_other")],
            None,
            Err(KeyInvalid),
        ),
        (
            Any,
            Method::GET,
            vec![("apikey", "x")],
            None,
            Err(KeyInvalid),
        ),
        (
            NotRequired,
            Method::GET,
            vec![("apikey", "x")],
            None,
            Ok(None),
        ),
        (
            Any,
            Method::GET,
            vec![],
            Some(&in_query),
            Ok(Some(Role::Anon)),
        ),
        (
            Any,
            Method::HEAD,
            vec![],
            Some(&in_query),
            Ok(Some(Role::Anon)),
        ),
        (Any, Method::POST, vec![], Some(&in_query), Err(KeyMissing)),
        (
            Any,
            Method::GET,
            vec![],
            Some(&two_in_query),
            Err(KeyInvalid),
        ),
        (
            Any,
            Method::GET,
            vec![("apikey", "x")],
            Some(&in_query),
            Err(KeyInvalid),
        ),
        (
            ServerSide,
            Method::GET,
            vec![("apikey", PUBLISHABLE)],
            None,
            Err(KeyInvalid),
        ),
        (
            ServerSide,
            Method::GET,
            vec![("apikey", SECRET_KEY)],
            None,
            Ok(Some(Role::Service)),
        ),
        (
            Any,
            Method::GET,
            vec![("apikey", SECRET_KEY), browser],
            None,
            Err(SecretKeyInBrowser),
        ),
        (
            Any,
            Method::GET,
            vec![("apikey", SECRET_KEY), origin],
            None,
            Err(SecretKeyInBrowser),
        ),
        (
            Any,
            Method::GET,
            vec![("apikey", &service), origin],
            None,
            Err(SecretKeyInBrowser),
        ),
        (
            NotRequired,
            Method::GET,
            vec![("apikey", SECRET_KEY), origin],
            None,
            Err(SecretKeyInBrowser),
        ),
        (
            Any,
            Method::GET,
            vec![("apikey", PUBLISHABLE), origin, browser],
            None,
            Ok(Some(Role::Anon)),
        ),
        // A server-side key in `Authorization` is refused as well, beside a public key or alone.
        (
            Any,
            Method::POST,
            vec![("apikey", PUBLISHABLE), in_token, browser],
            None,
            Err(SecretKeyInBrowser),
        ),
        (
            Any,
            Method::GET,
            vec![("apikey", PUBLISHABLE), opaque_in_token, origin],
            None,
            Err(SecretKeyInBrowser),
        ),
        (
            NotRequired,
            Method::GET,
            vec![in_token, origin],
            None,
            Err(SecretKeyInBrowser),
        ),
        (
            Any,
            Method::GET,
            vec![("apikey", PUBLISHABLE), in_token],
            None,
            Ok(Some(Role::Anon)),
        ),
        (
            Any,
            Method::GET,
            vec![("apikey", PUBLISHABLE), user_in_token, origin, browser],
            None,
            Ok(Some(Role::Anon)),
        ),
    ];
    let keys = keys(Tokens::Missing);
    for (rule, method, pairs, query, expected) in cases {
        let found = keys.admit(rule, &method, &headers(&pairs), query);
        let found = found.map(|given| given.map(|given| given.role));
        assert_eq!(found, expected, "{rule:?} {method} {pairs:?} {query:?}");
    }
}

/// Returns the `Authorization` that a service receives. A token that Rapport minted is replaced by
/// `minted` and its role.
fn received(keys: &Keys, service: Service, pairs: &[(&'static str, &str)], query: &str) -> String {
    let mut headers = headers(pairs);
    let given = keys
        .admit(KeyRule::NotRequired, &Method::GET, &headers, Some(query))
        .unwrap();
    keys.exchange(service, given.as_ref(), Some(query), &mut headers);
    let Some(value) = headers.get(AUTHORIZATION) else {
        return "none".to_owned();
    };
    let text = value.to_str().unwrap();
    let sent = pairs
        .iter()
        .any(|(_, value)| !value.is_empty() && text.ends_with(value));
    match bearer_token(text) {
        Some(token) if !sent && !token.starts_with("fixed") => {
            let claims = keys.verifier.verify_api_key(token).unwrap();
            format!("minted {}", claims.role)
        }
        _ => text.to_owned(),
    }
}

#[test]
fn an_opaque_key_is_exchanged_and_a_users_token_stays() {
    use Service::{Rest, Storage};
    let anon = token("anon");
    let user = format!("Bearer {}", token("authenticated"));
    let opaque = format!("Bearer {PUBLISHABLE}");
    let secret = format!("Bearer {SECRET_KEY}");
    let minted_anon = "minted anon".to_owned();
    let legacy = format!("Bearer {anon}");
    let signed = "AWS4-HMAC-SHA256 Credential=x".to_owned();
    let key = ("apikey", PUBLISHABLE);
    let cases: Vec<(Service, Pairs<'_>, &str, String)> = vec![
        (Rest, vec![key], "", minted_anon.clone()),
        (
            Rest,
            vec![key, ("authorization", &opaque)],
            "",
            minted_anon.clone(),
        ),
        // The key in `apikey` determines the role, even if `Authorization` contains another key.
        (
            Rest,
            vec![key, ("authorization", &secret)],
            "",
            minted_anon.clone(),
        ),
        (
            Rest,
            vec![key, ("authorization", "Basic eDp5")],
            "",
            minted_anon.clone(),
        ),
        (
            Rest,
            vec![key, ("authorization", "Bearer ")],
            "",
            minted_anon.clone(),
        ),
        (Rest, vec![key, ("authorization", &user)], "", user.clone()),
        (
            Rest,
            vec![("apikey", SECRET_KEY)],
            "",
            "minted service_role".to_owned(),
        ),
        (Rest, vec![("apikey", &anon)], "", legacy.clone()),
        (
            Rest,
            vec![("apikey", &anon), ("authorization", &opaque)],
            "",
            legacy,
        ),
        (Storage, vec![], "", "none".to_owned()),
        (Storage, vec![("authorization", "")], "", "none".to_owned()),
        (
            Storage,
            vec![key, ("authorization", "")],
            "",
            minted_anon.clone(),
        ),
        (
            Storage,
            vec![("authorization", &signed)],
            "",
            signed.clone(),
        ),
        (
            Storage,
            vec![key, ("authorization", &signed)],
            "",
            signed.clone(),
        ),
        (Storage, vec![key], "X-Amz-Signature=ab", "none".to_owned()),
        (Rest, vec![key], "X-Amz-Signature=ab", minted_anon),
    ];
    let keys = keys(minted());
    for (service, pairs, query, expected) in cases {
        let found = received(&keys, service, &pairs, query);
        assert_eq!(found, expected, "{service:?} {pairs:?} {query}");
    }
}

#[test]
fn a_configured_token_is_preferred_to_a_created_one() {
    let keys = keys(Tokens::new(
        &Some(Secret::new("fixed")),
        &Some(Secret::new("legacy.anon.key")),
        &Some(Secret::new(SECRET)),
    ));
    let found = received(&keys, Service::Rest, &[("apikey", PUBLISHABLE)], "");
    assert_eq!(found, "Bearer fixed");
}

#[test]
fn a_function_receives_the_key_as_a_token() {
    let keys = keys(minted());
    let mut sent = headers(&[("apikey", PUBLISHABLE), ("sb-api-key", "forged")]);
    let given = keys
        .admit(KeyRule::NotRequired, &Method::POST, &sent, None)
        .unwrap();
    keys.exchange(Service::Functions, given.as_ref(), None, &mut sent);
    assert_eq!(sent[FUNCTION_KEY], sent[AUTHORIZATION]);

    let mut sent = headers(&[("sb-api-key", "forged")]);
    keys.exchange(Service::Functions, None, None, &mut sent);
    assert!(!sent.contains_key(FUNCTION_KEY));
}

#[test]
fn a_created_token_is_replaced_before_it_expires() {
    let tokens = minted();
    let first = tokens.get(Role::Anon, 1_000).unwrap();
    assert_eq!(tokens.get(Role::Anon, 1_239).unwrap(), first);
    let second = tokens.get(Role::Anon, 1_240).unwrap();
    assert_ne!(second, first);
    let payload = second.to_str().unwrap().split('.').nth(1).unwrap();
    let payload =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload);
    let claims: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
    assert_eq!(
        claims,
        json!({ "iss": "supabase", "role": "anon", "iat": 1_240, "exp": 1_540 })
    );
}

#[test]
fn the_key_is_removed_from_the_query() {
    for (query, expected) in [
        ("apikey=a", None),
        ("select=id&apikey=a", Some("select=id")),
        ("apikey=a&select=id&apikey=b", Some("select=id")),
        ("apikeys=a", Some("apikeys=a")),
        ("a='%22'&&b", Some("a='%22'&&b")),
        ("apikey", None),
    ] {
        assert_eq!(without_key(query).as_deref(), expected, "{query}");
    }
}
