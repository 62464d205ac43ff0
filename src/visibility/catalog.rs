//! What PostgreSQL's catalogue says about the published tables: columns, keys, policies, rights.
//!
//! One reading is an immutable [`Catalog`], taken in one snapshot. If it is too old for
//! a decision, its fingerprint is compared first, and it is read again only if that differs. The
//! maximum age depends on the tables: see [`super::descriptions`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Row};

use super::columns::{ColumnsCache, ColumnsKey, VisibleColumns};
use super::error::QueryError;
use super::fingerprint;
use super::generated::{Completions, Generation};
use super::log_coverage;
use super::published::PUBLISHED;
use super::queries::Query;
use super::record::ValueEncoding;
use crate::change::{Relation, TableName};
use crate::db::connect::Connector;
use crate::db::roles::MAY_BE_A_CALLERS;
use crate::observability::metrics::VisibilityMetrics;
use crate::shutdown::Tasks;

/// What the session needs before names can be read: with an empty search path every name
/// that is not of `pg_catalog` is printed with its schema, so it means the same everywhere.
const SESSION: &str = "set search_path = ''; set statement_timeout = '10s'; \
                       set idle_in_transaction_session_timeout = '30s'";

/// How long one reading may take before its connection is given up: longer than the server's
/// own limit for each of its statements, so it only matters when the network swallows packets.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

const BEGIN: &str = "begin isolation level repeatable read read only";

/// What [`Catalog`] is made of besides all that a [`fingerprint`] covers: what the log holds, primary keys, and the row
/// types that columns may hold.
const KEYS_AND_ROW_TYPES: &[&str] = &[
    log_coverage::COLUMNS,
    log_coverage::EXPRESSIONS,
    log_coverage::PARTITIONS,
    "select pg_catalog.string_agg(pg_catalog.concat_ws(':', i.indexrelid, i.xmin), ',' order by i.indexrelid)
   from relation r join pg_catalog.pg_index i on i.indrelid = r.oid where i.indisprimary",
    "select pg_catalog.string_agg(pg_catalog.concat_ws(':', c.oid, c.xmin), ',' order by c.oid)
   from pg_catalog.pg_class c where c.relkind = 'c'",
];

/// What is read of each published table.
///
/// Not among them, whatever is published: `realtime.messages` and its partitions, as
/// [`TableName::is_messages`] knows them. Its rows are broadcasts to those who may listen to their
/// topic, and its policies speak of a topic that nobody who asks for row changes has joined.
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

/// Types of columns, and those that they are made of.
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

/// Policies that apply to `select`, in the order in which PostgreSQL considers them. One without
/// USING (`for all with check (…)`) lets no row through and hides none. Columns
/// come from the recorded dependencies, where 0 is the table itself: a reference to the
/// whole row leaves no other trace. `volatility` of functions used directly tells whether a
/// plan may hold a value that belongs to one caller only.
const POLICIES: &str = "
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
      and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and f.provolatile = 'i'),
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
order by p.polrelid, p.polname";

/// Rights of roles on tables. Without USAGE on its schema nothing of a table can be selected.
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
where r.rolname = any($1) and c.oid = any($2) and {MAY_BE_A_CALLERS}"
    )
}

/// Those of some roles that exist and may be a caller's.
fn roles_statement() -> String {
    format!(
        "select r.rolname::text from pg_catalog.pg_roles r \
         where r.rolname = any($1) and {MAY_BE_A_CALLERS}"
    )
}

/// One reading.
#[derive(Default)]
pub(super) struct Catalog {
    fingerprint: String,
    tables: HashMap<u32, Arc<Table>>,
    by_name: HashMap<TableName, u32>,
    /// Rights by role; `None` for a role that does not exist or may not be a caller's.
    roles: HashMap<String, Option<HashMap<u32, Arc<TableRights>>>>,
    /// Prepared column sets. A std lock: held for a look-up or an insertion only.
    columns: Mutex<ColumnsCache>,
    /// Prepared queries, by what distinguishes them. A std lock for the same reason.
    queries: Mutex<HashMap<QueryKey, Arc<Query>>>,
    /// Whether some column is to be worked out because the log does not carry it.
    pub(super) has_generated_columns: bool,
    pub(super) completions: Completions,
}

