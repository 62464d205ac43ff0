//! Why a handshake, a join or a socket ends, and what the client is told of it.
//!
//! The only place where a reason becomes a status, a reply or a close code. Texts marked with a
//! section number are the protocol's own.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::StatusCode;
use thiserror::Error;

use super::channel::authorize::AuthorizeError;
use super::messages::store::StoreError;
use super::protocol::{BroadcastError, PersistError, Reply};
use super::wire::frame::FrameError;
use crate::auth::{Claims, TokenError};
use crate::observability::metrics::{CloseLabel, DropReason, Held, Limit, RealtimeMetrics};

/// What a token error reads as, where only the text is told. An absent token is a malformed one
/// here: only the handshake knows the difference.
pub fn token_text(error: &TokenError) -> String {
    match error {
        TokenError::Missing => TokenError::Malformed.to_string(),
        other => other.to_string(),
    }
}

/// The error of claims that were good once, if they have expired by `now` (unix seconds). A token
/// is good before its `exp` (1.4).
pub fn expiry(claims: &Claims, now: i64) -> Option<TokenError> {
    (claims.expires_at <= now).then(|| TokenError::Expired {
        seconds_ago: now.saturating_sub(claims.expires_at),
    })
}

/// Why a handshake is refused (1.3).
#[derive(Debug, PartialEq, Eq)]
pub enum HandshakeRefusal {
    /// A protocol version that is not spoken here.
    Version,
    /// Not a WebSocket handshake.
    NotAnUpgrade,
    /// The API key is missing or no good.
    Token(TokenError),
    /// The address has opened too many sockets lately.
    TooManyFromAddress,
    /// The server has as many sockets as it may.
    TooManySockets,
    /// As many sockets as may have joined a channel.
    TooManyUsers,
    /// Too many joins on the whole server lately.
    TooManyJoins,
    /// The server is stopping.
    Restarting,
}

impl HandshakeRefusal {
    /// Status and error text; some refusals have an empty body.
    pub fn answer(&self) -> (StatusCode, Option<String>) {
        let too_many = |text: &str| (StatusCode::TOO_MANY_REQUESTS, Some(text.to_owned()));
        match self {
            Self::Version => (StatusCode::FORBIDDEN, None),
            Self::NotAnUpgrade => (StatusCode::BAD_REQUEST, None),
            // The handshake does not say how long ago.
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
            // Other failures of validation, in the protocol's words.
            Self::Token(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                Some("Error connecting to Realtime".to_owned()),
            ),
            Self::TooManyFromAddress => too_many("Too many connections from this address"),
            // The original counts the users alone.
            Self::TooManySockets | Self::TooManyUsers => too_many("Too many connected users"),
            Self::TooManyJoins => too_many("Too many joins per second"),
            // The original still accepts them and closes them a moment later.
            Self::Restarting => (
                StatusCode::SERVICE_UNAVAILABLE,
                Some("Realtime is restarting, please standby".to_owned()),
            ),
        }
    }

    /// The limit that was reached, if it was one.
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

/// Why a join is refused (3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinRefusal {
    /// The topic is `realtime:` and nothing more.
    TopicNameRequired,
    /// The server is stopping.
    Restarting,
    /// Only private channels are allowed.
    PrivateOnly,
    /// A limit was reached: of sockets with channels, of joins, of channels.
    Limit(Limit),
    /// The token is no good.
    Token(TokenError),
    /// The policies do not let this caller read the topic; holds the sub-topic.
    Unauthorized(String),
    /// The database could not be asked.
    DatabaseUnavailable,
    /// The question for permissions has no answer.
    Undecided(AuthorizeError),
    /// Replay of a public channel.
    ReplayOfPublicChannel,
    /// What is to be replayed cannot be read from the join.
    ReplayParams,
    /// Replay is not to be had.
    ReplayUnavailable,
    /// More bindings than this.
    TooManyBindings(usize),
    /// Topic and payload have more bytes than this.
    TooLarge(usize),
    /// The client asked to wait for its subscription, which is refused; holds the reason.
    Subscription(String),
    /// The client asked to wait for its subscription, and it was not made in so many milliseconds.
    SubscriptionLate(u64),
}

impl JoinRefusal {
    /// The refusal of a private join whose question for permissions failed (4.3).
    pub fn of_question(error: AuthorizeError, sub_topic: String) -> Self {
        match error {
            AuthorizeError::Policy { .. } => Self::Unauthorized(sub_topic),
            AuthorizeError::Unavailable => Self::DatabaseUnavailable,
            error => Self::Undecided(error),
        }
    }

