-- Rules for every object in the schema, including objects added later.

begin;
\ir support.sql

create function tests.none(what text, culprits text[])
returns void
language plpgsql
as $$
begin
  if cardinality(culprits) > 0 then
    raise exception '%: %', what, array_to_string(culprits, ', ');
  end if;
end
$$;

-- Rapport's functions: all functions in chat, and the ones in public that use chat.
create view tests.functions as
select p.oid, p.oid::regprocedure::text as name, p.proacl, p.proconfig, p.prosecdef
from pg_proc p
where p.pronamespace = 'chat'::regnamespace
  or (p.pronamespace = 'public'::regnamespace and p.prosrc like '%chat.%');

-- A caller's temporary types and relations must be the last match for a name.
select tests.none('functions whose search_path does not end in pg_temp', array_agg(f.name))
from tests.functions f where not coalesce('search_path=pg_catalog, pg_temp' = any (f.proconfig), false);

select tests.none('functions that every role may call', array_agg(f.name))
from tests.functions f
where (f.proacl is null or exists (select from aclexplode(f.proacl) a where a.grantee = 0)) and f.name not in ('chat.is_chat_topic(text)', 'chat.is_requested_topic(text,text)');

select tests.none('functions that anon may call', array_agg(f.name))
from tests.functions f
where has_function_privilege('anon', f.oid, 'execute') and f.name not in ('chat.is_chat_topic(text)', 'chat.is_requested_topic(text,text)');

-- Every user can take and keep an advisory lock. An idempotency lock is an exception, because its
-- key contains a secret of the caller.
select tests.none('functions that advisory locks can stop', array_agg(f.name))
from tests.functions f
join pg_proc p on p.oid = f.oid
where p.prosrc ~ 'advisory_' and f.name not like 'chat.claim_idempotency_key(%';

-- Disabling a type of plan node raises the cost of a plan that uses it nevertheless. Such a plan
-- would be compiled at every execution.
select tests.none('functions that disable plan types but not compilation', array_agg(f.name))
from tests.functions f
where exists (select from unnest(f.proconfig) c where c like 'enable\_%=off')
  and not 'jit=off' = any (f.proconfig);

-- Clients may not call functions that accept two arbitrary users.
select tests.none('functions that accept two users', array_agg(f.name))
from tests.functions f
join pg_proc p on p.oid = f.oid
where has_function_privilege('authenticated', f.oid, 'execute')
  and (select count(*) from unnest(p.proargtypes) t (oid) where t.oid = 'uuid'::regtype) > 1
  and f.name not in ('get_or_create_conversation(uuid,uuid)', 'chat.mark_read(uuid,uuid)', 'chat.mark_message_delivered(uuid,uuid)', 'chat.mark_unread(uuid,uuid)', 'mark_conversation_read(uuid,uuid)',
    'chat.send_message(uuid,text,text,text,text,uuid,uuid[],jsonb,text,text,bigint,text)',
    -- These functions return only the caller's own data.
    'chat.member_page(uuid,integer,uuid)',
    'chat.changed_messages(pg_snapshot,pg_snapshot,uuid,xid8,uuid,integer)',
    'chat.sync(text,timestamp with time zone,text,text,text,boolean,timestamp with time zone,uuid,text,uuid,integer)',
    'chat.pin_page(uuid,integer,timestamp with time zone,uuid)',
    -- These functions read only their arguments.
    'chat.search_keys(uuid,bigint,uuid,text,text,text)');

-- Rapport's tables
create view tests.tables as
select c.oid, c.oid::regclass::text as name, c.relrowsecurity, c.relreplident, c.relacl, c.relkind
from pg_class c
where c.relkind in ('r', 'v', 'S', 'm') and (
  c.relnamespace = 'chat'::regnamespace
  or (c.relnamespace = 'public'::regnamespace and c.relname ~ '^(user_conversation|conversation_|user_message|message_|user_presence|user_block|user_notification)')
);

select tests.none('without row-level security', array_agg(t.name))
from tests.tables t where t.relkind = 'r' and not t.relrowsecurity and t.name not like 'chat.%';

select tests.none('under row-level security and without a policy', array_agg(t.name))
from tests.tables t where t.relrowsecurity and not exists (select from pg_policy p where p.polrelid = t.oid);

select tests.none('granted to every role', array_agg(t.name))
from tests.tables t where exists (select from aclexplode(t.relacl) a where a.grantee = 0);

select tests.none('accessible to anon or rapport_request', array_agg(t.name || ' to ' || r.name))
from tests.tables t, unnest(array['anon', 'rapport_request']) r (name)
where t.relkind in ('r', 'v')
  and (has_table_privilege(r.name, t.oid, 'select, insert, update, delete, truncate, references, trigger') or has_any_column_privilege(r.name, t.oid, 'select, insert, update'));

-- System columns reveal locks, and currtid2() follows the versions of every row, regardless of
-- row-level security. Both require a grant on the whole table.
select tests.none('granted as a whole', array_agg(t.name))
from tests.tables t
where has_table_privilege('authenticated', t.oid, 'select');
select tests.none('columns that "select *" would fail on', array_agg(t.name || '.' || a.attname))
from tests.tables t
join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
where has_any_column_privilege('authenticated', t.oid, 'select') and not has_column_privilege('authenticated', t.oid, a.attnum, 'select');

