//! Reads which tables a publication contains, without locking any of them.
//!
//! `pg_get_publication_tables()` returns the same tables. Since PostgreSQL 16, however, it opens
//! each table to list its columns, and therefore waits for an `ALTER TABLE` in any open
//! transaction. The changes of all other tables would then wait, too.

/// Returns the tables of the publication `$1`: `oid`; `attrs`, the column numbers of an explicit
/// column list; and `has_generated`, whether the WAL contains stored generated columns of tables
/// without a list (`publish_generated_columns`, PostgreSQL 18).
///
/// With `publish_via_partition_root`, a partition is published under the topmost published table
/// above it. Without it, a partitioned table stands for its leaves (PostgreSQL manual, CREATE
/// PUBLICATION). Temporary tables, unlogged tables and system tables are never published. The oids
/// of system tables are below 16384, which is the first oid that `initdb` leaves for users.
pub(super) const PUBLISHED: &str = "
  with recursive publication as (
    select p.oid, p.puballtables, p.pubviaroot,
      -- by name, because the column is missing before PostgreSQL 18
      coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', 'n') = 's' as has_generated
    from pg_catalog.pg_publication p
    where p.pubname = $1
  ),
  named as (
    select m.prrelid as oid
    from publication p join pg_catalog.pg_publication_rel m on m.prpubid = p.oid
    union
    select c.oid
    from publication p
    join pg_catalog.pg_publication_namespace n on n.pnpubid = p.oid
    join pg_catalog.pg_class c on c.relnamespace = n.pnnspid
    where c.relkind in ('r', 'p') and c.relpersistence = 'p'
    union
    select c.oid
    from publication p cross join pg_catalog.pg_class c
    where p.puballtables and c.relkind in ('r', 'p') and c.relpersistence = 'p' and c.oid >= 16384
  ),
  partition as (
    select i.inhrelid as oid
    from named t
    join pg_catalog.pg_partitioned_table parent on parent.partrelid = t.oid
    join pg_catalog.pg_inherits i on i.inhparent = parent.partrelid
    union
    select i.inhrelid
    from partition t
    join pg_catalog.pg_partitioned_table parent on parent.partrelid = t.oid
    join pg_catalog.pg_inherits i on i.inhparent = parent.partrelid
  )
  select t.oid, m.prattrs as attrs, p.has_generated
  from publication p
  cross join (select n.oid from named n union select l.oid from partition l) as t
  join pg_catalog.pg_class c on c.oid = t.oid
  left join pg_catalog.pg_publication_rel m on m.prpubid = p.oid and m.prrelid = t.oid
  where case
    when p.pubviaroot then t.oid not in (select l.oid from partition l)
    else c.relkind = 'r'
  end";
