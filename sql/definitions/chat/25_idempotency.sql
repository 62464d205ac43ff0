-- Writes with an Idempotency-Key. chat.claim_idempotency_key() runs before the statements of a
-- write and chat.keep_idempotency_key() after them, all in one transaction. If the transaction
-- fails, the key is free again.
--
-- The statements of the write put the data for the response into rapport.outcome, a setting that is
-- local to the transaction. chat.keep_idempotency_key() stores that data with the key. A retry
-- restores the setting with chat.recall_idempotency_key() and reads the resource in its current
-- state.

create or replace function chat.outcome()
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select nullif(current_setting('rapport.outcome', true), '')::jsonb
$$;

comment on function chat.outcome() is 'The data that the statements of this transaction have stored for its response. In a retry, the data that the first transaction stored.';

revoke all on function chat.outcome() from public;
grant execute on function chat.outcome() to authenticated;

create or replace function chat.claim_idempotency_key(key text, request_hash bytea)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  earlier record;
begin
  -- This is an advisory lock, because the unique index would make a retry wait. Each waiting retry
  -- would hold a connection until the first request ends.
  if not pg_try_advisory_xact_lock(hashtextextended(format('rapport.idempotency_key:%s:%s', caller, claim_idempotency_key.key), 0)) then
    perform chat.refuse('idempotency_in_flight');
  end if;

  -- This is a separate statement. It starts when this transaction already holds the lock, and
  -- therefore sees what the previous holder committed.
  select k.request_hash into earlier
  from chat.idempotency_keys k
  where k.user_id = caller
    and k.key = claim_idempotency_key.key
    and k.kept_at > now() - make_interval(secs => chat.amount('idempotency_key_ttl_s', 86400));
  if not found then
    return;
  end if;
  if earlier.request_hash <> claim_idempotency_key.request_hash then
    perform chat.refuse('idempotency_key_reused');
  end if;
  -- This is an error, because the statements after this one are already in the pipeline and must
  -- not be executed.
  raise exception using errcode = 'PT208', message = 'This request was already carried out';
end
$$;

comment on function chat.claim_idempotency_key(text, bytea) is
  'Runs before a write. Raises idempotency_in_flight if another transaction holds the caller''s key, idempotency_key_reused if the key was used for another request, and SQLSTATE PT208 if the same request was already carried out.';

revoke all on function chat.claim_idempotency_key(text, bytea) from public;
grant execute on function chat.claim_idempotency_key(text, bytea) to authenticated;

create or replace function chat.keep_idempotency_key(key text, request_hash bytea)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  oldest constant timestamptz := now() - make_interval(secs => chat.amount('idempotency_key_ttl_s', 86400));
begin
  insert into chat.idempotency_keys as k (user_id, key, request_hash, outcome)
  values (auth.uid(), keep_idempotency_key.key, keep_idempotency_key.request_hash, chat.outcome())
  -- A key that has expired counts as absent.
  on conflict on constraint idempotency_keys_pkey do update
  set request_hash = excluded.request_hash, outcome = excluded.outcome, kept_at = excluded.kept_at;

  -- Every new key removes up to four expired ones. Expired keys are thus removed faster than new
  -- ones arrive, but never many at once. Rows that another transaction is removing are skipped.
  delete from chat.idempotency_keys k
  using (
    select o.user_id, o.key
    from chat.idempotency_keys o
    where o.kept_at <= oldest
    order by o.kept_at
    limit 4
    for update skip locked
  ) old
  where k.user_id = old.user_id and k.key = old.key;
end
$$;

comment on function chat.keep_idempotency_key(text, bytea) is
  'Runs after a write. Stores the caller''s key with rapport.outcome, and removes a few expired keys of any user.';

revoke all on function chat.keep_idempotency_key(text, bytea) from public;
grant execute on function chat.keep_idempotency_key(text, bytea) to authenticated;

create or replace function chat.recall_idempotency_key(key text)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('rapport.outcome', coalesce(k.outcome::text, ''), true)
  from chat.idempotency_keys k
  where k.user_id = auth.uid() and k.key = recall_idempotency_key.key;
end
$$;

comment on function chat.recall_idempotency_key(text) is 'Restores in rapport.outcome the data that was stored with the caller''s key.';

revoke all on function chat.recall_idempotency_key(text) from public;
grant execute on function chat.recall_idempotency_key(text) to authenticated;
