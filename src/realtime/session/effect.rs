//! The effects that a session requests, and the results of background work.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::super::channel::authorize::{AuthorizeError, CheckKind};
use super::super::channel::{ReplayParams, TokenMark};
use super::super::hub::{MemberSpec, ReplayedMessage, StreamState, TopicKey};
use super::super::messages::store::{StoreError, StoreOrder};
use super::super::permissions::Permissions;
use super::super::protocol::{Broadcast, Ref, ServerMessage, TrackPayload, UserPayload};
use super::super::wire::close::CloseReason;
use crate::auth::Claims;
use crate::visibility::{Binding, ChannelId, Identity, SubscribeError, SubscribeOptions};

/// One effect. The effects of a session are executed in order.
#[derive(Debug)]
pub enum Effect {
    /// Queue a message for the client.
    Send(ServerMessage),
    /// Send a broadcast to the members of a topic, then send the reply.
    Broadcast(BroadcastOrder),
    /// Register a channel in the hub. Its deliveries are held back until [`Effect::Open`].
    Attach(ChannelId, MemberSpec),
    /// Set the permissions of a channel to read.
    SetReadPermissions(ChannelId, Permissions),
    /// Release the deliveries of a channel.
    Open(ChannelId),
    /// Send a channel the presence state of its topic, followed by diffs.
    PresenceState(ChannelId),
    /// Add a channel to the presence of its topic, then send the reply.
    Track(TrackOrder),
    /// Remove a channel from the presence of its topic.
    Untrack(ChannelId),
    /// Remove a channel from the hub and from `visibility`.
    Detach(ChannelId),
    /// Close the socket.
    Close(CloseReason),
    /// Register bindings in the background.
    Subscribe(SubscribeOrder),
    /// Check permissions in the background.
    Authorize(AuthorizeOrder),
    /// Recheck permissions in the background.
    Recheck(RecheckOrder),
    /// Read stored messages in the background.
    ReadStored(ReplayOrder),
    /// Queue stored messages for a channel whose join has been answered.
    Replay(ChannelId, Vec<ReplayedMessage>),
    /// Store a broadcast and send it, in the background.
    Persist(PersistOrder),
    /// Wait in the background until broadcasts from the database are live.
    AwaitMessages(ChannelId, Arc<str>),
}

/// A broadcast that was accepted.
#[derive(Debug)]
pub struct BroadcastOrder {
    /// The topic to send to.
    pub topic: TopicKey,
    /// The broadcast.
    pub message: OwnedBroadcast,
    /// The sender's channel, if it does not receive its own broadcasts.
    pub except: Option<ChannelId>,
    /// The acknowledgement, if the channel requested one.
    pub reply: Option<ServerMessage>,
}

/// A track that was accepted.
#[derive(Debug)]
pub struct TrackOrder {
    /// The channel to add to the presence.
    pub channel: ChannelId,
    /// The presence key.
    pub key: Arc<str>,
    /// The presence payload.
    pub payload: TrackPayload,
    /// The reply to send if the topic has room for the payload.
    pub reply: ServerMessage,
}

