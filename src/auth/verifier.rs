//! Verifies tokens under one of two profiles.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::api_key::{ApiKeys, is_opaque_key};
use super::cache::Cache;
use super::claims::Claims;
use super::error::{KeyError, TokenError};
use super::keys::KeySet;
use crate::config::AuthConfig;

/// Tolerated difference between the issuer's clock and ours, in seconds. It always applies to
/// `nbf`, because issuers set that to the time of issue and clients use the token immediately. It
/// applies to `exp` only on the chat routes, as in Supabase's servers: clients of the socket
/// refresh long before the expiry.
const LEEWAY_SECONDS: i64 = 30;

/// The role of signed-in users. Any other role belongs to an API key or a service.
const PEOPLE_ROLE: &str = "authenticated";

/// The audience that Supabase Auth writes into the tokens of signed-in users.
const PEOPLE_AUDIENCE: &str = "authenticated";

/// The requirements that every token must meet besides its signature.
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    /// The required `aud`. If it is not set, sockets require no audience, and the chat routes
    /// require `authenticated`.
    pub audience: Option<String>,
    /// The required `iss`.
    pub issuer: Option<String>,
}

/// Verifies tokens. Cheap to clone; clones share one cache.
#[derive(Clone)]
pub struct Verifier {
    inner: Arc<Inner>,
}

struct Inner {
    keys: KeySet,
    requirements: Requirements,
    api_keys: ApiKeys,
    cache: Cache<SignedToken>,
}

/// A token with a valid signature and form. The time and the profile are checked separately.
struct SignedToken {
    claims: Arc<Claims>,
    audiences: Vec<String>,
    issuer: Option<String>,
    not_before: Option<i64>,
}

/// The members of a JOSE header that decide whether a token is accepted. A duplicate of one of them
/// makes the header invalid, so that two parsers cannot disagree about it (RFC 7515, section 4).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, rename = "crit", deserialize_with = "is_present")]
    has_critical: bool,
    #[serde(default = "is_encoded_by_default")]
    b64: bool,
}

impl Header {
    /// Refuses tokens whose header changes the meaning of their payload.
    ///
    /// `crit` names extensions that a recipient must support (RFC 7515, section 4.1.11). None are
    /// supported, and an empty list is invalid, so `crit` is always refused. `b64: false` is not
    /// allowed in a JWT (RFC 7797, section 7).
    fn check(&self) -> Result<(), TokenError> {
        let is_token = self.typ.as_deref().is_none_or(is_access_token_type);
        if self.has_critical || !self.b64 || !is_token {
            return Err(TokenError::Malformed);
        }
        Ok(())
    }
}

/// Returns whether a `typ` is that of an access token. An issuer that uses one key for several
/// types of tokens distinguishes them by `typ`, for example `logout+jwt` (RFC 8725, section 3.11).
fn is_access_token_type(typ: &str) -> bool {
    // The prefix is optional, and media types ignore case (RFC 7515, section 4.1.9).
    let typ = typ.to_ascii_lowercase();
    let name = typ.strip_prefix("application/").unwrap_or(&typ);
    matches!(name, "jwt" | "at+jwt")
}

/// Returns true for any value, including `null`, which an `Option` would treat as absent.
fn is_present<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

fn is_encoded_by_default() -> bool {
    true
}

impl Verifier {
    /// Creates a verifier from the configuration.
    ///
    /// # Errors
    /// Fails if the keys are unusable.
    pub fn from_config(config: &AuthConfig) -> Result<Self, KeyError> {
        let secret = config.jwt_secret.as_ref().map(|secret| secret.expose());
        let next = config
            .jwt_secret_next
            .as_ref()
            .map(|secret| secret.expose());
        let jwks = config.jwks.as_ref().map(|jwks| jwks.expose());
        let keys = KeySet::new(secret, next, jwks)?;
        let requirements = Requirements {
            audience: config.audience.clone(),
            issuer: config.issuer.clone(),
        };
        Ok(Self::with_api_keys(
            keys,
            requirements,
            ApiKeys::from_config(config),
        ))
    }

