//! The protocol state of one connection, without I/O: messages and events are its input, effects
//! are its output.
//!
//! The session decides, and `socket/` executes. The code here never waits, reads a clock or uses a
//! stream. The time is an argument. Work that needs the database is an effect, whose result returns
//! as an [`Outcome`]. Until then, the messages of the topic may have to wait in order, while other
//! topics continue.
//!
//! Read `effect` and `state` first, then `dispatch`, which passes each event to the file that
//! handles it: `join`, `subscribe`, `token`, `keys`, `permission`, `recheck`, `broadcast`,
//! `persist` or `presence`. While the work of one of them keeps a channel busy, `waiting` holds the
//! channel's further messages.

mod broadcast;
mod dispatch;
mod effect;
mod join;
mod keys;
mod permission;
mod persist;
mod presence;
mod recheck;
mod state;
mod subscribe;
mod token;
mod waiting;

pub use self::effect::{
    AuthorizeOrder, BroadcastOrder, Effect, Outcome, OwnedBroadcast, PersistOrder, RecheckOrder,
    RecheckOutcome, ReplayOrder, SubscribeOrder, TrackOrder, WorkResult,
};
pub use self::state::{Session, Shared};

#[cfg(test)]
mod tests;
