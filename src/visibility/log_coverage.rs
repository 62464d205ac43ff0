//! Determines which columns of published tables the WAL contains.
//!
//! If partitions are published as their root (`publish_via_partition_root`), a change has the
//! root's replica identity in its description, but its image contains the columns of the
//! partition's own identity. The change does not name the partition, and neither identity follows
//! from the other. Therefore only the columns that belong to the identity of every partition are
//! known to be present.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::error::QueryError;
use super::published::PUBLISHED;
use super::table::{GeneratedExpression, Table};

/// Part of the fingerprint: the published columns.
pub(super) const COLUMNS: &str = "
select pg_catalog.string_agg(pg_catalog.concat_ws(':', r.oid, r.attrs, r.has_generated), ',' order by r.oid)
  from relation r";

/// Part of the fingerprint: the expressions of generated columns.
pub(super) const EXPRESSIONS: &str = "
with recursive part as (
    select oid from relation
    union
    select i.inhrelid from part join pg_catalog.pg_class c on c.oid = part.oid and c.relkind = 'p'
      join pg_catalog.pg_inherits i on i.inhparent = part.oid
  )
  select pg_catalog.string_agg(pg_catalog.concat_ws(':', e.oid, e.xmin, f.oid, f.xmin), ',' order by e.oid, f.oid)
  from part
  join pg_catalog.pg_attribute a on a.attrelid = part.oid and a.attgenerated <> ''
  join pg_catalog.pg_attrdef e on e.adrelid = a.attrelid and e.adnum = a.attnum
  left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and d.objid = e.oid
    and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  left join pg_catalog.pg_proc f on f.oid = d.refobjid";

/// Part of the fingerprint: the content of old images of partitions.
pub(super) const PARTITIONS: &str = "
with recursive part as (
    select c.oid from relation r join pg_catalog.pg_class c on c.oid = r.oid where c.relkind = 'p'
    union
    select i.inhrelid from part join pg_catalog.pg_inherits i on i.inhparent = part.oid
  )
  select pg_catalog.string_agg(pg_catalog.concat_ws(':', c.oid, c.relreplident, i.indexrelid, i.xmin), ','
    order by c.oid, i.indexrelid)
  from part join pg_catalog.pg_class c on c.oid = part.oid
  left join pg_catalog.pg_index i on i.indrelid = c.oid and (i.indisprimary or i.indisreplident)";

/// Returns the statement that reads, for each column of a published table:
/// - the table and the column's name;
/// - whether the table is partitioned;
/// - whether old images are full in all relations that store rows of the table;
/// - whether the column is part of the replica identity of all these relations;
/// - whether the WAL contains the column;
/// - the expression of a generated column that the WAL does not contain, and the columns that it
///   reads.
///
/// A column list of the publication defines what may leave the database, so columns outside it are
/// never computed. If partitions have different expressions for a column, no expression is
/// returned.
fn coverage() -> String {
    format!(
        "
with recursive published as ({PUBLISHED}),
part as (
  select oid as root, oid from published
  union
  select part.root, i.inhrelid from part join pg_catalog.pg_inherits i on i.inhparent = part.oid
    join pg_catalog.pg_class c on c.oid = part.oid and c.relkind = 'p'
),
stored as (
  select part.root, c.oid, c.relreplident
  from part join pg_catalog.pg_class c on c.oid = part.oid
  where c.relkind = 'r'
),
identity_column as (
  select stored.oid, a.attname
  from stored
  join pg_catalog.pg_attribute a on a.attrelid = stored.oid and a.attnum > 0 and not a.attisdropped
  left join pg_catalog.pg_index i on i.indrelid = stored.oid and case stored.relreplident
    when 'd' then i.indisprimary and i.indimmediate
    when 'i' then i.indisreplident
    else false end
  where stored.relreplident = 'f' or a.attnum = any((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1])
),
generated as (
  select part.root, a.attrelid, a.attname, e.oid, pg_catalog.pg_get_expr(e.adbin, e.adrelid) as expression
  from part
  join pg_catalog.pg_attribute a on a.attrelid = part.oid and a.attgenerated <> '' and not a.attisdropped
  join pg_catalog.pg_attrdef e on e.adrelid = a.attrelid and e.adnum = a.attnum
)
select c.oid, a.attname::text,
  c.relkind = 'p',
  not exists (select from stored where stored.root = c.oid and stored.relreplident <> 'f'),
  not exists (select from stored where stored.root = c.oid and not exists (
    select from identity_column
    where identity_column.oid = stored.oid and identity_column.attname = a.attname)),
  case when published.attrs is null then a.attgenerated = '' or a.attgenerated = 's' and published.has_generated
    else a.attnum = any(published.attrs::pg_catalog.int2[]) end,
  case when published.attrs is null and not exists (
    select from generated other
    where other.root = c.oid and other.attname = a.attname and other.expression <> g.expression)
  then g.expression end,
  array(select d.refobjsubid::pg_catalog.int2 from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and d.objid = g.oid
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = c.oid
      and d.refobjsubid > 0 and d.refobjsubid <> a.attnum)
from published
join pg_catalog.pg_class c on c.oid = published.oid
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join generated g on g.attrelid = c.oid and g.root = c.oid and g.attname = a.attname
order by c.oid, a.attnum"
    )
}

/// Adds the coverage to the tables of a reading, in the snapshot of the reading.
///
/// # Errors
/// If the database is unreachable or refuses a statement.
pub(super) async fn read(
    client: &Client,
    publication: &str,
    tables: &mut HashMap<u32, Table>,
) -> Result<(), QueryError> {
    for row in client.query(&coverage(), &[&publication]).await? {
        let Some(table) = tables.get_mut(&row.try_get::<_, u32>(0)?) else {
            continue;
        };
        table.is_partitioned = row.try_get(2)?;
        // The images of a table that is not partitioned are always marked correctly as full or not.
        table.has_whole_old_rows = !table.is_partitioned || row.try_get(3)?;
        let name: &str = row.try_get(1)?;
        let Some(column) = table.columns.iter_mut().find(|known| known.name == name) else {
            continue;
        };
        column.is_identity = row.try_get(4)?;
        column.is_logged = row.try_get(5)?;
        let expression: Option<String> = row.try_get(6)?;
        let columns: Vec<i16> = row.try_get(7)?;
        column.generated = expression
            .filter(|_| !column.is_logged)
            .map(|sql| GeneratedExpression { sql, columns });
    }
    Ok(())
}
