//! Selects the key that verifies a token.
//!
//! Each key is bound to its algorithms: a shared secret is used only for HMAC, and a public key
//! never for HMAC. So neither `alg: none` nor a token that is HMAC-signed with the text of a public
//! key is accepted.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse, RSAKeyParameters,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::error::{KeyError, TokenError};

/// Maximum number of keys in a published set. Issuers publish a handful: the current key, the next
/// one, and those whose tokens have not expired.
const MAX_PUBLISHED_KEYS: usize = 32;

/// The minimum length of an RSA modulus, in bytes (RFC 7518, section 3.3).
const MIN_RSA_BYTES: usize = 256;

const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: [Algorithm; 3] = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];

/// The keys that tokens are verified with.
#[derive(Default)]
pub struct KeySet {
    /// The current secret, then the next one during a rotation.
    secrets: Vec<DecodingKey>,
    /// The keys of the JSON Web Key Set. Keys of different types may share an id.
    keys: Vec<SetKey>,
}

/// A key of a JSON Web Key Set.
struct SetKey {
    key: DecodingKey,
    id: Arc<KeyId>,
    /// The only algorithms that the key may be used with.
    algorithms: Vec<Algorithm>,
}

/// Identifies a key of a key set, even if its place or other keys of the set change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyId {
    /// The `kid`, which tokens name in their header.
    pub(super) kid: Option<String>,
    /// SHA-256 of the public members, so that another key with the same `kid` differs.
    hash: [u8; 32],
}

/// A key set as written. Each key is parsed separately, so that a key of an unknown type (P-521,
/// Ed448, an encryption key) does not make the others unusable.
#[derive(Deserialize)]
struct RawKeySet {
    keys: Vec<serde_json::Value>,
}

/// The id of the key that verified a signature, or `None` for a shared secret.
pub(super) type Signer<'a> = Option<&'a Arc<KeyId>>;

impl KeySet {
    /// Creates a key set from the shared `secret`, its successor, and a JSON Web Key Set (RFC
    /// 7517).
    ///
    /// Keys of unsupported types, and keys that are not for verifying signatures (`use`, `key_ops`,
    /// `alg`; RFC 7517, 4.2 to 4.4) are ignored.
    ///
    /// # Errors
    /// Fails if the set cannot be parsed or a key in it is invalid, or if there is neither a secret
    /// nor a usable key.
    pub fn new(
        secret: Option<&str>,
        secret_next: Option<&str>,
        jwks: Option<&str>,
    ) -> Result<Self, KeyError> {
        let mut set = Self::of_secrets(secret, secret_next);
        for (index, key) in jwks
            .map(parse)
            .transpose()?
            .into_iter()
            .flatten()
            .enumerate()
        {
            match SetKey::parse(key) {
                Parsed::Key(key) => set.keys.push(key),
                Parsed::Invalid => return Err(KeyError::BadKey { index }),
                Parsed::Unsupported => {}
            }
        }
        if set.secrets.is_empty() && set.keys.is_empty() {
            return Err(KeyError::NoKey);
        }
        Ok(set)
    }

    /// Creates a set of only these secrets, which may be none.
    pub(super) fn of_secrets(secret: Option<&str>, secret_next: Option<&str>) -> Self {
        let secrets = [secret, secret_next].into_iter().flatten();
        Self {
            secrets: secrets
                .filter(|secret| !secret.is_empty())
                .map(|secret| DecodingKey::from_secret(secret.as_bytes()))
                .collect(),
            keys: Vec::new(),
        }
    }

    /// Creates a key set from one that an issuer publishes. Returns it with the number of keys that
    /// cannot be used.
    ///
    /// A symmetric key is never used, because everyone who can fetch it can sign tokens. An
    /// unusable key does not affect the others, which the issuer may be signing with. A set without
    /// keys is valid: the issuer has withdrawn them all.
    ///
    /// # Errors
    /// Fails if the set cannot be parsed or has too many keys.
    pub fn published(text: &str) -> Result<(Self, usize), KeyError> {
        let all = parse(text)?;
        if all.len() > MAX_PUBLISHED_KEYS {
            return Err(KeyError::TooManyKeys {
                limit: MAX_PUBLISHED_KEYS,
            });
        }
        let count = all.len();
        let keys: Vec<SetKey> = all
            .into_iter()
            .filter_map(|key| match SetKey::parse(key) {
                Parsed::Key(key) if key.key.family() != AlgorithmFamily::Hmac => Some(key),
                _ => None,
            })
            .collect();
        let unusable = count - keys.len();
        let set = Self {
            secrets: Vec::new(),
            keys,
        };
        Ok((set, unusable))
    }

    /// Returns the number of keys of the set, without secrets.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether the set has no keys besides secrets.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns whether both sets contain the same keys for the same algorithms, in any order.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        let has = |key: &SetKey| {
            let mut others = other.keys.iter();
            others.any(|it| it.id == key.id && it.algorithms == key.algorithms)
        };
        self.keys.len() == other.keys.len() && self.keys.iter().all(has)
    }

    /// Returns whether the set contains this key.
    pub(super) fn contains(&self, id: &KeyId) -> bool {
        self.keys.iter().any(|key| *key.id == *id)
    }
}