    /// The `reason` of the reply.
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
            Self::Undecided(error) => undecided(error),
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

/// Why a broadcast of a client is not sent. The text is what the client is told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BroadcastRefusal {
    /// The payload has more bytes than this (4.2).
    #[error("The payload of a broadcast is too large: at most {0} bytes")]
    TooLarge(usize),
    /// There is no frame for it.
    #[error(transparent)]
    Invalid(#[from] BroadcastError),
    /// It cannot be stored as its sender asks.
    #[error("`persist` {0}")]
    Persist(#[from] PersistError),
}

impl BroadcastRefusal {
    /// The answer where the channel wants one.
    pub fn reply(&self) -> Reply {
        match self {
            Self::TooLarge(_) => Reply::PayloadSizeExceeded,
            Self::Invalid(_) => Reply::Error(self.to_string().into()),
            Self::Persist(_) => Reply::NotStored(self.to_string().into()),
        }
    }

    /// The limit that was reached, if it was one.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooLarge(_) => Some(Limit::Broadcast),
            Self::Invalid(_) | Self::Persist(_) => None,
        }
    }

    /// What it is counted as.
    pub fn drop_reason(&self) -> DropReason {
        match self {
            Self::TooLarge(_) => DropReason::TooLarge,
            Self::Invalid(_) | Self::Persist(_) => DropReason::Malformed,
        }
    }
}

/// Why a push of presence is refused (5.1, 5.4). The text is what the client is told, but where it is
/// told no more than that.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PresenceRefusal {
    /// Too many pushes and deliveries of presence on the whole server lately.
    #[error("Too many presence messages per second")]
    TooManyEvents,
    /// Too many pushes on this channel lately.
    #[error("Client presence rate limit exceeded")]
    TooManyCalls,
    /// The payload is above the limit, or all that the socket tracks is.
    #[error("Track message size exceeded")]
    TooLarge,
    /// The payload is not a JSON object.
    #[error("Presence track payload must be a map")]
    NotAMap,
    /// A name that every JavaScript object has; holds the key.
    #[error("The presence key `{0}` cannot be tracked: some clients cannot read it")]
    HostileKey(Arc<str>),
    /// The state of the topic may not have more bytes than this.
    #[error("The presence of this topic is full: its state may have {0} bytes")]
    TopicFull(usize),
    /// The event is neither `track` nor `untrack`.
    #[error("The presence event is not known")]
    UnknownEvent,
}

impl PresenceRefusal {
    /// The answer.
    pub fn reply(&self) -> Reply {
        match self {
            Self::UnknownEvent => Reply::Refused,
            _ => Reply::Error(self.to_string().into()),
        }
    }

    /// Counts it.
    pub fn count(&self, metrics: &RealtimeMetrics) {
        metrics.dropped(self.drop_reason());
        if let Some(limit) = self.limit() {
            metrics.limited(limit);
        }
    }

    /// The setting that would have allowed it, if it is one of presence.
    fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooManyCalls => Some(Limit::PresenceCalls),
            Self::TooManyEvents => Some(Limit::PresenceEvents),
            Self::TopicFull(_) => Some(Limit::PresenceState),
            _ => None,
        }
    }

    /// Why it was dropped.
    fn drop_reason(&self) -> DropReason {
        match self {
            Self::TooManyCalls | Self::TooManyEvents => DropReason::RateLimited,
            Self::TooLarge | Self::TopicFull(_) => DropReason::TooLarge,
            Self::NotAMap | Self::HostileKey(_) | Self::UnknownEvent => DropReason::Malformed,
        }
    }
}
/// What a channel hears once broadcasts from the database reach it (3.5).
pub const MESSAGES_LIVE: &str = "Replication connection established";
/// What it hears before it is closed because they do not.
pub const MESSAGES_LATE: &str = "Replication connection was not established in time";

/// What a channel without permission to read is told (3.4, 3.5).
pub fn no_permission(sub_topic: &str) -> String {
    format!("You do not have permissions to read from this Channel topic: {sub_topic}")
}

/// What a channel is told that loses something it could read (3.5).
pub fn no_longer_permitted(sub_topic: &str) -> String {
    format!("You no longer have permission to read from this Channel topic: {sub_topic}")
}

/// What the sender on a private channel is told: that it may not, or why nobody knows (3.4).
pub fn write_refusal(error: Option<&AuthorizeError>, sub_topic: &str) -> Cow<'static, str> {
    match error {
        None | Some(AuthorizeError::Policy { .. }) => {
            format!("You do not have permissions to write to this Channel topic: {sub_topic}")
                .into()
        }
        Some(AuthorizeError::Unavailable) => JoinRefusal::DatabaseUnavailable.reason(),
        Some(error) => undecided(error),
    }
}

