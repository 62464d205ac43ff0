//! Reads PostgreSQL's catalogue: the published tables with their columns, keys, policies and
//! rights.
//!
//! A reading is immutable and is taken in one snapshot. [`super::catalog_cache`] decides when the
//! catalogue is read again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::{Client, Row};

use super::columns::{ColumnsCache, ColumnsKey, VisibleColumns};
use super::completion::Completions;
use super::error::QueryError;
use super::log_coverage;
use super::published::PUBLISHED;
use super::query_cache::QueryCache;
use super::table::{Policy, Table, TableColumn, TableRights};
use super::types::Types;
use crate::change::{Relation, TableName};
use crate::db::plans::MUST_PLAN_PER_CALLER;
use crate::db::roles::MAY_BE_ASSUMED;

/// Queries for the parts of [`Catalog`] that [`super::fingerprint`] does not cover by itself: which
/// columns the WAL contains, primary keys, and the row types of columns.
pub(super) const FINGERPRINTED: &[&str] = &[
    log_coverage::COLUMNS,
    log_coverage::EXPRESSIONS,
    log_coverage::PARTITIONS,
    "select pg_catalog.string_agg(pg_catalog.concat_ws(':', i.indexrelid, i.xmin), ',' order by i.indexrelid)
   from relation r join pg_catalog.pg_index i on i.indrelid = r.oid where i.indisprimary",
    "select pg_catalog.string_agg(pg_catalog.concat_ws(':', c.oid, c.xmin), ',' order by c.oid)
   from pg_catalog.pg_class c where c.relkind = 'c'",
];

/// Returns the statement that reads the published tables.
///
/// `realtime.messages` and its partitions (see [`TableName::is_messages`]) are excluded, even if
/// they are published. Their rows are broadcasts to the members of a topic, and their policies
/// depend on the topic that a caller has joined. Row changes have no topic.
fn read_tables() -> String {
    format!(
        "
select c.oid, n.nspname::text, c.relname::text, c.relrowsecurity, c.relreplident = 'f'
from ({PUBLISHED}) as published
join pg_catalog.pg_class c on c.oid = published.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where not (n.nspname = 'realtime'
    and c.relname ~ '^messages(_default|_[0-9]{{4}}_[0-9]{{2}}_[0-9]{{2}})?$')"
    )
}

const COLUMNS: &str = "
select a.attrelid, a.attnum, a.attname::text, a.atttypid, a.atttypmod,
  pg_catalog.format_type(a.atttypid, a.atttypmod),
  coalesce(a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1]), false),
  case when a.attcollation <> t.typcollation then
    (select pg_catalog.format('%I.%I', n.nspname, c.collname)
     from pg_catalog.pg_collation c join pg_catalog.pg_namespace n on n.oid = c.collnamespace
     where c.oid = a.attcollation) end,
  coalesce((select c.collisdeterministic from pg_catalog.pg_collation c where c.oid = a.attcollation), true),
  pg_catalog.format_type(a.atttypid, -1)
from pg_catalog.pg_attribute a
join pg_catalog.pg_type t on t.oid = a.atttypid
left join pg_catalog.pg_index i on i.indrelid = a.attrelid and i.indisprimary
where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum";

/// The types of columns, and the types that they consist of: elements, attributes and base types.
const TYPES: &str = "
with recursive used as (
  select a.atttypid as oid
  from pg_catalog.pg_attribute a
  where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped
  union
  select part.oid
  from used
  join pg_catalog.pg_type t on t.oid = used.oid
  cross join lateral (
    select t.typelem as oid
    union all
    select t.typbasetype
    union all
    select a.atttypid
    from pg_catalog.pg_attribute a
    where a.attrelid = t.typrelid and t.typrelid <> 0 and a.attnum > 0 and not a.attisdropped
  ) as part
  where part.oid <> 0
)
select t.oid, t.typname::text, t.typtype = 'e', t.typbasetype,
  case when t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc then t.typelem else 0 end,
  t.typdelim::text,
  array(select a.attname::text from pg_catalog.pg_attribute a
    where a.attrelid = t.typrelid and t.typrelid <> 0 and a.attnum > 0 and not a.attisdropped order by a.attnum),
  array(select a.atttypid from pg_catalog.pg_attribute a
    where a.attrelid = t.typrelid and t.typrelid <> 0 and a.attnum > 0 and not a.attisdropped order by a.attnum),
  t.typtype = 'c'
from used
join pg_catalog.pg_type t on t.oid = used.oid";

