//! The reasons why a handshake, a join or a push is refused, and the text that the client receives.
//!
//! Only this file maps the reasons to statuses and replies. A text marked with a section number
//! (protocol 3.4, for example) is part of the protocol.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::StatusCode;
use thiserror::Error;

use super::channel::authorize::AuthorizeError;
use super::messages::store::StoreError;
use super::protocol::{BroadcastError, PersistError, Reply};
use crate::auth::{Claims, TokenError};
use crate::observability::metrics::{DropReason, Limit, RealtimeMetrics};

/// Returns the text of a token error for a message that reports only a text. A missing token is
/// reported as malformed here, because only the handshake distinguishes the two.
pub fn token_text(error: &TokenError) -> String {
    match error {
        TokenError::Missing => TokenError::Malformed.to_string(),
        other => other.to_string(),
    }
}

/// Returns the error for claims that were valid and have expired by `now` (Unix time in seconds). A
/// token is valid until just before its `exp` (protocol 1.4).
pub fn expiry(claims: &Claims, now: i64) -> Option<TokenError> {
    (claims.expires_at <= now).then(|| TokenError::Expired {
        seconds_ago: now.saturating_sub(claims.expires_at),
    })
}

/// The reason why a handshake is refused (protocol 1.3).
#[derive(Debug, PartialEq, Eq)]
pub enum HandshakeRefusal {
    /// The protocol version is not supported.
    Version,
    /// The request is not a WebSocket handshake.
    NotAnUpgrade,
    /// The API key is missing or invalid.
    Token(TokenError),
    /// The client's address has recently opened too many sockets.
    TooManyFromAddress,
    /// The server has reached its limit of open sockets.
    TooManySockets,
    /// The server has reached its limit of sockets that have joined a channel.
    TooManyUsers,
    /// There were too many joins on the whole server recently.
    TooManyJoins,
    /// The server is stopping.
    Restarting,
}

impl HandshakeRefusal {
    /// Returns the status and the error text. Some refusals have an empty body.
    pub fn response(&self) -> (StatusCode, Option<String>) {
        let too_many = |text: &str| (StatusCode::TOO_MANY_REQUESTS, Some(text.to_owned()));
        match self {
            Self::Version => (StatusCode::FORBIDDEN, None),
            Self::NotAnUpgrade => (StatusCode::BAD_REQUEST, None),
            // Unlike a join, the handshake does not report how long ago the token expired.
            Self::Token(TokenError::Expired { .. }) => (
                StatusCode::UNAUTHORIZED,
                Some("Token has expired".to_owned()),
            ),
            Self::Token(
                error @ (TokenError::Missing
                | TokenError::Malformed
                | TokenError::BadSignature
                | TokenError::Signer { .. }
                | TokenError::MissingClaims
                | TokenError::NotYetValid),
            ) => (StatusCode::UNAUTHORIZED, Some(error.to_string())),
            // Clients connect again after an interval that grows.
            Self::Token(error @ TokenError::KeysUnavailable) => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(error.to_string()))
            }
            // Other failures to verify a token have a fixed text in the protocol.
            Self::Token(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                Some("Error connecting to Realtime".to_owned()),
            ),
            Self::TooManyFromAddress => too_many("Too many connections from this address"),
            // Supabase Realtime limits only the number of users, so both limits use its text for
            // that limit.
            Self::TooManySockets | Self::TooManyUsers => too_many("Too many connected users"),
            Self::TooManyJoins => too_many("Too many joins per second"),
            // Supabase Realtime accepts these sockets and closes them soon afterwards.
            Self::Restarting => (
                StatusCode::SERVICE_UNAVAILABLE,
                Some("Realtime is restarting, please standby".to_owned()),
            ),
        }
    }

    /// Returns the limit that was reached, if any.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooManyFromAddress => Some(Limit::Address),
            Self::TooManySockets => Some(Limit::Sockets),
            Self::TooManyUsers => Some(Limit::Users),
            Self::TooManyJoins => Some(Limit::Joins),
            Self::Version | Self::NotAnUpgrade | Self::Token(_) | Self::Restarting => None,
        }
    }
}

