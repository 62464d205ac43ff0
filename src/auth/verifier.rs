//! Verifies tokens under one of two profiles.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use uuid::Uuid;

use super::api_key::{ApiKeys, is_opaque_key};
use super::cache::Cache;
use super::claims::{Claims, PublishedKey};
use super::error::{KeyError, TokenError};
use super::keys::{KeySet, supported};
use super::source::{KeyFeed, Source};
use crate::config::{AuthConfig, ChatConfig, IssuerConfig, KeySource};
use crate::observability::metrics::AuthMetrics;

/// Tolerated difference between the issuer's clock and ours, in seconds. It always applies to
/// `nbf`, because issuers set that to the time of issue and clients use the token immediately. It
/// applies to `exp` only on the chat routes, as in Supabase's servers: clients of the socket
/// refresh long before the expiry.
const LEEWAY_SECONDS: i64 = 30;

/// The role of signed-in users. Any other role belongs to an API key or a service.
const PEOPLE_ROLE: &str = "authenticated";

/// The audience that Supabase Auth writes into the tokens of signed-in users.
const PEOPLE_AUDIENCE: &str = "authenticated";

/// The claim with the user's id in the tokens of Supabase Auth, and in the database.
const SUBJECT: &str = "sub";

/// How far `iat` may be in the future before it is counted, in seconds. Such a token is accepted,
/// but the clock of the issuer or of this machine is wrong, so tokens may expire too early or late.
const CLOCK_AHEAD_SECONDS: i64 = 300;

/// How long a request waits for keys. Fetching them takes a few hundred milliseconds.
const KEY_PATIENCE: Duration = Duration::from_secs(2);

/// Maximum number of requests that wait for keys. Each holds its connection and its memory.
const MAX_WAITING: usize = 1_000;

/// The requirements that every token of an issuer must meet besides its signature.
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    /// The accepted values of `iss`. If empty, any value is accepted that no other issuer has.
    pub issuers: Vec<String>,
    /// `aud` must contain one of these. If empty, sockets require no audience, and the chat routes
    /// require `authenticated`.
    pub audiences: Vec<String>,
    /// The accepted values of `role`. If empty, any role is accepted.
    pub roles: Vec<String>,
    /// The claim with the user's id, if it is not `sub`.
    pub person: Option<String>,
}

impl From<&IssuerConfig> for Requirements {
    fn from(config: &IssuerConfig) -> Self {
        Self {
            issuers: config.names.clone(),
            audiences: config.audience.clone(),
            roles: config.roles.clone(),
            person: (config.person != SUBJECT).then(|| config.person.clone()),
        }
    }
}

/// What the chat routes require of users besides a valid token.
#[derive(Clone, Copy, Debug)]
struct ChatRules {
    allow_anonymous: bool,
    requires_second_factor: bool,
}

/// Verifies tokens. Cheap to clone; clones share their keys and one cache.
#[derive(Clone)]
pub struct Verifier {
    inner: Arc<Inner>,
    rules: ChatRules,
    metrics: AuthMetrics,
}

struct Inner {
    /// The first source also verifies tokens without a known issuer.
    sources: Arc<[Source]>,
    api_keys: ApiKeys,
    cache: Cache<SignedToken>,
    /// The number of published sets that are being fetched or will be at once.
    pending: watch::Receiver<usize>,
    /// Changes when keys disappear or a refused token may have become valid.
    changes: watch::Sender<()>,
    waiting: Semaphore,
}

/// A token with a valid signature and form. The time and the profile are checked separately.
struct SignedToken {
    claims: Arc<Claims>,
    /// The position of the token's issuer in [`Inner::sources`].
    source: usize,
    /// The generation of the issuer's keys.
    generation: u64,
    audiences: Vec<String>,
    issuer: Option<String>,
    not_before: Option<i64>,
    is_anonymous: bool,
    has_second_factor: bool,
}