/// What the sender of a broadcast is told that was neither stored nor sent (4.8).
pub fn store_refusal(error: &StoreError, sub_topic: &str) -> Cow<'static, str> {
    match error {
        StoreError::Forbidden | StoreError::Unasked(AuthorizeError::Policy { .. }) => format!(
            "You do not have permissions to store messages of this Channel topic: {sub_topic}"
        )
        .into(),
        StoreError::Payload { .. } => "The payload of the broadcast cannot be stored".into(),
        StoreError::Unsupported => {
            "The table realtime.messages has no column for what is to be stored".into()
        }
        StoreError::Unasked(AuthorizeError::Unavailable) => {
            JoinRefusal::DatabaseUnavailable.reason()
        }
        StoreError::Unasked(error) => undecided(error),
    }
}

fn undecided(error: &AuthorizeError) -> Cow<'static, str> {
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

/// Why a socket is closed by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed; holds its code, which is echoed.
    Peer(Option<u16>),
    /// Nothing was heard for too long.
    Idle,
    /// No channel was joined for too long.
    NoChannel,
    /// What came is not the WebSocket protocol, or too large.
    Frame(FrameError),
    /// A message was begun and not finished in time.
    Unfinished,
    /// It does not read what it is sent fast enough.
    SlowConsumer,
    /// All sockets together hold too much of this, and this one is among those that hold most.
    Memory(Held),
    /// The server is stopping.
    Restarting,
}

impl CloseReason {
    /// How it is counted.
    pub fn label(self) -> CloseLabel {
        match self {
            Self::Peer(_) => CloseLabel::Client,
            Self::Idle => CloseLabel::Idle,
            Self::NoChannel => CloseLabel::NoChannel,
            Self::Frame(_) | Self::Unfinished => CloseLabel::Fault,
            Self::SlowConsumer => CloseLabel::SlowConsumer,
            Self::Memory(_) => CloseLabel::Memory,
            Self::Restarting => CloseLabel::Restarting,
        }
    }

    /// Whether what waits for the socket is dropped.
    pub fn drops_queue(self) -> bool {
        matches!(self, Self::SlowConsumer | Self::Memory(Held::Queues))
    }

    /// Close code and reason text (RFC 6455, 7.4.1); 1012 and 1013 are registered with IANA.
    pub fn frame_parts(self) -> Option<(u16, &'static str)> {
        Some(match self {
            Self::Peer(code) => (code?, ""),
            Self::Idle => (1000, "Nothing was received for too long"),
            Self::NoChannel => (1000, "No channel was joined for too long"),
            Self::Frame(error) => (
                error.close_code(),
                match error {
                    FrameError::Protocol => "Protocol error",
                    FrameError::NotUtf8 => "Text is not UTF-8",
                    FrameError::TooBig => "Message too big",
                },
            ),
            Self::Unfinished => (1008, "A message was not finished in time"),
            Self::SlowConsumer | Self::Memory(Held::Queues) => (
                1013,
                "Too slow: messages were dropped, reconnect and read what is missing",
            ),
            Self::Memory(Held::Frames) => {
                (1009, "Too much is begun and not finished on this server")
            }
            Self::Memory(Held::Channels) => {
                (1008, "Too much is held for this socket on a full server")
            }
            Self::Restarting => (1012, "Server is restarting"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_joins_have_the_protocols_reasons() {
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
                JoinRefusal::of_question(
                    AuthorizeError::Policy {
                        sqlstate: "22P02".to_owned(),
                    },
                    "room".to_owned(),
                ),
                "Unauthorized: You do not have permissions to read from this Channel topic: room",
            ),
            (
                JoinRefusal::of_question(AuthorizeError::Unavailable, "room".to_owned()),
                "UnableToConnectToProject: Realtime was unable to connect to the project database",
            ),
            (
                JoinRefusal::Undecided(AuthorizeError::Canceled(
                    "canceling statement due to statement timeout".to_owned(),
                )),
                "QueryCanceled: canceling statement due to statement timeout",
            ),
            (
                JoinRefusal::Undecided(AuthorizeError::MissingPartition),
                "MissingPartition: Realtime was unable to find the expected messages partition",
            ),
            (
                JoinRefusal::Undecided(AuthorizeError::PoolExhausted),
                "IncreaseConnectionPool: Please increase your connection pool size",
            ),
            (
                JoinRefusal::Undecided(AuthorizeError::TooManyConnections),
                "DatabaseLackOfConnections: Database can't accept more connections, Realtime won't connect",
            ),
            (
                JoinRefusal::Undecided(AuthorizeError::Failed {
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
    fn refused_handshakes_have_the_protocols_answers() {
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
            let answer = refusal.answer();
            assert_eq!((answer.0.as_u16(), answer.1.as_deref()), (status, text));
        }
    }
}
