-- The caller of a statement, for expressions that PostgreSQL evaluates with the caller's
-- search_path: policies, views and defaults. The text of auth.uid() is Supabase's and names types
-- without a schema. Called from such an expression, it would use a temporary type of the caller, or
-- one that an earlier user of a pooled connection left behind, and run that type's casts as the
-- caller.

-- In plpgsql, because it keeps its plan. The setting of search_path prevents inlining.
create or replace function chat.my_id()
returns uuid
language plpgsql
stable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return auth.uid();
end
$$;

comment on function chat.my_id() is
  'The caller''s id: auth.uid(), independent of the session''s search_path. Policies use "(select chat.my_id())", which is one call per statement.';

revoke all on function chat.my_id() from public;
grant execute on function chat.my_id() to authenticated;
