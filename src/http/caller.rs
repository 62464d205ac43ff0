//! Who is asking: the verified identity of a request.
//!
//! Identity comes from the token alone. A token in a query string is not looked at: addresses
//! end up in logs and histories.

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

/// The role of the key that bypasses row-level security. It is nobody's identity, so it opens
/// no chat route.
const SERVICE_ROLE: &str = "service_role";

/// How callers prove who they are. Cheap to clone.
#[derive(Clone)]
pub struct Authentication {
    verifier: Verifier,
    origins: Origins,
    /// Keys that an `apikey` header may hold; none: the header is not looked at.
    api_keys: Arc<[Secret]>,
    /// Names of session cookies; none: any that looks like one of Supabase's.
    cookie_names: Arc<[String]>,
}

impl Authentication {
    /// As configured: tokens are checked by `verifier`, writes by cookie against the allowed
    /// origins. An `apikey` header is looked at when the project's public key is known.
    pub fn new(verifier: Verifier, server: &ServerConfig, auth: &AuthConfig) -> Self {
        let known = auth
            .anon_key
            .iter()
            .chain(auth.anon_key.as_ref().and(auth.service_role_key.as_ref()));
        Self {
            verifier,
            origins: Origins::new(&server.allowed_origins, server.allow_localhost_origins),
            api_keys: known.cloned().collect(),
            cookie_names: auth.cookie_names.clone().into(),
        }
    }

    /// The origins that may use the routes.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// The caller of a request with this method and these headers.
    ///
    /// # Errors
    /// 401 without a good token, 403 for a service's token or a forged request.
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
                if !method.is_safe() && !self.origins.vouches_for(headers) {
                    let hint = "A write by cookie must come from a page of an allowed origin; or send the token as Bearer";
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
                let hint = "A service key is nobody's identity: use a person's access token";
                return ApiError::new(ErrorCode::Forbidden).with_hint(hint);
            }
            error.into()
        })
    }

    /// A key that is not one of the project's may still be a token of its own: that is what
    /// clients send as `apikey` which were given a key of their own making.
    fn check_api_key(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(key) = headers.get(API_KEY).filter(|_| !self.api_keys.is_empty()) else {
            return Ok(());
        };
        let is_known = self
            .api_keys
            .iter()
            .any(|known| known.expose().as_bytes() == key.as_bytes());
        if is_known
            || key
                .to_str()
                .is_ok_and(|key| self.verifier.verify_socket(key).is_ok())
        {
            return Ok(());
        }
        Err(ApiError::new(ErrorCode::Unauthorized)
            .with_hint("The apikey header holds no key of this project"))
    }
}

/// The token of an `Authorization: Bearer` header. An opaque key in it is what the client
/// libraries send while nobody is signed in: no token.
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

/// The person a request is made by. As a handler's argument it refuses everybody else, and a
/// query string in which `current_user_id` is somebody else.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token's subject.
    pub user_id: Uuid,
    /// The whole token, for the database.
    pub claims: Arc<Claims>,
}

impl Caller {
    /// Refuses a request that names somebody else where it must name its caller.
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

/// Who a request is by, or why that is not known: found out once, before its handler, and kept as
/// a request extension.
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
            None => Authentication::from_ref(state).caller(&parts.method, &parts.headers)?,
        };
        let parameters = Parameters::of(&parts.uri)?;
        caller.must_be(parameters.uuid("current_user_id")?)?;
        Ok(caller)
    }
}
