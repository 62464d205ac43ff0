//! What a session wants done, and what it hears back of work done aside.

use std::sync::Arc;
use std::time::Duration;

use super::super::channel::TokenMark;
use super::super::channel::authorize::Permission;
use super::super::hub::{MemberSpec, StreamState};
use super::super::protocol::ServerMessage;
use crate::auth::Claims;
use crate::visibility::{Binding, ChannelId, Identity, SubscribeError, SubscribeOptions};

/// What is to be done, in this order.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Queue a message for the client.
    Send(ServerMessage),
    /// Make a channel known to the hub; its deliveries are held.
    Attach(ChannelId, MemberSpec),
    /// Let its deliveries through.
    Open(ChannelId),
    /// Forget a channel, in the hub and in visibility.
    Detach(ChannelId),
    /// Register bindings, aside.
    Subscribe(SubscribeOrder),
    /// Ask for permissions, aside.
    Authorize(AuthorizeOrder),
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
    /// For these claims.
    pub claims: Arc<Claims>,
    /// The mark of the token they came in, which the outcome repeats.
    pub mark: TokenMark,
    /// The headers of the handshake that policies may look at, as a JSON object.
    pub headers: Arc<str>,
    /// Presence is asked for as well.
    pub presence: bool,
    /// Attempts in a row that met no database: there is a pause before the next.
    pub failures: u32,
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

/// See [`Outcome`].
#[derive(Debug)]
pub enum WorkResult {
    /// Bindings are registered, and this is where the change stream stands; or they are not.
    Subscribed(Result<StreamState, SubscribeError>),
    /// Registering takes long and goes on.
    SubscribeLate,
    /// What a question about this holder's permissions was answered.
    Authorized(Permission, TokenMark),
}
