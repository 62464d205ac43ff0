//! Signs tokens whose claims are given as JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto, encode};
use serde_json::{Value, json};
use uuid::Uuid;

/// The secret of every test server.
pub(crate) const JWT_SECRET: &str = "a-secret-for-tests-that-is-long-enough-for-hs256";

/// Returns the seconds since the epoch, for `iat` and `exp`.
pub(crate) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Signs `claims` with HS256 and [`JWT_SECRET`].
pub(crate) fn mint(claims: &Value) -> String {
    mint_with(claims, JWT_SECRET)
}

/// Signs `claims` with HS256 and a given secret.
pub(crate) fn mint_with(claims: &Value, secret: &str) -> String {
    encode(
        &Header::default(),
        claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
    .unwrap()
}

/// Signs `claims` with HS256, [`JWT_SECRET`] and a given JOSE header.
pub(crate) fn mint_with_header(header: &str, claims: &Value) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(header), part(&claims.to_string()));
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    let signature = crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}

/// A JOSE header with a critical extension that no verifier supports.
pub(crate) const CRITICAL_HEADER: &str = r#"{"alg":"HS256","crit":["x-limit"],"x-limit":1}"#;

/// Returns the claims of a signed-in user, valid for an hour. Tests may change some of them.
pub(crate) fn user_claims(user_id: Uuid) -> Value {
    let now = now_s();
    json!({
        "sub": user_id,
        "role": "authenticated",
        "aud": "authenticated",
        "iat": now,
        "exp": now + 3600,
    })
}

/// Returns a token of a signed-in user, valid for an hour.
pub(crate) fn user_token(user_id: Uuid) -> String {
    mint(&user_claims(user_id))
}

/// Returns the public key of the project, which is a token with the role `anon`.
pub(crate) fn anon_key() -> String {
    role_key("anon")
}

/// Returns the server-side key of the project, which is a token with the role `service_role`.
pub(crate) fn service_role_key() -> String {
    role_key("service_role")
}

fn role_key(role: &str) -> String {
    let now = now_s();
    mint(&json!({ "role": role, "iss": "rapport-tests", "iat": now, "exp": now + 86_400 }))
}
