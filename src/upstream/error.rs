//! Why a request is not forwarded, or has no response.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ALLOW, CONNECTION,
};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};

use super::route::Service;
use crate::error_code::ErrorCode;
use crate::http::ApiError;
use crate::http::error::KEYS_RETRY_SECONDS;

/// If a response has this header, Supabase's client library reports an error of the gateway instead
/// of one of the function.
const RELAY_ERROR: HeaderName = HeaderName::from_static("x-relay-error");

/// Seconds until a retry after a failure of the service. A restart takes a few seconds.
const RETRY_FAILED_SECONDS: u64 = 2;

/// Seconds until a retry if too many requests are in progress. Most of them end within a second.
const RETRY_BUSY_SECONDS: u64 = 1;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The path is ambiguous.
    Path,
    /// The length of the body is ambiguous.
    Framing,
    /// The service does not support this method.
    Method,
    /// The address sent too many requests.
    Limited { retry_after: Option<u64> },
    /// The request has no key.
    KeyMissing,
    /// The key is unknown, or the path requires a server-side key.
    KeyInvalid,
    /// The API key is a token, and the keys that would verify it are not available.
    KeysUnavailable,
    /// A browser sent a server-side key.
    SecretKeyInBrowser,
    /// The service has no URL.
    NotConfigured,
    /// Too many requests are in progress.
    Busy,
    /// The service cannot be reached or did not send a response. The text is only logged.
    Unavailable(String),
    /// The service did not respond in time.
    Timeout,
    /// The body is too large.
    TooLarge,
    /// The client sends the body too slowly.
    SlowBody,
    /// The body breaks off, or its chunked coding is invalid.
    UnreadableBody,
}

impl Refusal {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Path | Self::Framing | Self::SlowBody | Self::UnreadableBody => {
                ErrorCode::MalformedRequest
            }
            Self::Method => ErrorCode::MethodNotAllowed,
            Self::Limited { .. } => ErrorCode::RateLimited,
            Self::KeyMissing => ErrorCode::ApiKeyMissing,
            Self::KeyInvalid => ErrorCode::ApiKeyInvalid,
            Self::KeysUnavailable => ErrorCode::KeysUnavailable,
            Self::SecretKeyInBrowser => ErrorCode::SecretKeyInBrowser,
            Self::NotConfigured => ErrorCode::UpstreamNotConfigured,
            Self::Busy => ErrorCode::UpstreamBusy,
            Self::Unavailable(_) => ErrorCode::UpstreamUnavailable,
            Self::Timeout => ErrorCode::UpstreamTimeout,
            Self::TooLarge => ErrorCode::PayloadTooLarge,
        }
    }

    fn hint(&self, service: Service) -> Option<&'static str> {
        Some(match self {
            Self::Path => "Write the path without dot segments, backslashes and invalid escapes",
            Self::Framing => "Send either Content-Length or Transfer-Encoding: chunked",
            Self::KeyMissing => "Send the project's key in the header `apikey`",
            Self::SecretKeyInBrowser => {
                "Replace the key, because everyone who uses the page knows it, and use a publishable key in browsers"
            }
            Self::NotConfigured => match service {
                Service::Auth => "Set `supabase.url` or `upstream.auth_url`",
                Service::Rest | Service::Graphql => "Set `supabase.url` or `upstream.rest_url`",
                Service::Storage => "Set `supabase.url` or `upstream.storage_url`",
                Service::Functions => "Set `supabase.url` or `upstream.functions_url`",
            },
            Self::SlowBody => "The body did not arrive in time",
            Self::UnreadableBody => "The body is incomplete, or its chunked coding is invalid",
            Self::TooLarge => "`upstream.max_body_bytes` limits the size of a body",
            _ => return None,
        })
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Unavailable(_) | Self::Timeout => Some(RETRY_FAILED_SECONDS),
            Self::Busy => Some(RETRY_BUSY_SECONDS),
            Self::KeysUnavailable => Some(KEYS_RETRY_SECONDS),
            Self::Limited { retry_after } => *retry_after,
            _ => None,
        }
    }

    /// Returns the response. Pages of all origins may read it, because a browser would otherwise
    /// report every refusal as a CORS error.
    pub(super) fn into_response(self, service: Service) -> Response {
        let mut error = ApiError::new(self.code()).for_client_libraries();
        if let Some(hint) = self.hint(service) {
            error = error.with_hint(hint);
        }
        if let Some(seconds) = self.retry_after() {
            error = error.with_retry_after(seconds);
        }
        let is_framing = self == Self::Framing;
        let is_method = self == Self::Method;
        if let Self::Unavailable(cause) = self {
            error = error.with_cause(format!("{}: {cause}", service.name()));
        }
        let mut response = error.into_response();
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        if service == Service::Functions {
            headers.insert(RELAY_ERROR, HeaderValue::from_static("true"));
        }
        if is_method {
            headers.insert(ALLOW, HeaderValue::from_static(super::cors::METHODS));
        }
        if is_framing {
            // What follows on this connection may be part of the body (RFC 9112, section 6.3).
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
