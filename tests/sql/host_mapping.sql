-- The application's tables around the chat, and what each preset reads from them.

begin;
\ir support.sql

-- A team dashboard, with users, roles and teams from public.users.
select tests.equals((d.display_name, d.email, d.is_active, d.role, m.team_id)::text, '("Ada Adler",ada@example.com,t,admin,00000000-0000-4000-8000-00000000007a)', 'Ada')
from chat.directory d join chat.memberships m using (user_id) where d.user_id = tests.id('ada');

create function tests.references_to(people regclass)
returns bigint
language sql
as $$
  select count(*)
  from pg_constraint c
  where c.contype = 'f' and c.confrelid = people and c.conrelid in (
    'public.user_conversations'::regclass, 'public.user_conversation_members'::regclass, 'public.conversation_receipts'::regclass,
    'public.user_messages'::regclass, 'public.message_hides'::regclass, 'public.message_drafts'::regclass, 'public.message_reactions'::regclass,
    'public.user_presence'::regclass, 'public.user_blocks'::regclass, 'public.user_notification_preferences'::regclass)
$$;
select tests.equals(tests.references_to('public.users'), 14::bigint, 'references to users');

-- The views have the same owner as the table, because row-level security does not apply to that
-- owner.
select tests.equals(v.relowner, t.relowner, 'owner')
from pg_class v, pg_class t where v.oid = 'chat.directory'::regclass and t.oid = 'public.users'::regclass;

-- A second call changes nothing.
select tests.equals(chat.install_host_mapping('auto'), 'users_table', 'preset');
create temporary table catalogue_before on commit drop as
select c.oid, c.xmin::text as version from pg_class c union all select o.oid, o.xmin::text from pg_constraint o;
select chat.install_host_mapping('users_table');
select tests.equals(count(*), 0::bigint, 'changed by a second call')
from catalogue_before b
left join (select c.oid, c.xmin::text as version from pg_class c union all select o.oid, o.xmin::text from pg_constraint o) a using (oid)
where a.version is distinct from b.version;

-- A mapping that an earlier version recorded with fewer fields is completed.
update chat.config set value = jsonb_build_object('preset', 'users_table', 'people', 'public.users', 'text', value -> 'text') where key = 'host_mapping';
select tests.equals(chat.install_host_mapping('auto'), 'users_table', 'preset');
select tests.equals((value ->> 'team', value ->> 'people_key', value ->> 'is_provisional')::text, '(team_id,id,false)', 'recorded') from chat.config where key = 'host_mapping';

-- Team names are also shown to users who may not read the table of teams. A user may have no team,
-- or may be unknown to the application.
select tests.act_as('ana');
select tests.equals(chat.me()::jsonb, '{"id": "00000000-0000-4000-8000-00000000000a", "full_name": "Ana Alvarez", "email": "ana@example.com", "avatar_url": null, "role": "user", "teams": [{"id": "00000000-0000-4000-8000-00000000007a", "name": "Support"}], "can_write": true}', 'Ana');
select tests.act_as('owner');
update public.users set team_id = null, status = 'suspended' where id = tests.id('ben');
select tests.act_as('ben');
select tests.equals(chat.me()::jsonb - 'email', '{"id": "00000000-0000-4000-8000-00000000000b", "full_name": "Ben Brandt", "avatar_url": null, "role": "user", "teams": [], "can_write": false}', 'suspended');
select tests.act_as('owner');
update public.users set team_id = '00000000-0000-4000-8000-00000000007a', status = 'active' where id = tests.id('ben');
insert into tests.people values ('nobody', '00000000-0000-4000-8000-0000000000ff');
select tests.act_as('nobody');
select tests.equals(chat.me()::jsonb, '{"id": "00000000-0000-4000-8000-0000000000ff", "full_name": null, "email": null, "avatar_url": null, "role": null, "teams": [], "can_write": false}', 'unknown');
select tests.act_as('owner');

