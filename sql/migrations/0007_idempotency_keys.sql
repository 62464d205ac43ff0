-- Requests that must not happen twice.

create table chat.idempotency_keys (
  user_id uuid not null,
  key text not null,
  -- of method, address and body: the same key for something else is a mistake
  request_hash bytea not null,
  -- what the answer needs besides the resource itself: ids, flags and numbers, never what people wrote
  outcome jsonb,
  kept_at timestamptz not null default now(),
  constraint idempotency_keys_pkey primary key (user_id, key),
  constraint idempotency_keys_key_is_short check (char_length(key) between 1 and 255)
);

comment on table chat.idempotency_keys is
  'The Idempotency-Key of each write that succeeded, for idempotency_key_ttl_s seconds. Written in the transaction of that write, so that there is never a key without its write.';

-- serves the removal of old keys
create index idempotency_keys_kept_at_idx on chat.idempotency_keys (kept_at);

insert into chat.config (key, value) values
  -- for how long a repetition with the same key is answered and not carried out
  ('idempotency_key_ttl_s', '86400');