/// What a query to PostgreSQL depends on, within one reading of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct QueryKey {
    pub(super) table: u32,
    /// A plan may have been made with the rights of the role that ran it first, so roles do
    /// not share one.
    pub(super) role: String,
    pub(super) kind: QueryKind,
}

/// The kinds of query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum QueryKind {
    /// The policies on row images.
    Image,
    /// The row itself by primary key.
    Key,
    /// One filter condition: column number, comparison, text of the comparison.
    Condition(i16, String),
    /// The values of a generated column, by its number.
    Generated(i16),
}

/// A published table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) name: TableName,
    /// In the order of their numbers, without dropped ones.
    pub(super) columns: Vec<TableColumn>,
    pub(super) has_row_security: bool,
    /// Whether the log holds deleted rows whole (`replica identity full`).
    pub(super) keeps_deleted_rows: bool,
    pub(super) policies: Vec<Policy>,
    /// Whether its rows are stored in partitions, in whose place it is published. Each has a replica identity of its
    /// own, and the stream describes the table with them, so not when only its own policies or rights have changed.
    pub(super) is_partitioned: bool,
    /// Whether an old image that is said to be full is so.
    pub(super) has_whole_old_rows: bool,
}

/// A column of a published table.
#[derive(Debug)]
pub(super) struct TableColumn {
    pub(super) number: i16,
    pub(super) name: String,
    pub(super) type_oid: u32,
    pub(super) type_modifier: i32,
    /// `pg_type.typname`.
    pub(super) type_name: String,
    /// The type as SQL, with its modifier.
    pub(super) type_sql: String,
    /// The type as SQL without a modifier: what a filter's operand is cast to.
    pub(super) bare_type_sql: String,
    /// The type below all domains.
    pub(super) base_type: u32,
    /// Its `pg_type.typname`.
    pub(super) base_type_name: String,
    pub(super) is_enum: bool,
    pub(super) is_primary_key: bool,
    /// Whether the log carries its values.
    pub(super) is_logged: bool,
    /// How its values are worked out otherwise.
    pub(super) generation: Option<Generation>,
    /// Whether it is part of the replica identity of everything that stores rows of the table.
    pub(super) is_identity: bool,
    /// A collation other than the type's own, as SQL.
    pub(super) collation: Option<String>,
    /// Whether equal texts are equal bytes.
    pub(super) is_deterministic: bool,
    pub(super) encoding: Arc<ValueEncoding>,
}

/// A policy that applies to `select`.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) oid: u32,
    pub(super) is_permissive: bool,
    pub(super) expression: String,
    /// Numbers of the columns it depends on.
    pub(super) columns: Vec<i16>,
    /// Whether some row is referred to as a whole; it may be this table's.
    pub(super) uses_whole_row: bool,
    /// Whether it calls functions of users that are declared immutable: if that is a lie, a
    /// plan would carry one caller's answer to the next.
    pub(super) uses_immutable_function: bool,
    /// Whether it reads other rows than the one that it is evaluated for, or calls a function that
    /// may do so.
    pub(super) reads_other_rows: bool,
}

/// What a role may do with a table.
#[derive(Debug)]
pub(super) struct TableRights {
    /// Numbers of the columns it may select.
    pub(super) selectable: HashSet<i16>,
    /// Whether row-level security does not concern it.
    pub(super) bypasses_row_security: bool,
    /// Policies that apply to it.
    policies: HashSet<u32>,
}

impl Table {
    /// The column of this name.
    pub(super) fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The columns of the primary key; empty when there is none.
    pub(super) fn primary_key(&self) -> impl Iterator<Item = &TableColumn> {
        self.columns.iter().filter(|column| column.is_primary_key)
    }

