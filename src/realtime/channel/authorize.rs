//! Whether a private channel may be read (protocol 4.3).

/// What the policies say of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Broadcasts or presence may be read.
    Read,
    /// Nothing may.
    None,
    /// The database could not be asked.
    Unknown,
}
