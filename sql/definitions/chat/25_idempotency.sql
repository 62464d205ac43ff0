-- A write with an Idempotency-Key: chat.claim_idempotency_key() before its statements, chat.keep_idempotency_key()
-- behind them, all in one transaction. Whatever ends that transaction frees the key with it.
--
-- What the answer needs of the statements they leave in the setting rapport.outcome of the transaction. It is kept with the
-- key; a repetition has it back from chat.recall_idempotency_key() and reads the resource as it is then.

create or replace function chat.outcome()
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select nullif(current_setting('rapport.outcome', true), '')::jsonb
$$;

comment on function chat.outcome() is 'What the statements of this transaction, or of the one it repeats, left for the answer.';

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
  -- Not the unique index: whoever waited there would hold a connection for as long as the first request runs, and so
  -- would each further repetition.
  if not pg_try_advisory_xact_lock(hashtextextended(format('rapport.idempotency_key:%s:%s', caller, claim_idempotency_key.key), 0)) then
    perform chat.refuse('idempotency_in_flight');
  end if;

  -- a statement of its own, begun under the lock: it sees what the lock's last holder committed
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
  -- an error, so that the statements behind this one, which are on their way already, are not executed
  raise exception using errcode = 'PT208', message = 'This request was carried out before';
end
$$;

comment on function chat.claim_idempotency_key(text, bytea) is
  'Before a write: idempotency_in_flight while another transaction has the caller''s key, idempotency_key_reused when it was for something else, SQLSTATE PT208 when the same was done before.';

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
  -- one that was too old to count
  on conflict on constraint idempotency_keys_pkey do update
  set request_hash = excluded.request_hash, outcome = excluded.outcome, kept_at = excluded.kept_at;

  -- Each key that comes takes a few old ones with it: faster than they come, and never many at once. Those that
  -- somebody else is removing are left to them.
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
  'Behind a write: keeps the caller''s key with rapport.outcome, and removes a few keys of anybody''s that are too old.';

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

comment on function chat.recall_idempotency_key(text) is 'Sets rapport.outcome as the write with the caller''s key left it.';

revoke all on function chat.recall_idempotency_key(text) from public;
grant execute on function chat.recall_idempotency_key(text) to authenticated;
