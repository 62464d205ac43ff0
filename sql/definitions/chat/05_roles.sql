-- The roles that the server takes on.

-- Since PostgreSQL 16 whoever creates a role becomes its member with ADMIN and without SET (manual, "createrole_self_grant"),
-- and "set role" needs SET. Runs at each installation, because each may have another login.
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
      -- Without INHERIT the login has no right of the role until it takes the role on.
      execute format('grant %I to %I', role_name, current_user)
        || case when has_set_option then ' with set true, inherit false' else '' end;
    exception
      -- The other installer of the cluster granted it at this moment.
      when unique_violation then
        null;
      when insufficient_privilege or invalid_grant_operation then
        raise warning 'Could not grant % to %: the server cannot run as %. Have the grant made by a role with ADMIN on %.',
          role_name, current_user, current_user, role_name;
    end;
  end loop;
end
$$;

comment on function chat.grant_roles_to_installer() is
  'Lets the caller, who installs and usually runs the server, "set role" to each role that the server takes on. Does nothing when nothing is missing.';

revoke all on function chat.grant_roles_to_installer() from public;
