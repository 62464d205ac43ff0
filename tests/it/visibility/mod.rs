//! Who may see which change, against a real PostgreSQL.

mod bench;

mod row_security;
