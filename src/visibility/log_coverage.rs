//! What the log holds of the rows of the published tables.
//!
//! A change of a partition that is published as one of its root (`publish_via_partition_root`) has the root's replica
//! identity on its label and what the partition's own identity keeps inside. Nothing passes the one
//! on to the other, and the change does not name the partition: what all partitions have in common is known.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::catalog::Table;
use super::error::AskError;

/// What is read here, as a part of the catalogue's fingerprint.
pub(super) const FINGERPRINT: &str = "
with recursive part as (
    select c.oid from relation r join pg_catalog.pg_class c on c.oid = r.oid where c.relkind = 'p'
    union
    select i.inhrelid from part join pg_catalog.pg_inherits i on i.inhparent = part.oid
  )
  select pg_catalog.string_agg(pg_catalog.concat_ws(':', c.oid, c.relreplident, i.indexrelid, i.xmin), ','
    order by c.oid, i.indexrelid)
  from part join pg_catalog.pg_class c on c.oid = part.oid
  left join pg_catalog.pg_index i on i.indrelid = c.oid and (i.indisprimary or i.indisreplident)";

/// For each column of a published table: whether the table is partitioned, whether old images are full in all relations
/// that store its rows, and whether the column is part of the replica identity of all of them.
const COVERAGE: &str = "
with recursive part as (
  select oid as root, oid from pg_catalog.unnest($1::pg_catalog.oid[]) as published (oid)
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
)
select c.oid, a.attname::text,
  c.relkind = 'p',
  not exists (select from stored where stored.root = c.oid and stored.relreplident <> 'f'),
  not exists (select from stored where stored.root = c.oid and not exists (
    select from identity_column
    where identity_column.oid = stored.oid and identity_column.attname = a.attname))
from pg_catalog.pg_class c
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.oid = any($1)";

/// Completes the tables of a reading of the catalogue, in its snapshot.
///
/// # Errors
/// When the database cannot be reached or does not let us read.
pub(super) async fn read(
    client: &Client,
    tables: &mut HashMap<u32, Table>,
) -> Result<(), AskError> {
    let oids: Vec<u32> = tables.keys().copied().collect();
    for row in client.query(COVERAGE, &[&oids]).await? {
        let Some(table) = tables.get_mut(&row.try_get::<_, u32>(0)?) else {
            continue;
        };
        table.is_partitioned = row.try_get(2)?;
        // A full image of a table that stores its own rows is what it says.
        table.has_whole_old_rows = !table.is_partitioned || row.try_get(3)?;
        let name: &str = row.try_get(1)?;
        let is_identity = row.try_get(4)?;
        if let Some(column) = table.columns.iter_mut().find(|known| known.name == name) {
            column.is_identity = is_identity;
        }
    }
    Ok(())
}