/// The reason why a join is refused (protocol 3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinRefusal {
    /// The topic is only `realtime:`.
    TopicNameRequired,
    /// The server is stopping.
    Restarting,
    /// The server allows only private channels.
    PrivateOnly,
    /// The limit of sockets with channels, of joins or of channels was reached.
    Limit(Limit),
    /// The token is invalid.
    Token(TokenError),
    /// The policies do not let this caller read the topic. Contains the sub-topic.
    Unauthorized(String),
    /// The database could not be queried.
    DatabaseUnavailable,
    /// The permission check failed in another way.
    CheckFailed(AuthorizeError),
    /// Replay was requested for a public channel.
    ReplayOfPublicChannel,
    /// The replay parameters are invalid.
    ReplayParams,
    /// Replay is not available.
    ReplayUnavailable,
    /// There are more bindings than this limit.
    TooManyBindings(usize),
    /// All channels of the socket would have more bindings than this limit.
    TooManyBindingsOfSocket(usize),
    /// Topic and payload are larger than this limit in bytes.
    TooLarge(usize),
    /// The client asked to wait for its subscription, which was refused. Contains the reason.
    Subscription(String),
    /// The client asked to wait for its subscription, which was not ready within this many
    /// milliseconds.
    SubscriptionLate(u64),
}

impl JoinRefusal {
    /// Returns the refusal of a private join whose permission check failed (protocol 4.3).
    pub fn from_check_error(error: AuthorizeError, sub_topic: String) -> Self {
        match error {
            AuthorizeError::Policy { .. } => Self::Unauthorized(sub_topic),
            AuthorizeError::Unavailable => Self::DatabaseUnavailable,
            error => Self::CheckFailed(error),
        }
    }

    /// Returns the `reason` of the reply.
    pub fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::TopicNameRequired => "TopicNameRequired: You must provide a topic name".into(),
            Self::Restarting => "RealtimeRestarting: Realtime is restarting, please standby".into(),
            Self::PrivateOnly => "PrivateOnly: This project only allows private channels".into(),
            Self::Limit(Limit::Channels) => "ChannelRateLimitReached: Too many channels".into(),
            Self::Limit(Limit::Users | Limit::Sockets) => {
                "ConnectionRateLimitReached: Too many connected users".into()
            }
            Self::Limit(_) => "ClientJoinRateLimitReached: Too many joins per second".into(),
            Self::Token(TokenError::Missing) => Self::Token(TokenError::Malformed).reason(),
            Self::Token(error) => match error.protocol_name() {
                Some(name) => format!("{name}: {error}").into(),
                None => "Unknown Error on Channel".into(),
            },
            Self::Unauthorized(topic) => format!("Unauthorized: {}", no_permission(topic)).into(),
            Self::DatabaseUnavailable => {
                "UnableToConnectToProject: Realtime was unable to connect \
                                          to the project database"
                    .into()
            }
            Self::CheckFailed(error) => check_failed(error),
            Self::ReplayOfPublicChannel => {
                "UnableToReplayMessages: Replay is not allowed for public channels".into()
            }
            Self::ReplayParams => "UnableToReplayMessages: Replay params are not valid".into(),
            Self::ReplayUnavailable => {
                "UnableToReplayMessages: Realtime was unable to replay messages".into()
            }
            Self::TooManyBindings(limit) => {
                format!("Too many postgres_changes bindings: at most {limit}").into()
            }
            Self::TooManyBindingsOfSocket(limit) => {
                format!("Too many postgres_changes bindings of one connection: at most {limit}")
                    .into()
            }
            Self::TooLarge(limit) => {
                format!("The join is too large: at most {limit} bytes of topic and payload").into()
            }
            Self::Subscription(reason) => {
                format!("RealtimeDisabledForConfiguration: {reason}").into()
            }
            Self::SubscriptionLate(millis) => format!(
                "PostgresChangesSubscribeTimeout: Timed out after {millis}ms waiting for the \
                 postgres_changes subscription"
            )
            .into(),
        }
    }
}

