-- Functions of earlier migrations. With an empty search_path the caller's temporary schema is searched first for names of
-- types and relations (PostgreSQL manual, "Writing SECURITY DEFINER Functions Safely"), so that a temporary domain
-- called uuid takes the place of the type. Named last, it is searched last. The definitions say so themselves.

do $$
declare
  function_name regprocedure;
begin
  for function_name in
    select p.oid
    from pg_catalog.pg_proc p
    where p.pronamespace = 'chat'::regnamespace and 'search_path=""' = any (p.proconfig)
  loop
    execute format('alter function %s set search_path = pg_catalog, pg_temp', function_name);
  end loop;
end
$$;
