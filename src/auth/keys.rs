//! Selects the key that verifies a token.
//!
//! The algorithm's family limits the keys: a shared secret is used only for HMAC, and a public key
//! never for HMAC. So neither `alg: none` nor a token that is HMAC-signed with the text of a public
//! key is accepted.

use std::collections::HashMap;

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto};
use serde::Deserialize;

use super::error::{KeyError, TokenError};

/// The keys that tokens are verified with.
pub struct KeySet {
    /// The current secret, then the next one during a rotation.
    secrets: Vec<DecodingKey>,
    /// The keys of the key set by `kid`. Keys of different types may share an id.
    by_id: HashMap<String, Vec<PublishedKey>>,
}

/// A key of the key set.
struct PublishedKey {
    key: DecodingKey,
    /// The only algorithm that the key may be used with, if the key set names one.
    algorithm: Option<Algorithm>,
}

/// A key set as configured. Each key is parsed separately, so that a key of an unknown type (P-521,
/// Ed448, an encryption key) does not make the others unusable.
#[derive(Deserialize)]
struct RawKeySet {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Creates a key set from the shared `secret`, its successor, and a JSON Web Key Set (RFC
    /// 7517).
    ///
    /// Keys without `kid`, keys of unsupported types, and keys that are not for verifying
    /// signatures (`use`, `key_ops`, `alg`; RFC 7517, 4.2 to 4.4) are ignored.
    ///
    /// # Errors
    /// Fails if the set cannot be parsed, a key in it is invalid, or no key remains.
    pub fn new(
        secret: Option<&str>,
        secret_next: Option<&str>,
        jwks: Option<&str>,
    ) -> Result<Self, KeyError> {
        let secrets: Vec<_> = [secret, secret_next]
            .into_iter()
            .flatten()
            .filter(|secret| !secret.is_empty())
            .map(|secret| DecodingKey::from_secret(secret.as_bytes()))
            .collect();
        let by_id = match jwks {
            Some(text) => read_key_set(text)?,
            None => HashMap::new(),
        };
        if secrets.is_empty() && by_id.is_empty() {
            return Err(KeyError::NoKey);
        }
        Ok(Self { secrets, by_id })
    }

    /// Checks the `signature` (base64url) of `signed`.
    ///
    /// # Errors
    /// [`TokenError::Signer`] if no key matches, [`TokenError::BadSignature`] if the signature is
    /// invalid.
    pub(super) fn verify(
        &self,
        algorithm: &str,
        kid: Option<&str>,
        signed: &[u8],
        signature: &str,
    ) -> Result<(), TokenError> {
        let algorithm = supported(algorithm).ok_or(TokenError::Signer { kid: None })?;
        let candidates = self.candidates(algorithm, kid);
        if candidates.is_empty() {
            return Err(TokenError::Signer {
                kid: kid.map(str::to_owned),
            });
        }
        for key in candidates {
            if matches!(crypto::verify(signature, signed, key, algorithm), Ok(true)) {
                return Ok(());
            }
        }
        Err(TokenError::BadSignature)
    }

    fn candidates(&self, algorithm: Algorithm, kid: Option<&str>) -> Vec<&DecodingKey> {
        let family = algorithm.family();
        let named: Vec<_> = kid
            .and_then(|kid| self.by_id.get(kid))
            .into_iter()
            .flatten()
            .filter(|published| published.algorithm.is_none_or(|only| only == algorithm))
            .map(|published| &published.key)
            .filter(|key| key.family() == family)
            .collect();
        if named.is_empty() && family == AlgorithmFamily::Hmac {
            // An HMAC token may have any `kid`, because the shared secret has none.
            return self.secrets.iter().collect();
        }
        named
    }
}

/// Returns the algorithm with this name, if it is accepted. `none` is not.
fn supported(name: &str) -> Option<Algorithm> {
    Some(match name {
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" | "Ed25519" => Algorithm::EdDSA,
        _ => return None,
    })
}

fn read_key_set(text: &str) -> Result<HashMap<String, Vec<PublishedKey>>, KeyError> {
    let raw: RawKeySet = serde_json::from_str(text).map_err(|error| KeyError::NotAKeySet {
        line: error.line(),
        column: error.column(),
    })?;
    let mut by_id: HashMap<String, Vec<PublishedKey>> = HashMap::new();
    for (index, value) in raw.keys.into_iter().enumerate() {
        let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
            continue;
        };
        let Some(kid) = jwk.common.key_id.clone() else {
            continue;
        };
        if matches!(jwk.algorithm, AlgorithmParameters::Other(_)) || !verifies_signatures(&jwk) {
            continue;
        }
        let algorithm = match jwk.common.key_algorithm {
            None => None,
            Some(named) => match supported(&named.to_string()) {
                None => continue,
                algorithm => algorithm,
            },
        };
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| KeyError::BadKey { index })?;
        by_id
            .entry(kid)
            .or_default()
            .push(PublishedKey { key, algorithm });
    }
    Ok(by_id)
}

/// Returns whether the key is for verifying signatures, as far as its attributes `use` and
/// `key_ops` say.
fn verifies_signatures(jwk: &Jwk) -> bool {
    let is_for_signatures = match &jwk.common.public_key_use {
        None => true,
        Some(usage) => *usage == PublicKeyUse::Signature,
    };
    let operations = jwk.common.key_operations.as_ref();
    is_for_signatures
        && operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify))
}