-- Relations are not used if users of the API can become their owner. The owner would decide who has
-- which team, and a view of the owner would run with the rights of the functions that read it.
savepoint before_owners;
alter table public.teams owner to authenticated;
select tests.equals(chat.install_host_mapping('auto'), 'users_table', 'preset');
select tests.equals(count(*), 0::bigint, 'names of teams') from chat.teams;
alter table public.users owner to authenticated;
select tests.expect_error($$select chat.install_host_mapping('auto')$$, 'RP003');
select tests.expect_error($$select chat.install_host_mapping('users_table')$$, 'RP003');
-- Another owner is trusted unless users of the API can create relations in the schema.
create role tests_application;
alter table public.users owner to tests_application;
select tests.equals(chat.is_trusted_host('public.users'), true, 'owned by the application');
grant create on schema public to public;
select tests.equals(chat.is_trusted_host('public.users'), false, 'users may create tables');
grant tests_application to authenticated;
revoke create on schema public from public;
select tests.equals(chat.is_trusted_host('public.users'), false, 'users can become the owner');
rollback to before_owners;

-- If the application renames columns, the mapping is rebuilt.
alter table public.teams rename column name to title;
alter table public.users rename column full_name to name;
alter table public.users rename column avatar_url to avatar;
alter table public.users rename column status to state;
select chat.install_host_mapping('auto');
select tests.equals((display_name, is_active)::text, '("Ana Alvarez",t)', 'Ana') from chat.directory where user_id = tests.id('ana');
select tests.equals(string_agg(name, ',' order by name), 'Operations,Sales,Support', 'teams') from chat.teams;
-- If the names of the teams or their table are missing, teams have no names.
drop view chat.teams;
alter table public.teams drop column title;
select chat.install_host_mapping('auto');
select tests.equals(count(*), 0::bigint, 'names') from chat.teams;
select tests.act_as('ana');
select tests.equals(chat.me() -> 'teams' ->> 0, '{"id" : "00000000-0000-4000-8000-00000000007a", "name" : null}', 'a team without a name');
select tests.act_as('owner');
drop table public.teams cascade;
select chat.install_host_mapping('auto');

-- Other names of roles.
drop view chat.directory;
alter table public.users alter column role drop default, alter column role type text using role::text;
update public.users set role = 'Owner' where id = tests.id('ana');
update public.users set role = 'ROOT' where id = tests.id('ben');
update public.users set role = 'janitor' where id = tests.id('zoe');
select chat.install_host_mapping('auto');
select tests.equals(string_agg(role, ',' order by user_id), 'admin,super_admin,user', 'roles')
from chat.directory where user_id in (tests.id('ana'), tests.id('ben'), tests.id('zoe'));

-- With accounts only, team and role come from server-side metadata, never from metadata that users
-- can change.
insert into auth.users (id, email, raw_app_meta_data, raw_user_meta_data)
values (gen_random_uuid(), 'max@example.com', '{"team_ids": ["t1", "t2"]}', '{"name": "Max", "role": "super_admin", "team_id": "t3"}');
select tests.equals(chat.install_host_mapping('claims'), 'claims', 'preset');
select tests.equals(tests.references_to('auth.users'), 14::bigint, 'references to accounts');
select tests.equals((display_name, role)::text, '(Max,user)', 'Max') from chat.directory where email = 'max@example.com';
select tests.equals(string_agg(m.team_id, ',' order by m.team_id), 't1,t2', 'teams') from chat.memberships m join chat.directory d using (user_id) where d.email = 'max@example.com';
select tests.equals((d.role, m.team_id)::text, '(admin,00000000-0000-4000-8000-00000000007a)', 'Ada') from chat.directory d join chat.memberships m using (user_id) where d.user_id = tests.id('ada');
update auth.users set banned_until = now() + interval '1 day' where id = tests.id('ada');
select tests.equals(is_active, false, 'banned') from chat.directory where user_id = tests.id('ada');
select tests.act_as('ana');
select tests.equals(created, true, 'same team') from chat.open_conversation(tests.id('ben'));
select tests.expect_error($$select chat.open_conversation(tests.id('zoe'))$$, 'not_allowed_recipient');

