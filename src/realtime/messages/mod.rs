//! Rows of `realtime.messages`: those that the database broadcasts, those that clients have stored, their
//! replay, and the partitions that they are stored in.

pub mod database_broadcast;
pub mod own_ids;
pub mod partitions;
pub mod replay;
pub mod store;
