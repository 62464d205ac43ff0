//! Maps every refusal to its status and body.
//!
//! Clients receive only fixed texts and a code. Internal causes are logged under the request id and
//! never sent.

use std::sync::Arc;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::auth::TokenError;
use crate::db::DbError;
use crate::error_code::ErrorCode;

/// Seconds until a retry if keys are not available. After a failure, fetching them is repeated in a
/// second, and then after increasing delays.
pub const KEYS_RETRY_SECONDS: u64 = 2;

/// A refusal to be sent to the client.
///
/// As a response, it has only a status and headers. It is also an extension of that response, from
/// which [`super::middleware`] writes the body, which contains the request id. Clones are cheap.
#[derive(Clone, Debug)]
pub struct ApiError {
    code: ErrorCode,
    hint: Option<Arc<str>>,
    sqlstate: Option<Arc<str>>,
    retry_after: Option<u64>,
    cause: Option<Arc<str>>,
    is_failed_precondition: bool,
    is_for_client_libraries: bool,
}

impl ApiError {
    /// Creates a refusal with the fixed text of its code.
    pub fn new(code: ErrorCode) -> Self {
        Self {
            code,
            hint: None,
            sqlstate: None,
            retry_after: None,
            cause: None,
            is_failed_precondition: false,
            is_for_client_libraries: false,
        }
    }

    /// Adds a hint about what the client can do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Arc<str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the number of seconds after which the same request can succeed.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Creates a refusal of well-formed but invalid input. `hint` names the field and the rule.
    pub fn invalid(hint: impl Into<Arc<str>>) -> Self {
        Self::new(ErrorCode::ValidationFailed).with_hint(hint)
    }

    /// Marks the refusal as caused by a failed condition in the request headers. Its status is then
    /// 412 (RFC 9110, section 15.5.13).
    #[must_use]
    pub fn as_failed_precondition(mut self) -> Self {
        self.is_failed_precondition = true;
        self
    }

    /// Adds the fields in which the client libraries of Supabase look for a text, a code and a
    /// status: `msg` and `error_code` (auth-js), `statusCode` (storage-js).
    #[must_use]
    pub fn for_client_libraries(mut self) -> Self {
        self.is_for_client_libraries = true;
        self
    }

    /// Adds the internal cause, which is only logged.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<Arc<str>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Creates the error for an internal fault. `cause` is only logged.
    pub fn internal(cause: impl Into<Arc<str>>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(ErrorCode::Internal)
        }
    }

    /// Returns the stable error code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns the seconds after which the same request can succeed, if that is known.
    pub fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }

    /// Returns the internal cause, which is only for the log.
    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Returns the body, in the format of `docs/api.md`, *Refusals*. `error` is always a string,
    /// because dashboards display it unchanged.
    pub(super) fn body(&self, request_id: &str) -> Value {
        let text = text(self.code);
        let mut body = json!({
            "error": text,
            "code": self.code.as_str(),
            "message": text,
            "details": self.sqlstate.as_deref().map(|sqlstate| json!({ "sqlstate": sqlstate })),
            "hint": self.hint.as_deref(),
            "request_id": request_id,
            "retry_after": self.retry_after,
        });
        if self.is_for_client_libraries {
            body["msg"] = text.into();
            body["error_code"] = self.code.as_str().into();
            body["statusCode"] = status(self.code).as_str().into();
        }
        body
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = if self.is_failed_precondition {
            StatusCode::PRECONDITION_FAILED
        } else {
            status(self.code)
        };
        let mut response = status.into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer error=\"invalid_token\""),
            );
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        let refusal = error.refusal();
        Self {
            code: error.code(),
            hint: refusal
                .and_then(|refusal| refusal.detail.as_deref())
                .map(Into::into),
            sqlstate: refusal.map(|refusal| refusal.sqlstate.as_str().into()),
            retry_after: error.retry_after(),
            // A refusal that the client can act on is not logged as a fault.
            cause: (refusal.is_none() || error.code() == ErrorCode::Internal)
                .then(|| error.log_text().into()),
            is_failed_precondition: false,
            is_for_client_libraries: false,
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired { .. } => Self::new(ErrorCode::TokenExpired)
                .with_hint("Refresh the session and repeat the request"),
            TokenError::Missing => {
                Self::new(ErrorCode::Unauthorized).with_hint("Sign in, and send the access token")
            }
            TokenError::KeysUnavailable => {
                Self::new(ErrorCode::KeysUnavailable).with_retry_after(KEYS_RETRY_SECONDS)
            }
            TokenError::Anonymous => Self::new(ErrorCode::AnonymousNotAllowed),
            TokenError::SecondFactorRequired => Self::new(ErrorCode::MfaRequired)
                .with_hint("Sign in with a second factor, and send the new access token"),
            // These texts contain no data other than the client's own.
            other => Self::new(ErrorCode::Unauthorized).with_hint(other.to_string()),
        }
    }
}