/// The reason why a client's broadcast is not sent. The text is sent to the client.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BroadcastRefusal {
    /// The payload is larger than this limit in bytes (protocol 4.2).
    #[error("The payload of a broadcast is too large: at most {0} bytes")]
    TooLarge(usize),
    /// The broadcast cannot be encoded as a frame.
    #[error(transparent)]
    Invalid(#[from] BroadcastError),
    /// The broadcast cannot be stored as requested.
    #[error("`persist` {0}")]
    Persist(#[from] PersistError),
}

impl BroadcastRefusal {
    /// Returns the reply to a channel that asked for acknowledgements.
    pub fn reply(&self) -> Reply {
        match self {
            Self::TooLarge(_) => Reply::PayloadSizeExceeded,
            Self::Invalid(_) => Reply::Error(self.to_string().into()),
            Self::Persist(_) => Reply::NotStored(self.to_string().into()),
        }
    }

    /// Returns the limit that was reached, if any.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooLarge(_) => Some(Limit::Broadcast),
            Self::Invalid(_) | Self::Persist(_) => None,
        }
    }

    /// Returns the reason under which the refusal is counted.
    pub fn drop_reason(&self) -> DropReason {
        match self {
            Self::TooLarge(_) => DropReason::TooLarge,
            Self::Invalid(_) | Self::Persist(_) => DropReason::Malformed,
        }
    }
}

/// The reason why a presence push is refused (protocol 5.1, 5.4). The text is sent to the client,
/// except for `UnknownEvent`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PresenceRefusal {
    /// There were too many presence pushes and deliveries on the whole server recently.
    #[error("Too many presence messages per second")]
    TooManyEvents,
    /// There were too many pushes on this channel recently.
    #[error("Client presence rate limit exceeded")]
    TooManyCalls,
    /// The payload is too large, or the payloads that the socket tracks are too large in total.
    #[error("Track message size exceeded")]
    TooLarge,
    /// The payload is not a JSON object.
    #[error("Presence track payload must be a map")]
    NotAMap,
    /// The key is the name of a property that every JavaScript object has. Contains the key.
    #[error("The presence key `{0}` is not allowed: it breaks some clients")]
    HostileKey(Arc<str>),
    /// The presence state of the topic would exceed this limit in bytes.
    #[error("The presence state of this topic is full (limit: {0} bytes)")]
    PresenceFull(usize),
    /// The event is neither `track` nor `untrack`.
    #[error("Unknown presence event")]
    UnknownEvent,
}

impl PresenceRefusal {
    /// Returns the reply to the push.
    pub fn reply(&self) -> Reply {
        match self {
            Self::UnknownEvent => Reply::Refused,
            _ => Reply::Error(self.to_string().into()),
        }
    }

    /// Counts the refusal in the metrics.
    pub fn count(&self, metrics: &RealtimeMetrics) {
        metrics.dropped(self.drop_reason());
        if let Some(limit) = self.limit() {
            metrics.limited(limit);
        }
    }

    /// Returns the limit that was reached, if it is a limit of presence.
    fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooManyCalls => Some(Limit::PresenceCalls),
            Self::TooManyEvents => Some(Limit::PresenceEvents),
            Self::PresenceFull(_) => Some(Limit::PresenceState),
            _ => None,
        }
    }

    /// Returns the reason under which the push is counted.
    fn drop_reason(&self) -> DropReason {
        match self {
            Self::TooManyCalls | Self::TooManyEvents => DropReason::RateLimited,
            Self::TooLarge | Self::PresenceFull(_) => DropReason::TooLarge,
            Self::NotAMap | Self::HostileKey(_) | Self::UnknownEvent => DropReason::Malformed,
        }
    }
}