    /// Creates a verifier with these keys and without opaque API keys.
    pub fn new(keys: KeySet, requirements: Requirements) -> Self {
        Self::with_api_keys(keys, requirements, ApiKeys::default())
    }

    fn with_api_keys(keys: KeySet, requirements: Requirements, api_keys: ApiKeys) -> Self {
        Self {
            inner: Arc::new(Inner {
                keys,
                requirements,
                api_keys,
                cache: Cache::new(),
            }),
        }
    }

    /// Verifies an API key: a token under the rules of [`Verifier::verify_socket`], or one of the
    /// project's opaque keys, which has only a role.
    ///
    /// # Errors
    /// [`TokenError`]; [`TokenError::Malformed`] for an unknown opaque key.
    pub fn verify_api_key(&self, key: &str) -> Result<Arc<Claims>, TokenError> {
        if is_opaque_key(key) {
            return self.inner.api_keys.claims(key).ok_or(TokenError::Malformed);
        }
        self.verify_socket(key)
    }

    /// Verifies a token for the socket or the broadcast API. The rules are those of Supabase's
    /// server (protocol 1.4): signature, `exp` without leeway, `role`, and audience and issuer only
    /// if configured. `nbf` is also checked, with 30 seconds of leeway.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify_socket(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        self.verify_socket_at(token, now())
    }

    /// Verifies a token for the chat routes. In addition, it requires a user in `sub` and the role
    /// and audience of signed-in users, and allows 30 seconds of leeway for `exp`.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify_caller(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        self.verify_caller_at(token, now())
    }

    fn verify_socket_at(&self, token: &str, now: i64) -> Result<Arc<Claims>, TokenError> {
        let token = self.signed(token)?;
        let requirements = &self.inner.requirements;
        check_expiry(&token.claims, now, 0)?;
        token.check_not_before(now)?;
        if let Some(audience) = &requirements.audience {
            token.check_audience(audience)?;
        }
        token.check_issuer(requirements.issuer.as_deref())?;
        Ok(Arc::clone(&token.claims))
    }

    fn verify_caller_at(&self, token: &str, now: i64) -> Result<Arc<Claims>, TokenError> {
        let token = self.signed(token)?;
        let requirements = &self.inner.requirements;
        check_expiry(&token.claims, now, LEEWAY_SECONDS)?;
        token.check_not_before(now)?;
        if token.claims.role != PEOPLE_ROLE {
            return Err(TokenError::WrongRole);
        }
        token.check_audience(requirements.audience.as_deref().unwrap_or(PEOPLE_AUDIENCE))?;
        token.check_issuer(requirements.issuer.as_deref())?;
        let subject = token.claims.subject.as_deref().unwrap_or_default();
        if Uuid::try_parse(subject).is_err() {
            return Err(TokenError::NoSubject);
        }
        Ok(Arc::clone(&token.claims))
    }

    /// Returns the verified token for this text, from the cache or after checking its signature.
    fn signed(&self, token: &str) -> Result<Arc<SignedToken>, TokenError> {
        let token = normalize(token);
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        let hash = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.inner.cache.get(&hash) {
            return Ok(known);
        }
        let signed = Arc::new(check_signature(&token, &self.inner.keys)?);
        self.inner.cache.insert(hash, Arc::clone(&signed));
        Ok(signed)
    }
}

impl SignedToken {
    /// Checks that `nbf` has been reached.
    fn check_not_before(&self, now: i64) -> Result<(), TokenError> {
        match self.not_before {
            Some(not_before) if not_before > now.saturating_add(LEEWAY_SECONDS) => {
                Err(TokenError::NotYetValid)
            }
            _ => Ok(()),
        }
    }

    fn check_audience(&self, audience: &str) -> Result<(), TokenError> {
        if self.audiences.iter().any(|named| named == audience) {
            Ok(())
        } else {
            Err(TokenError::WrongAudience)
        }
    }

