//! Signs tokens, for the command line, development and tests.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::Value;

use super::error::KeyError;

/// Returns a token with these `claims`, signed with HS256 and `secret`.
///
/// # Errors
/// Fails if the signature cannot be computed.
pub fn mint(secret: &str, claims: &Value) -> Result<String, KeyError> {
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
    let signed = format!("{header}.{payload}");
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature =
        crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).map_err(|_| KeyError::Sign)?;
    Ok(format!("{signed}.{signature}"))
}