/// Policies that apply to `select`, in the order in which PostgreSQL considers them. A policy
/// without USING (`for all with check (…)`) neither shows nor hides rows, so it is omitted. The
/// columns come from the recorded dependencies. Column number 0 stands for the table itself and is
/// skipped. The last column but one is true for policies that must be planned for each caller. The
/// last column is true for policies that may read other rows.
fn policies_statement() -> String {
    format!(
        "
select p.polrelid, p.oid, p.polpermissive,
  pg_catalog.pg_get_expr(p.polqual, p.polrelid),
  array(select distinct d.refobjsubid from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = p.polrelid
      and d.refobjsubid <> 0),
  -- A whole-row reference is a variable with attribute number 0 at the level of the table itself.
  p.polqual::text ~ ':varattno 0 ',
  exists (select from pg_catalog.pg_depend d join pg_catalog.pg_proc f on f.oid = d.refobjid
    where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
      and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and {MUST_PLAN_PER_CALLER}),
  -- A range table entry of kind 0 is a table. A function may read one, too; Supabase's functions for
  -- the claims do not.
  p.polqual::text ~ ':rtekind 0 '
  or exists (select from pg_catalog.pg_depend d
    join pg_catalog.pg_proc f on f.oid = d.refobjid
    join pg_catalog.pg_namespace n on n.oid = f.pronamespace
    where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
      and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and f.provolatile <> 'i'
      and (n.nspname, f.proname) not in
        (('auth', 'uid'), ('auth', 'role'), ('auth', 'email'), ('auth', 'jwt')))
from pg_catalog.pg_policy p
where p.polrelid = any($1) and p.polcmd in ('r', '*') and p.polqual is not null
order by p.polrelid, p.polname"
    )
}

