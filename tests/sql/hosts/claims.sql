-- Accounts only. Teams and roles are in the metadata that users cannot change. What accounts.sql
-- writes into the metadata that users can change has no effect.

update auth.users u
set raw_app_meta_data = m.metadata::jsonb
from (values
  ('ana', '{"team_id": "red"}'), ('ben', '{"team_id": "red", "role": "admin"}'), ('cleo', '{"team_ids": ["blue"]}'),
  ('eve', '{"team_id": "red", "team_ids": ["blue", "red"]}'), ('gus', '{"team_id": "red"}'), ('sue', '{"role": "super_admin"}')
) m (name, metadata)
where u.id = expected.id(m.name);

insert into expected.people values
  ('ana', 'Ana', 'ana@example.com', 'user', true, '{red}'),
  ('ben', 'Ben', 'ben@example.com', 'admin', true, '{red}'),
  ('cleo', 'Cleo', 'cleo@example.com', 'user', true, '{blue}'),
  ('dora', 'Dora', 'dora@example.com', 'user', true, '{}'),
  ('eve', 'Eve', 'eve@example.com', 'user', true, '{blue,red}'),
  ('gus', 'Gus', null, 'user', false, '{red}'),
  ('sue', 'Sue', 'sue@example.com', 'super_admin', true, '{}');
