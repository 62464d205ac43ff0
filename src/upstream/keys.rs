//! Checks API keys, and exchanges them for tokens that the services accept.
//!
//! This applies only to services that Rapport reaches directly. The services verify JSON Web Tokens
//! and cannot read opaque keys, so their gateway must exchange these. Keys are compared by hash, so
//! that the time of a comparison reveals nothing about a key. Keys and tokens are never logged.

use std::sync::{Mutex, PoisonError};

use axum::http::header::{AUTHORIZATION, ORIGIN, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::error::Refusal;
use super::route::{KeyRule, Service, decode};
use crate::auth::{PUBLIC_ROLE, SERVICE_ROLE, TokenError, Verifier, is_opaque_key, mint};
use crate::config::{AuthConfig, Secret, UpstreamConfig};

pub(super) const API_KEY: HeaderName = HeaderName::from_static("apikey");

/// The header in which a function receives the key of its caller as a token.
const FUNCTION_KEY: HeaderName = HeaderName::from_static("sb-api-key");

/// Lifetime of a token that is created for a key, in seconds. The token must be valid until the
/// service has read one request, which takes a few minutes at most.
const TOKEN_SECONDS: i64 = 300;

/// A created token is not used in its last seconds, so that the services accept it even if their
/// clocks are ahead.
const RESERVE_SECONDS: i64 = 60;

/// The role of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The public key, which every client has.
    Anon,
    /// A server-side key, which bypasses row-level security.
    Service,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Anon => PUBLIC_ROLE,
            Self::Service => SERVICE_ROLE,
        }
    }
}

/// The keys of the project.
pub(super) struct Keys {
    known: Vec<([u8; 32], Role)>,
    verifier: Verifier,
    anon_token: Tokens,
    service_token: Tokens,
}

/// Where the token of a role comes from.
enum Tokens {
    /// A configured token.
    Fixed(Secret),
    /// Tokens signed with the project's secret.
    Minted {
        secret: Secret,
        /// The current token and the time until which it is used, in Unix seconds. The lock is held
        /// for one look-up or one signature and never across an await.
        current: Mutex<Option<(HeaderValue, i64)>>,
    },
    /// No token. The role then has no opaque key, because the configuration would be refused.
    Missing,
}

/// The key of a request.
#[derive(Debug)]
pub(super) struct Given {
    role: Role,
    text: String,
    /// Whether the key is in the query.
    pub(super) is_in_query: bool,
}

impl Keys {
    pub(super) fn new(auth: &AuthConfig, upstream: &UpstreamConfig, verifier: Verifier) -> Self {
        let anon = auth.anon_key.iter().chain(&auth.publishable_keys);
        let service = auth.service_role_key.iter().chain(&auth.secret_keys);
        let known = anon
            .map(|key| (key, Role::Anon))
            .chain(service.map(|key| (key, Role::Service)))
            .map(|(key, role)| (Sha256::digest(key.expose()).into(), role))
            .collect();
        Self {
            known,
            verifier,
            anon_token: Tokens::new(&upstream.anon_jwt, &auth.anon_key, &auth.jwt_secret),
            service_token: Tokens::new(
                &upstream.service_jwt,
                &auth.service_role_key,
                &auth.jwt_secret,
            ),
        }
    }

    /// If the key of a request is a token whose own keys must be fetched first, waits for them for
    /// a limited time.
    pub(super) async fn await_unverified(
        &self,
        rule: KeyRule,
        method: &Method,
        headers: &HeaderMap,
        query: Option<&str>,
    ) {
        let admitted = self.admit(rule, method, headers, query);
        if matches!(admitted, Err(Refusal::KeysUnavailable)) {
            self.verifier.await_keys().await;
        }
    }

