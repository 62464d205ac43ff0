//! `role.*`: the roles that the server switches to, and what users may create.

use serde_json::json;
use tokio_postgres::{Client, Error};

use super::inspection::Inspection;
use super::report::Verdict;
use crate::cli::with_source;
use crate::db::PARKED_ROLE;

/// The roles that the server switches to. Idle connections use the first, requests the others.
const ASSUMED_ROLES: &[&str] = &[PARKED_ROLE, "anon", "authenticated", "service_role"];

/// Whether the login can switch to the role of idle connections.
pub(super) async fn parked(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    assumed(inspection, PARKED_ROLE).await
}

/// Whether the login can switch to the role of requests without a user.
pub(super) async fn anon(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    assumed(inspection, "anon").await
}

/// Whether the login can switch to the role of users.
pub(super) async fn authenticated(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    assumed(inspection, "authenticated").await
}

/// Whether the login can switch to the role of the server's own statements.
pub(super) async fn service(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    assumed(inspection, "service_role").await
}

async fn assumed(inspection: &mut Inspection<'_>, role: &'static str) -> Result<Verdict, Error> {
    let verdict = match attempt(&mut inspection.client, role).await? {
        Ok(()) => Verdict::ok(format!("the login of database.url can switch to {role}")),
        Err(refusal) if refusal.is_missing => {
            Verdict::fail(format!("role {role} does not exist")).because("Run `rapport migrate`.")
        }
        Err(refusal) => Verdict::fail(format!("the login of database.url cannot switch to {role}"))
            .because(format!("PostgreSQL reports: {}.", refusal.message))
            .remedy(grant(&inspection.client, &[role]).await?),
    };
    Ok(verdict.fact("role", role))
}

/// Why a login cannot switch to a role.
struct Refusal {
    is_missing: bool,
    message: String,
}

/// Switches to the role in a transaction that is rolled back. Reading the catalogue would not
/// suffice: a membership may lack the SET option, and extensions may refuse their own roles.
async fn attempt(client: &mut Client, role: &str) -> Result<Result<(), Refusal>, Error> {
    let transaction = client.transaction().await?;
    let row = transaction
        .query_one("select pg_catalog.to_regrole($1) is null", &[&role])
        .await?;
    let is_missing: bool = row.try_get(0)?;
    // The names in `ASSUMED_ROLES` need no quoting.
    let tried = transaction
        .batch_execute(&format!("set local role {role}"))
        .await;
    let answer = match tried {
        Ok(()) => Ok(()),
        Err(error) => match error.as_db_error() {
            Some(refusal) => Err(Refusal {
                is_missing,
                message: refusal.message().to_owned(),
            }),
            None => return Err(error),
        },
    };
    transaction.rollback().await?;
    Ok(answer)
}

/// Returns the statement that allows the client's login to switch to these roles.
async fn grant(client: &Client, roles: &[&str]) -> Result<String, Error> {
    // Since PostgreSQL 16, a membership may lack the SET option. One example is the membership that
    // the creator of a role receives.
    const SQL: &str = "
        select pg_catalog.quote_ident(current_user)
             , case when current_setting('server_version_num')::int >= 160000
                    then ' with set true, inherit false' else '' end";
    let row = client.query_one(SQL, &[]).await?;
    let (login, options): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(format!("grant {} to {login}{options};", roles.join(", ")))
}

/// Whether `service_role` sees all rows.
pub(super) async fn bypassrls(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str =
        "select rolbypassrls or rolsuper from pg_catalog.pg_roles where rolname = 'service_role'";
    let bypasses: Option<bool> = match inspection.client.query_opt(SQL, &[]).await? {
        Some(row) => Some(row.try_get(0)?),
        None => None,
    };
    let verdict = match bypasses {
        None => Verdict::skip("role service_role does not exist"),
        Some(true) => Verdict::ok("service_role bypasses row-level security"),
        Some(false) => Verdict::warn("service_role does not bypass row-level security")
            .because("Statements of the application's own server see no rows. A superuser must run the statement.")
            .remedy("alter role service_role bypassrls;"),
    };
    Ok(verdict.fact("bypassrls", bypasses))
}

/// Whether the login of `database.request_url` connects and can switch to all roles.
pub(super) async fn requests(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    let mut client = match inspection.connect_for_requests().await {
        Ok(client) => client,
        Err(error) => {
            return Ok(
                Verdict::fail("the login of database.request_url cannot connect").because(format!(
                    "{}. Check database.request_url.",
                    with_source(&error)
                )),
            );
        }
    };
    let mut refused = Vec::new();
    for role in ASSUMED_ROLES {
        if attempt(&mut client, role).await?.is_err() {
            refused.push(*role);
        }
    }
    let verdict = if refused.is_empty() {
        Verdict::ok("the login of database.request_url can switch to all roles of requests")
    } else {
        Verdict::fail(format!(
            "the login of database.request_url cannot switch to {}",
            refused.join(", ")
        ))
        .because("Requests of users fail.")
        .remedy(grant(&client, &refused).await?)
    };
    Ok(verdict.fact("refused", json!(refused)))
}

/// Whether users cannot create temporary types. An expression that runs with the caller's
/// `search_path`, such as a policy of the application that calls `auth.uid()`, uses them instead of
/// the real types. On a pooled connection, they remain for the next user.
pub(super) async fn temporary(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select r.name, pg_catalog.quote_ident(current_database())
          from unnest(array['anon', 'authenticated']) with ordinality as r (name, place)
         where pg_catalog.to_regrole(r.name) is not null
           and pg_catalog.has_database_privilege(r.name, current_database(), 'TEMPORARY')
         order by r.place";
    let rows = inspection.client.query(SQL, &[]).await?;
    let roles: Vec<String> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let verdict = match rows.first() {
        None => Verdict::ok("users may not create temporary objects"),
        Some(row) => {
            let database: String = row.try_get(1)?;
            Verdict::warn(format!(
                "{} may create temporary objects",
                roles.join(" and ")
            ))
            .because(
                "This matters if users can run SQL (docs/security.md). \
                 If the login of database.url does not own the database, grant it TEMPORARY.",
            )
            .remedy(format!(
                "revoke temporary on database {database} from public;"
            ))
        }
    };
    Ok(verdict.fact("roles", roles))
}

/// Whether users may create objects in the schema `public`. A user could create a table that an
/// installation takes for the application's table of users or teams.
pub(super) async fn create(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select r.name
          from unnest(array['anon', 'authenticated']) with ordinality as r (name, place)
          join pg_catalog.pg_namespace as n on n.nspname = 'public'
         where pg_catalog.to_regrole(r.name) is not null
           and pg_catalog.has_schema_privilege(r.name, n.oid, 'CREATE')
         order by r.place";
    let rows = inspection.client.query(SQL, &[]).await?;
    let roles: Vec<String> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let verdict = if roles.is_empty() {
        Verdict::ok("users may not create objects in the schema public")
    } else {
        Verdict::warn(format!(
            "{} may create objects in the schema public",
            roles.join(" and ")
        ))
        .because("A user could create a table that an installation takes for the application's table of users (docs/security.md).")
        .remedy(format!(
            "revoke create on schema public from public, {};",
            roles.join(", ")
        ))
    };
    Ok(verdict.fact("roles", roles))
}