    /// The columns with these numbers.
    pub(super) fn numbered<'a>(
        &'a self,
        numbers: &'a [i16],
    ) -> impl Iterator<Item = &'a TableColumn> {
        self.columns
            .iter()
            .filter(|column| numbers.contains(&column.number))
    }

    /// The policies that apply to a role with these rights.
    pub(super) fn policies_for<'a>(
        &'a self,
        rights: &'a TableRights,
    ) -> impl Iterator<Item = &'a Policy> {
        self.policies
            .iter()
            .filter(|policy| rights.policies.contains(&policy.oid))
    }

    /// Whether deleted rows are judged in the state before their deletion, too.
    pub(super) fn needs_snapshots(&self) -> bool {
        self.keeps_deleted_rows
            && self.has_row_security
            && self.policies.iter().any(|policy| policy.reads_other_rows)
    }

    /// Whether the columns of row images are columns of this reading, type for type.
    pub(super) fn agrees_with(&self, relation: &Relation) -> bool {
        self.name == relation.table
            && relation.columns.iter().all(|column| {
                self.column(&column.name).is_some_and(|known| {
                    known.type_oid == column.type_oid && known.type_modifier == column.type_modifier
                })
            })
    }
}

impl Catalog {
    /// A table by its identifier.
    pub(super) fn table(&self, oid: u32) -> Option<&Arc<Table>> {
        self.tables.get(&oid)
    }

    /// A table by its name.
    pub(super) fn table_named(&self, name: &TableName) -> Option<&Arc<Table>> {
        self.tables.get(self.by_name.get(name)?)
    }

    /// All published tables.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    /// Whether the role exists and may be a caller's. It must be among those the catalogue was asked for.
    pub(super) fn has_role(&self, role: &str) -> bool {
        matches!(self.roles.get(role), Some(Some(_)))
    }

    /// What a role may do with a table; `None` when either is unknown.
    pub(super) fn rights(&self, role: &str, table: u32) -> Option<&Arc<TableRights>> {
        self.roles.get(role)?.as_ref()?.get(&table)
    }

    /// The columns a role may receive, from the cache or made by `make`.
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

    /// The query for `key`, from the cache or made by `make`.
    pub(super) fn query(&self, key: QueryKey, make: impl FnOnce() -> Query) -> Arc<Query> {
        let mut queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(queries.entry(key).or_insert_with(|| Arc::new(make())))
    }

    fn knows(&self, roles: &[&str]) -> bool {
        roles.iter().all(|role| self.roles.contains_key(*role))
    }
}

/// Keeps the latest reading and renews it.
pub(super) struct CatalogCache {
    connector: Connector,
    tasks: Tasks,
    publication: String,
    /// The statement that a reading's fingerprint is asked with.
    fingerprint: String,
    ttl: Duration,
    metrics: VisibilityMetrics,
    /// The latest reading. A std lock: held to copy a pointer.
    latest: Mutex<Option<Verified>>,
    /// When the last attempt failed. A std lock for the same reason.
    failed_at: Mutex<Option<Instant>>,
    /// The connection it is read on. An async lock because it stands for the connection's own
    /// turn: whoever waits for it would otherwise wait for the same reading, and finds it done.
    connection: tokio::sync::Mutex<Option<Client>>,
}

#[derive(Clone)]
struct Verified {
    catalog: Arc<Catalog>,
    /// Taken before the snapshot that proved it.
    at: Instant,
}

impl CatalogCache {
    pub(super) fn new(
        connector: Connector,
        publication: String,
        ttl: Duration,
        metrics: VisibilityMetrics,
        tasks: &Tasks,
    ) -> Self {
        Self {
            connector,
            tasks: tasks.clone(),
            publication,
            fingerprint: fingerprint::statement(PUBLISHED, KEYS_AND_ROW_TYPES),
            ttl,
            metrics,
            latest: Mutex::new(None),
            failed_at: Mutex::new(None),
            connection: tokio::sync::Mutex::new(None),
        }
    }

    /// The maximum age of a reading while the stream shows no change.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// A reading within the usual age that knows `roles`.
    ///
    /// # Errors
    /// When the database cannot be reached or does not let us read.
    pub(super) async fn current(&self, roles: &[&str]) -> Result<Arc<Catalog>, QueryError> {
        self.within(roles, self.ttl).await
    }

