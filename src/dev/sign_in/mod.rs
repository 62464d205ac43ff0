//! The sign-in of `rapport dev`: the routes of Supabase Auth (GoTrue) that a page needs to sign in
//! with a password, refresh its session, read its user and sign out.
//!
//! Every account of the private database has the same documented password. Nothing outside `dev`
//! refers to this module, so `rapport serve` has none of these routes.

mod host;
mod refusal;
mod session;
mod store;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HOST};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use self::host::Hosts;
use self::refusal::{Failure, Refusal};
use self::session::{RefreshToken, Session};
use self::store::Store;
use super::demonstration::PASSWORD;
use super::keys::{Keys, now_s};
use crate::auth::{KeyError, Verifier, mint};
use crate::config::Config;
use crate::db::connect::{ConnectError, Connector};
use crate::http::ApiError;
use crate::http::input::{BODY_DEADLINE, Parameters, body};
use crate::http::middleware::method_not_allowed;
use crate::http::openapi::schema::{any_object, integer, one_of};
use crate::http::openapi::{ApiRouter, Operation, input};
use crate::http::origin::{Origins, cors};
use crate::shutdown::Tasks;

/// Maximum body size in bytes. A refresh token or a password is far shorter.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// The group of these routes.
const TAG: &str = "Development";

/// Why the sign-in cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The connection string of the private database is invalid.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The keys for tokens are unusable.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// The state of the handlers. Cheap to clone.
#[derive(Clone)]
struct SignIn(Arc<Inner>);

struct Inner {
    store: Store,
    verifier: Verifier,
    jwt_secret: String,
    anon_key: String,
    token_lifetime: Duration,
    public_url: Option<String>,
}

/// Creates the routes.
///
/// | route | returns |
/// | --- | --- |
/// | `POST /auth/v1/token?grant_type=password` | a session |
/// | `POST /auth/v1/token?grant_type=refresh_token` | the session with new tokens |
/// | `GET /auth/v1/user` | the user of an access token |
/// | `POST /auth/v1/logout?scope=global\|local\|others` | nothing |
/// | `GET /dev/people` | the users who can sign in, and what a page needs for that |
///
/// # Errors
/// Fails if the connection string or a key is unusable.
pub fn routes(config: &Config, keys: &Keys, tasks: &Tasks) -> Result<ApiRouter, SignInError> {
    let database = Connector::new(config.database.url.expose())?;
    let state = SignIn(Arc::new(Inner {
        store: Store::new(database, tasks.clone()),
        verifier: Verifier::from_config(&config.auth)?,
        jwt_secret: keys.jwt_secret.clone(),
        anon_key: keys.anon_key.clone(),
        token_lifetime: config.dev.token_lifetime,
        public_url: config.server.public_url.clone(),
    }));
    let origins = Origins::new(
        &config.server.allowed_origins,
        config.server.allow_localhost_origins,
    );
    let hosts = Hosts::new(config.server.public_url.as_deref());
    Ok(api().map(|routes| {
        routes
            .method_not_allowed_fallback(method_not_allowed)
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(from_fn_with_state(origins, cors))
            .layer(from_fn_with_state(hosts, host::require))
            .with_state(state)
    }))
}

fn api() -> ApiRouter<SignIn> {
    let token = Operation::bare("create_token", TAG, "Sign in, or refresh a session")
        .query(input(
            "grant_type",
            one_of(&["password", "refresh_token"]),
            "What the body presents.",
        ))
        .query(input(
            "expires_in",
            integer(),
            "Lifetime of this session's access tokens in seconds.",
        ))
        .answers(200, "The session.", any_object());
    let user = Operation::bare("get_user", TAG, "The user of an access token").answers(
        200,
        "The user.",
        any_object(),
    );
    let logout = Operation::bare("sign_out", TAG, "End sessions")
        .query(input(
            "scope",
            one_of(&["global", "local", "others"]),
            "All sessions of the user, this one, or all others.",
        ))
        .answers_nothing(204, "Done.");
    let people = Operation::bare("list_people", TAG, "Who can sign in").answers(
        200,
        "The accounts, their password and the public key.",
        any_object(),
    );
    ApiRouter::new()
        .post("/auth/v1/token", create_token, token)
        .get("/auth/v1/user", get_user, user)
        .post("/auth/v1/logout", sign_out, logout)
        .get("/dev/people", list_people, people)
}

/// The accepted fields of `POST /token`. Other fields, such as `gotrue_meta_security`, are ignored.
#[derive(Deserialize)]
struct Presented {
    email: Option<String>,
    password: Option<String>,
    refresh_token: Option<String>,
}

