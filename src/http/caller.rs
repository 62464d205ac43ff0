//! Resolves the caller: the verified identity behind a request.
//!
//! The identity is determined only by the token. A token in a query string is ignored, because URLs
//! end up in logs and browser histories.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method};
use uuid::Uuid;

use super::cookie;
use super::error::ApiError;
use super::input::Parameters;
use super::origin::Origins;
use crate::auth::{Claims, TokenError, Verifier, is_opaque_key};
use crate::config::{AuthConfig, Secret, ServerConfig};
use crate::error_code::ErrorCode;

const API_KEY: HeaderName = HeaderName::from_static("apikey");

/// The role of the key that bypasses row-level security. Such a key identifies no user, so chat
/// routes refuse it.
const SERVICE_ROLE: &str = "service_role";

/// Authenticates callers. Clones are cheap.
#[derive(Clone)]
pub struct Authentication {
    verifier: Verifier,
    origins: Origins,
    /// The keys that are accepted in the `apikey` header. If there are none, the header is ignored.
    api_keys: Arc<[Secret]>,
    /// The names of session cookies. If there are none, any cookie named like a Supabase session is
    /// used.
    cookie_names: Arc<[String]>,
}

impl Authentication {
    /// Builds the authentication from the configuration. `verifier` checks tokens. Writes that are
    /// authenticated by cookie are checked against the allowed origins. The `apikey` header is
    /// checked only if a public key of the project is configured.
    pub fn new(verifier: Verifier, server: &ServerConfig, auth: &AuthConfig) -> Self {
        let mut known: Vec<_> = auth.anon_key.iter().chain(&auth.publishable_keys).collect();
        if !known.is_empty() {
            known.extend(auth.service_role_key.iter().chain(&auth.secret_keys));
        }
        Self {
            verifier,
            origins: Origins::new(&server.allowed_origins, server.allow_localhost_origins),
            api_keys: known.into_iter().cloned().collect(),
            cookie_names: auth.cookie_names.clone().into(),
        }
    }

    /// Returns the web origins that may use the routes.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// Returns the caller like [`Self::caller`]. If the keys of the token must be fetched first,
    /// waits for them for a limited time.
    ///
    /// # Errors
    /// Same as [`Self::caller`].
    pub async fn caller_with_keys(
        &self,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Caller, ApiError> {
        match self.caller(method, headers) {
            Err(error) if error.code() == ErrorCode::KeysUnavailable => {
                if !self.verifier.await_keys().await {
                    return Err(error);
                }
                self.caller(method, headers)
            }
            found => found,
        }
    }

    /// Returns the caller of a request with this method and these headers.
    ///
    /// # Errors
    /// 503 if the keys of the token are not available. 401 without a valid token, or with an
    /// unknown `apikey`. 403 for a service token, a user whom the chat does not admit, or a
    /// possible cross-site request forgery.
    pub fn caller(&self, method: &Method, headers: &HeaderMap) -> Result<Caller, ApiError> {
        self.check_api_key(headers)?;
        let claims = match bearer(headers)? {
            Some(token) => self.verify(token)?,
            None => {
                let values = headers
                    .get_all(COOKIE)
                    .into_iter()
                    .filter_map(|value| value.to_str().ok());
                let token =
                    cookie::access_token(values, &self.cookie_names).ok_or(TokenError::Missing)?;
                let claims = self.verify(&token)?;
                if !method.is_safe() && !self.origins.permits_cookie_write(headers) {
                    let hint = "A write by cookie must come from a page of an allowed origin; alternatively, send a Bearer token";
                    return Err(ApiError::new(ErrorCode::Forbidden).with_hint(hint));
                }
                claims
            }
        };
        let subject = claims.subject.as_deref().unwrap_or_default();
        let user_id = Uuid::try_parse(subject).map_err(|_| TokenError::NoSubject)?;
        Ok(Caller { user_id, claims })
    }

    fn verify(&self, token: &str) -> Result<Arc<Claims>, ApiError> {
        self.verifier.verify_caller(token).map_err(|error| {
            let is_service = error == TokenError::WrongRole
                && self
                    .verifier
                    .verify_socket(token)
                    .is_ok_and(|claims| claims.role == SERVICE_ROLE);
            if is_service {
                let hint = "A service key does not identify a user; send a user's access token";
                return ApiError::new(ErrorCode::Forbidden).with_hint(hint);
            }
            error.into()
        })
    }

    /// Checks the `apikey` header. It may also be a valid token instead of a configured key,
    /// because some clients send a key that they signed themselves.
    fn check_api_key(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(key) = headers.get(API_KEY).filter(|_| !self.api_keys.is_empty()) else {
            return Ok(());
        };
        let is_known = self
            .api_keys
            .iter()
            .any(|known| known.expose().as_bytes() == key.as_bytes());
        if is_known {
            return Ok(());
        }
        match key.to_str().map(|key| self.verifier.verify_socket(key)) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error @ TokenError::KeysUnavailable)) => Err(error.into()),
            _ => Err(ApiError::new(ErrorCode::Unauthorized)
                .with_hint("The apikey header is not a key of this project")),
        }
    }
}

/// Returns the token of the `Authorization` header, or `None` if there is no such header or it
/// contains an opaque key. Client libraries send an opaque key while no user is signed in. A scheme
/// other than `Bearer` is an error.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, TokenError> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let value = value.to_str().map_err(|_| TokenError::Malformed)?.trim();
    let (scheme, token) = value.split_once(' ').ok_or(TokenError::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(TokenError::Missing);
    }
    let token = token.trim();
    Ok((!is_opaque_key(token)).then_some(token))
}

/// The user who makes a request. As an extractor, it refuses unauthenticated requests, and requests
/// whose `current_user_id` parameter names another user.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token's `sub` claim.
    pub user_id: Uuid,
    /// All claims of the token, for the database.
    pub claims: Arc<Claims>,
}

impl Caller {
    /// Refuses a request that names another user in a place where it must name its caller.
    ///
    /// # Errors
    /// 403 `identity_mismatch`.
    pub fn must_be(&self, named: Option<Uuid>) -> Result<(), ApiError> {
        match named {
            Some(named) if named != self.user_id => Err(ApiError::new(ErrorCode::IdentityMismatch)),
            _ => Ok(()),
        }
    }
}

/// The caller of a request, or the reason why the request has none. It is determined once, before
/// the handler runs, and stored as a request extension.
#[derive(Clone, Debug)]
pub struct Identity(pub Result<Caller, ApiError>);

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Authentication: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = match parts.extensions.get::<Identity>() {
            Some(Identity(found)) => found.clone()?,
            None => {
                Authentication::from_ref(state)
                    .caller_with_keys(&parts.method, &parts.headers)
                    .await?
            }
        };
        let parameters = Parameters::of(&parts.uri)?;
        caller.must_be(parameters.uuid("current_user_id")?)?;
        Ok(caller)
    }
}