/// Sent when a channel starts to receive broadcasts from the database (protocol 3.5).
pub const MESSAGES_LIVE: &str = "Replication connection established";

/// Sent before a channel is closed because broadcasts from the database are unavailable (protocol
/// 3.5).
pub const MESSAGES_LATE: &str = "Replication connection was not established in time";

/// Returns the text for a channel without permission to read (protocol 3.4, 3.5).
pub fn no_permission(sub_topic: &str) -> String {
    format!("You do not have permissions to read from this Channel topic: {sub_topic}")
}

/// Returns the text for a channel that loses permission to read (protocol 3.5).
pub fn no_longer_permitted(sub_topic: &str) -> String {
    format!("You no longer have permission to read from this Channel topic: {sub_topic}")
}

/// Returns the text for a client whose message on a private channel was refused, either for lack of
/// permission or because the check failed (protocol 3.4).
pub fn write_refusal(error: Option<&AuthorizeError>, sub_topic: &str) -> Cow<'static, str> {
    match error {
        None | Some(AuthorizeError::Policy { .. }) => {
            format!("You do not have permissions to write to this Channel topic: {sub_topic}")
                .into()
        }
        Some(AuthorizeError::Unavailable) => JoinRefusal::DatabaseUnavailable.reason(),
        Some(error) => check_failed(error),
    }
}

/// Returns the text for a client whose broadcast was neither stored nor sent (protocol 4.8).
pub fn store_refusal(error: &StoreError, sub_topic: &str) -> Cow<'static, str> {
    match error {
        StoreError::Forbidden | StoreError::CheckFailed(AuthorizeError::Policy { .. }) => format!(
            "You do not have permissions to store messages of this Channel topic: {sub_topic}"
        )
        .into(),
        StoreError::Payload { .. } => "The payload of the broadcast cannot be stored".into(),
        StoreError::Unsupported => {
            "The table realtime.messages lacks a column that is needed to store this message".into()
        }
        StoreError::CheckFailed(AuthorizeError::Unavailable) => {
            JoinRefusal::DatabaseUnavailable.reason()
        }
        StoreError::CheckFailed(error) => check_failed(error),
    }
}

