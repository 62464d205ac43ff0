//! What a session wants done, and what it hears back of work done aside.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::super::channel::TokenMark;
use super::super::channel::authorize::{AuthorizeError, Permissions, Question};
use super::super::error::CloseReason;
use super::super::hub::topic::TopicKey;
use super::super::hub::{MemberSpec, StreamState};
use super::super::messages::replay::{ReplayParams, ReplayedMessage};
use super::super::messages::store::{StoreError, StoreOrder};
use super::super::protocol::{Broadcast, Ref, ServerMessage, TrackPayload, UserPayload};
use crate::auth::Claims;
use crate::visibility::{Binding, ChannelId, Identity, SubscribeError, SubscribeOptions};

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Queue a message for the client.
    Send(ServerMessage),
    /// Hand a broadcast to the members of a topic, then answer it.
    Broadcast(BroadcastOrder),
    /// Make a channel known to the hub; its deliveries are held.
    Attach(ChannelId, MemberSpec),
    /// Let it read this much from now on.
    Permit(ChannelId, Permissions),
    /// Let its deliveries through.
    Open(ChannelId),
    /// Send a channel the presence of its topic; diffs follow.
    PresenceState(ChannelId),
    /// List a channel in its topic's presence, then answer.
    Track(TrackOrder),
    /// List it no more.
    Untrack(ChannelId),
    /// Forget a channel, in the hub and in visibility.
    Detach(ChannelId),
    /// End the socket.
    Close(CloseReason),
    /// Register bindings, aside.
    Subscribe(SubscribeOrder),
    /// Ask for permissions, aside.
    Authorize(AuthorizeOrder),
    /// Recheck permissions, aside.
    Recheck(RecheckOrder),
    /// Read stored messages, aside.
    ReadStored(ReplayOrder),
    /// Queue stored messages for a channel whose join was answered.
    Replay(ChannelId, Vec<ReplayedMessage>),
    /// Store a broadcast and send it, aside.
    Persist(PersistOrder),
    /// Wait until broadcasts from the database are live, aside.
    AwaitMessages(ChannelId, Arc<str>),
}

/// A broadcast that was accepted.
#[derive(Debug)]
pub struct BroadcastOrder {
    /// Where to.
    pub topic: TopicKey,
    /// What.
    pub message: OwnedBroadcast,
    /// The sender's channel, where it does not want its own messages.
    pub except: Option<ChannelId>,
    /// The acknowledgement, where one is wanted.
    pub reply: Option<ServerMessage>,
}

/// A track that was accepted.
#[derive(Debug)]
pub struct TrackOrder {
    /// Who.
    pub channel: ChannelId,
    /// Under which key.
    pub key: Arc<str>,
    /// With what.
    pub payload: TrackPayload,
    /// The answer, if the topic has room.
    pub reply: ServerMessage,
}

/// A broadcast of a client that outlives its frame. The metadata of a client are not passed on,
/// as in the original (protocol 2.4).
#[derive(Debug)]
pub enum OwnedBroadcast {
    /// A binary push with JSON.
    Json {
        /// The user's own event name.
        event: Box<str>,
        /// One JSON value.
        payload: Box<str>,
    },
    /// A binary push with anything else.
    Binary {
        /// The user's own event name.
        event: Box<str>,
        /// The payload.
        payload: Box<[u8]>,
    },
    /// A text push.
    Text(Box<RawValue>),
}

impl From<Broadcast<'_>> for OwnedBroadcast {
    fn from(broadcast: Broadcast<'_>) -> Self {
        match broadcast {
            Broadcast::User { event, payload, .. } => match payload {
                UserPayload::Json(payload) => Self::Json {
                    event: event.into(),
                    payload: payload.into(),
                },
                UserPayload::Binary(payload) => Self::Binary {
                    event: event.into(),
                    payload: payload.into(),
                },
            },
            Broadcast::Text { payload } => Self::Text(payload.to_owned()),
        }
    }
}

impl OwnedBroadcast {
    /// As fan-out takes it.
    pub fn borrow(&self) -> Broadcast<'_> {
        match self {
            Self::Json { event, payload } => Broadcast::User {
                event,
                metadata: "",
                payload: UserPayload::Json(payload),
            },
            Self::Binary { event, payload } => Broadcast::User {
                event,
                metadata: "",
                payload: UserPayload::Binary(payload),
            },
            Self::Text(payload) => Broadcast::Text { payload },
        }
    }
}

