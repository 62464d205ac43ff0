\set talk 10 * random(0, :people - 1)
\startpipeline
begin;
select
  set_config('request.jwt.claims', '{"sub":"50000000-0000-4000-8000-' || lpad(to_hex(:talk::int / 10), 12, '0') || '","role":"authenticated","aud":"authenticated"}', true),
  set_config('request.jwt.claim.sub', '50000000-0000-4000-8000-' || lpad(to_hex(:talk::int / 10), 12, '0'), true),
  set_config('request.jwt.claim.role', 'authenticated', true),
  set_config('role', 'authenticated', true);
select s.created, set_config('rapport.message_id', s.message_id::text, true)
from chat.send_message(
  ('60000000-0000-4000-8000-' || lpad(to_hex(:talk::int), 12, '0'))::uuid, 'Shall we meet at the usual place at noon?', 'text',
  gen_random_uuid()::text, 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  null, '{}', '{}', null, null, null, null) s;
select r.row::text from chat.message_rows(array[current_setting('rapport.message_id')::uuid]) r;
commit;
\endpipeline
