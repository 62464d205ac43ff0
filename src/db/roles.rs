//! Which roles a token may name.
//!
//! A `role` claim that reaches `set role` decides what row-level security applies. An issuer that lets
//! people choose the claim must not thereby hand out the whole database.

/// A condition on `r`, a row of `pg_roles`: whether a caller may be given this role.
///
/// Refused are roles that are, or are a member of, a superuser, a role that bypasses row-level
/// security, or the login itself. Membership counts whether or not it is inherited: it decides about
/// the ownership of tables, whose owner row-level security does not concern, and a function in a
/// policy could take the other role on. `service_role` is the one role that is meant to bypass
/// row-level security, and membership of it is not held against another role: the attribute is not
/// inherited.
///
/// A refused role is treated like one that does not exist.
pub const MAY_BE_A_CALLERS: &str = "(r.rolname = 'service_role' \
     or not pg_catalog.pg_has_role(r.oid, session_user, 'MEMBER') \
       and not exists (select from pg_catalog.pg_roles above \
         where (above.rolsuper or above.rolbypassrls) and above.rolname <> 'service_role' \
           and pg_catalog.pg_has_role(r.oid, above.oid, 'MEMBER')))";
