//! `pub.*`: the two publications, and the tables in them.

use tokio_postgres::Error;

use super::inspection::Inspection;
use super::report::Verdict;

/// The publication through which the module `replication` reads broadcasts from the database.
const MESSAGES_PUBLICATION: &str = "supabase_realtime_messages_publication";

/// Whether the publication of row changes exists and publishes all kinds of changes.
pub(super) async fn changes(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select pg_catalog.quote_ident(p.pubname)
             , pg_catalog.array_remove(array[
                 case when not p.pubinsert then 'insert' end,
                 case when not p.pubupdate then 'update' end,
                 case when not p.pubdelete then 'delete' end], null)
          from pg_catalog.pg_publication as p
         where p.pubname = $1";
    let name = &inspection.config.replication.publication;
    let Some(row) = inspection.client.query_opt(SQL, &[name]).await? else {
        let row = inspection
            .client
            .query_one("select pg_catalog.quote_ident($1)", &[name])
            .await?;
        return Ok(Verdict::fail(format!("publication {name} is missing"))
            .because("`rapport migrate` creates it, if its login may.")
            .remedy(format!(
                "create publication {};",
                row.try_get::<_, String>(0)?
            ))
            .fact("publication", name.as_str()));
    };
    let (quoted, unpublished): (String, Vec<String>) = (row.try_get(0)?, row.try_get(1)?);
    let verdict = if unpublished.is_empty() {
        Verdict::ok(format!("publication {name} exists"))
    } else {
        Verdict::warn(format!(
            "publication {name} does not publish {}",
            unpublished.join(", ")
        ))
        .because("Subscribers do not receive such changes.")
        .remedy(format!(
            "alter publication {quoted} set (publish = 'insert, update, delete');"
        ))
    };
    Ok(verdict
        .fact("publication", name.as_str())
        .fact("unpublished", unpublished))
}

/// Whether the publication contains tables.
pub(super) async fn tables(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    // `pg_get_publication_tables` omits a partitioned table without partitions, although it is a
    // member.
    const SQL: &str = "
        select count(distinct member.oid)
          from pg_catalog.pg_publication as p
          left join lateral (
            select t.relid as oid from pg_catalog.pg_get_publication_tables(p.pubname) as t
            union
            select r.prrelid from pg_catalog.pg_publication_rel as r where r.prpubid = p.oid
          ) as member on true
         where p.pubname = $1
         group by p.oid";
    let name = &inspection.config.replication.publication;
    let Some(row) = inspection.client.query_opt(SQL, &[name]).await? else {
        return Ok(Verdict::skip(format!("publication {name} is missing")));
    };
    let tables: i64 = row.try_get(0)?;
    let verdict = if tables > 0 {
        Verdict::ok(format!("publication {name} contains {tables} tables"))
    } else {
        Verdict::warn(format!("publication {name} contains no tables")).because(
            "Clients can subscribe only to its tables. `rapport migrate` adds those of the chat.",
        )
    };
    Ok(verdict.fact("tables", tables))
}

/// Returns the published tables that satisfy a condition on `c`, as SQL identifiers.
async fn published_where(
    inspection: &Inspection<'_>,
    condition: &str,
) -> Result<Vec<String>, Error> {
    let sql = format!(
        "select distinct pg_catalog.format('%I.%I', n.nspname, c.relname)
           from pg_catalog.pg_publication as p
          cross join lateral pg_catalog.pg_get_publication_tables(p.pubname) as t
           join pg_catalog.pg_class as c on c.oid = t.relid
           join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
          where p.pubname = $1 and {condition}
          order by 1"
    );
    let name = &inspection.config.replication.publication;
    let rows = inspection.client.query(&sql, &[name]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Whether every published table has a replica identity.
pub(super) async fn identity(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    let tables = published_where(
        inspection,
        "(c.relreplident = 'n' or c.relreplident = 'd' and not exists (
            select from pg_catalog.pg_index as i where i.indrelid = c.oid and i.indisprimary))
         and (p.pubupdate or p.pubdelete)",
    )
    .await?;
    let verdict = if tables.is_empty() {
        Verdict::ok("every published table has a replica identity")
    } else {
        Verdict::fail(format!(
            "published tables without a replica identity: {}",
            tables.join(", ")
        ))
        .because("PostgreSQL refuses every UPDATE and DELETE on them. A primary key also suffices.")
        .remedy(lines(&tables, |table| {
            format!("alter table {table} replica identity full;")
        }))
    };
    Ok(verdict.fact("tables", tables))
}

