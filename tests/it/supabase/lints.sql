-- The lints of Supabase's Security and Performance Advisor, each as a view over the catalogue that
-- returns the offending objects, under the advisor's number and name. The advisor ignores some
-- cases (missing rights, roles without requests). These views also report those cases, so that they
-- find everything that the advisor finds.
--
-- These lints are absent: 0005 unused_index and 0020 table_bloat depend on usage. 0012
-- auth_allow_anonymous_sign_ins depends on the project's settings. 0027
-- pg_graphql_authenticated_table_exposed reports every table that clients read
-- (docs/operations.md).

create schema lints;

-- Tables and views in the schemas that Rapport uses. API requests reach only the ones in public.
-- The advisor ignores Supabase's own schemas. The tables of realtime are included here, because
-- Rapport creates policies on them. Partitions are omitted, because they are used through their
-- parent.
create view lints.relation as
select
  c.oid,
  c.oid::regclass::text as name,
  c.relkind,
  c.relrowsecurity,
  c.reloptions,
  n.nspname = 'public' as is_exposed,
  has_table_privilege('anon', c.oid, 'select') or has_any_column_privilege('anon', c.oid, 'select') as anon_reads,
  has_table_privilege('authenticated', c.oid, 'select')
    or has_any_column_privilege('authenticated', c.oid, 'select') as authenticated_reads
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('public', 'chat', 'realtime') and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition;

-- The functions of auth and realtime are omitted. Their text must equal Supabase's, which sets no
-- search path.
create view lints.function as
select p.oid, p.oid::regprocedure::text as name, p.prosecdef, p.proconfig, n.nspname = 'public' as is_exposed
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
where n.nspname in ('public', 'chat')
  and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e');

create view lints.policy as
select
  r.oid as relation,
  format('%s: %s', r.name, p.polname) as name,
  r.relrowsecurity,
  p.polpermissive,
  p.polcmd,
  p.polroles,
  coalesce(pg_get_expr(p.polqual, p.polrelid), '') as reads,
  coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '') as writes
from pg_policy p
join lints.relation r on r.oid = p.polrelid;

-- An index is sufficient if it begins with the columns of the key, in the same order.
create view lints."0001_unindexed_foreign_keys" as
select format('%s: %s', r.name, k.conname) as culprit
from lints.relation r
join pg_constraint k on k.conrelid = r.oid and k.contype = 'f'
where not exists (
  select
  from pg_index i
  where i.indrelid = k.conrelid
    and i.indisvalid
    and (i.indkey::int2[])[0:cardinality(k.conkey) - 1] = k.conkey
    -- A row in which one of the columns is null references nothing.
    and (i.indpred is null or pg_get_expr(i.indpred, i.indrelid) in (
      select format('(%I IS NOT NULL)', a.attname)
      from pg_attribute a
      where a.attrelid = k.conrelid and a.attnum = any (k.conkey)
    ))
);

create view lints."0002_auth_users_exposed" as
select distinct r.name as culprit
from lints.relation r
join pg_rewrite w on w.ev_class = r.oid
join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
where r.is_exposed
  and r.relkind in ('v', 'm')
  and d.refclassid = 'pg_class'::regclass
  and d.refobjid = to_regclass('auth.users');

-- Without a surrounding "(select …)", the function is called for each row.
create view lints."0003_auth_rls_initplan" as
select p.name as culprit
from lints.policy p
where regexp_replace(p.reads || p.writes, '\( SELECT \(*(auth\.\w+|current_setting)\(', '', 'g')
  ~ '(auth\.(uid|role|email|jwt)|current_setting)\(';

create view lints."0004_no_primary_key" as
select r.name as culprit
from lints.relation r
where r.relkind in ('r', 'p')
  and not exists (select from pg_index i where i.indrelid = r.oid and i.indisprimary);

create view lints."0006_multiple_permissive_policies" as
select format('%s: %s, %s', p.relation::regclass, role, command) as culprit
from lints.policy p
cross join unnest(array['anon', 'authenticated', 'service_role']) as role
cross join unnest(case p.polcmd when '*' then array['r', 'a', 'w', 'd'] else array[p.polcmd::text] end) as command
where p.polpermissive and (0 = any (p.polroles) or role::regrole = any (p.polroles))
group by p.relation, role, command
having count(*) > 1;

create view lints."0007_policy_exists_rls_disabled" as
select p.name as culprit from lints.policy p where not p.relrowsecurity;

create view lints."0008_rls_enabled_no_policy" as
select r.name as culprit
from lints.relation r
where r.relrowsecurity and not exists (select from lints.policy p where p.relation = r.oid);

create view lints."0009_duplicate_index" as
select format('%s: %s', r.name, string_agg(i.indexrelid::regclass::text, ', ')) as culprit
from lints.relation r
join pg_index i on i.indrelid = r.oid
join pg_class c on c.oid = i.indexrelid
group by
  r.name, c.relam, i.indkey, i.indclass, i.indcollation, i.indoption,
  pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)
