//! The objects that a Supabase project has before Rapport's schema, for tests in a bare database.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// The roles to which the server switches, with their attributes.
pub(crate) const ROLES: &[(&str, &str)] = &[
    ("anon", "noinherit"),
    ("authenticated", "noinherit"),
    ("service_role", "noinherit bypassrls"),
    ("rapport_request", "noinherit"),
];

/// The functions with which policies read the caller's claims.
pub(crate) const AUTH: &str = "
create schema auth;
grant usage on schema auth to public;
create function auth.uid() returns uuid language sql stable as
  $$ select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$;
create function auth.jwt() returns jsonb language sql stable as
  $$ select nullif(current_setting('request.jwt.claims', true), '')::jsonb $$;
";

/// Creates missing roles. Roles belong to the cluster, and tests run in parallel.
pub(crate) async fn create_roles(admin: &Client, roles: &[(&str, &str)]) {
    for (name, attributes) in roles {
        let create = format!("create role {name} nologin {attributes}");
        if let Err(error) = admin.batch_execute(&create).await {
            let exists = [SqlState::DUPLICATE_OBJECT, SqlState::UNIQUE_VIOLATION];
            assert!(
                error.code().is_some_and(|code| exists.contains(code)),
                "{error:?}"
            );
        }
    }
}
