//! Reads the policies of `realtime.messages` from the catalogue, and determines whether they can be
//! evaluated without an insertion.
//!
//! Each pipeline of checks reads the fingerprint of its [`Reading`] again before it evaluates.
//! Therefore a result never uses policies, grants or roles that changed before its pipeline. Only
//! the information about the table's triggers and constraints may be older, by up to
//! [`STRUCTURE_TTL`].

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::{Client, Row};

use super::super::super::permissions::Permissions;
use super::check::CheckKind;
use super::error::AuthorizeError;
use crate::db::plans::MUST_PLAN_PER_CALLER;
use crate::db::roles::MAY_BE_ASSUMED;
use crate::visibility::fingerprint;

/// The maximum age of the information about the table's triggers and constraints.
pub(super) const STRUCTURE_TTL: Duration = Duration::from_secs(5);

/// Maximum number of roles whose rights are cached. The role names come from tokens, and a project
/// has only a handful.
const MAX_ROLES: usize = 256;

/// Begins a transaction with an empty search path, so that types and functions are printed with
/// their schema. Their printed names therefore have the same meaning under any other search path.
const BEGIN: &str = "begin isolation level repeatable read read only; set local search_path = ''";

/// Finds `realtime.messages`. The schema is looked up as a row of `pg_namespace`, because the
/// current role need not have the right to use the schema.
const MESSAGES: &str = "
  select c.oid
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'realtime' and c.relname = 'messages'";

/// Returns the statement that reads the fingerprint of a [`Reading`].
pub(super) fn fingerprint() -> String {
    fingerprint::statement(MESSAGES, &[])
}

/// Reads whether an insertion does more than find a partition and check the policies.
///
/// The column `more` is true if anything else can make an insertion fail or change the row:
/// triggers, rules, constraints, unique keys without the id, expressions in indexes, computed
/// columns, columns that must be given, and defaults that are not plainly constant. Two index
/// predicates and one constraint are exempt: the tables of Supabase Realtime and Rapport have them,
/// and the rows that insertions write never match them.
const TABLE: &str = r"
with relation as (
  select c.oid, c.relkind, c.relrowsecurity
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'realtime' and c.relname = 'messages'
), tree as (
  select oid from relation
  union
  select p.relid from relation r, lateral pg_catalog.pg_partition_tree(r.oid) p
), given (name, types) as (
  values ('id', '{2950}'::pg_catalog.oid[]), ('topic', '{25}'), ('extension', '{25}'),
    ('inserted_at', '{1114,1184}'), ('updated_at', '{1114,1184}')
)
select r.oid, r.relrowsecurity,
  r.relkind not in ('r', 'p')
  or exists (select from tree t join pg_catalog.pg_class c on c.oid = t.oid where t.oid <> r.oid and c.relkind <> 'r')
  or exists (select from tree t join pg_catalog.pg_trigger g on g.tgrelid = t.oid
    where not g.tgisinternal and g.tgenabled <> 'D' and g.tgtype & 4 <> 0)
  or exists (select from tree t join pg_catalog.pg_rewrite w on w.ev_class = t.oid)
  or exists (select from tree t join pg_catalog.pg_constraint k on k.conrelid = t.oid
    where k.contype not in ('p', 'u', 'n')
      and not (k.contype = 'c' and pg_catalog.pg_get_expr(k.conbin, k.conrelid) = '((payload IS NULL) OR (binary_payload IS NULL))'))
  or exists (select from tree t join pg_catalog.pg_index i on i.indrelid = t.oid
    where i.indexprs is not null
      or pg_catalog.pg_get_expr(i.indpred, i.indrelid) not in (
        '((extension = ''broadcast''::text) AND (private IS TRUE))', '(expires_at IS NOT NULL)')
      or (i.indisunique or i.indisexclusion) and not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = i.indrelid and a.attname = 'id' and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])))
  or exists (select from given g
    left join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attname = g.name and not a.attisdropped
    where a.attnum is null or a.attnum < 0 or a.atttypid <> all(g.types))
  or exists (select from tree t
    join pg_catalog.pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
    join pg_catalog.pg_type y on y.oid = a.atttypid
    left join pg_catalog.pg_attribute o on o.attrelid = r.oid and o.attname = a.attname
    left join pg_catalog.pg_attrdef d on d.adrelid = r.oid and d.adnum = o.attnum
    where a.attgenerated <> '' or a.attidentity <> '' or y.typtype = 'd' or a.attcollation <> y.typcollation
      or a.attname not in (select name from given) and case
        when d.oid is null then a.attnotnull
        else pg_catalog.pg_get_expr(d.adbin, d.adrelid) !~
          '^(true|false|-?[0-9]+|''[^'']*''::[a-z ]+|now\(\)|gen_random_uuid\(\)|CURRENT_TIMESTAMP)$'
      end)
  as more