/// Bindings to be registered.
#[derive(Debug, PartialEq)]
pub struct SubscribeOrder {
    /// For this channel.
    pub channel: ChannelId,
    /// Its topic, by which the outcome finds it.
    pub topic: Arc<str>,
    /// Under this identity.
    pub identity: Arc<Identity>,
    /// All its bindings.
    pub bindings: Vec<Binding>,
    /// What it wants differently.
    pub options: SubscribeOptions,
    /// When the session wants to hear that it takes long; the work goes on.
    pub patience: Duration,
    /// Attempts in a row that met no database: there is a pause before the next.
    pub failures: u32,
    /// Done only when the change stream is live.
    pub until_live: bool,
}

/// Permissions to be asked for.
#[derive(Debug, PartialEq)]
pub struct AuthorizeOrder {
    /// For this channel.
    pub channel: ChannelId,
    /// Its topic, by which the outcome finds it.
    pub topic: Arc<str>,
    /// What is asked.
    pub question: Question,
    /// For these claims.
    pub claims: Arc<Claims>,
    /// The mark of the token they came in, which the outcome repeats.
    pub mark: TokenMark,
    /// The headers of the handshake that policies may look at, as a JSON object.
    pub headers: Arc<str>,
    /// Attempts in a row that met no database: there is a pause before the next.
    pub failures: u32,
    /// The round of the channel's recheck; the outcome repeats it.
    pub round: u32,
}

/// Permissions to be rechecked.
#[derive(Debug, PartialEq)]
pub struct RecheckOrder {
    /// The question about reading.
    pub read: AuthorizeOrder,
    /// Whether writing is checked too.
    pub with_write: bool,
}

/// A broadcast to be stored and sent.
#[derive(Debug)]
pub struct PersistOrder {
    /// Of this channel.
    pub channel: ChannelId,
    /// Its topic, by which the outcome finds it.
    pub topic: Arc<str>,
    /// The push, for its answer.
    pub reference: Option<Ref>,
    /// What is to be done.
    pub store: StoreOrder,
}

/// Stored messages to be read.
#[derive(Debug, PartialEq)]
pub struct ReplayOrder {
    /// For this channel.
    pub channel: ChannelId,
    /// Its topic, by which the outcome finds it.
    pub topic: Arc<str>,
    /// Which.
    pub params: ReplayParams,
    /// Bytes of payloads at most.
    pub max_bytes: i64,
}

/// What came of work done aside.
#[derive(Debug)]
pub struct Outcome {
    /// The channel it was for.
    pub channel: ChannelId,
    /// Its topic.
    pub topic: Arc<str>,
    /// What it was.
    pub result: WorkResult,
}

/// The result of a [`RecheckOrder`].
#[derive(Debug)]
pub struct RecheckOutcome {
    /// The question about reading.
    pub question: Question,
    /// The mark of the token that was checked.
    pub mark: TokenMark,
    /// The round in which it was asked.
    pub round: u32,
    /// Previous consecutive attempts that failed because the database was unavailable.
    pub failures: u32,
    /// The permissions to read.
    pub read: Result<Permissions, AuthorizeError>,
    /// The permissions to write, if they were checked.
    pub write: Option<Result<Permissions, AuthorizeError>>,
}

/// See [`Outcome`].
#[derive(Debug)]
pub enum WorkResult {
    /// Bindings are registered, and this is where the change stream stands; or they are not.
    Subscribed(Result<StreamState, SubscribeError>),
    /// Registering takes long and goes on.
    SubscribeLate,
    /// What the question about this holder's permissions was answered.
    Authorized {
        /// The question.
        question: Question,
        /// The mark of the token that it was about.
        mark: TokenMark,
        /// The round in which it was asked.
        round: u32,
        /// The answer.
        answer: Result<Permissions, AuthorizeError>,
    },
    /// A broadcast was stored and sent, or neither.
    Persisted {
        /// The push.
        reference: Option<Ref>,
        /// The id of its row.
        result: Result<Uuid, StoreError>,
    },
    /// The permissions of a channel were rechecked.
    Rechecked(RecheckOutcome),
    /// Stored messages were read; `None` when they cannot be.
    Stored(Option<Vec<ReplayedMessage>>),
    /// Whether broadcasts from the database became live in time.
    MessagesLive(bool),
}