    /// A reading begun after this call.
    ///
    /// # Errors
    /// As [`Self::current`].
    pub(super) async fn renewed(&self, roles: &[&str]) -> Result<Arc<Catalog>, QueryError> {
        self.within(roles, Duration::ZERO).await
    }

    /// A reading that knows `roles` and is younger than `limit` or begun after this call.
    ///
    /// # Errors
    /// As [`Self::current`].
    pub(super) async fn within(
        &self,
        roles: &[&str],
        limit: Duration,
    ) -> Result<Arc<Catalog>, QueryError> {
        if let Some(catalog) = self.fresh(roles, limit) {
            return Ok(catalog);
        }
        let asked_at = Instant::now();
        let mut connection = self.connection.lock().await;
        // Somebody else may have read it while this one waited for its turn.
        if let Some(catalog) = self.fresh(roles, limit.max(asked_at.elapsed())) {
            return Ok(catalog);
        }
        self.renew(&mut connection, roles, asked_at).await
    }

    /// The latest reading, however old.
    pub(super) fn latest(&self) -> Option<Arc<Catalog>> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.as_ref().map(|latest| Arc::clone(&latest.catalog))
    }

    /// The latest reading, if it knows `roles` and has to be verified because it is older than
    /// `limit`.
    pub(super) fn unverified(&self, roles: &[&str], limit: Duration) -> Option<Arc<Catalog>> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = latest.as_ref()?;
        (latest.at.elapsed() >= limit && latest.catalog.knows(roles))
            .then(|| Arc::clone(&latest.catalog))
    }

    fn fresh(&self, roles: &[&str], limit: Duration) -> Option<Arc<Catalog>> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = latest.as_ref()?;
        (latest.at.elapsed() < limit && latest.catalog.knows(roles))
            .then(|| Arc::clone(&latest.catalog))
    }

    /// Reads on the connection, whose turn it is. An attempt of somebody else that failed since
    /// `asked_at` counts as this one's: waiters do not try one after the other.
    async fn renew(
        &self,
        connection: &mut Option<Client>,
        roles: &[&str],
        asked_at: Instant,
    ) -> Result<Arc<Catalog>, QueryError> {
        let failed_at = *self
            .failed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if failed_at.is_some_and(|failed_at| failed_at >= asked_at) {
            return Err(QueryError::Unavailable(None));
        }
        let at = Instant::now();
        let previous = self.latest();
        // Taken out: a reading that is dropped half-way leaves a connection nobody uses again.
        let client = connection.take();
        let reading = async {
            let client = match client.filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => self.connect().await?,
            };
            let catalog = self.read(&client, previous, roles).await?;
            Ok::<_, QueryError>((client, catalog))
        };
        let result = tokio::time::timeout(READ_TIMEOUT, reading)
            .await
            .unwrap_or(Err(QueryError::Unavailable(None)));
        if result.is_err() {
            *self
                .failed_at
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        let (client, catalog) = result?;
        *connection = Some(client);
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Verified {
            catalog: Arc::clone(&catalog),
            at,
        });
        Ok(catalog)
    }

    async fn connect(&self) -> Result<Client, QueryError> {
        // Boxed: the handshake's state is large, and would be part of every resolution.
        let connecting = Box::pin(
            self.connector
                .connect("rapport visibility catalogue", &self.tasks),
        );
        let client = connecting.await?;
        client.batch_execute(SESSION).await?;
        Ok(client)
    }

    async fn read(
        &self,
        client: &Client,
        previous: Option<Arc<Catalog>>,
        roles: &[&str],
    ) -> Result<Arc<Catalog>, QueryError> {
        client.batch_execute(BEGIN).await?;
        self.metrics.catalog_checks.inc();
        let fingerprint: String = client
            .query_one(&self.fingerprint, &[&self.publication])
            .await?
            .try_get(0)?;
        let catalog = match previous {
            Some(previous) if previous.fingerprint == fingerprint && previous.knows(roles) => {
                previous
            }
            previous => {
                let mut wanted: HashSet<&str> = roles.iter().copied().collect();
                if let Some(previous) = &previous {
                    // Names that are no role's need not be kept: anybody may come up with them.
                    let known = previous.roles.iter().filter(|(_, rights)| rights.is_some());
                    wanted.extend(known.map(|(role, _)| role.as_str()));
                }
                let wanted: Vec<&str> = wanted.into_iter().collect();
                self.metrics.catalog_loads.inc();
                Arc::new(load(client, &self.publication, fingerprint, &wanted).await?)
            }
        };
        client.batch_execute("rollback").await?;
        Ok(catalog)
    }
}