/// The members of a JOSE header that decide whether a token is accepted. A duplicate member makes
/// the header invalid, so that two parsers cannot disagree about it (RFC 7515, section 4).
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
    /// Creates a verifier from the configuration. Published key sets are used once they have been
    /// passed to [`Self::feeds`].
    ///
    /// # Errors
    /// Fails if the keys are unusable.
    pub fn from_config(config: &AuthConfig) -> Result<Self, KeyError> {
        let pending = watch::channel(0).0;
        let secrets = [&config.jwt_secret, &config.jwt_secret_next];
        let secrets = secrets.map(|secret| secret.as_ref().map(|secret| secret.expose()));
        let first = Requirements {
            issuers: config.issuer.iter().cloned().collect(),
            audiences: config.audience.iter().cloned().collect(),
            ..Requirements::default()
        };
        let mut sources = vec![source(secrets, config.jwks.as_ref(), first, &pending)?];
        for issuer in &config.issuers {
            let requirements = issuer.into();
            sources.push(source(
                [None, None],
                Some(&issuer.keys),
                requirements,
                &pending,
            )?);
        }
        if sources.len() == 1 && config.jwks.is_none() && secrets == [None, None] {
            return Err(KeyError::NoKey);
        }
        let api_keys = ApiKeys::from_config(config);
        Ok(Self::with_sources(sources, api_keys, &pending))
    }

    /// Creates a verifier with these keys and without opaque API keys.
    pub fn new(keys: KeySet, requirements: Requirements) -> Self {
        let sources = vec![Source::new(keys, requirements)];
        Self::with_sources(sources, ApiKeys::default(), &watch::channel(0).0)
    }

    fn with_sources(
        sources: Vec<Source>,
        api_keys: ApiKeys,
        pending: &watch::Sender<usize>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                sources: sources.into(),
                api_keys,
                cache: Cache::new(),
                pending: pending.subscribe(),
                changes: watch::channel(()).0,
                waiting: Semaphore::new(MAX_WAITING),
            }),
            rules: ChatRules {
                allow_anonymous: false,
                requires_second_factor: false,
            },
            metrics: AuthMetrics::default(),
        }
    }

    /// Applies the requirements of the chat's configuration to [`Self::verify_caller`].
    #[must_use]
    pub fn for_chat(mut self, config: &ChatConfig) -> Self {
        self.rules = ChatRules {
            allow_anonymous: config.allow_anonymous,
            requires_second_factor: config.requires_second_factor,
        };
        self
    }

    /// Counts in these metrics.
    #[must_use]
    pub fn counting(mut self, metrics: AuthMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Returns the published key sets, for the tasks that fetch them.
    pub fn feeds(&self) -> Vec<KeyFeed> {
        KeyFeed::all(&self.inner.sources, &self.inner.changes)
    }

    /// Requests that all published key sets are fetched again.
    pub fn refresh_keys(&self) {
        for source in &*self.inner.sources {
            source.refresh();
        }
    }

    /// Waits until no key set is being fetched, but at most two seconds. Returns `false` if too
    /// many requests are waiting. Afterwards, a token that was refused with
    /// [`TokenError::KeysUnavailable`] may be valid.
    pub async fn await_keys(&self) -> bool {
        let Ok(_permit) = self.inner.waiting.try_acquire() else {
            return false;
        };
        let mut pending = self.inner.pending.clone();
        // After the time limit, the token is verified once more and then refused.
        let _ = timeout(KEY_PATIENCE, pending.wait_for(|count| *count == 0)).await;
        true
    }

    /// Returns a receiver that is notified when keys disappear, and when a token that was refused
    /// with [`TokenError::KeysUnavailable`] can be verified again.
    pub fn key_changes(&self) -> watch::Receiver<()> {
        self.inner.changes.subscribe()
    }

    /// Checks that the key which verified these claims has not disappeared.
    ///
    /// # Errors
    /// [`TokenError::Signer`]
    pub fn check_signer(&self, claims: &Claims) -> Result<(), TokenError> {
        let Some(PublishedKey { source, id }) = &claims.signer else {
            return Ok(());
        };
        let keys = self.inner.sources.get(*source).map(Source::keys);
        let is_known = keys.is_some_and(|keys| keys.has_fetched(id));
        is_known.then_some(()).ok_or_else(|| TokenError::Signer {
            kid: id.kid.clone(),
        })
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
        let token = self.signed(token, now)?;
        let requirements = &self.inner.sources[token.source].requirements;
        check_expiry(&token.claims, now, 0)?;
        token.check_not_before(now)?;
        if !requirements.audiences.is_empty() {
            token.check_audience(&requirements.audiences)?;
        }
        token.check_issuer(requirements)?;
        Ok(Arc::clone(&token.claims))
    }

    fn verify_caller_at(&self, token: &str, now: i64) -> Result<Arc<Claims>, TokenError> {
        let token = self.signed(token, now)?;
        let requirements = &self.inner.sources[token.source].requirements;
        check_expiry(&token.claims, now, LEEWAY_SECONDS)?;
        token.check_not_before(now)?;
        if token.claims.role != PEOPLE_ROLE {
            return Err(TokenError::WrongRole);
        }
        if requirements.audiences.is_empty() {
            token.check_audience(&[PEOPLE_AUDIENCE])?;
        } else {
            token.check_audience(&requirements.audiences)?;
        }
        token.check_issuer(requirements)?;
        let subject = token.claims.subject.as_deref().unwrap_or_default();
        if Uuid::try_parse(subject).is_err() {
            return Err(TokenError::NoSubject);
        }
        if token.is_anonymous && !self.rules.allow_anonymous {
            return Err(TokenError::Anonymous);
        }
        if self.rules.requires_second_factor && !token.has_second_factor {
            return Err(TokenError::SecondFactorRequired);
        }
        Ok(Arc::clone(&token.claims))
    }

    /// Returns the verified token for this text, from the cache or after checking its signature.
    fn signed(&self, token: &str, now: i64) -> Result<Arc<SignedToken>, TokenError> {
        let token = normalize(token);
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        let hash = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.inner.cache.get(&hash)
            && known.generation == self.inner.sources[known.source].generation()
        {
            return Ok(known);
        }
        let signed = Arc::new(self.check_signature(&token, now)?);
        self.inner.cache.insert(hash, Arc::clone(&signed));
        Ok(signed)
    }

    fn check_signature(&self, token: &str, now: i64) -> Result<SignedToken, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if payload.contains('.') {
            return Err(TokenError::Malformed);
        }
        let (header, payload) = (decode(header)?, decode(payload)?);
        let header: Header = serde_json::from_str(json_object(&header)?).map_err(malformed)?;
        header.check()?;
        let claims = json_object(&payload)?;
        let source = self.inner.source_of_unverified(claims);
        let algorithm = supported(&header.alg).ok_or(TokenError::Signer { kid: None })?;
        let issuer = &self.inner.sources[source];
        let keys = issuer.keys();
        let kid = header.kid.as_deref();
        let signer = keys
            .verify(algorithm, kid, signed.as_bytes(), signature)
            .map_err(|error| match error {
                TokenError::Signer { .. } if issuer.is_published() => {
                    self.metrics.unknown_kid.inc();
                    issuer.unknown_key(algorithm, &keys, error)
                }
                error => error,
            })?;
        let signer = signer.map(|id| PublishedKey {
            source,
            id: Arc::clone(id),
        });
        let (token, issued_at) = read_claims(
            claims,
            issuer.requirements.person.as_deref(),
            (source, keys.generation, signer),
        )?;
        // The issuer that selected the keys was read from a token that was not verified yet.
        if self.inner.source_of(token.issuer.as_deref()) != source {
            return Err(TokenError::WrongIssuer);
        }
        let roles = &issuer.requirements.roles;
        if !roles.is_empty() && !roles.contains(&token.claims.role) {
            return Err(TokenError::RoleOfIssuer);
        }
        if issued_at.is_some_and(|at| at > now.saturating_add(CLOCK_AHEAD_SECONDS)) {
            self.metrics.clock_ahead.inc();
        }
        Ok(token)
    }
}

