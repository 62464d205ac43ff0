-- Functions that return the claims of the caller's token. Their text is exactly Supabase's, so that
-- policies behave as in a Supabase project. They therefore set no search_path, and every role may
-- execute them.

do $$
declare
  ours boolean := coalesce(obj_description(to_regnamespace('auth'), 'pg_namespace') like 'Made by Rapport%', false);
begin
  if ours or to_regprocedure('auth.uid()') is null then
    create or replace function auth.uid() returns uuid language sql stable as $body$
  select
  coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
  )::uuid
$body$;
  end if;

  if ours or to_regprocedure('auth.role()') is null then
    create or replace function auth.role() returns text language sql stable as $body$
  select
  coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
  )::text
$body$;
  end if;

  if ours or to_regprocedure('auth.email()') is null then
    create or replace function auth.email() returns text language sql stable as $body$
  select
  coalesce(
    nullif(current_setting('request.jwt.claim.email', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email')
  )::text
$body$;
  end if;

  if ours or to_regprocedure('auth.jwt()') is null then
    create or replace function auth.jwt() returns jsonb language sql stable as $body$
  select
    coalesce(
        nullif(current_setting('request.jwt.claim', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')
    )::jsonb
$body$;
  end if;
end
$$;
