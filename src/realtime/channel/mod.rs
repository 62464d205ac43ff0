//! The state of one session's membership in a topic, and the checks of what it may do there.
//!
//! Read `state` and `rights` first: they draw the states of a channel. `holder`, `waiting` and
//! `postgres_changes` are parts of it. `authorize` asks the database what a caller may do on a
//! private topic.

pub mod authorize;
mod holder;
pub mod postgres_changes;
mod rights;
mod state;
mod waiting;

pub use self::holder::{Holder, TokenMark, TokenMarks};
pub use self::rights::{
    Access, NewToken, PresenceReading, Reading, ReadsLess, Recheck, Rights, WriteDecision,
    WriteState, Writing,
};
pub use self::state::{
    Channel, Joining, Life, Replaced, Replay, ReplayParams, Tracked, Tracking, Wait, join_bytes,
};
pub use self::waiting::{MAX_WAITING, MAX_WAITING_BYTES, OwnedMessage, Waiting};
