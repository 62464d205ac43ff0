//! What the database broadcasts: rows of `realtime.messages` as they are written, those that are
//! stored, and the partitions that they are stored in.

pub mod database_broadcast;
pub mod partitions;
pub mod replay;