from relation r";

const COLUMNS: &str = "
select a.attnum, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
  pg_catalog.pg_get_expr(d.adbin, d.adrelid)
from pg_catalog.pg_attribute a
left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
order by a.attnum";

/// Returns the statement that reads the policies for SELECT and INSERT in the order of their
/// names.
///
/// The column before the last one is true for policies that can only be evaluated on a row in the
/// table. They use a whole row (a variable with attribute number 0), read the table themselves, or
/// call a function that names it.
///
/// The last column is true for policies that must be planned for each caller.
fn policies_statement() -> String {
    format!(
        r"
select p.oid, p.polpermissive, p.polcmd::text,
  pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
  array(select distinct d.refobjsubid from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = p.polrelid
      and d.refobjsubid <> 0),
  pg_catalog.concat(p.polqual::text, p.polwithcheck::text) ~ ':varattno 0 '
    or pg_catalog.concat(pg_catalog.pg_get_expr(p.polqual, p.polrelid),
      pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)) ~ 'realtime\.messages'
    or exists (select from pg_catalog.pg_depend d join pg_catalog.pg_proc f on f.oid = d.refobjid
      where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
        and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        and (f.prosrc ~* 'realtime\W+messages'
          or pg_catalog.array_to_string(f.proconfig, ',') ~* 'search_path.*realtime'
          or exists (select from pg_catalog.pg_depend b
            where b.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and b.objid = f.oid
              and b.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and b.refobjid = p.polrelid))),
  exists (select from pg_catalog.pg_depend d join pg_catalog.pg_proc f on f.oid = d.refobjid
    where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
      and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and {MUST_PLAN_PER_CALLER})
from pg_catalog.pg_policy p
where p.polrelid = $1 and p.polcmd in ('r', 'a', '*')
order by p.polname"
    )
}

/// Returns the statement that reads the rights of roles. `set role` requires a membership, which
/// PostgreSQL 16 and later distinguish from a membership that inherits rights. Roles that
/// [`MAY_BE_ASSUMED`] excludes are refused, even if the login may switch to them.
fn roles_statement() -> String {
    format!(
        "
select r.rolname::text,
  {MAY_BE_ASSUMED} and case when pg_catalog.current_setting('server_version_num')::int4 >= 160000
    then pg_catalog.pg_has_role(session_user, r.oid, 'SET')
    else pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER') end,
  r.rolsuper or r.rolbypassrls
    or (pg_catalog.pg_has_role(r.oid, c.relowner, 'USAGE') and not c.relforcerowsecurity),
  pg_catalog.has_schema_privilege(r.oid, c.relnamespace, 'USAGE'),
  pg_catalog.has_column_privilege(r.oid, c.oid, 'id', 'SELECT'),
  (select pg_catalog.bool_and(pg_catalog.has_column_privilege(r.oid, c.oid, name, 'INSERT'))
   from pg_catalog.unnest(array['id', 'topic', 'extension', 'inserted_at', 'updated_at']) as name),
  array(select p.oid from pg_catalog.pg_policy p
    where p.polrelid = c.oid
      and exists (select from pg_catalog.unnest(p.polroles) as member (oid)
        where member.oid = 0 or pg_catalog.pg_has_role(r.oid, member.oid, 'USAGE')))
from pg_catalog.pg_roles r
cross join pg_catalog.pg_class c
where r.rolname = any($1) and c.oid = $2"
    )
}