    /// Finds the key of a request and checks that it satisfies `rule`. Returns `None` if no key is
    /// needed and the request contains no key of the project.
    ///
    /// # Errors
    /// The key is missing, unknown, insufficient, or a server-side key in a browser.
    pub(super) fn admit(
        &self,
        rule: KeyRule,
        method: &Method,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Result<Option<Given>, Refusal> {
        // The user of a page can read all keys that the page sends, so the token in `Authorization`
        // is checked even if it does not decide about the request.
        let sent = headers.get(AUTHORIZATION).filter(|_| is_browser(headers));
        let token = sent.and_then(|sent| bearer_token(sent.to_str().ok()?));
        if token.and_then(|token| self.role(token).ok()) == Some(Role::Service) {
            return Err(Refusal::SecretKeyInBrowser);
        }
        let is_needed = rule != KeyRule::NotRequired;
        let Some((text, is_in_query)) = given(method, headers, query) else {
            return if is_needed {
                Err(Refusal::KeyMissing)
            } else {
                Ok(None)
            };
        };
        let role = match self.role(&text) {
            Ok(role) => role,
            Err(refusal) => {
                return if is_needed { Err(refusal) } else { Ok(None) };
            }
        };
        if role == Role::Service && is_browser(headers) {
            return Err(Refusal::SecretKeyInBrowser);
        }
        if rule == KeyRule::ServerSide && role != Role::Service {
            return Err(Refusal::KeyInvalid);
        }
        Ok(Some(Given {
            role,
            text,
            is_in_query,
        }))
    }

    /// Returns whether the key of a request is server-side, and was not sent by a browser.
    pub(super) fn is_server_side(
        &self,
        method: &Method,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> bool {
        let key = given(method, headers, query);
        let role = key.and_then(|(text, _)| self.role(&text).ok());
        role == Some(Role::Service) && !is_browser(headers)
    }

    /// Sets `Authorization` to the token of the key's role, unless it contains a token or a
    /// signature that the service reads itself. For functions, also sets `sb-api-key` to the token,
    /// or removes it if the request has no key.
    pub(super) fn exchange(
        &self,
        service: Service,
        given: Option<&Given>,
        query: Option<&str>,
        headers: &mut HeaderMap,
    ) {
        if service == Service::Functions {
            headers.remove(FUNCTION_KEY);
        }
        let sent = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        if sent.is_some_and(<[u8]>::is_empty) {
            headers.remove(AUTHORIZATION);
        }
        let Some(given) = given else {
            return;
        };
        let Some(token) = self.token(given) else {
            return;
        };
        if service == Service::Functions {
            headers.insert(FUNCTION_KEY, token.clone());
        }
        if !stays(service, headers.get(AUTHORIZATION), query) {
            headers.insert(AUTHORIZATION, token);
        }
    }

    fn role(&self, key: &str) -> Result<Role, Refusal> {
        let hash: [u8; 32] = Sha256::digest(key).into();
        if let Some((_, role)) = self.known.iter().find(|(known, _)| *known == hash) {
            return Ok(*role);
        }
        if is_opaque_key(key) {
            return Err(Refusal::KeyInvalid);
        }
        let claims = self
            .verifier
            .verify_api_key(key)
            .map_err(|error| match error {
                TokenError::KeysUnavailable => Refusal::KeysUnavailable,
                _ => Refusal::KeyInvalid,
            })?;
        [Role::Anon, Role::Service]
            .into_iter()
            .find(|role| role.name() == claims.role)
            .ok_or(Refusal::KeyInvalid)
    }

    /// Returns the value of `Authorization` for a key.
    fn token(&self, given: &Given) -> Option<HeaderValue> {
        if !is_opaque_key(&given.text) {
            return bearer(&given.text);
        }
        match given.role {
            Role::Anon => self.anon_token.get(given.role, now()),
            Role::Service => self.service_token.get(given.role, now()),
        }
    }
}

impl Tokens {
    fn new(
        configured: &Option<Secret>,
        legacy_key: &Option<Secret>,
        signing_secret: &Option<Secret>,
    ) -> Self {
        let legacy_key = legacy_key
            .as_ref()
            .filter(|key| !is_opaque_key(key.expose()));
        match (configured.as_ref().or(legacy_key), signing_secret) {
            (Some(token), _) => Self::Fixed(token.clone()),
            (None, Some(secret)) => Self::Minted {
                secret: secret.clone(),
                current: Mutex::new(None),
            },
            (None, None) => Self::Missing,
        }
    }

    fn get(&self, role: Role, now: i64) -> Option<HeaderValue> {
        match self {
            Self::Fixed(token) => bearer(token.expose()),
            Self::Minted { secret, current } => {
                let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((token, until)) = &*current
                    && now < *until
                {
                    return Some(token.clone());
                }
                let expires = now + TOKEN_SECONDS;
                let claims = json!({
                    "iss": "supabase",
                    "role": role.name(),
                    "iat": now,
                    "exp": expires,
                });
                let token = bearer(&mint(secret.expose(), &claims).ok()?)?;
                *current = Some((token.clone(), expires - RESERVE_SECONDS));
                Some(token)
            }
            Self::Missing => None,
        }
    }
}

/// Returns the key of a request, and whether it is in the query. Only `GET` and `HEAD` requests can
/// have it there, because browsers open such URLs without headers. If the query contains several,
/// the last one counts, as in the handshake of the socket.
fn given(method: &Method, headers: &HeaderMap, query: Option<&str>) -> Option<(String, bool)> {
    let header = headers.get(API_KEY).and_then(|value| value.to_str().ok());
    if let Some(key) = header.map(str::trim).filter(|key| !key.is_empty()) {
        return Some((key.to_owned(), false));
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let value = parameters(query?)
        .filter(|parameter| is_key(parameter))
        .filter_map(|parameter| parameter.split_once('='))
        .next_back()?
        .1;
    let key = decode(value)?;
    (!key.is_empty()).then_some((key, true))
}

/// Returns the query without its `apikey` parameters, or `None` if nothing is left. PostgREST would
/// read such a parameter as a filter, and a URL that a service logs must not contain a key.
pub(super) fn without_key(query: &str) -> Option<String> {
    let rest: Vec<&str> = parameters(query)
        .filter(|parameter| !is_key(parameter))
        .collect();
    (!rest.is_empty()).then(|| rest.join("&"))
}

fn parameters(query: &str) -> impl DoubleEndedIterator<Item = &str> {
    query.split('&')
}

fn is_key(parameter: &str) -> bool {
    parameter.split('=').next() == Some("apikey")
}

/// Returns whether a request seems to come from a browser: few other programs send `Origin`, and
/// the `User-Agent` of every browser begins with `Mozilla/`. A server-side key in a browser is
/// known to its user.
fn is_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN)
        || headers
            .get(USER_AGENT)
            .is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
}

/// Returns whether the client's `Authorization` (or its absence) stays as it is.
fn stays(service: Service, sent: Option<&HeaderValue>, query: Option<&str>) -> bool {
    let text = sent.and_then(|value| value.to_str().ok());
    let token = text.and_then(bearer_token);
    if token.is_some_and(|token| !token.is_empty() && !is_opaque_key(token)) {
        return true;
    }
    // Storage also accepts requests that are signed for S3, in the header or in the query. An
    // additional `Authorization` would make a request with a signature in the query invalid.
    let is_signed = sent.is_some_and(|value| value.as_bytes().starts_with(b"AWS4-HMAC-SHA256"))
        || query.is_some_and(|query| {
            parameters(query).any(|parameter| parameter.starts_with("X-Amz-Signature="))
        });
    service == Service::Storage && is_signed
}

/// Returns the token of a value of `Authorization`, if its scheme is Bearer. The name of a scheme
/// ignores case (RFC 9110, section 11.1).
fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests;