/// Returns the HTTP status of each code, as listed in `docs/error-codes.md`.
pub(super) fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::MalformedRequest => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized
        | ErrorCode::TokenExpired
        | ErrorCode::ApiKeyMissing
        | ErrorCode::ApiKeyInvalid
        | ErrorCode::SecretKeyInBrowser => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden
        | ErrorCode::AnonymousNotAllowed
        | ErrorCode::MfaRequired
        | ErrorCode::IdentityMismatch
        | ErrorCode::NotAllowedRecipient
        | ErrorCode::EditWindowPassed => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::MessageDeleted
        | ErrorCode::StaleRevision
        | ErrorCode::ClientMessageIdConflict
        | ErrorCode::IdempotencyInFlight => StatusCode::CONFLICT,
        ErrorCode::ResyncRequired => StatusCode::GONE,
        ErrorCode::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::ValidationFailed
        | ErrorCode::MessageEmpty
        | ErrorCode::MessageTooLong
        | ErrorCode::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::PoolExhausted
        | ErrorCode::RowLocked
        | ErrorCode::DatabaseUnavailable
        | ErrorCode::KeysUnavailable
        | ErrorCode::UpstreamNotConfigured
        | ErrorCode::UpstreamBusy => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::UpstreamUnavailable => StatusCode::BAD_GATEWAY,
        ErrorCode::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Returns the text of each code. Dashboards match on the texts of 401, 403 and 500.
