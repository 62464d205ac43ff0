//! Verifies tokens under one of two profiles.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use uuid::Uuid;

use super::api_key::{ApiKeys, is_opaque_key};
use super::cache::Cache;
use super::claims::{Claims, PublishedKey};
use super::error::{KeyError, TokenError};
use super::keys::{KeySet, supported};
use super::requirements::Requirements;
use super::source::{KeyFeed, Source};
use super::token::{Content, Unverified, normalize};
use crate::config::{AuthConfig, ChatConfig, KeySource};
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

/// How far `iat` may be in the future before it is counted, in seconds. Such a token is accepted,
/// but the clock of the issuer or of this machine is wrong, so tokens may expire too early or late.
const CLOCK_AHEAD_SECONDS: i64 = 300;

/// How long a request waits for keys. Fetching them takes a few hundred milliseconds.
const KEY_PATIENCE: Duration = Duration::from_secs(2);

/// Maximum number of requests that wait for keys. Each holds its connection and its memory.
const MAX_WAITING: usize = 1_000;

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
    /// The number of published sets whose fetch is running or requested.
    pending: watch::Receiver<usize>,
    /// Changes when a published set changes, and when a fetch ends for which a token waited.
    changes: watch::Sender<()>,
    waiting: Semaphore,
}

/// A token with a valid signature and form. The time and the profile are checked separately.
struct SignedToken {
    /// The position of the token's issuer in [`Inner::sources`].
    source: usize,
    /// The generation of the keys that verified the signature.
    generation: u64,
    content: Content,
}

impl Verifier {
    /// Creates a verifier from the configuration. Published key sets are used once a task has
    /// passed them to [`KeyFeed::replace`].
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
    /// [`TokenError::Signer`] if it has disappeared.
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

    /// Verifies a token for the chat routes. In addition to [`Self::verify_socket`], it requires a
    /// UUID in `sub`, the role of signed-in users, their audience unless another one is configured,
    /// and what [`Self::for_chat`] sets. It allows 30 seconds of leeway for `exp`.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify_caller(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        self.verify_caller_at(token, now())
    }

    fn verify_socket_at(&self, token: &str, now: i64) -> Result<Arc<Claims>, TokenError> {
        let token = self.signed(token, now)?;
        let requirements = &self.inner.sources[token.source].requirements;
        check_expiry(&token.content.claims, now, 0)?;
        token.check_not_before(now)?;
        if !requirements.audiences.is_empty() {
            token.check_audience(&requirements.audiences)?;
        }
        token.check_issuer(requirements)?;
        Ok(Arc::clone(&token.content.claims))
    }

    fn verify_caller_at(&self, token: &str, now: i64) -> Result<Arc<Claims>, TokenError> {
        let token = self.signed(token, now)?;
        let requirements = &self.inner.sources[token.source].requirements;
        check_expiry(&token.content.claims, now, LEEWAY_SECONDS)?;
        token.check_not_before(now)?;
        if token.content.claims.role != PEOPLE_ROLE {
            return Err(TokenError::WrongRole);
        }
        if requirements.audiences.is_empty() {
            token.check_audience(&[PEOPLE_AUDIENCE])?;
        } else {
            token.check_audience(&requirements.audiences)?;
        }
        token.check_issuer(requirements)?;
        let subject = token.content.claims.subject.as_deref().unwrap_or_default();
        if Uuid::try_parse(subject).is_err() {
            return Err(TokenError::NoSubject);
        }
        if token.content.is_anonymous && !self.rules.allow_anonymous {
            return Err(TokenError::Anonymous);
        }
        if self.rules.requires_second_factor && !token.content.has_second_factor {
            return Err(TokenError::SecondFactorRequired);
        }
        Ok(Arc::clone(&token.content.claims))
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
        let token = Unverified::read(token)?;
        let source = self.inner.source_of_unverified(&token);
        let issuer = &self.inner.sources[source];
        let algorithm = supported(&token.algorithm).ok_or(TokenError::Signer { kid: None })?;
        let keys = issuer.keys();
        let signer = keys
            .verify(
                algorithm,
                token.kid.as_deref(),
                token.signed,
                token.signature,
            )
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
        let requirements = &issuer.requirements;
        let content = token.content(requirements.person.as_deref(), signer)?;
        // The issuer that selected the keys was read from a token that was not verified yet.
        if self.inner.source_of(content.issuer.as_deref()) != source {
            return Err(TokenError::WrongIssuer);
        }
        if !requirements.roles.is_empty() && !requirements.roles.contains(&content.claims.role) {
            return Err(TokenError::RoleOfIssuer);
        }
        let latest = now.saturating_add(CLOCK_AHEAD_SECONDS);
        if content.issued_at.is_some_and(|at| at > latest) {
            self.metrics.clock_ahead.inc();
        }
        Ok(SignedToken {
            source,
            generation: keys.generation,
            content,
        })
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

    /// Returns the position of the source that an unverified token names.
    fn source_of_unverified(&self, token: &Unverified<'_>) -> usize {
        if self.sources.len() == 1 {
            return 0;
        }
        self.source_of(token.issuer().as_deref())
    }
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
        match self.content.not_before {
            Some(not_before) if not_before > now.saturating_add(LEEWAY_SECONDS) => {
                Err(TokenError::NotYetValid)
            }
            _ => Ok(()),
        }
    }

    fn check_audience<T: AsRef<str>>(&self, accepted: &[T]) -> Result<(), TokenError> {
        let is_accepted =
            |named: &String| accepted.iter().any(|audience| audience.as_ref() == *named);
        if self.content.audiences.iter().any(is_accepted) {
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
                .any(|name| self.content.issuer.as_ref() == Some(name));
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

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
