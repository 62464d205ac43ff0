//! `schema.*`: the installed schema.

use serde_json::json;
use tokio_postgres::Error;

use super::inspection::Inspection;
use super::report::Verdict;
use crate::schema;

/// Whether the schema is that of this program.
pub(super) async fn version(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    Ok(match schema::plan(&mut inspection.client).await {
        Ok(pending) if pending.is_empty() => Verdict::ok("the schema is up to date"),
        Ok(pending) => Verdict::fail(format!("{} files have not been applied", pending.len()))
            .because("Run `rapport migrate`.")
            .fact("pending", pending),
        Err(error) => Verdict::fail("the schema cannot be compared with this program").because(
            format!("{error} `rapport migrate --dry-run` shows details."),
        ),
    })
}

/// Whether tables of the application have the names of the chat's tables, which would stop the
/// installation.
pub(super) async fn foreign_tables(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select pg_catalog.format('%I.%I', n.nspname, c.relname)
          from pg_catalog.pg_class as c
          join pg_catalog.pg_namespace as n on n.oid = c.relnamespace and n.nspname = 'public'
         where c.relname = any ($1)
         order by 1";
    if inspection
        .has_function("chat.install_host_mapping(text)")
        .await?
    {
        return Ok(Verdict::skip("the schema is installed"));
    }
    let names: Vec<String> = schema::policies()
        .into_iter()
        .filter_map(|policy| policy.table.strip_prefix("public.").map(str::to_owned))
        .collect();
    let rows = inspection.client.query(SQL, &[&names]).await?;
    let found: Vec<String> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let verdict = if found.is_empty() {
        Verdict::ok("no table of the application has the name of one of the chat's tables")
    } else {
        Verdict::fail(format!(
            "tables of the application have names of the chat's tables: {}",
            found.join(", ")
        ))
        .because("`rapport migrate` cannot create its own. Rename these tables, or move them to another schema.")
    };
    Ok(verdict.fact("tables", found))
}

/// Whether the schema `chat`, whose functions are internal, is hidden from clients of PostgREST.
pub(super) async fn exposed(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select split_part(setting, '=', 2)
          from pg_catalog.pg_db_role_setting as s
          join pg_catalog.pg_roles as r on r.oid = s.setrole and r.rolname = 'authenticator'
         cross join lateral unnest(s.setconfig) as setting
         where s.setdatabase in (0, (select d.oid from pg_catalog.pg_database as d where d.datname = current_database()))
           and setting like 'pgrst.db_schemas=%'
           and 'chat' = any (regexp_split_to_array(split_part(setting, '=', 2), '\\s*,\\s*'))
         limit 1";
    Ok(match inspection.client.query_opt(SQL, &[]).await? {
        None => Verdict::ok("the data API does not expose the schema chat"),
        Some(row) => {
            let schemas: String = row.try_get(0)?;
            Verdict::warn("the data API exposes the schema chat")
                .because("Its functions are internal to the server. Remove chat from the exposed schemas of the project.")
                .fact("db_schemas", schemas)
        }
    })
}

/// Whether the tables of the chat have all policies of this program, and no other permissive ones.
/// PostgreSQL combines permissive policies with OR, so each additional one shows rows that the
/// others hide.
pub(super) async fn policies(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        with expected as (
          select e.relation, e.name, pg_catalog.to_regclass(e.relation) as oid
            from unnest($1::text[], $2::text[]) as e (relation, name)
        ), found as (
          select t.relation, p.polname::text as name, p.polpermissive
            from (select distinct e.relation, e.oid from expected as e) as t
            join pg_catalog.pg_policy as p on p.polrelid = t.oid
        )
        select pg_catalog.format('policy %I on %s', coalesce(f.name, e.name), coalesce(f.relation, e.relation)), e.name is null
          from expected as e
          full join found as f on f.relation = e.relation and f.name = e.name
         where (e.name is null and f.polpermissive) or f.name is null
         order by 1";
    if !inspection
        .has_function("chat.install_host_mapping(text)")
        .await?
    {
        return Ok(Verdict::skip("the schema is not installed"));
    }
    let (tables, names): (Vec<String>, Vec<String>) = schema::policies()
        .into_iter()
        .map(|policy| (policy.table, policy.name))
        .unzip();
    let (mut additional, mut missing) = (Vec::new(), Vec::new());
    for row in inspection.client.query(SQL, &[&tables, &names]).await? {
        let (policy, is_additional): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
        if is_additional {
            additional.push(policy);
        } else {
            missing.push(policy);
        }
    }
    let verdict = if !missing.is_empty() {
        Verdict::fail(format!("policies of the chat are missing: {}", missing.join(", "))).because(
            "Users cannot read or write these tables. Run the file sql/definitions/chat/90_policies.sql.",
        )
    } else if !additional.is_empty() {
        let remedy: Vec<String> = additional
            .iter()
            .map(|policy| format!("drop {policy};"))
            .collect();
        Verdict::warn(format!(
            "tables of the chat have policies of other origin: {}",
            additional.join(", ")
        ))
        .because("Policies are combined with OR, so these show or accept rows that the chat's own policies refuse.")
        .remedy(remedy.join("\n"))
    } else {
        Verdict::ok("the tables of the chat have exactly the chat's policies")
    };
    Ok(verdict
        .fact("additional", json!(additional))
        .fact("missing", json!(missing)))
}
