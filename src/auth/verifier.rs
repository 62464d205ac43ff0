//! Verifies tokens, under one of two sets of rules.

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

use super::api_key::ApiKeys;
use super::cache::Cache;
use super::claims::Claims;
use super::error::{KeyError, TokenError};
use super::is_opaque_key;
use super::keys::KeySet;
use crate::config::AuthConfig;

/// How far the clocks of the issuer and ours may differ, in seconds. It applies to `nbf` everywhere:
/// issuers set that to the moment of issue, and a client uses the token at once. It applies to `exp`
/// on the chat routes only, as in the original: clients of the socket refresh well before the expiry.
const LEEWAY_SECONDS: i64 = 30;

/// The role of people who are signed in. Any other role is an API key or a service.
const PEOPLE_ROLE: &str = "authenticated";

/// The audience Supabase Auth writes into the tokens of people who are signed in.
const PEOPLE_AUDIENCE: &str = "authenticated";

/// What is asked of every token beside its signature.
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    /// The `aud` a token must name. Without it the socket asks for none and the chat routes
    /// for `authenticated`.
    pub audience: Option<String>,
    /// The `iss` a token must have.
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

/// A token whose signature and shape are good, whatever the time and the profile.
struct SignedToken {
    claims: Arc<Claims>,
    audiences: Vec<String>,
    issuer: Option<String>,
    not_before: Option<i64>,
}

/// The members of a JOSE header that decide whether a token is accepted. One that is given twice
/// makes the header unreadable, so two parsers cannot disagree about it (RFC 7515, section 4).
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
    /// Refuses tokens that do not mean what their payload says.
    ///
    /// `crit` names extensions that a recipient must understand (RFC 7515, section 4.1.11). No
    /// extension is implemented, and an empty list is an error by itself, so `crit` is always refused.
    /// `b64: false` is not allowed in a JWT (RFC 7797, section 7).
    fn check(&self) -> Result<(), TokenError> {
        let is_token = self.typ.as_deref().is_none_or(is_access_token_type);
        if self.has_critical || !self.b64 || !is_token {
            return Err(TokenError::Malformed);
        }
        Ok(())
    }
}

/// Whether a `typ` is that of a token for access. An issuer that uses one key for several kinds of
/// tokens tells them apart by `typ`, for example `logout+jwt` (RFC 8725, section 3.11).
fn is_access_token_type(typ: &str) -> bool {
    // The prefix may be left out, and media types ignore case (RFC 7515, section 4.1.9).
    let typ = typ.to_ascii_lowercase();
    let name = typ.strip_prefix("application/").unwrap_or(&typ);
    matches!(name, "jwt" | "at+jwt")
}

/// True for any value: `null` as well, which an `Option` would take for an absent member.
fn is_present<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

fn is_encoded_by_default() -> bool {
    true
}

impl Verifier {
    /// A verifier as configured.
    ///
    /// # Errors
    /// When the keys cannot be used.
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

    /// A verifier for these keys, which knows no opaque API key.
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

    /// The rules for an API key: a token under those of [`Verifier::verify_socket`], or one of the
    /// project's opaque keys, which stands for a role alone.
    ///
    /// # Errors
    /// See [`TokenError`]; an opaque key that is not the project's is no token.
    pub fn verify_api_key(&self, key: &str) -> Result<Arc<Claims>, TokenError> {
        if is_opaque_key(key) {
            return self.inner.api_keys.claims(key).ok_or(TokenError::Malformed);
        }
        self.verify_socket(key)
    }