pub(super) fn text(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unauthorized | ErrorCode::TokenExpired => "Unauthorized",
        ErrorCode::Forbidden => "Insufficient permissions",
        ErrorCode::AnonymousNotAllowed => "Sign in with an account",
        ErrorCode::MfaRequired => "Sign in with a second factor",
        ErrorCode::IdentityMismatch => "You can only act as yourself",
        ErrorCode::NotAllowedRecipient => "You cannot message this person",
        ErrorCode::NotFound => "Not found",
        ErrorCode::ValidationFailed => "The request is not valid",
        ErrorCode::MalformedRequest => "The request cannot be read",
        ErrorCode::MessageEmpty => "A message needs content",
        ErrorCode::MessageTooLong => "The message is too long",
        ErrorCode::MessageDeleted => "This message was deleted",
        ErrorCode::EditWindowPassed => "This message can no longer be edited",
        ErrorCode::StaleRevision => "The message was changed meanwhile",
        ErrorCode::ClientMessageIdConflict => {
            "Another message was sent with this client_message_id"
        }
        ErrorCode::IdempotencyInFlight => "A request with this Idempotency-Key is still running",
        ErrorCode::IdempotencyKeyReused => "This Idempotency-Key was used for another request",
        ErrorCode::PayloadTooLarge => "The request is too large",
        ErrorCode::UnsupportedMediaType => "Send application/json",
        ErrorCode::MethodNotAllowed => "Method not allowed",
        ErrorCode::RateLimited => "Too many requests",
        ErrorCode::ResyncRequired => "The cursor is too old: reload everything",
        ErrorCode::PoolExhausted => "The server is busy, try again",
        ErrorCode::RowLocked => "Another transaction is changing the same data, try again",
        ErrorCode::DatabaseUnavailable => "The database is not available, try again",
        ErrorCode::KeysUnavailable => "The keys for access tokens are not available, try again",
        // These two texts are those of Supabase's gateway, because users search for them.
        ErrorCode::ApiKeyMissing => "No API key found in request",
        ErrorCode::ApiKeyInvalid => "Invalid authentication credentials",
        ErrorCode::SecretKeyInBrowser => "A server-side key must not be used in a browser",
        ErrorCode::UpstreamNotConfigured => "This server does not forward to this service",
        ErrorCode::UpstreamBusy => "Too many requests are in progress, try again",
        ErrorCode::UpstreamUnavailable => "A server behind this one is not available",
        ErrorCode::UpstreamTimeout => "A server behind this one did not respond in time",
        ErrorCode::Internal => "Internal server error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Refusal;

    /// Returns the code, the status and the number of non-empty cells of each row in
    /// `docs/error-codes.md`.
    fn documented() -> Vec<(String, String, usize)> {
        include_str!("../../docs/error-codes.md")
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| {
                let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
                let filled = cells.iter().filter(|cell| !cell.is_empty()).count();
                (
                    cells[0].trim_matches('`').to_owned(),
                    cells[1].to_owned(),
                    filled,
                )
            })
            .collect()
    }

    #[test]
    fn the_documentation_lists_every_code_with_its_status_and_remedy() {
        let expected: Vec<_> = ErrorCode::ALL
            .iter()
            .map(|code| {
                (
                    code.as_str().to_owned(),
                    status(*code).as_str().to_owned(),
                    4,
                )
            })
            .collect();
        assert_eq!(documented(), expected);
    }

    /// Returns the status, headers and body of a refusal, as the middleware sends them.
    fn shown(error: ApiError) -> String {
        let body = error.body("the-request");
        let response = error.into_response();
        let mut text = format!("{}\n", response.status());
        for (name, value) in response.headers() {
            text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
        }
        format!("{text}{body:#}\n")
    }

    #[test]
    fn the_status_headers_and_body_of_every_refusal_are_unchanged() {
        let codes = ErrorCode::ALL.iter().copied();
        let mut cases: Vec<(String, ApiError)> = codes
            .map(|code| (code.as_str().to_owned(), ApiError::new(code)))
            .collect();
        let from_database = DbError::Refused(Box::new(Refusal {
            code: ErrorCode::IdempotencyInFlight,
            sqlstate: "PT409".to_owned(),
            constraint: Some("a constraint".to_owned()),
            detail: Some("a detail".to_owned()),
        }));
        let stale = ApiError::new(ErrorCode::StaleRevision).as_failed_precondition();
        let special: [(&str, ApiError); 7] = [
            ("invalid input", ApiError::invalid("the field and the rule")),
            ("a refusal by the database", from_database.into()),
            ("no free connection", DbError::PoolExhausted.into()),
            ("no permit", DbError::TooManyOfCaller.into()),
            ("no database", DbError::Unavailable(None).into()),
            ("a failed condition in a header", stale),
            ("a fault", ApiError::internal("relation secrets is missing")),
        ];
        cases.extend(special.map(|(name, error)| (name.to_owned(), error)));
        let text: String = cases
            .into_iter()
            .map(|(name, error)| format!("# {name}\n{}\n", shown(error)))
            .collect();
        insta::with_settings!(
            { prepend_module_to_snapshot => false, omit_expression => true },
            { insta::assert_snapshot!("refusals", text) }
        );
    }

    #[test]
    fn the_internal_cause_is_not_sent() {
        let error = ApiError::internal("relation secrets does not exist");
        assert!(!error.body("r").to_string().contains("secrets"));
        let error = ApiError::from(DbError::Unavailable(Some("10.0.0.7 refused".into())));
        assert!(!error.body("r").to_string().contains("10.0.0.7"));
        assert_eq!(error.body("r")["retry_after"], 5);
    }
}