const INVALID_PARAMETER_VALUE: &str = "22023";
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// How the result of a check is determined.
#[derive(Clone, Debug)]
pub(super) enum CheckMethod {
    /// The catalogue alone determines the result.
    Known(Result<Permissions, AuthorizeError>),
    /// The policies are evaluated on a message that is not in the table.
    Evaluate(Arc<Evaluation>),
    /// A message is inserted, and the insertion is rolled back.
    Insert,
}

/// A statement that evaluates policies. Its parameters are the topic and the id of a message, and a
/// list of extensions. It returns one row per extension.
#[derive(Debug)]
pub(super) struct Evaluation {
    /// The id of the statement, which is unique within this process.
    pub(super) id: u64,
    pub(super) sql: String,
    /// Whether each execution must be planned for its caller.
    pub(super) plans_per_caller: bool,
    /// Whether the statement cannot be prepared, or fails although an insertion succeeds. If so,
    /// insertions are used instead.
    is_unusable: AtomicBool,
}

impl Evaluation {
    fn new(sql: String, plans_per_caller: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            sql,
            plans_per_caller,
            is_unusable: AtomicBool::new(false),
        }
    }

    /// Makes insertions replace the statement.
    pub(super) fn mark_unusable(&self) {
        self.is_unusable.store(true, Ordering::Relaxed);
    }
}

/// One reading of the catalogue.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) fingerprint: String,
    table: Table,
    policies: Vec<Policy>,
    /// The rights by role, or `None` for a role that does not exist. A plain mutex: it is held only
    /// for a look-up or an insertion.
    roles: Mutex<HashMap<String, Option<Arc<RoleRights>>>>,
    /// How to run checks, by role and by whether they are about writing. A plain mutex: it is
    /// held only to look up or determine one entry.
    evaluations: Mutex<HashMap<(String, bool), CheckMethod>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Table {
    oid: u32,
    has_row_security: bool,
    /// Whether an insertion does more than find a partition and check the policies (see [`TABLE`]).
    /// If so, or if the table does not exist, all checks are insertions.
    insertion_does_more: bool,
    columns: Vec<Column>,
}

#[derive(Debug, PartialEq, Eq)]
struct Column {
    number: i16,
    name: String,
    type_sql: String,
    default: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Policy {
    oid: u32,
    is_permissive: bool,
    command: String,
    using: Option<String>,
    with_check: Option<String>,
    columns: Vec<i32>,
    /// Whether the policy can only be evaluated on a row in the table (see [`policies_statement`]).
    needs_stored_row: bool,
    plans_per_caller: bool,
}

#[derive(Debug)]
struct RoleRights {
    may_be_assumed: bool,
    bypasses_row_security: bool,
    may_use_schema: bool,
    may_select: bool,
    may_insert: bool,
    policies: Vec<u32>,
}

impl Reading {
    /// Reads everything except the roles in one snapshot. If nothing has changed, returns
    /// `previous`, so that everything prepared from it can be used again.
    pub(super) async fn load(
        client: &Client,
        previous: Option<Arc<Self>>,
    ) -> Result<Arc<Self>, tokio_postgres::Error> {
        client.batch_execute(BEGIN).await?;
        let reading = Self::read(client, previous).await;
        client.batch_execute("rollback").await?;
        reading
    }

    async fn read(
        client: &Client,
        previous: Option<Arc<Self>>,
    ) -> Result<Arc<Self>, tokio_postgres::Error> {
        let fingerprint: String = client.query_one(&fingerprint(), &[]).await?.try_get(0)?;
        let Some(row) = client.query_opt(TABLE, &[]).await? else {
            return Ok(Arc::new(Self::of(fingerprint, Table::absent(), Vec::new())));
        };
        let mut table = Table {
            oid: row.try_get(0)?,
            has_row_security: row.try_get(1)?,
            insertion_does_more: row.try_get(2)?,
            columns: Vec::new(),
        };
        for row in client.query(COLUMNS, &[&table.oid]).await? {
            table.columns.push(Column {
                number: row.try_get(0)?,
                name: row.try_get(1)?,
                type_sql: row.try_get(2)?,
                default: row.try_get(3)?,
            });
        }
        let mut policies = Vec::new();
        for row in client.query(&policies_statement(), &[&table.oid]).await? {
            policies.push(Policy::read(&row)?);
        }
        if let Some(previous) = previous
            && previous.fingerprint == fingerprint
            && previous.policies == policies
            && previous.table == table
        {
            return Ok(previous);
        }
        Ok(Arc::new(Self::of(fingerprint, table, policies)))
    }

