//! Tests of row visibility against PostgreSQL.

pub(crate) mod bench;

mod catalog;
mod committed;
mod deletes;
mod differential;
mod filters;
mod generated;
mod login;
mod many;
mod old_rows;
mod outage;
mod records;
mod row_security;
