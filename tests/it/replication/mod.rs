//! Tests of the change stream against PostgreSQL.

mod decode_live;
mod large_transaction;
mod messages;
mod restart;
mod slot_lost;
mod streaming;
mod two_processes;
