//! Properties of tokens that fuzzing tries to violate with arbitrary headers, claims and
//! signatures.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a property that does not hold is a panic"
)]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::keys::verify;
use super::{Claims, KeySet, Requirements, TokenError, Verifier};

/// The secret that valid tokens are signed with.
const SECRET: &str = "a-secret-that-no-client-knows-0123456789";

/// A public key (RFC 8037, appendix A.2). Everyone knows its text, so it must not be accepted as a
/// shared secret.
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let keys = KeySet::new(Some(SECRET), None, Some(KEYS)).unwrap();
    Verifier::new(keys, Requirements::default())
});

/// Checks that a token is accepted only with a valid signature, and that its claims are the signed
/// ones.
///
/// The data are used as a token. The data are also split at the first line feed into a header and
/// claims, which are signed with HS256 whatever the header says.
pub fn token(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert!(passes(&text).is_none(), "accepted without a signature");

    let end = data.iter().position(|byte| *byte == b'\n');
    let (header, claims) = data.split_at(end.unwrap_or(data.len()));
    let claims = claims.strip_prefix(b"\n").unwrap_or(claims);
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
    let good = format!("{signed}.{signature}");
    let found = passes(&good);
    // The token as clients paste and escape it.
    let escaped = good.replace('.', "%2E");
    assert_eq!(passes(&format!(" {escaped}\n")), found);
    // A signature with a flipped bit, or of other claims, is invalid.
    let mut bad = URL_SAFE_NO_PAD.decode(&signature).unwrap();
    bad[0] ^= 1;
    assert!(passes(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&bad))).is_none());
    assert!(passes(&format!("{signed}e30.{signature}")).is_none());
    assert!(passes(&format!("{signed}.")).is_none());

    let Some(found) = found else {
        return;
    };
    let header: Map<String, Value> = serde_json::from_slice(header).unwrap();
    assert_eq!(header["alg"], "HS256");
    let written: Map<String, Value> = serde_json::from_slice(claims).unwrap();
    assert_eq!(written["role"], found.role);
    assert_eq!(
        serde_json::from_str::<Value>(&found.json).unwrap(),
        Value::Object(written.clone())
    );
    if let Ok(person) = VERIFIER.verify_caller(&good) {
        assert_eq!(person, found.into());
        assert_eq!(written["role"], "authenticated");
        let subject = written["sub"].as_str().unwrap();
        assert!(Uuid::try_parse(subject).is_ok());
        let audience = &written["aud"];
        let audiences = audience
            .as_array()
            .map_or(std::slice::from_ref(audience), Vec::as_slice);
        assert!(audiences.iter().any(|audience| audience == "authenticated"));
    }
}

/// Checks that a published key set has a bounded number of keys, and that no HMAC token is verified
/// with it: everyone knows its content.
pub fn key_set(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let configured = KeySet::new(None, None, Some(&text));
    let Ok((published, unusable)) = KeySet::published(&text) else {
        return;
    };
    assert!(published.len() + unusable <= 32);
    // A configured set may also contain secrets, and is refused if one of its keys is invalid.
    if let Ok(configured) = configured {
        assert!(configured.len() >= published.len());
    }
    let set: Value = serde_json::from_str(&text).unwrap();
    let kids = set["keys"].as_array().into_iter().flatten();
    let kids = kids.map(|key| key["kid"].as_str()).chain([None]);
    for kid in kids {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let verified = verify(&[&published], algorithm, kid, b"signed", "AAAA");
            assert!(matches!(verified, Err(TokenError::Signer { .. })));
        }
    }
}

/// Returns the claims, if the token is accepted for a socket. Also checks that the chat routes
/// accept no token that is refused for a socket.
fn passes(token: &str) -> Option<Claims> {
    let found = VERIFIER.verify_socket(token).ok();
    if found.is_none() {
        // The exception is an expired token: only the chat routes allow a leeway for `exp`.
        let error = VERIFIER.verify_socket(token).err();
        let is_expired = matches!(error, Some(TokenError::Expired { .. }));
        assert!(is_expired || VERIFIER.verify_caller(token).is_err());
    }
    found.map(|claims| (*claims).clone())
}
