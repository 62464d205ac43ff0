-- Functions that refuse a request. The SQLSTATE of a refusal contains the HTTP status with which
-- PostgREST responds (PT404: 404). The field for a constraint's name contains the error code, and
-- the message is a text for users.

create or replace function chat.refuse(code text, detail text default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- The texts are part of the contract. All refusals that could reveal something about another user
  -- have the same text.
  refusal record;
begin
  select r.status, r.message into refusal
  from (values
    ('unauthorized', 'PT401', 'Unauthorized'),
    ('forbidden', 'PT403', 'Insufficient permissions'),
    ('identity_mismatch', 'PT403', 'You can only act as yourself'),
    ('not_allowed_recipient', 'PT403', 'You cannot message this person'),
    ('edit_window_passed', 'PT403', 'This message can no longer be edited'),
    ('not_found', 'PT404', 'Not found'),
    ('client_message_id_conflict', 'PT409', 'Another message was sent with this client_message_id'),
    ('message_deleted', 'PT409', 'This message was deleted'),
    ('stale_revision', 'PT409', 'The message was changed meanwhile'),
    ('idempotency_in_flight', 'PT409', 'A request with this Idempotency-Key is still running'),
    ('idempotency_key_reused', 'PT422', 'This Idempotency-Key was used for another request'),
    ('resync_required', 'PT410', 'The cursor is too old: reload everything'),
    ('rate_limited', 'PT429', 'Too many requests'),
    ('message_empty', 'PT422', 'A message needs content'),
    ('message_too_long', 'PT422', 'The message is too long'),
    ('validation_failed', 'PT422', 'The request is not valid')
  ) as r (code, status, message)
  where r.code = refuse.code;

  raise exception using
    errcode = coalesce(refusal.status, 'PT500'),
    message = coalesce(refusal.message, 'Internal server error'),
    detail = coalesce(detail, ''),
    constraint = coalesce(refuse.code, 'internal');
end
$$;

comment on function chat.refuse(text, text) is
  'Raises the refusal with this code (docs/error-codes.md). PostgREST returns the same status for it as the REST routes.';

revoke all on function chat.refuse(text, text) from public;
grant execute on function chat.refuse(text, text) to authenticated, service_role;