having count(*) > 1;

create view lints."0010_security_definer_view" as
select r.name as culprit
from lints.relation r
where r.is_exposed
  and r.relkind = 'v'
  and not coalesce(r.reloptions && array['security_invoker=true', 'security_invoker=on', 'security_invoker=1'], false);

create view lints."0011_function_search_path_mutable" as
select f.name as culprit
from lints.function f
where not exists (select from unnest(f.proconfig) setting where setting like 'search_path=%');

create view lints."0013_rls_disabled_in_public" as
select r.name as culprit
from lints.relation r
where r.is_exposed and r.relkind in ('r', 'p') and not r.relrowsecurity;

create view lints."0014_extension_in_public" as
select e.extname as culprit from pg_extension e where e.extnamespace = 'public'::regnamespace;

-- Users can write their own metadata.
create view lints."0015_rls_references_user_metadata" as
select p.name as culprit from lints.policy p where p.reads || p.writes ~ 'user_meta_?data';

create view lints."0016_materialized_view_in_api" as
select r.name as culprit
from lints.relation r
where r.is_exposed and r.relkind = 'm' and (r.anon_reads or r.authenticated_reads);

create view lints."0017_foreign_table_in_api" as
select r.name as culprit
from lints.relation r
where r.is_exposed and r.relkind = 'f' and (r.anon_reads or r.authenticated_reads);

-- Among these types, pg_upgrade supports only regclass, regrole and regtype.
create view lints."0018_unsupported_reg_types" as
select format('%s: %s', r.name, a.attname) as culprit
from lints.relation r
join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
join pg_type t on t.oid = a.atttypid
where t.typnamespace = 'pg_catalog'::regnamespace
  and t.typname ~ '^_?reg(collation|config|dictionary|namespace|oper|operator|proc|procedure)$';

-- The queues of pgmq are tables. API requests reach them if pgmq_public is exposed.
create view lints."0019_insecure_queue_exposed_in_api" as
select c.oid::regclass::text as culprit
from pg_class c
where c.relnamespace = to_regnamespace('pgmq')
  and to_regnamespace('pgmq_public') is not null
  and c.relname like 'q\_%'
  and not c.relrowsecurity;

-- Supabase removes unique constraints of its tables, but never a primary key.
create view lints."0021_fkey_to_auth_unique" as
select format('%s: %s', r.name, k.conname) as culprit
from lints.relation r
join pg_constraint k on k.conrelid = r.oid and k.contype = 'f'
join pg_class target on target.oid = k.confrelid
join pg_index i on i.indexrelid = k.conindid
where target.relnamespace = to_regnamespace('auth') and not i.indisprimary;

create view lints."0022_extension_versions_outdated" as
select e.extname as culprit
from pg_extension e
join pg_available_extensions a on a.name = e.extname
where e.extversion <> a.default_version;

create view lints."0023_sensitive_columns_exposed" as
select format('%s: %s', r.name, a.attname) as culprit
from lints.relation r
join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
where r.is_exposed
  and r.relkind in ('r', 'p')
  and not r.relrowsecurity
  and a.attname ~* '(passw|pwd|secret|api_?key|token|jwt|otp|auth_code|ssn|social_security|passport|license|national_id|tax_id|card_number|credit_card|cvv|iban|swift|account_number|routing_number|medical|health|diagnosis|patient|insurance|mac_address|imei|device_uuid|ssh_key|pgp_key|certificate|fingerprint|biometric|facial)';

create view lints."0024_rls_policy_always_true" as
select p.name as culprit
from lints.policy p
where p.polpermissive
  and (p.reads ~ '^\(?(true|(.+) = \2)\)?$' or p.writes ~ '^\(?(true|(.+) = \2)\)?$');

-- Clients read the files of a public bucket by address. A policy that checks only the bucket would
-- also let every client list its files.
create view lints."0025_public_bucket_allows_listing" as
select p.polname as culprit
from pg_policy p
where p.polrelid = to_regclass('storage.objects')
  and p.polpermissive
  and p.polcmd in ('r', '*')
  and pg_get_expr(p.polqual, p.polrelid) ~ '^\(?(true|bucket_id = ''[^'']*''::text)\)?$';

create view lints."0026_pg_graphql_anon_table_exposed" as
select r.name as culprit from lints.relation r where r.is_exposed and r.anon_reads;

create view lints."0028_anon_security_definer_function_executable" as
select f.name as culprit
from lints.function f
where f.is_exposed and f.prosecdef and has_function_privilege('anon', f.oid, 'execute');

create view lints."0029_authenticated_security_definer_function_executable" as
select f.name as culprit
from lints.function f
where f.is_exposed and f.prosecdef and has_function_privilege('authenticated', f.oid, 'execute');
