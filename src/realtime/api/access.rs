//! The caller of a broadcast over HTTP, and the request headers that policies may read (protocol
//! 1.5, 4.3).

use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use axum::http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use super::refusal::Refusal;
use crate::auth::{Claims, TokenError, Verifier, is_opaque_key};

const API_KEY: HeaderName = HeaderName::from_static("apikey");

/// The header with the key that gateways add to requests for the socket.
const GATEWAY_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Headers that contain secrets and are hidden from policies. Supabase Realtime does not hide any.
/// Policies still have what they need, because the claims of a token are in `request.jwt.claims`.
/// The headers are hidden because a database may write the parameters of statements to its log.
const SECRET_HEADERS: [HeaderName; 5] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    COOKIE,
    API_KEY,
    GATEWAY_KEY,
];

/// Returns the caller's claims like [`caller`]. If the keys of the token must be fetched first,
/// waits for them for a limited time.
///
/// # Errors
/// Same as [`caller`].
pub(super) async fn caller_with_keys(
    verifier: &Verifier,
    headers: &HeaderMap,
    parameter: Option<&str>,
) -> Result<Arc<Claims>, Refusal> {
    match caller(verifier, headers, parameter) {
        Err(Refusal::KeysUnavailable) if verifier.await_keys().await => {
            caller(verifier, headers, parameter)
        }
        found => found,
    }
}

/// Returns the caller's claims. The token in `Authorization: Bearer` wins over the header `apikey`,
/// which in turn wins over the query parameter `apikey` that some clients send.
///
/// While no user is signed in, clients send an opaque key as the bearer token. Such a key is used
/// last, as an API key.
///
/// # Errors
/// [`Refusal::Unauthorized`] if none of the three is present, or if the first of them that is
/// present is invalid. [`Refusal::KeysUnavailable`] if the first one cannot be verified yet.
fn caller(
    verifier: &Verifier,
    headers: &HeaderMap,
    parameter: Option<&str>,
) -> Result<Arc<Claims>, Refusal> {
    let bearer = bearer(headers);
    if let Some(token) = bearer.filter(|token| !is_opaque_key(token)) {
        return verifier.verify_socket(token).map_err(refusal);
    }
    let key = match headers.get(API_KEY) {
        Some(value) => value.to_str().ok(),
        None => parameter.or(bearer),
    };
    let key = key.ok_or(Refusal::Unauthorized)?;
    verifier.verify_api_key(key.trim()).map_err(refusal)
}

fn refusal(error: TokenError) -> Refusal {
    match error {
        TokenError::KeysUnavailable => Refusal::KeysUnavailable,
        _ => Refusal::Unauthorized,
    }
}

/// Returns the token of an `Authorization` header. Schemes other than `Bearer` are ignored.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Returns the value of `request.headers` in policies: a JSON object of all headers that contain no
/// secrets. Repeated headers are joined by commas (RFC 9110, 5.3).
pub(super) fn policy_headers(headers: &HeaderMap) -> String {
    let object: Map<String, Value> = headers
        .keys()
        .filter(|name| !SECRET_HEADERS.contains(name))
        .map(|name| {
            let values: Vec<_> = headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            (name.to_string(), values.join(", ").into())
        })
        .collect();
    Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::auth::{KeySet, Requirements, mint};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_str(value).unwrap();
                (HeaderName::from_static(name), value)
            })
            .collect()
    }

    #[test]
    fn the_token_wins_over_the_key_and_the_header_over_the_query() {
        let secret = "a-test-secret-of-at-least-32-characters";
        let keys = KeySet::new(Some(secret), None, None).unwrap();
        let verifier = Verifier::new(keys, Requirements::default());
        let token = |role: &str| {
            let claims = serde_json::json!({ "role": role, "exp": 9_999_999_999_i64 });
            mint(secret, &claims).unwrap()
        };
        let (a, b, c) = (token("a"), token("b"), token("c"));
        let bearer = |text: &str| ("authorization", format!("bEaReR {text}"));
        let apikey = |text: &str| ("apikey", text.to_owned());
        // (headers, parameter, role)
        let cases = [
            (vec![bearer(&a), apikey(&b)], Some(&c), Some("a")),
            (vec![bearer("bad"), apikey(&b)], Some(&c), None),
            (
                vec![bearer("sb_publishable_x"), apikey(&b)],
                Some(&c),
                Some("b"),
            ),
            (
                vec![("authorization", "Basic x".to_owned()), apikey(&b)],
                None,
                Some("b"),
            ),
            (
                vec![("authorization", a.clone()), apikey(&b)],
                None,
                Some("b"),
            ),
            (vec![apikey(&b)], Some(&c), Some("b")),
            (vec![apikey("bad")], Some(&c), None),
            (vec![], Some(&c), Some("c")),
            (vec![bearer("sb_publishable_x")], Some(&c), Some("c")),
            (vec![bearer("sb_publishable_x")], None, None),
            (vec![], None, None),
        ];
        for (pairs, parameter, role) in cases {
            let pairs: Vec<_> = pairs.iter().map(|(name, text)| (*name, &**text)).collect();
            let claims = caller(&verifier, &headers(&pairs), parameter.map(String::as_str));
            let got = claims.as_ref().map(|claims| &*claims.role).ok();
            assert_eq!(got, role, "{pairs:?}");
        }
    }

    #[test]
    fn policies_see_all_headers_without_secrets() {
        let mut all = headers(&[
            ("authorization", "Bearer x"),
            ("apikey", "x"),
            ("cookie", "x"),
            ("x-api-key", "x"),
            ("user-agent", "test"),
            ("x-floor", "2"),
        ]);
        all.append("x-floor", HeaderValue::from_static("3"));
        assert_eq!(
            policy_headers(&all),
            r#"{"user-agent":"test","x-floor":"2, 3"}"#
        );
    }
}
