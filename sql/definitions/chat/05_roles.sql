-- The roles that the server switches to.

-- Since PostgreSQL 16, a role that creates another becomes its member with the option ADMIN but
-- without SET (manual, "createrole_self_grant"), and "set role" needs SET. This runs at every
-- installation, because each installation may use another login.
create or replace function chat.grant_roles_to_installer()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  has_set_option constant boolean := current_setting('server_version_num')::int >= 160000;
  role_name text;
begin
  foreach role_name in array array['rapport_request', 'anon', 'authenticated', 'service_role'] loop
    continue when pg_has_role(current_user, role_name, case when has_set_option then 'SET' else 'MEMBER' end);
    begin
      -- Without INHERIT, the login has none of the role's rights until it switches to the role.
      execute format('grant %I to %I', role_name, current_user)
        || case when has_set_option then ' with set true, inherit false' else '' end;
    exception
      -- A concurrent installation in the same cluster has just granted it.
      when unique_violation then
        null;
      when insufficient_privilege or invalid_grant_operation then
        raise warning 'Could not grant % to %: the server cannot run as %. A role with ADMIN on % must make the grant.',
          role_name, current_user, current_user, role_name;
    end;
  end loop;
end
$$;

comment on function chat.grant_roles_to_installer() is
  'Allows the calling login to "set role" to each role that the server uses. The server usually connects with the login that installs the schema. Does nothing if nothing is missing.';

revoke all on function chat.grant_roles_to_installer() from public;