/// Which published tables have generated columns. They work, but cost additional queries.
pub(super) async fn generated_columns(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    let tables = published_where(
        inspection,
        "exists (select from pg_catalog.pg_attribute as a where a.attrelid = c.oid and a.attgenerated <> '')",
    )
    .await?;
    let verdict = if tables.is_empty() {
        Verdict::ok("no published table has generated columns")
    } else {
        Verdict::ok(format!(
            "published tables with generated columns: {}",
            tables.join(", ")
        ))
        .because("Each such column costs one query per batch of changes.")
    };
    Ok(verdict.fact("tables", tables))
}

/// Whether the login may use the schemas of the functions that policies call. The server copies the
/// expressions of policies into its own statements, in which the login must resolve the names.
pub(super) async fn functions(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select distinct pg_catalog.quote_ident(n.nspname), pg_catalog.quote_ident(current_user)
          from pg_catalog.pg_policy as p
          join pg_catalog.pg_depend as d
            on d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
           and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
          join pg_catalog.pg_proc as f on f.oid = d.refobjid
          join pg_catalog.pg_namespace as n on n.oid = f.pronamespace
         where (p.polrelid = pg_catalog.to_regclass('realtime.messages')
                or p.polrelid in (select t.relid
                                    from pg_catalog.pg_publication as pub
                                   cross join lateral pg_catalog.pg_get_publication_tables(pub.pubname) as t
                                   where pub.pubname = $1))
           and not pg_catalog.has_schema_privilege(current_user, n.oid, 'USAGE')
         order by 1";
    let name = &inspection.config.replication.publication;
    let rows = inspection.client.query(SQL, &[name]).await?;
    let schemas: Vec<(String, String)> = rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, Error>>()?;
    let names: Vec<&str> = schemas.iter().map(|(schema, _)| schema.as_str()).collect();
    let verdict = if schemas.is_empty() {
        Verdict::ok("the login may use all functions that policies call")
    } else {
        Verdict::fail(format!(
            "policies call functions of schemas on which the login lacks USAGE: {}",
            names.join(", ")
        ))
        .because("The server cannot evaluate these policies, so it does not deliver the rows.")
        .remedy(lines(&schemas, |(schema, login)| {
            format!("grant usage on schema {schema} to {login};")
        }))
    };
    Ok(verdict.fact("schemas", names))
}

/// Whether broadcasts from the database are published.
pub(super) async fn messages(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select exists (select from pg_catalog.pg_publication where pubname = $1)
             , exists (
          select
            from pg_catalog.pg_publication as p
            join pg_catalog.pg_class as c on c.oid = pg_catalog.to_regclass('realtime.messages')
           where p.pubname = $1
             and (p.puballtables
               or exists (select from pg_catalog.pg_publication_rel as r where r.prpubid = p.oid and r.prrelid = c.oid)
               or exists (select from pg_catalog.pg_publication_namespace as s
                           where s.pnpubid = p.oid and s.pnnspid = c.relnamespace)))";
    let row = inspection
        .client
        .query_one(SQL, &[&MESSAGES_PUBLICATION])
        .await?;
    let (exists, has_messages): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    let missing = if exists {
        ("does not contain realtime.messages", "alter", "add table")
    } else {
        ("is missing", "create", "for table")
    };
    let (problem, verb, clause) = missing;
    let verdict = if has_messages {
        Verdict::ok(format!(
            "publication {MESSAGES_PUBLICATION} contains realtime.messages"
        ))
    } else {
        Verdict::warn(format!("publication {MESSAGES_PUBLICATION} {problem}"))
            .because(
                "Broadcasts from the database are not sent. The table's owner must run the statement.",
            )
            .remedy(format!(
                "{verb} publication {MESSAGES_PUBLICATION} {clause} realtime.messages;"
            ))
    };
    Ok(verdict
        .fact("exists", exists)
        .fact("contains_messages", has_messages))
}

/// Joins one statement per item.
fn lines<T>(items: &[T], statement: impl Fn(&T) -> String) -> String {
    let statements: Vec<String> = items.iter().map(statement).collect();
    statements.join("\n")
}
