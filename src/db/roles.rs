//! The roles that a token may name.
//!
//! A `role` claim used in `set role` determines which row-level security applies. An issuer that
//! lets users choose the claim must not give them access to the whole database.

/// A condition on `r`, a row of `pg_roles`: whether this role may be assumed for a caller.
///
/// It refuses roles that are, or are members of, a superuser, a role that bypasses row-level
/// security, or the login itself. Membership counts whether or not it is inherited. With
/// inheritance, a member counts as an owner of the other role's tables, and row-level security does
/// not apply to owners. Without it, a function in a policy could still switch to the other role.
/// Only `service_role` is meant to bypass row-level security. Membership in it does not count
/// against another role, because the attribute is not inherited.
///
/// A refused role is treated like a nonexistent one.
pub const MAY_BE_ASSUMED: &str = "(r.rolname = 'service_role' \
     or not pg_catalog.pg_has_role(r.oid, session_user, 'MEMBER') \
       and not exists (select from pg_catalog.pg_roles above \
         where (above.rolsuper or above.rolbypassrls) and above.rolname <> 'service_role' \
           and pg_catalog.pg_has_role(r.oid, above.oid, 'MEMBER')))";
