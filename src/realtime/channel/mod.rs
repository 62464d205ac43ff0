//! The state of one session's participation in a topic, and the checks that determine its
//! permissions.
//!
//! Read `state` and `rights` first: they contain diagrams of the states of a channel. `holder`,
//! `waiting` and `postgres_changes` contain parts of that state. `authorize` queries the database
//! for a caller's permissions on a private topic.

pub mod authorize;
mod holder;
pub mod postgres_changes;
mod rights;
mod state;
mod waiting;

pub use self::holder::{Holder, TokenMark, TokenMarks};
pub use self::rights::{
    Access, NewToken, PresenceReading, ReadPermissions, ReadsLess, Recheck, Rights, WriteDecision,
    WriteState, Writing,
};
pub use self::state::{
    Channel, JoinState, Joining, Replaced, Replay, ReplayParams, Tracked, Tracking, Wait,
    join_bytes,
};
pub use self::waiting::{MAX_WAITING, MAX_WAITING_BYTES, OwnedMessage, Waiting};
