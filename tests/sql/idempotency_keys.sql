-- Idempotency keys: their owner, their lifetime, and the removal of old ones.

begin;
\ir support.sql

select tests.act_as('ana');
select chat.claim_idempotency_key('k', 'h'), set_config('rapport.outcome', '{"created": true}', true), chat.keep_idempotency_key('k', 'h');
select tests.expect_error($$select chat.claim_idempotency_key('k', 'other')$$, 'idempotency_key_reused');
do $$
begin
  perform chat.claim_idempotency_key('k', 'h');
  raise exception 'It was done before';
exception when sqlstate 'PT208' then null;
end
$$;
select set_config('rapport.outcome', '', true);
select tests.equals(chat.outcome(), null::jsonb, 'no outcome');
select chat.recall_idempotency_key('k');
select tests.equals(chat.outcome(), '{"created": true}'::jsonb, 'outcome');

-- The same key used by another user is a different key.
select tests.act_as('ben');
select chat.claim_idempotency_key('k', 'other'), chat.keep_idempotency_key('k', 'other');

-- An expired key counts as absent and is replaced.
select tests.act_as('owner');
update chat.idempotency_keys set kept_at = now() - interval '86401 s';
select tests.act_as('ana');
select chat.claim_idempotency_key('k', 'other'), chat.keep_idempotency_key('k', 'other');
select tests.act_as('owner');
select tests.equals(count(*), 1::bigint, 'Ana''s new key removed Ben''s old one') from chat.idempotency_keys;
insert into chat.config (key, value) values ('idempotency_key_ttl_s', '60') on conflict (key) do update set value = excluded.value;
update chat.idempotency_keys set kept_at = now() - interval '59 s';
select tests.act_as('ana');
select tests.expect_error($$select chat.claim_idempotency_key('k', 'h')$$, 'idempotency_key_reused');

-- Old keys are removed in small batches.
select tests.act_as('owner');
insert into chat.idempotency_keys (user_id, key, request_hash, kept_at)
select tests.id('zoe'), n::text, 'h', now() - interval '1 day' from generate_series(1, 10) n;
select tests.act_as('ana');
select chat.keep_idempotency_key('1', 'h'), chat.keep_idempotency_key('2', 'h');
select tests.act_as('owner');
select tests.equals(count(*), 2::bigint, 'old keys') from chat.idempotency_keys where user_id = tests.id('zoe');

rollback;
