//! Rows of `realtime.messages`: broadcasts from the database, stored broadcasts of clients, replay,
//! and the partitions of the table.

pub mod database_broadcast;
pub mod partitions;
pub mod replay;
pub mod store;
