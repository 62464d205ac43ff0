//! Computes a short text that changes with everything that determines who may see the rows of a
//! table.
//!
//! This is the only list of these facts. It serves both row changes and private channels. Code that
//! caches policies, rights or roles compares the fingerprint before it relies on them.

/// Returns the statement that computes the fingerprint as one text. `tables` is a query that
/// returns the oids of the tables as `oid`. `more` are subqueries that return one text each, for
/// other facts that the caller caches. They can refer to the tables as `relation`. All aggregates
/// are ordered, so that equal catalogues result in equal texts.
///
/// The fingerprint covers each table with its row-level security, owner and grants; its columns;
/// its policies and the objects to which they refer; all schemas; and all roles with their
/// memberships. Those objects are included because callers cache the text of a policy, which
/// contains their names, and renaming an object does not change the row of the policy. A row of a
/// catalogue table is represented by its version (`xmin`). Only roles are listed by value, because
/// they are readable only through the view `pg_roles`, which has no `xmin`.
pub(crate) fn statement(tables: &str, more: &[&str]) -> String {
    let more: String = more.iter().map(|text| format!(",\n  ({text})")).collect();
    format!(
        "
with relation as ({tables})
select pg_catalog.md5(pg_catalog.concat_ws('|',
  (select pg_catalog.string_agg(pg_catalog.concat_ws(':', c.oid, c.xmin), ',' order by c.oid)
   from relation r join pg_catalog.pg_class c on c.oid = r.oid),
  (select pg_catalog.string_agg(pg_catalog.concat_ws(':', a.attrelid, a.attnum, a.xmin), ','
     order by a.attrelid, a.attnum)
   from relation r join pg_catalog.pg_attribute a on a.attrelid = r.oid where a.attnum > 0),
  (select pg_catalog.string_agg(pg_catalog.concat_ws(':', p.oid, p.xmin), ',' order by p.oid)
   from relation r join pg_catalog.pg_policy p on p.polrelid = r.oid),
  (select pg_catalog.string_agg(pg_catalog.concat_ws(':', d.refclassid, d.refobjid, d.refobjsubid,
     f.xmin, c.xmin, a.xmin), ',' order by p.oid, d.refclassid, d.refobjid, d.refobjsubid)
   from relation r
   join pg_catalog.pg_policy p on p.polrelid = r.oid
   join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
   left join pg_catalog.pg_proc f
     on d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and f.oid = d.refobjid
   left join pg_catalog.pg_class c
     on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and c.oid = d.refobjid
   left join pg_catalog.pg_attribute a
     on d.refobjsubid > 0 and a.attrelid = c.oid and a.attnum = d.refobjsubid),
  (select pg_catalog.string_agg(pg_catalog.concat_ws(':', n.oid, n.xmin), ',' order by n.oid)
   from pg_catalog.pg_namespace n where n.nspname !~ '^pg_(toast_)?temp_'),
  (select pg_catalog.string_agg(pg_catalog.concat_ws(':', r.oid, r.rolname, r.rolsuper, r.rolinherit,
     r.rolbypassrls), ',' order by r.oid)
   from pg_catalog.pg_roles r),
  (select pg_catalog.string_agg(pg_catalog.concat_ws(':', m.roleid, m.member, m.xmin), ','
     order by m.roleid, m.member, m.xmin::text)
   from pg_catalog.pg_auth_members m){more}
))"
    )
}