    /// The rules of the socket and the broadcast API, which are the original's (protocol
    /// specification 1.4): signature, `exp` without leeway, `role`; audience and issuer only
    /// where configured. `nbf` is checked as well, with 30 seconds of leeway.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify_socket(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        self.verify_socket_at(token, now())
    }

    /// The rules of the chat routes: also a person in `sub`, the role and the audience of
    /// people who are signed in, and 30 seconds of leeway for `exp`, too.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify_caller(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        self.verify_caller_at(token, now())
    }

    fn verify_socket_at(&self, token: &str, now: i64) -> Result<Arc<Claims>, TokenError> {
        let token = self.signed(token)?;
        let requirements = &self.inner.requirements;
        not_expired(&token.claims, now, 0)?;
        token.begun(now)?;
        if let Some(audience) = &requirements.audience {
            token.meant_for(audience)?;
        }
        token.issued_by(requirements.issuer.as_deref())?;
        Ok(Arc::clone(&token.claims))
    }

    fn verify_caller_at(&self, token: &str, now: i64) -> Result<Arc<Claims>, TokenError> {
        let token = self.signed(token)?;
        let requirements = &self.inner.requirements;
        not_expired(&token.claims, now, LEEWAY_SECONDS)?;
        token.begun(now)?;
        if token.claims.role != PEOPLE_ROLE {
            return Err(TokenError::WrongRole);
        }
        token.meant_for(requirements.audience.as_deref().unwrap_or(PEOPLE_AUDIENCE))?;
        token.issued_by(requirements.issuer.as_deref())?;
        let subject = token.claims.subject.as_deref().unwrap_or_default();
        if Uuid::try_parse(subject).is_err() {
            return Err(TokenError::NoSubject);
        }
        Ok(Arc::clone(&token.claims))
    }

    /// The token behind this text, from the cache or by checking its signature.
    fn signed(&self, token: &str) -> Result<Arc<SignedToken>, TokenError> {
        let token = normalized(token);
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
    /// Whether the time of `nbf` has come.
    fn begun(&self, now: i64) -> Result<(), TokenError> {
        match self.not_before {
            Some(not_before) if not_before > now.saturating_add(LEEWAY_SECONDS) => {
                Err(TokenError::NotYetValid)
            }
            _ => Ok(()),
        }
    }

    fn meant_for(&self, audience: &str) -> Result<(), TokenError> {
        if self.audiences.iter().any(|named| named == audience) {
            Ok(())
        } else {
            Err(TokenError::WrongAudience)
        }
    }

    fn issued_by(&self, issuer: Option<&str>) -> Result<(), TokenError> {
        match issuer {
            Some(issuer) if self.issuer.as_deref() != Some(issuer) => Err(TokenError::WrongIssuer),
            _ => Ok(()),
        }
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn not_expired(claims: &Claims, now: i64, leeway: i64) -> Result<(), TokenError> {
    if claims.expires_at.saturating_add(leeway) > now {
        return Ok(());
    }
    Err(TokenError::Expired {
        seconds_ago: now.saturating_sub(claims.expires_at),
    })
}

/// The token without white space and percent-encoding, both of which the original removes
/// (protocol specification 1.4): tokens are pasted, and travel in query strings.
fn normalized(token: &str) -> Cow<'_, str> {
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
    // A token is ASCII: what is not UTF-8 here cannot become valid below either.
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
    let header: Header = serde_json::from_str(object(&header)?).map_err(malformed)?;
    header.check()?;
    let claims = object(&payload)?;
    keys.verify(
        &header.alg,
        header.kid.as_deref(),
        signed.as_bytes(),
        signature,
    )?;
    read_claims(claims)
}

/// The text of one JSON object. It is looked through, and not built: as values, JSON can take a
/// hundred times the memory of its text, and anybody may send what nobody signed.
fn object(json: &[u8]) -> Result<&str, TokenError> {
    let value: &RawValue = serde_json::from_slice(json).map_err(malformed)?;
    let text = value.get();
    // Serde reads an array as a struct, too, by the order of its fields.
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
    // As they are written: a number read as floating-point is another one for PostgreSQL, and the
    // same one for two people.
    let written: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(malformed)?;
    let json = serde_json::to_string(&written).map_err(malformed)?.into();
    number(&claims, "iat")?;
    let expires_at = number(&claims, "exp")?;
    let not_before = number(&claims, "nbf")?;
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

/// A numeric claim, rounded to whole seconds: `NumericDate` may have a fraction (RFC 7519, 2).
fn number(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<i64>, TokenError> {
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
