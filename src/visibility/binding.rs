//! The id, the bindings and the options of a channel.

use std::sync::Arc;

use super::identity::Identity;
use super::request::SubscriptionRequest;

/// Identifies a joined channel of a socket until the channel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u64);

/// A binding with the integer id that the client received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The id. It is never 0, and equal parameters have equal ids (protocol 3.3).
    pub id: u32,
    /// The requested changes.
    pub request: SubscriptionRequest,
}

/// The identity, address and options with which a channel subscribes.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// The identity, which determines the visible rows.
    pub identity: Arc<Identity>,
    /// A number for the client's address. The limits per user apply to it if the identity has no
    /// `sub`. `None` if the address is unknown.
    pub address: Option<u16>,
    /// The options of the channel.
    pub options: SubscribeOptions,
}

impl Subscriber {
    /// Creates a subscriber with an unknown address and the default options.
    pub fn new(identity: Arc<Identity>) -> Self {
        Self {
            identity,
            address: None,
            options: SubscribeOptions::default(),
        }
    }
}

/// Options of a channel for the form of its rows. The default is the form that the protocol
/// prescribes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// Whether `int8` and `numeric` are sent as JSON strings, because JavaScript numbers lose
    /// digits.
    pub bigint_as_string: bool,
}