    fn of(fingerprint: String, table: Table, policies: Vec<Policy>) -> Self {
        Self {
            fingerprint,
            table,
            policies,
            roles: Mutex::default(),
            evaluations: Mutex::default(),
        }
    }

    /// Returns the given roles whose rights are not loaded yet.
    pub(super) fn unknown<'a>(&self, roles: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        let known = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unknown: Vec<_> = roles.filter(|role| !known.contains_key(*role)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    /// Reads the rights of these roles. They are valid if the fingerprint is still the same
    /// afterwards.
    pub(super) async fn load_roles(
        &self,
        client: &Client,
        roles: &[&str],
    ) -> Result<(), tokio_postgres::Error> {
        let mut rights: HashMap<String, Option<Arc<RoleRights>>> = roles
            .iter()
            .map(|role| ((*role).to_owned(), None))
            .collect();
        for row in client
            .query(&roles_statement(), &[&roles, &self.table.oid])
            .await?
        {
            let role = RoleRights {
                may_be_assumed: row.try_get(1)?,
                bypasses_row_security: row.try_get(2)?,
                may_use_schema: row.try_get(3)?,
                may_select: row.try_get(4)?,
                may_insert: row.try_get(5)?,
                policies: row.try_get(6)?,
            };
            rights.insert(row.try_get(0)?, Some(Arc::new(role)));
        }
        let mut known = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + rights.len() > MAX_ROLES {
            known.clear();
        }
        known.extend(rights);
        Ok(())
    }

    /// Returns how to run a check for `role`. The rights of `role` must be loaded.
    pub(super) fn method(&self, role: &str, kind: CheckKind) -> CheckMethod {
        if self.table.insertion_does_more {
            return CheckMethod::Insert;
        }
        let rights = {
            let roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
            match roles.get(role) {
                Some(Some(rights)) => Arc::clone(rights),
                Some(None) => return refused(INVALID_PARAMETER_VALUE),
                None => return CheckMethod::Insert,
            }
        };
        if !rights.may_be_assumed {
            return refused(INSUFFICIENT_PRIVILEGE);
        }
        let is_write = kind == CheckKind::Write;
        let has_grants = if is_write {
            rights.may_insert
        } else {
            rights.may_select
        };
        if !rights.may_use_schema || !has_grants {
            // Without the grant, PostgreSQL refuses an insertion, so writing is not
            // allowed. A query that reads fails with an error.
            return if is_write {
                CheckMethod::Known(Ok(Permissions::default()))
            } else {
                refused(INSUFFICIENT_PRIVILEGE)
            };
        }
        if rights.bypasses_row_security || !self.table.has_row_security {
            return CheckMethod::Known(Ok(kind.mask(Permissions::ALL)));
        }
        let mut evaluations = self
            .evaluations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if evaluations.len() > 2 * MAX_ROLES {
            evaluations.clear();
        }
        let method = evaluations
            .entry((role.to_owned(), is_write))
            .or_insert_with(|| self.prepare(&rights, is_write));
        match method {
            CheckMethod::Known(Ok(permissions)) => CheckMethod::Known(Ok(kind.mask(*permissions))),
            CheckMethod::Evaluate(evaluation) if evaluation.is_unusable.load(Ordering::Relaxed) => {
                CheckMethod::Insert
            }
            method => method.clone(),
        }
    }

