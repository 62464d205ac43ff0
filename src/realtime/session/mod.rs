//! One connection without I/O: messages and events go in, effects come out.
//!
//! The session decides, and `socket/` executes. The code here never waits, reads a clock or uses
//! a stream. The time is an argument. Work that needs the database is an effect, and its result
//! returns as an [`Outcome`]. Until then, the messages of its topic wait in order. Other topics
//! continue.
//!
//! Read `effect` and `state` first, then `dispatch`, which passes each event to the file about it:
//! `join`, `subscribe`, `token`, `permission`, `recheck`, `broadcast`, `persist` or `presence`.
//! While a channel is busy with one of them, its further messages are in `waiting`.

mod broadcast;
mod dispatch;
mod effect;
mod join;
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