/// Returns the statement that reads the rights of roles on tables. Without USAGE on the schema, no
/// column can be selected.
fn rights_statement() -> String {
    format!(
        "
select r.rolname::text, c.oid,
  r.rolsuper or r.rolbypassrls
    or (pg_catalog.pg_has_role(r.oid, c.relowner, 'USAGE') and not c.relforcerowsecurity),
  case when pg_catalog.has_schema_privilege(r.oid, c.relnamespace, 'USAGE') then
    array(select a.attnum from pg_catalog.pg_attribute a
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        and pg_catalog.has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT'))
  else '{{}}' end,
  array(select p.oid from pg_catalog.pg_policy p
    where p.polrelid = c.oid and p.polcmd in ('r', '*')
      and exists (select from pg_catalog.unnest(p.polroles) as member (oid)
        where member.oid = 0 or pg_catalog.pg_has_role(r.oid, member.oid, 'USAGE')))
from pg_catalog.pg_roles r
cross join pg_catalog.pg_class c
where r.rolname = any($1) and c.oid = any($2) and {MAY_BE_ASSUMED}"
    )
}

/// Returns the statement that selects the roles in `$1` that exist and that a caller may have.
fn roles_statement() -> String {
    format!(
        "select r.rolname::text from pg_catalog.pg_roles r \
         where r.rolname = any($1) and {MAY_BE_ASSUMED}"
    )
}

/// One reading of the catalogue.
#[derive(Default)]
pub(super) struct Catalog {
    fingerprint: String,
    tables: HashMap<u32, Arc<Table>>,
    by_name: HashMap<TableName, u32>,
    /// Rights by role; `None` if the role does not exist or a caller may not have it.
    roles: HashMap<String, Option<HashMap<u32, Arc<TableRights>>>>,
    /// The cached column sets. A std lock, because it is held only for a look-up or an insertion.
    columns: Mutex<ColumnsCache>,
    pub(super) queries: QueryCache,
    /// Whether any column has to be computed because the WAL does not contain it.
    pub(super) has_generated_columns: bool,
    pub(super) completions: Completions,
}

impl Catalog {
    /// Returns the published table with this oid.
    pub(super) fn table(&self, oid: u32) -> Option<&Arc<Table>> {
        self.tables.get(&oid)
    }

    /// Returns the published table with this name.
    pub(super) fn table_named(&self, name: &TableName) -> Option<&Arc<Table>> {
        self.tables.get(self.by_name.get(name)?)
    }

    /// Returns all published tables.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    /// Returns whether the role exists and a caller may have it. The reading must include the role.
    pub(super) fn has_role(&self, role: &str) -> bool {
        matches!(self.roles.get(role), Some(Some(_)))
    }

    /// Returns the rights of a role on a table, or `None` if either is unknown.
    pub(super) fn rights(&self, role: &str, table: u32) -> Option<&Arc<TableRights>> {
        self.roles.get(role)?.as_ref()?.get(&table)
    }

    /// Returns the columns that a role may receive, from the cache or created by `make`.
    pub(super) fn columns(
        &self,
        key: ColumnsKey,
        relation: &Arc<Relation>,
        make: impl FnOnce() -> VisibleColumns,
    ) -> Arc<VisibleColumns> {
        self.columns
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_make(key, relation, make)
    }

    /// Returns the fingerprint at the time of the reading.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Returns the roles in this reading that exist and that a caller may have.
    pub(super) fn known_roles(&self) -> impl Iterator<Item = &str> {
        let known = self.roles.iter().filter(|(_, rights)| rights.is_some());
        known.map(|(role, _)| role.as_str())
    }

    /// Returns whether the rights of all these roles have been read.
    pub(super) fn knows(&self, roles: &[&str]) -> bool {
        roles.iter().all(|role| self.roles.contains_key(*role))
    }
}

/// Reads the catalogue in the snapshot of the current transaction.
///
/// # Errors
/// If the database is unreachable or refuses a statement.
pub(super) async fn load(
    client: &Client,
    publication: &str,
    fingerprint: String,
    roles: &[&str],
) -> Result<Catalog, QueryError> {
    let mut tables = HashMap::new();
    for row in client.query(&read_tables(), &[&publication]).await? {
        let oid: u32 = row.try_get(0)?;
        let schema: String = row.try_get(1)?;
        let name: String = row.try_get(2)?;
        let table = Table {
            oid,
            name: TableName::new(schema, name),
            columns: Vec::new(),
            has_row_security: row.try_get(3)?,
            keeps_deleted_rows: row.try_get(4)?,
            policies: Vec::new(),
            is_partitioned: false,
            has_whole_old_rows: false,
        };
        tables.insert(oid, table);
    }
    let oids: Vec<u32> = tables.keys().copied().collect();
    let types = Types::read(&client.query(TYPES, &[&oids]).await?)?;
    for row in client.query(COLUMNS, &[&oids]).await? {
        let column = read_column(&row, &types)?;
        if let Some(table) = tables.get_mut(&row.try_get::<_, u32>(0)?) {
            table.columns.push(column);
        }
    }
    log_coverage::read(client, publication, &mut tables).await?;
    for row in client.query(&policies_statement(), &[&oids]).await? {
        let policy = read_policy(&row)?;
        if let Some(table) = tables.get_mut(&row.try_get::<_, u32>(0)?) {
            table.policies.push(policy);
        }
    }
    let roles = load_rights(client, roles, &oids).await?;
    Ok(Catalog {
        fingerprint,
        has_generated_columns: tables
            .values()
            .flat_map(|table| &table.columns)
            .any(|column| column.generated.is_some()),
        completions: Completions::default(),
        by_name: tables
            .values()
            .map(|table| (table.name.clone(), table.oid))
            .collect(),
        tables: tables
            .into_iter()
            .map(|(oid, table)| (oid, Arc::new(table)))
            .collect(),
        roles,
        columns: Mutex::default(),
        queries: QueryCache::default(),
    })
}

async fn load_rights(
    client: &Client,
    roles: &[&str],
    oids: &[u32],
) -> Result<HashMap<String, Option<HashMap<u32, Arc<TableRights>>>>, QueryError> {
    let mut rights: HashMap<String, Option<HashMap<u32, Arc<TableRights>>>> = roles
        .iter()
        .map(|role| ((*role).to_owned(), None))
        .collect();
    for row in client.query(&roles_statement(), &[&roles]).await? {
        rights.insert(row.try_get(0)?, Some(HashMap::new()));
    }
    for row in client.query(&rights_statement(), &[&roles, &oids]).await? {
        let role: &str = row.try_get(0)?;
        let table: u32 = row.try_get(1)?;
        let selectable: Vec<i16> = row.try_get(3)?;
        let policies: Vec<u32> = row.try_get(4)?;
        if let Some(Some(tables)) = rights.get_mut(role) {
            tables.insert(
                table,
                Arc::new(TableRights {
                    selectable: selectable.into_iter().collect(),
                    bypasses_row_security: row.try_get(2)?,
                    policies: policies.into_iter().collect(),
                }),
            );
        }
    }
    Ok(rights)
}

fn read_column(row: &Row, types: &Types) -> Result<TableColumn, QueryError> {
    let type_oid = row.try_get(3)?;
    let base_type = types.base(type_oid);
    Ok(TableColumn {
        number: row.try_get(1)?,
        name: row.try_get(2)?,
        type_oid,
        type_modifier: row.try_get(4)?,
        type_name: types.name(type_oid).to_owned(),
        type_sql: row.try_get(5)?,
        bare_type_sql: row.try_get(9)?,
        base_type,
        base_type_name: types.name(base_type).to_owned(),
        is_enum: types.is_enum(base_type),
        is_primary_key: row.try_get(6)?,
        is_logged: false,
        generated: None,
        is_identity: false,
        collation: row.try_get(7)?,
        is_deterministic: row.try_get(8)?,
        encoding: Arc::new(types.column_encoding(type_oid)),
    })
}

fn read_policy(row: &Row) -> Result<Policy, QueryError> {
    let columns: Vec<i32> = row.try_get(4)?;
    Ok(Policy {
        oid: row.try_get(1)?,
        is_permissive: row.try_get(2)?,
        expression: row.try_get(3)?,
        columns: columns
            .into_iter()
            .filter_map(|number| i16::try_from(number).ok())
            .collect(),
        uses_whole_row: row.try_get(5)?,
        plans_per_caller: row.try_get(6)?,
        reads_other_rows: row.try_get(7)?,
    })
}