    fn prepare(&self, rights: &RoleRights, is_write: bool) -> CheckMethod {
        let command = if is_write { "a" } else { "r" };
        let policies: Vec<(&Policy, &str)> = self
            .policies
            .iter()
            .filter(|policy| policy.command == command || policy.command == "*")
            .filter(|policy| rights.policies.contains(&policy.oid))
            .filter_map(|policy| {
                let expression = match &policy.with_check {
                    Some(with_check) if is_write => Some(with_check),
                    _ => policy.using.as_ref(),
                };
                Some((policy, expression?.as_str()))
            })
            .collect();
        // PostgreSQL evaluates permissive policies in the reverse order of their names, and
        // restrictive policies in the order of their names. The order matters, because a policy
        // that would fail may come after a policy that has already decided.
        let permissive: Vec<&str> = policies
            .iter()
            .rev()
            .filter(|(policy, _)| policy.is_permissive)
            .map(|(_, expression)| *expression)
            .collect();
        if permissive.is_empty() {
            return CheckMethod::Known(Ok(Permissions::default()));
        }
        if permissive.len() == policies.len() && permissive.iter().all(|it| *it == "true") {
            return CheckMethod::Known(Ok(Permissions::ALL));
        }
        if policies.iter().any(|(policy, _)| policy.needs_stored_row) {
            return CheckMethod::Insert;
        }
        CheckMethod::Evaluate(Arc::new(Evaluation::new(
            self.statement(&policies, &permissive, is_write),
            policies.iter().any(|(policy, _)| policy.plans_per_caller),
        )))
    }

    /// Returns the statement that combines the policies in the order that PostgreSQL uses. For
    /// reading, restrictive policies come first; for writing, permissive policies come first. Any
    /// result except true means no.
    fn statement(
        &self,
        policies: &[(&Policy, &str)],
        permissive: &[&str],
        is_write: bool,
    ) -> String {
        let any = format!("({})", permissive.join(") or ("));
        let restrictive = policies
            .iter()
            .filter(|(policy, _)| !policy.is_permissive)
            .map(|(_, expression)| *expression);
        let all: Vec<&str> = if is_write {
            std::iter::once(any.as_str()).chain(restrictive).collect()
        } else {
            restrictive.chain(std::iter::once(any.as_str())).collect()
        };
        let condition = all
            .iter()
            .map(|expression| format!("coalesce(({expression}), false)"))
            .collect::<Vec<_>>()
            .join(" and ");
        let mut columns = String::new();
        for column in &self.table.columns {
            let given = match column.name.as_str() {
                "id" => "$2",
                "topic" => "$1",
                "extension" => EXTENSION,
                "inserted_at" | "updated_at" => "pg_catalog.now()",
                _ if policies
                    .iter()
                    .any(|(policy, _)| policy.columns.contains(&i32::from(column.number))) =>
                {
                    column.default.as_deref().unwrap_or("null")
                }
                _ => continue,
            };
            // Writing to a String cannot fail.
            let _ = write!(
                columns,
                ", ({given})::{} as \"{}\"",
                column.type_sql,
                column.name.replace('"', "\"\"")
            );
        }
        // The sub-select has the name of the table, so that column names in a policy refer to the
        // message. `offset 0` hides the values from the planner. If the planner knew the values, it
        // would drop expressions that a constant makes superfluous, and the errors of these
        // expressions as well.
        format!(
            "select {EXTENSION}, {condition} from (select {EXTENSION}{columns} \
             from pg_catalog.unnest($3::pg_catalog.text[]) as \"rapport input\" ({EXTENSION}) offset 0) as messages"
        )
    }
}

/// A column name that no policy can use. Unqualified names in a policy are columns of the table.
const EXTENSION: &str = "\"rapport extension\"";

impl Table {
    fn absent() -> Self {
        Self {
            oid: 0,
            has_row_security: true,
            insertion_does_more: true,
            columns: Vec::new(),
        }
    }
}

impl Policy {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            oid: row.try_get(0)?,
            is_permissive: row.try_get(1)?,
            command: row.try_get(2)?,
            using: row.try_get(3)?,
            with_check: row.try_get(4)?,
            columns: row.try_get(5)?,
            needs_stored_row: row.try_get(6)?,
            plans_per_caller: row.try_get(7)?,
        })
    }
}

fn refused(sqlstate: &str) -> CheckMethod {
    CheckMethod::Known(Err(AuthorizeError::Policy {
        sqlstate: sqlstate.to_owned(),
    }))
}
