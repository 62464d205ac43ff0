//! Reads the parts of a token. The signature and the time are checked elsewhere.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::claims::{Claims, PublishedKey};
use super::error::TokenError;
use super::requirements::SUBJECT;

/// A token whose signature has not been checked.
pub(super) struct Unverified<'a> {
    pub(super) algorithm: String,
    pub(super) kid: Option<String>,
    /// The part that is signed.
    pub(super) signed: &'a [u8],
    /// The signature in base64url.
    pub(super) signature: &'a str,
    payload: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Splits a token, and checks its header.
    pub(super) fn read(token: &'a str) -> Result<Self, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if payload.contains('.') {
            return Err(TokenError::Malformed);
        }
        let (header, payload) = (decode(header)?, decode(payload)?);
        let header: Header = serde_json::from_str(json_object(&header)?).map_err(malformed)?;
        header.check()?;
        json_object(&payload)?;
        Ok(Self {
            algorithm: header.alg,
            kid: header.kid,
            signed: signed.as_bytes(),
            signature,
            payload,
        })
    }

    /// Returns the `iss` that the payload names. No values are built for other claims. A payload
    /// that cannot be read has no issuer.
    pub(super) fn issuer(&self) -> Option<Cow<'_, str>> {
        let named: NamedIssuer<'_> = serde_json::from_slice(&self.payload).ok()?;
        named.iss
    }

    /// Reads the claims. Call it only after the signature has been checked. `person` is the claim
    /// with the user's id, if it is not `sub`. `signer` is the key of the signature.
    pub(super) fn content(
        &self,
        person: Option<&str>,
        signer: Option<PublishedKey>,
    ) -> Result<Content, TokenError> {
        read_claims(json_object(&self.payload)?, person, signer)
    }
}

/// The claims of a token with a valid signature.
pub(super) struct Content {
    pub(super) claims: Arc<Claims>,
    pub(super) audiences: Vec<String>,
    pub(super) issuer: Option<String>,
    pub(super) issued_at: Option<i64>,
    pub(super) not_before: Option<i64>,
    pub(super) is_anonymous: bool,
    pub(super) has_second_factor: bool,
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

/// The issuer that an unverified payload names.
#[derive(Deserialize)]
struct NamedIssuer<'a> {
    #[serde(borrow)]
    iss: Option<Cow<'a, str>>,
}

/// Removes white space and percent-encoding from a token, as Supabase's server does (protocol 1.4),
/// because tokens are pasted and sent in query strings.
pub(super) fn normalize(token: &str) -> Cow<'_, str> {
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
    // A token is ASCII, so `Unverified::read` refuses invalid UTF-8 anyway.
    let text = String::from_utf8_lossy(&decoded);
    Cow::Owned(text.chars().filter(|c| !c.is_whitespace()).collect())
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

/// Reads the claims of a verified token. If the user's id is in another claim than `sub`, it
/// replaces the `sub`, because policies read the id there.
fn read_claims(
    text: &str,
    person: Option<&str>,
    signer: Option<PublishedKey>,
) -> Result<Content, TokenError> {
    let mut claims: Map<String, Value> = serde_json::from_str(text).map_err(malformed)?;
    // The original text of each value is kept. As a floating-point number, a value could differ
    // from PostgreSQL's, and the values of two users could become equal.
    let mut written: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(malformed)?;
    if let Some(person) = person {
        // The issuer's own `sub` must never be taken for the id of an account.
        claims.remove(SUBJECT);
        written.remove(SUBJECT);
        if let Some(id) = claims.get(person).filter(|id| is_uuid(id)).cloned() {
            claims.insert(SUBJECT.to_owned(), id);
            written.extend(written.get(person).map(|raw| (SUBJECT.to_owned(), *raw)));
        }
    }
    let json = serde_json::to_string(&written).map_err(malformed)?.into();
    let issued_at = numeric_claim(&claims, "iat")?;
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
    Ok(Content {
        audiences,
        issuer: text("iss"),
        issued_at,
        not_before,
        is_anonymous: !matches!(
            claims.get("is_anonymous"),
            None | Some(Value::Null | Value::Bool(false))
        ),
        has_second_factor: claims.get("aal").and_then(Value::as_str) == Some("aal2"),
        claims: Arc::new(Claims {
            json,
            role,
            subject: text(SUBJECT),
            expires_at,
            signer,
        }),
    })
}

fn is_uuid(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| Uuid::try_parse(text).is_ok())
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
