//! Row changes out of PostgreSQL's write-ahead log.

mod assemble;
mod pgoutput;
mod relation_cache;