fn check_failed(error: &AuthorizeError) -> Cow<'static, str> {
    match error {
        AuthorizeError::Canceled(text) => format!("QueryCanceled: {text}").into(),
        AuthorizeError::MissingPartition => {
            "MissingPartition: Realtime was unable to find the expected messages partition".into()
        }
        AuthorizeError::PoolExhausted => {
            "IncreaseConnectionPool: Please increase your connection pool size".into()
        }
        AuthorizeError::TooManyConnections => {
            "DatabaseLackOfConnections: Database can't accept more connections, Realtime won't \
             connect"
                .into()
        }
        AuthorizeError::Policy { .. }
        | AuthorizeError::Unavailable
        | AuthorizeError::Failed { .. } => {
            "Realtime was unable to connect to the project database".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_refusals_have_the_texts_of_the_protocol() {
        let cases = [
            (
                JoinRefusal::Token(TokenError::Expired { seconds_ago: 7 }),
                "InvalidJWTToken: Token has expired 7 seconds ago",
            ),
            (
                JoinRefusal::Token(TokenError::MissingClaims),
                "InvalidJWTToken: Fields `role` and `exp` are required in JWT",
            ),
            (
                JoinRefusal::Token(TokenError::NotYetValid),
                "InvalidJWTToken: Token is not valid yet",
            ),
            (
                JoinRefusal::Token(TokenError::Missing),
                "MalformedJWT: The token provided is not a valid JWT",
            ),
            (
                JoinRefusal::Token(TokenError::BadSignature),
                "JwtSignatureError: Failed to validate JWT signature",
            ),
            (
                JoinRefusal::Token(TokenError::Signer {
                    kid: Some("k".to_owned()),
                }),
                "JwtSignerError: Failed to generate JWT signer for key ID (kid) \"k\", check your \
                 JWT secret or JWKS configuration",
            ),
            (
                JoinRefusal::Token(TokenError::WrongIssuer),
                "Unknown Error on Channel",
            ),
            (
                JoinRefusal::Limit(Limit::Users),
                "ConnectionRateLimitReached: Too many connected users",
            ),
            (
                JoinRefusal::Limit(Limit::Joins),
                "ClientJoinRateLimitReached: Too many joins per second",
            ),
            (
                JoinRefusal::Limit(Limit::SocketJoins),
                "ClientJoinRateLimitReached: Too many joins per second",
            ),
            (
                JoinRefusal::Limit(Limit::Channels),
                "ChannelRateLimitReached: Too many channels",
            ),
            (
                JoinRefusal::Unauthorized("room".to_owned()),
                "Unauthorized: You do not have permissions to read from this Channel topic: room",
            ),
            (
                JoinRefusal::from_check_error(
                    AuthorizeError::Policy {
                        sqlstate: "22P02".to_owned(),
                    },
                    "room".to_owned(),
                ),
                "Unauthorized: You do not have permissions to read from this Channel topic: room",
            ),
            (
                JoinRefusal::from_check_error(AuthorizeError::Unavailable, "room".to_owned()),
                "UnableToConnectToProject: Realtime was unable to connect to the project database",
            ),
            (
                JoinRefusal::CheckFailed(AuthorizeError::Canceled(
                    "canceling statement due to statement timeout".to_owned(),
                )),
                "QueryCanceled: canceling statement due to statement timeout",
            ),
            (
                JoinRefusal::CheckFailed(AuthorizeError::MissingPartition),
                "MissingPartition: Realtime was unable to find the expected messages partition",
            ),
            (
                JoinRefusal::CheckFailed(AuthorizeError::PoolExhausted),
                "IncreaseConnectionPool: Please increase your connection pool size",
            ),
            (
                JoinRefusal::CheckFailed(AuthorizeError::TooManyConnections),
                "DatabaseLackOfConnections: Database can't accept more connections, Realtime won't connect",
            ),
            (
                JoinRefusal::CheckFailed(AuthorizeError::Failed {
                    sqlstate: "40001".to_owned(),
                }),
                "Realtime was unable to connect to the project database",
            ),
        ];
        for (refusal, reason) in cases {
            assert_eq!(refusal.reason(), reason);
        }
    }

    #[test]
    fn handshake_refusals_have_the_responses_of_the_protocol() {
        let cases = [
            (HandshakeRefusal::Version, 403, None),
            (HandshakeRefusal::NotAnUpgrade, 400, None),
            (
                HandshakeRefusal::Token(TokenError::Missing),
                401,
                Some("API key is missing"),
            ),
            (
                HandshakeRefusal::Token(TokenError::Expired { seconds_ago: 3 }),
                401,
                Some("Token has expired"),
            ),
            (
                HandshakeRefusal::Token(TokenError::NotYetValid),
                401,
                Some("Token is not valid yet"),
            ),
            (
                HandshakeRefusal::Token(TokenError::WrongIssuer),
                500,
                Some("Error connecting to Realtime"),
            ),
            (
                HandshakeRefusal::TooManySockets,
                429,
                Some("Too many connected users"),
            ),
            (
                HandshakeRefusal::TooManyUsers,
                429,
                Some("Too many connected users"),
            ),
            (
                HandshakeRefusal::TooManyJoins,
                429,
                Some("Too many joins per second"),
            ),
            (
                HandshakeRefusal::TooManyFromAddress,
                429,
                Some("Too many connections from this address"),
            ),
            (
                HandshakeRefusal::Restarting,
                503,
                Some("Realtime is restarting, please standby"),
            ),
        ];
        for (refusal, status, text) in cases {
            let response = refusal.response();
            assert_eq!((response.0.as_u16(), response.1.as_deref()), (status, text));
        }
    }
}