async fn create_token(
    State(sign_in): State<SignIn>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, Failure> {
    let bytes = body(request, &(), BODY_DEADLINE)
        .await
        .map_err(ApiError::from)?;
    let presented: Presented = serde_json::from_slice(&bytes).map_err(|_| refusal::BAD_JSON)?;
    let store = &sign_in.0.store;
    let lifetime_s = token_lifetime_s(&parameters)?;
    match parameters.text("grant_type") {
        Some("password") => {
            let (Some(email), Some(password)) = (presented.email, presented.password) else {
                return Err(refusal::NO_CREDENTIALS.into());
            };
            // No account has such an address, and PostgreSQL cannot represent it.
            if password != PASSWORD || email.contains('\0') {
                return Err(refusal::WRONG_CREDENTIALS.into());
            }
            let lifetime_s = lifetime_s.unwrap_or(sign_in.0.token_lifetime.as_secs());
            let session = store.open(&email, lifetime_s).await?;
            sign_in.respond(session.ok_or(refusal::WRONG_CREDENTIALS)?)
        }
        Some("refresh_token") => {
            let token = presented.refresh_token.unwrap_or_default();
            let token = RefreshToken::parse(&token).ok_or(refusal::UNKNOWN_REFRESH_TOKEN)?;
            sign_in.respond(store.refresh(&token, lifetime_s).await??)
        }
        _ => Err(refusal::UNSUPPORTED_GRANT.into()),
    }
}

/// Returns the lifetime that the request asks for, in seconds.
fn token_lifetime_s(parameters: &Parameters) -> Result<Option<u64>, Refusal> {
    match parameters.text("expires_in") {
        None => Ok(None),
        Some(text) => {
            let seconds = text.parse().ok();
            let seconds = seconds.filter(|seconds| session::LIFETIMES_S.contains(seconds));
            seconds.map(Some).ok_or(refusal::BAD_LIFETIME)
        }
    }
}

async fn get_user(State(sign_in): State<SignIn>, headers: HeaderMap) -> Result<Response, Failure> {
    let bearer = sign_in.bearer(&headers)?;
    let user = sign_in.0.store.user(bearer.user, bearer.session).await??;
    Ok(uncached(Json(user)))
}

async fn sign_out(
    State(sign_in): State<SignIn>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    let Bearer { user, session } = sign_in.bearer(&headers)?;
    let store = &sign_in.0.store;
    match parameters.text("scope").unwrap_or("global") {
        "global" => store.end_all(user, None).await?,
        "others" => store.end_all(user, session).await?,
        "local" => store.end(session).await?,
        _ => return Err(refusal::UNKNOWN_SCOPE.into()),
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn list_people(
    State(sign_in): State<SignIn>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let people = sign_in.0.store.people().await?;
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let url = sign_in.0.public_url.clone();
    let url = url.or_else(|| host.map(|host| format!("http://{host}")));
    Ok(uncached(Json(json!({
        "url": url,
        "anon_key": sign_in.0.anon_key,
        "password": PASSWORD,
        "people": people,
    }))))
}

/// The user and the session of the access token in a request.
struct Bearer {
    user: Uuid,
    /// The session of the token. The tokens that `rapport dev` prints have none.
    session: Option<Uuid>,
}

impl SignIn {
    fn bearer(&self, headers: &HeaderMap) -> Result<Bearer, Refusal> {
        let value = headers.get(AUTHORIZATION).ok_or(refusal::NO_TOKEN)?;
        let token = value.to_str().ok().and_then(|value| value.split_once(' '));
        let (_, token) = token
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .ok_or(refusal::NO_TOKEN)?;
        let claims = self.0.verifier.verify_socket(token.trim());
        let claims = claims.map_err(|_| refusal::BAD_TOKEN)?;
        let user = claims.user_id().ok_or(refusal::BAD_TOKEN)?;
        let all: Value = serde_json::from_str(&claims.json).map_err(|_| refusal::BAD_TOKEN)?;
        let session = all["session_id"].as_str();
        Ok(Bearer {
            user,
            session: session.and_then(|id| Uuid::try_parse(id).ok()),
        })
    }

    /// Returns the session as a client stores it, with a new access token.
    fn respond(&self, session: Session) -> Result<Response, Failure> {
        let now = now_s();
        let expires_at = now + session.lifetime_s;
        let user = &session.user;
        let claims = json!({
            "iss": "rapport-dev",
            "sub": user["id"],
            "aud": "authenticated",
            "role": "authenticated",
            "email": user["email"],
            "phone": "",
            "app_metadata": user["app_metadata"],
            "user_metadata": user["user_metadata"],
            "aal": "aal1",
            "amr": [{ "method": "password", "timestamp": now }],
            "session_id": session.token.session,
            "is_anonymous": false,
            "iat": now,
            "exp": expires_at,
        });
        let access_token = mint(&self.0.jwt_secret, &claims)
            .map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(uncached(Json(json!({
            "access_token": access_token,
            "token_type": "bearer",
            "expires_in": session.lifetime_s,
            "expires_at": expires_at,
            "refresh_token": session.token.to_string(),
            "user": session.user,
        }))))
    }
}

/// Returns a response that no cache stores.
fn uncached(answer: Json<Value>) -> Response {
    let mut response = answer.into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