/// A client's broadcast that outlives its frame. As in Supabase Realtime, a client's metadata is
/// not forwarded (protocol 2.4).
#[derive(Debug)]
pub enum OwnedBroadcast {
    /// A binary push with a JSON payload.
    Json {
        /// The user's own event name.
        event: Box<str>,
        /// One JSON value.
        payload: Box<str>,
    },
    /// A binary push with any other payload.
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
    /// Returns the broadcast in the form that the hub distributes.
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

/// An order to register bindings.
#[derive(Debug, PartialEq)]
pub struct SubscribeOrder {
    /// The channel of the bindings.
    pub channel: ChannelId,
    /// The topic of the channel, which identifies it in the outcome.
    pub topic: Arc<str>,
    /// The identity under which to register the bindings.
    pub identity: Arc<Identity>,
    /// All bindings of the channel.
    pub bindings: Vec<Binding>,
    /// The options that the client chose.
    pub options: SubscribeOptions,
    /// How long the session waits for the result. After this time it receives
    /// [`WorkResult::SubscribeLate`], and the work continues.
    pub patience: Duration,
    /// Number of consecutive attempts that failed because the database was unavailable. There is a
    /// pause before each further attempt.
    pub failures: u32,
    /// Whether the work ends only when the change stream is live.
    pub until_live: bool,
}

/// An order to check permissions.
#[derive(Debug, PartialEq)]
pub struct AuthorizeOrder {
    /// The channel that needs the permissions.
    pub channel: ChannelId,
    /// The topic of the channel, which identifies it in the outcome.
    pub topic: Arc<str>,
    /// What to check.
    pub kind: CheckKind,
    /// The claims of the caller.
    pub claims: Arc<Claims>,
    /// The mark of the token that contained the claims, which the outcome repeats.
    pub mark: TokenMark,
    /// The headers of the handshake as a JSON object, which policies may read.
    pub headers: Arc<str>,
    /// Number of consecutive attempts that failed because the database was unavailable. There is a
    /// pause before each further attempt.
    pub failures: u32,
    /// The channel's recheck round, which the outcome repeats.
    pub round: u32,
}

/// An order to recheck permissions.
#[derive(Debug, PartialEq)]
pub struct RecheckOrder {
    /// The check of the permissions to read.
    pub read: AuthorizeOrder,
    /// Whether the permissions to write are checked too.
    pub with_write: bool,
}

/// An order to store and send a broadcast.
#[derive(Debug)]
pub struct PersistOrder {
    /// The channel of the sender.
    pub channel: ChannelId,
    /// The topic of the channel, which identifies it in the outcome.
    pub topic: Arc<str>,
    /// The `ref` of the push, for the reply.
    pub reference: Option<Ref>,
    /// The broadcast and how to store it.
    pub store: StoreOrder,
}

/// An order to read stored messages.
#[derive(Debug, PartialEq)]
pub struct ReplayOrder {
    /// The channel that receives the messages.
    pub channel: ChannelId,
    /// The topic of the channel, which identifies it in the outcome.
    pub topic: Arc<str>,
    /// The parameters that select the messages.
    pub params: ReplayParams,
    /// Maximum total size of the payloads in bytes.
    pub max_bytes: i64,
}

/// The result of background work, and its channel.
#[derive(Debug)]
pub struct Outcome {
    /// The channel that requested the work.
    pub channel: ChannelId,
    /// The topic of the channel.
    pub topic: Arc<str>,
    /// The result.
    pub result: WorkResult,
}

/// The result of a [`RecheckOrder`].
#[derive(Debug)]
pub struct RecheckOutcome {
    /// The kind of the check of reading.
    pub kind: CheckKind,
    /// The mark of the token that was checked.
    pub mark: TokenMark,
    /// The recheck round in which the check started.
    pub round: u32,
    /// Number of consecutive earlier attempts that failed because the database was unavailable.
    pub failures: u32,
    /// The permissions to read.
    pub read: Result<Permissions, AuthorizeError>,
    /// The permissions to write, if they were checked.
    pub write: Option<Result<Permissions, AuthorizeError>>,
}

/// The result of background work, as part of an [`Outcome`].
#[derive(Debug)]
pub enum WorkResult {
    /// The state of the change stream after the bindings were registered, or the reason why they
    /// were not.
    Subscribed(Result<StreamState, SubscribeError>),
    /// The registration was not completed in time, and continues.
    SubscribeLate,
    /// The result of a permission check.
    Authorized {
        /// What was checked.
        kind: CheckKind,
        /// The mark of the token that was checked.
        mark: TokenMark,
        /// The recheck round in which the check started.
        round: u32,
        /// The permissions.
        result: Result<Permissions, AuthorizeError>,
    },
    /// The broadcast was stored and sent, or it was neither stored nor sent.
    Stored {
        /// The `ref` of the push.
        reference: Option<Ref>,
        /// The id of the stored row, or the reason why the broadcast was not stored.
        result: Result<Uuid, StoreError>,
    },
    /// The permissions of a channel were rechecked.
    Rechecked(RecheckOutcome),
    /// The stored messages that a join requested, or `None` if they could not be read.
    Replay(Option<Vec<ReplayedMessage>>),
    /// Whether broadcasts from the database became live in time.
    MessagesLive(bool),
}