-- With one team for all users.
select tests.act_as('owner');
set constraints all immediate;
select tests.equals(chat.install_host_mapping('one_team'), 'one_team', 'preset');
select tests.act_as('ana');
select tests.equals(created, true, 'everybody') from chat.open_conversation(tests.id('zoe'));
select tests.act_as('owner');
set local rapport.team = 'acme';
select chat.install_host_mapping('one_team');
select tests.equals(team_id, 'acme', 'name of the one team') from chat.memberships where user_id = tests.id('ana');

select tests.expect_error($$select chat.install_host_mapping('basejump')$$, 'P0001');
-- The recorded preset is kept, whatever tables exist.
set constraints all immediate;
select tests.equals(chat.install_host_mapping('auto'), 'one_team', 'recorded');
select tests.equals(chat.install_host_mapping('users_table'), 'users_table', 'chosen');

-- If the tables of the preset are gone, no other preset is chosen without the operator.
drop table public.users cascade;
select tests.expect_error($$select chat.install_host_mapping('auto')$$, 'RP001');
select tests.equals(chat.install_host_mapping('claims'), 'claims', 'without a table of users');
select tests.expect_error($$select chat.install_host_mapping('users_table')$$, 'P0001');

-- If no user has a team, no preset is chosen. The operator's choice is kept nevertheless.
update auth.users set raw_app_meta_data = '{"role": "admin"}';
select tests.equals(chat.install_host_mapping('auto'), 'claims', 'chosen by name');
delete from chat.config where key = 'host_mapping';
select tests.expect_error($$select chat.install_host_mapping('auto')$$, 'RP001');
create table public.users (id uuid primary key, role text, team_id uuid);
insert into public.users (id) select id from auth.users;
select tests.expect_error($$select chat.install_host_mapping('auto')$$, 'RP001');
update public.users set team_id = tests.id('ana') where id = tests.id('ana');
select tests.equals(chat.install_host_mapping('auto'), 'users_table', 'one team is enough');

-- A table without users does not fit if there are accounts. Without any accounts, the existing
-- tables determine the preset.
delete from chat.config where key = 'host_mapping';
delete from public.users;
set constraints all immediate;
select tests.expect_error($$select chat.install_host_mapping('auto')$$, 'RP001');
delete from auth.users;
set constraints all immediate;
select tests.equals(chat.install_host_mapping('auto'), 'users_table', 'no users yet, with a table of users');
delete from chat.config where key = 'host_mapping';
drop table public.users cascade;
select tests.equals(chat.install_host_mapping('auto'), 'claims', 'no users yet, only accounts');
-- That choice is made again when there are users.
create table public.users (id uuid primary key, role text, team_id uuid);
select tests.equals(chat.install_host_mapping('auto'), 'claims', 'still no users');
insert into auth.users (id, email) values (tests.id('ana'), 'ana@example.com');
select tests.expect_error($$select chat.install_host_mapping('auto')$$, 'RP001');
insert into public.users values (tests.id('ana'), 'user', tests.id('ana'));
set constraints all immediate;
select tests.equals(chat.install_host_mapping('auto'), 'users_table', 'chosen from the data');
select tests.equals((value ->> 'is_provisional')::boolean, false, 'final') from chat.config where key = 'host_mapping';

-- The same applies to a preset that finds only users.
select tests.equals(chat.install_host_mapping('one_team'), 'one_team', 'chosen by name');
drop table public.users cascade;
set constraints all immediate;
select tests.expect_error($$select chat.install_host_mapping('auto')$$, 'RP001');

rollback;