/// Checks the `signature` (base64url) of `signed` with the keys of these sets. Returns the id of
/// the key that matches.
///
/// # Errors
/// [`TokenError::Signer`] if no key matches, [`TokenError::BadSignature`] if the signature is
/// invalid.
pub(super) fn verify<'a>(
    sets: &[&'a KeySet],
    algorithm: Algorithm,
    kid: Option<&str>,
    signed: &[u8],
    signature: &str,
) -> Result<Signer<'a>, TokenError> {
    let candidates = candidates(sets, algorithm, kid);
    if candidates.is_empty() {
        return Err(TokenError::Signer {
            kid: kid.map(str::to_owned),
        });
    }
    for (key, signer) in candidates {
        if matches!(crypto::verify(signature, signed, key, algorithm), Ok(true)) {
            return Ok(signer);
        }
    }
    Err(TokenError::BadSignature)
}

fn candidates<'a>(
    sets: &[&'a KeySet],
    algorithm: Algorithm,
    kid: Option<&str>,
) -> Vec<(&'a DecodingKey, Signer<'a>)> {
    let is_hmac = HMAC.contains(&algorithm);
    let fitting = sets
        .iter()
        .flat_map(|set| &set.keys)
        .filter(|key| key.algorithms.contains(&algorithm));
    let of_set: Vec<&SetKey> = match kid {
        Some(_) => fitting.filter(|key| key.id.kid.as_deref() == kid).collect(),
        // HMAC tokens without a `kid` are signed with the secret.
        None if is_hmac => Vec::new(),
        None => {
            // Without a `kid`, the key must be the only one for the algorithm.
            let all: Vec<_> = fitting.collect();
            if all.len() == 1 { all } else { Vec::new() }
        }
    };
    if of_set.is_empty() && is_hmac {
        // An HMAC token may have any `kid`, because the shared secret has none.
        let secrets = sets.iter().flat_map(|set| &set.secrets);
        return secrets.map(|secret| (secret, None)).collect();
    }
    of_set
        .into_iter()
        .map(|key| (&key.key, Some(&key.id)))
        .collect()
}

/// Returns the algorithm with this name, if it is accepted. `none` is not.
pub(super) fn supported(name: &str) -> Option<Algorithm> {
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

/// Returns whether an issuer that publishes its keys may have a key for this algorithm that is not
/// known yet.
pub(super) fn may_be_published(algorithm: Algorithm) -> bool {
    !HMAC.contains(&algorithm)
}

fn parse(text: &str) -> Result<Vec<serde_json::Value>, KeyError> {
    let raw: RawKeySet = serde_json::from_str(text).map_err(|error| KeyError::NotAKeySet {
        line: error.line(),
        column: error.column(),
    })?;
    Ok(raw.keys)
}

/// What a member of a key set is.
enum Parsed {
    Key(SetKey),
    /// A key for another purpose or of another type.
    Unsupported,
    /// A key that should be usable and is not.
    Invalid,
}

impl SetKey {
    fn parse(value: serde_json::Value) -> Parsed {
        let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
            return Parsed::Unsupported;
        };
        if !verifies_signatures(&jwk) {
            return Parsed::Unsupported;
        }
        let mut algorithms = algorithms(&jwk.algorithm);
        if let Some(named) = jwk.common.key_algorithm {
            let only = supported(&named.to_string());
            algorithms.retain(|algorithm| Some(*algorithm) == only);
        }
        if algorithms.is_empty() {
            return Parsed::Unsupported;
        }
        if matches!(&jwk.algorithm, AlgorithmParameters::RSA(rsa) if is_too_short(rsa)) {
            return Parsed::Invalid;
        }
        let Ok(key) = DecodingKey::from_jwk(&jwk) else {
            return Parsed::Invalid;
        };
        let id = Arc::new(KeyId {
            hash: hash(&jwk),
            kid: jwk.common.key_id,
        });
        Parsed::Key(Self {
            key,
            id,
            algorithms,
        })
    }
}

/// Returns the algorithms that a key of this type can be used with.
fn algorithms(parameters: &AlgorithmParameters) -> Vec<Algorithm> {
    match parameters {
        AlgorithmParameters::OctetKey(_) => HMAC.to_vec(),
        AlgorithmParameters::RSA(_) => RSA.to_vec(),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => Vec::new(),
        },
        AlgorithmParameters::OctetKeyPair(key) => match key.curve {
            EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Returns whether the modulus is too short. Leading zeros do not count.
fn is_too_short(key: &RSAKeyParameters) -> bool {
    URL_SAFE_NO_PAD.decode(&key.n).is_ok_and(|modulus| {
        let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
        modulus.len() - zeros < MIN_RSA_BYTES
    })
}

fn hash(jwk: &Jwk) -> [u8; 32] {
    let parts = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(key) => ["EC", &*key.x, &*key.y],
        AlgorithmParameters::RSA(key) => ["RSA", &*key.n, &*key.e],
        AlgorithmParameters::OctetKeyPair(key) => ["OKP", &*key.x, ""],
        AlgorithmParameters::OctetKey(key) => ["oct", &*key.value, ""],
        _ => ["", "", ""],
    };
    Sha256::digest(parts.join(".")).into()
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
