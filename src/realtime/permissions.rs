//! What a client may do on a topic.

/// The permissions for a topic, per extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Broadcasts.
    pub broadcast: bool,
    /// Presence.
    pub presence: bool,
}

impl Permissions {
    /// All permissions, as on public channels.
    pub const ALL: Self = Self {
        broadcast: true,
        presence: true,
    };

    /// Whether anything is allowed.
    pub fn any(self) -> bool {
        self.broadcast || self.presence
    }
}
