-- The caller of a statement, for expressions that PostgreSQL evaluates with the caller's
-- search_path: policies, views and defaults. Such expressions must not call auth.uid(), because its
-- text is Supabase's and names types without a schema. With the caller's search_path, auth.uid()
-- would use a temporary type of the caller, or one that an earlier user of a pooled connection left
-- behind, and run that type's casts as the caller.

-- A "sub" that is not a UUID belongs to no user of the chat. auth.uid() raises an error for it. In
-- a policy, that error would show that a row satisfies the conditions that are evaluated before it.
-- The pattern is that of PostgreSQL's input function. An exception handler would not be possible in
-- a parallel query.
--
-- The function is in plpgsql, which keeps its plan. An SQL function could not be inlined, because
-- it sets search_path.
create or replace function chat.my_id()
returns uuid
language plpgsql
stable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  sub constant text := coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
  );
begin
  if sub ~ '^([0-9A-Fa-f]{4}-?){7}[0-9A-Fa-f]{4}$' or sub ~ '^\{([0-9A-Fa-f]{4}-?){7}[0-9A-Fa-f]{4}\}$' then
    return auth.uid();
  end if;
  return null;
end
$$;

comment on function chat.my_id() is
  'The caller''s id: auth.uid(), independent of the caller''s search_path. Null if "sub" is not a UUID. Policies use "(select chat.my_id())", which is one call per statement.';

revoke all on function chat.my_id() from public;
grant execute on function chat.my_id() to authenticated;

-- A transaction above "read committed" keeps the snapshot of its first statement, or one that it
-- imported. In that snapshot, a later block, removal or suspension is invisible.
create or replace function chat.may_be_outdated()
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return current_setting('transaction_isolation') in ('repeatable read', 'serializable');
end
$$;

comment on function chat.may_be_outdated() is
  'Returns whether the snapshot of this transaction may be older than the latest change of the caller''s rights.';

revoke all on function chat.may_be_outdated() from public;
grant execute on function chat.may_be_outdated() to authenticated;

create or replace function chat.refuse_if_outdated()
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if chat.may_be_outdated() then
    perform chat.refuse('validation_failed', 'Only possible with the isolation level "read committed"');
  end if;
end
$$;

comment on function chat.refuse_if_outdated() is
  'Refuses if the snapshot of this transaction may be older than the latest change of the caller''s rights. Called before changes that other members see.';

revoke all on function chat.refuse_if_outdated() from public;
grant execute on function chat.refuse_if_outdated() to authenticated;
