//! Refusals as Supabase Auth writes them, with the codes that its clients branch on.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::http::ApiError;

/// A refusal with its status, `error_code` and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal(StatusCode, &'static str, &'static str);

pub(super) const BAD_JSON: Refusal = Refusal(
    StatusCode::BAD_REQUEST,
    "bad_json",
    "Could not parse request body as JSON",
);
pub(super) const NO_CREDENTIALS: Refusal = Refusal(
    StatusCode::BAD_REQUEST,
    "validation_failed",
    "email and password are required",
);
pub(super) const WRONG_CREDENTIALS: Refusal = Refusal(
    StatusCode::BAD_REQUEST,
    "invalid_credentials",
    "Invalid login credentials",
);
pub(super) const UNSUPPORTED_GRANT: Refusal = Refusal(
    StatusCode::BAD_REQUEST,
    "invalid_credentials",
    "unsupported_grant_type",
);
pub(super) const BAD_LIFETIME: Refusal = Refusal(
    StatusCode::BAD_REQUEST,
    "validation_failed",
    "expires_in must be from 1 to 86400",
);
pub(super) const UNKNOWN_REFRESH_TOKEN: Refusal = Refusal(
    StatusCode::BAD_REQUEST,
    "refresh_token_not_found",
    "Invalid Refresh Token: Refresh Token Not Found",
);
pub(super) const USED_REFRESH_TOKEN: Refusal = Refusal(
    StatusCode::BAD_REQUEST,
    "refresh_token_already_used",
    "Invalid Refresh Token: Already Used",
);
pub(super) const UNKNOWN_SCOPE: Refusal = Refusal(
    StatusCode::BAD_REQUEST,
    "validation_failed",
    "Unsupported logout scope",
);
pub(super) const NO_TOKEN: Refusal = Refusal(
    StatusCode::UNAUTHORIZED,
    "no_authorization",
    "This endpoint requires a valid Bearer token",
);
pub(super) const BAD_TOKEN: Refusal = Refusal(
    StatusCode::FORBIDDEN,
    "bad_jwt",
    "invalid JWT: unable to parse or verify signature",
);
pub(super) const FOREIGN_HOST: Refusal = Refusal(
    StatusCode::FORBIDDEN,
    "host_not_allowed",
    "Signing in requires localhost, an address, or the host of server.public_url",
);
pub(super) const UNKNOWN_SESSION: Refusal = Refusal(
    StatusCode::FORBIDDEN,
    "session_not_found",
    "Session from session_id claim in JWT does not exist",
);
pub(super) const UNKNOWN_USER: Refusal = Refusal(
    StatusCode::FORBIDDEN,
    "user_not_found",
    "User from sub claim in JWT does not exist",
);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, code, text) = self;
        let body = json!({ "code": status.as_u16(), "error_code": code, "msg": text });
        (status, Json(body)).into_response()
    }
}

/// Why a request failed: a refusal that a client of Supabase Auth reads, or any other failure.
pub(super) enum Failure {
    Refused(Refusal),
    Other(ApiError),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refusal) => refusal.into_response(),
            Self::Other(error) => error.into_response(),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Other(error)
    }
}