-- "explain" shows every role the values that the planner has sampled.
select tests.none('columns with statistics although users write them', array_agg(a.attrelid::regclass || '.' || a.attname))
from pg_attribute a
where a.attnum > 0
  and not a.attisdropped
  and a.atttypid in ('text'::regtype, 'jsonb'::regtype, 'uuid[]'::regtype, 'text[]'::regtype)
  and coalesce(a.attstattarget, -1) <> 0
  and (
    a.attrelid in (select t.oid from tests.tables t where t.relkind = 'r' and has_any_column_privilege('authenticated', t.oid, 'select'))
    or a.attrelid in (select p.relid from pg_partition_tree('realtime.messages') p)
  )
  -- Columns whose few possible values the schema lists.
  and (a.attrelid::regclass::text, a.attname) not in (
    ('user_conversations', 'kind'), ('user_conversation_members', 'member_role'), ('user_conversation_members', 'notification_level'),
    ('user_messages', 'message_type'), ('user_presence', 'status'), ('user_presence', 'manual_status'), ('user_notification_preferences', 'email_mode')
  )
  and a.attname <> 'extension';

select tests.none('sequences accessible to clients', array_agg(t.name || ' to ' || r.name))
from tests.tables t, unnest(array['anon', 'authenticated', 'rapport_request']) r (name)
where t.relkind = 'S' and has_sequence_privilege(r.name, t.oid, 'usage, select, update');

-- The role that idle pooled connections use has no rights.
select tests.none('memberships of rapport_request', array_agg(m.roleid::regrole::text)) from pg_auth_members m where m.member = 'rapport_request'::regrole;
select tests.equals((rolcanlogin, rolinherit, rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, rolreplication)::text, '(f,f,f,f,f,f,f)', 'rapport_request') from pg_roles where rolname = 'rapport_request';
select tests.none('schemas accessible to rapport_request', array_agg(s)) from unnest(array['chat', 'auth', 'realtime']) s where has_schema_privilege('rapport_request', s, 'usage');

-- The published tables, and the ones that must never be published.
select tests.equals(string_agg(tablename, ' ' order by tablename), 'conversation_receipts message_reactions user_conversation_members user_conversations user_messages user_presence', 'published')
from pg_publication_tables where pubname = 'supabase_realtime' and schemaname in ('public', 'chat') and tablename ~ '^(user_|message_|conversation_)';
select tests.none('published without its full identity', array_agg(t.name))
from tests.tables t join pg_publication_rel r on r.prrelid = t.oid where t.relreplident <> 'f';
select tests.none('generated columns', array_agg(a.attrelid::regclass || '.' || a.attname))
from pg_attribute a join tests.tables t on t.oid = a.attrelid where a.attgenerated <> '';

-- Every foreign key has an index that starts with its columns.
select tests.none('foreign keys without an index', array_agg(c.conname))
from pg_constraint c
join tests.tables t on t.oid = c.conrelid
where c.contype = 'f'
  and not exists (
    select from pg_index i where i.indrelid = c.conrelid and (i.indkey::int2[])[0:cardinality(c.conkey) - 1] = c.conkey
  );

-- Outside of a sub-select, a policy would call chat.my_id() once per row.
select tests.none('policies that call chat.my_id() for each row', array_agg(p.polrelid::regclass || ': ' || p.polname))
from pg_policy p
join tests.tables t on t.oid = p.polrelid
where regexp_replace(coalesce(pg_get_expr(p.polqual, p.polrelid), '') || coalesce(pg_get_expr(p.polwithcheck, p.polrelid), ''), 'SELECT chat\.my_id\(\)', '', 'g') like '%chat.my_id()%';

-- PostgreSQL evaluates policies, views, defaults and conditions with the search_path of the
-- session. A function that sets no search_path, such as auth.uid(), would find the session's
-- temporary types.
create view tests.expressions as
select 'pg_policy'::regclass as classid, p.oid as objid, p.polrelid as relation from pg_policy p
union all select 'pg_rewrite'::regclass, r.oid, r.ev_class from pg_rewrite r
union all select 'pg_attrdef'::regclass, a.oid, a.adrelid from pg_attrdef a
union all select 'pg_constraint'::regclass, c.oid, c.conrelid from pg_constraint c
union all select 'pg_trigger'::regclass, t.oid, t.tgrelid from pg_trigger t
union all select 'pg_class'::regclass, i.indexrelid, i.indrelid from pg_index i;
select tests.none('expressions that call a function without a search_path of its own',
  array_agg(pg_describe_object(d.classid, d.objid, d.objsubid) || ' calls ' || f.oid::regprocedure))
from tests.expressions e
join pg_depend d on d.classid = e.classid and d.objid = e.objid and d.refclassid = 'pg_proc'::regclass
join pg_proc f on f.oid = d.refobjid
where (e.relation in (select t.oid from tests.tables t) or e.relation in (select p.relid from pg_partition_tree('realtime.messages') p))
  and f.pronamespace <> 'pg_catalog'::regnamespace
  and not coalesce('search_path=pg_catalog, pg_temp' = any (f.proconfig), false);
select tests.holds(count(distinct e.objid) > 10, 'control: expressions that call functions')
from tests.expressions e
join pg_depend d on d.classid = e.classid and d.objid = e.objid and d.refobjid = 'chat.my_id()'::regprocedure
where e.relation in (select t.oid from tests.tables t);

-- UPDATE, DELETE or TRUNCATE on a whole table allows "lock table ... in access exclusive mode",
-- with which one user could block all others. DELETE cannot be granted per column.
select tests.none('tables that clients can lock as a whole', array_agg(t.oid::regclass || ' by ' || r.name))
from (select t.oid from tests.tables t where t.relkind = 'r' union all select p.relid from pg_partition_tree('realtime.messages') p) t (oid),
  unnest(array['anon', 'authenticated']) r (name)
where has_table_privilege(r.name, t.oid, 'update, delete, truncate')
  and t.oid not in ('public.message_reactions'::regclass, 'public.user_blocks'::regclass);

select tests.none('tables without a comment', array_agg(t.name)) from tests.tables t where t.relkind in ('r', 'v') and obj_description(t.oid, 'pg_class') is null;

rollback;