impl Inner {
    /// Returns the position of the source whose keys verify tokens of this issuer.
    fn source_of(&self, issuer: Option<&str>) -> usize {
        let names = |source: &Source| {
            let issuers = &source.requirements.issuers;
            issuers.iter().any(|name| Some(&**name) == issuer)
        };
        self.sources.iter().position(names).unwrap_or(0)
    }

    /// Returns the position of the source that an unverified payload names.
    fn source_of_unverified(&self, claims: &str) -> usize {
        if self.sources.len() == 1 {
            return 0;
        }
        // No values are built for other claims. A payload that cannot be read has no issuer.
        let named: Option<NamedIssuer<'_>> = serde_json::from_str(claims).ok();
        self.source_of(named.and_then(|named| named.iss).as_deref())
    }
}

/// The issuer that an unverified payload names.
#[derive(Deserialize)]
struct NamedIssuer<'a> {
    #[serde(borrow)]
    iss: Option<Cow<'a, str>>,
}

/// Creates a source from its settings.
fn source(
    [secret, next]: [Option<&str>; 2],
    location: Option<&KeySource>,
    requirements: Requirements,
    pending: &watch::Sender<usize>,
) -> Result<Source, KeyError> {
    match location {
        Some(KeySource::Text(text)) => {
            let keys = KeySet::new(secret, next, Some(text.expose()))?;
            Ok(Source::new(keys, requirements))
        }
        Some(location) => {
            let keys = KeySet::of_secrets(secret, next);
            Ok(Source::new(keys, requirements).with_published(location.clone(), pending))
        }
        None => Ok(Source::new(KeySet::of_secrets(secret, next), requirements)),
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

    fn check_audience<T: AsRef<str>>(&self, accepted: &[T]) -> Result<(), TokenError> {
        let is_accepted =
            |named: &String| accepted.iter().any(|audience| audience.as_ref() == *named);
        if self.audiences.iter().any(is_accepted) {
            Ok(())
        } else {
            Err(TokenError::WrongAudience)
        }
    }

    fn check_issuer(&self, requirements: &Requirements) -> Result<(), TokenError> {
        let issuers = &requirements.issuers;
        let is_accepted = issuers.is_empty()
            || issuers
                .iter()
                .any(|name| self.issuer.as_ref() == Some(name));
        is_accepted.then_some(()).ok_or(TokenError::WrongIssuer)
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

/// Reads the claims of a verified token, and its `iat`. If the user's id is in another claim than
/// `sub`, it becomes the `sub`, because policies read the id there.
fn read_claims(
    text: &str,
    person: Option<&str>,
    (source, generation, signer): (usize, u64, Option<PublishedKey>),
) -> Result<(SignedToken, Option<i64>), TokenError> {
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
    let token = SignedToken {
        source,
        generation,
        audiences,
        issuer: text("iss"),
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
    };
    Ok((token, issued_at))
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

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