    fn check_issuer(&self, issuer: Option<&str>) -> Result<(), TokenError> {
        match issuer {
            Some(issuer) if self.issuer.as_deref() != Some(issuer) => Err(TokenError::WrongIssuer),
            _ => Ok(()),
        }
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn check_expiry(claims: &Claims, now: i64, leeway: i64) -> Result<(), TokenError> {
    if claims.expires_at.saturating_add(leeway) > now {
        return Ok(());
    }
    Err(TokenError::Expired {
        seconds_ago: now.saturating_sub(claims.expires_at),
    })
}

/// Removes white space and percent-encoding from a token, as Supabase's server does (protocol 1.4),
/// because tokens are pasted and sent in query strings.
fn normalize(token: &str) -> Cow<'_, str> {
    let plain = |c: char| c != '%' && !c.is_whitespace();
    if token.chars().all(plain) {
        return Cow::Borrowed(token);
    }
    let bytes = token.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        match hex.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                decoded.push(byte);
                at += 3;
            }
            _ => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    // A token is ASCII, so invalid UTF-8 is refused below anyway.
    let text = String::from_utf8_lossy(&decoded);
    Cow::Owned(text.chars().filter(|c| !c.is_whitespace()).collect())
}

fn check_signature(token: &str, keys: &KeySet) -> Result<SignedToken, TokenError> {
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    if payload.contains('.') {
        return Err(TokenError::Malformed);
    }
    let (header, payload) = (decode(header)?, decode(payload)?);
    let header: Header = serde_json::from_str(json_object(&header)?).map_err(malformed)?;
    header.check()?;
    let claims = json_object(&payload)?;
    keys.verify(
        &header.alg,
        header.kid.as_deref(),
        signed.as_bytes(),
        signature,
    )?;
    read_claims(claims)
}

/// Returns the text of one JSON object. It is scanned without building values, because JSON values
/// can take a hundred times the memory of their text, and any client can send unsigned data.
fn json_object(json: &[u8]) -> Result<&str, TokenError> {
    let value: &RawValue = serde_json::from_slice(json).map_err(malformed)?;
    let text = value.get();
    // Only an object is accepted, because Serde also reads an array as a struct, in the order of
    // its fields.
    text.starts_with('{')
        .then_some(text)
        .ok_or(TokenError::Malformed)
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(part.trim_end_matches('='))
        .map_err(|_| TokenError::Malformed)
}

fn malformed(_: serde_json::Error) -> TokenError {
    TokenError::Malformed
}

fn read_claims(text: &str) -> Result<SignedToken, TokenError> {
    let claims: Map<String, Value> = serde_json::from_str(text).map_err(malformed)?;
    // The original text of each value is kept. As a floating-point number, a value could differ
    // from PostgreSQL's, and the values of two users could become equal.
    let written: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(malformed)?;
    let json = serde_json::to_string(&written).map_err(malformed)?.into();
    numeric_claim(&claims, "iat")?;
    let expires_at = numeric_claim(&claims, "exp")?;
    let not_before = numeric_claim(&claims, "nbf")?;
    let role = match claims.get("role") {
        Some(Value::String(role)) if !role.is_empty() => Some(role.clone()),
        None | Some(Value::Null) => None,
        Some(_) => return Err(TokenError::InvalidClaim { claim: "role" }),
    };
    let (Some(expires_at), Some(role)) = (expires_at, role) else {
        return Err(TokenError::MissingClaims);
    };
    let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    let audiences = match claims.get("aud") {
        Some(Value::String(audience)) => vec![audience.clone()],
        Some(Value::Array(all)) => all
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    let subject = text("sub");
    let issuer = text("iss");
    let claims = Arc::new(Claims {
        json,
        role,
        subject,
        expires_at,
    });
    Ok(SignedToken {
        claims,
        audiences,
        issuer,
        not_before,
    })
}

/// Reads a numeric claim, rounded to whole seconds, because a `NumericDate` may have a fraction
/// (RFC 7519, 2).
fn numeric_claim(
    claims: &Map<String, Value>,
    claim: &'static str,
) -> Result<Option<i64>, TokenError> {
    match claims.get(claim) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "the cast saturates, and both ends are out of reach of any clock"
            )]
            let seconds = number
                .as_i64()
                .or_else(|| number.as_f64().map(|value| value.round() as i64));
            Ok(seconds)
        }
        Some(_) => Err(TokenError::InvalidClaim { claim }),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
