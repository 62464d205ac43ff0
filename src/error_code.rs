//! The closed list of error codes for clients.
//!
//! Clients branch on the code, never on a text. A code is never renamed. `docs/error-codes.md`
//! lists each code with its remedy; a test checks this.

/// A stable, client-visible reason for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The token is missing or invalid.
    Unauthorized,
    /// The token has expired.
    TokenExpired,
    /// The caller is authenticated but lacks permission.
    Forbidden,
    /// The caller has an anonymous sign-in.
    AnonymousNotAllowed,
    /// The caller signed in without a second factor.
    MfaRequired,
    /// A body or query names another user as the caller.
    IdentityMismatch,
    /// The caller may not message this user. The reason is not disclosed.
    NotAllowedRecipient,
    /// The resource does not exist, or is not visible to the caller.
    NotFound,
    /// The input is well formed but invalid.
    ValidationFailed,
    /// The body or a parameter is malformed.
    MalformedRequest,
    /// The message has no visible content.
    MessageEmpty,
    /// The message exceeds the length limit.
    MessageTooLong,
    /// The message was deleted.
    MessageDeleted,
    /// The time window for editing has passed.
    EditWindowPassed,
    /// The row changed since the caller read it.
    StaleRevision,
    /// The `client_message_id` was used for another message.
    ClientMessageIdConflict,
    /// A request with this `Idempotency-Key` is still running.
    IdempotencyInFlight,
    /// The `Idempotency-Key` was used for another request.
    IdempotencyKeyReused,
    /// The body exceeds the size limit.
    PayloadTooLarge,
    /// The body has an unsupported media type.
    UnsupportedMediaType,
    /// The path exists but does not support this method.
    MethodNotAllowed,
    /// The caller exceeded a rate limit.
    RateLimited,
    /// The cursor is too old to continue from.
    ResyncRequired,
    /// Every database connection is busy.
    PoolExhausted,
    /// Another transaction holds a row that the request needs.
    RowLocked,
    /// The database is unavailable.
    DatabaseUnavailable,
    /// The keys of the token's issuer could not be fetched.
    KeysUnavailable,
    /// No API key of the project was sent.
    ApiKeyMissing,
    /// The API key is unknown or does not suffice.
    ApiKeyInvalid,
    /// A browser sent a server-side API key.
    SecretKeyInBrowser,
    /// The server has no URL for the requested service of Supabase.
    UpstreamNotConfigured,
    /// Too many requests for the service are in progress.
    UpstreamBusy,
    /// An upstream server is unreachable.
    UpstreamUnavailable,
    /// An upstream server did not respond in time.
    UpstreamTimeout,
    /// A server fault. The log has details under the request id.
    Internal,
}

impl ErrorCode {
    /// Every code, for documentation and its test.
    pub const ALL: &[Self] = &[
        Self::Unauthorized,
        Self::TokenExpired,
        Self::Forbidden,
        Self::AnonymousNotAllowed,
        Self::MfaRequired,
        Self::IdentityMismatch,
        Self::NotAllowedRecipient,
        Self::NotFound,
        Self::ValidationFailed,
        Self::MalformedRequest,
        Self::MessageEmpty,
        Self::MessageTooLong,
        Self::MessageDeleted,
        Self::EditWindowPassed,
        Self::StaleRevision,
        Self::ClientMessageIdConflict,
        Self::IdempotencyInFlight,
        Self::IdempotencyKeyReused,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::MethodNotAllowed,
        Self::RateLimited,
        Self::ResyncRequired,
        Self::PoolExhausted,
        Self::RowLocked,
        Self::DatabaseUnavailable,
        Self::KeysUnavailable,
        Self::ApiKeyMissing,
        Self::ApiKeyInvalid,
        Self::SecretKeyInBrowser,
        Self::UpstreamNotConfigured,
        Self::UpstreamBusy,
        Self::UpstreamUnavailable,
        Self::UpstreamTimeout,
        Self::Internal,
    ];

    /// Returns the code as sent to clients.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::TokenExpired => "token_expired",
            Self::Forbidden => "forbidden",
            Self::AnonymousNotAllowed => "anonymous_not_allowed",
            Self::MfaRequired => "mfa_required",
            Self::IdentityMismatch => "identity_mismatch",
            Self::NotAllowedRecipient => "not_allowed_recipient",
            Self::NotFound => "not_found",
            Self::ValidationFailed => "validation_failed",
            Self::MalformedRequest => "malformed_request",
            Self::MessageEmpty => "message_empty",
            Self::MessageTooLong => "message_too_long",
            Self::MessageDeleted => "message_deleted",
            Self::EditWindowPassed => "edit_window_passed",
            Self::StaleRevision => "stale_revision",
            Self::ClientMessageIdConflict => "client_message_id_conflict",
            Self::IdempotencyInFlight => "idempotency_in_flight",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RateLimited => "rate_limited",
            Self::ResyncRequired => "resync_required",
            Self::PoolExhausted => "pool_exhausted",
            Self::RowLocked => "row_locked",
            Self::DatabaseUnavailable => "database_unavailable",
            Self::KeysUnavailable => "keys_unavailable",
            Self::ApiKeyMissing => "api_key_missing",
            Self::ApiKeyInvalid => "api_key_invalid",
            Self::SecretKeyInBrowser => "secret_key_in_browser",
            Self::UpstreamNotConfigured => "upstream_not_configured",
            Self::UpstreamBusy => "upstream_busy",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Internal => "internal",
        }
    }

    /// Returns the code with this name, for codes raised in the database.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn every_code_is_found_by_its_name() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.as_str()), Some(*code));
        }
    }
}
