//! A client's permissions on a topic.

/// The permissions on a topic, one per extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Permission for broadcasts.
    pub broadcast: bool,
    /// Permission for presence.
    pub presence: bool,
}

impl Permissions {
    /// All permissions, which every public channel has.
    pub const ALL: Self = Self {
        broadcast: true,
        presence: true,
    };

    /// Returns whether anything is allowed.
    pub fn any(self) -> bool {
        self.broadcast || self.presence
    }
}