async fn load(
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
    for row in client.query(POLICIES, &[&oids]).await? {
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
            .any(|column| column.generation.is_some()),
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
        queries: Mutex::default(),
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
        is_enum: types.0.get(&base_type).is_some_and(|known| known.is_enum),
        is_primary_key: row.try_get(6)?,
        is_logged: false,
        generation: None,
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
        uses_immutable_function: row.try_get(6)?,
        reads_other_rows: row.try_get(7)?,
    })
}

/// Types by identifier.
struct Types(HashMap<u32, KnownType>);

struct KnownType {
    name: String,
    is_enum: bool,
    base: u32,
    element: u32,
    delimiter: char,
    is_composite: bool,
    attributes: Vec<(String, u32)>,
}

impl Types {
    fn read(rows: &[Row]) -> Result<Self, QueryError> {
        let mut types = HashMap::new();
        for row in rows {
            let delimiter: String = row.try_get(5)?;
            let names: Vec<String> = row.try_get(6)?;
            let attribute_types: Vec<u32> = row.try_get(7)?;
            types.insert(
                row.try_get(0)?,
                KnownType {
                    name: row.try_get(1)?,
                    is_enum: row.try_get(2)?,
                    base: row.try_get(3)?,
                    element: row.try_get(4)?,
                    delimiter: delimiter.chars().next().unwrap_or(','),
                    is_composite: row.try_get(8)?,
                    attributes: names.into_iter().zip(attribute_types).collect(),
                },
            );
        }
        Ok(Self(types))
    }

    fn name(&self, oid: u32) -> &str {
        self.0.get(&oid).map_or("", |known| &known.name)
    }

    /// The type below all domains.
    fn base(&self, mut oid: u32) -> u32 {
        while let Some(known) = self.0.get(&oid).filter(|known| known.base != 0) {
            oid = known.base;
        }
        oid
    }

    fn column_encoding(&self, oid: u32) -> ValueEncoding {
        const BYTEA: u32 = 17;
        // Inside arrays and rows it keeps its `\x`, as the protocol's original does.
        if self.base(oid) == BYTEA {
            ValueEncoding::Bytea
        } else {
            self.encoding(oid)
        }
    }

    /// The classes of `to_jsonb` (PostgreSQL's `json_categorize_type`). Types are matched by
    /// their fixed identifiers, as there.
    fn encoding(&self, oid: u32) -> ValueEncoding {
        let base = self.base(oid);
        match base {
            // int8, int2, int4, float4, float8, numeric
            20 | 21 | 23 | 700 | 701 | 1700 => ValueEncoding::Number,
            16 => ValueEncoding::Bool,
            // json, jsonb
            114 | 3802 => ValueEncoding::Json,
            1082 => ValueEncoding::Date,
            1114 => ValueEncoding::Timestamp,
            1184 => ValueEncoding::TimestampTz,
            _ => match self.0.get(&base) {
                Some(known) if known.element != 0 => {
                    let delimiter = self
                        .0
                        .get(&known.element)
                        .map_or(',', |element| element.delimiter);
                    ValueEncoding::Array(Arc::new(self.encoding(known.element)), delimiter)
                }
                Some(known) if known.is_composite => ValueEncoding::Composite(
                    known
                        .attributes
                        .iter()
                        .map(|(name, oid)| (name.clone(), Arc::new(self.encoding(*oid))))
                        .collect(),
                ),
                _ => ValueEncoding::Text,
            },
        }
    }
}
