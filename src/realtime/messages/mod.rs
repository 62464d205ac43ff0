//! Rows of `realtime.messages`: broadcasts from the database, broadcasts stored for clients, their
//! replay, and the partitions of the table.

pub mod database_broadcast;
pub mod partitions;
pub mod replay;
pub mod store;
