-- Functions that read chat.config. A missing key has its default.

create or replace function chat.flag(setting text)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(
    (select c.value = 'true' from chat.config c where c.key = flag.setting),
    flag.setting = 'unarchive_on_message'
  );
end
$$;

comment on function chat.flag(text) is 'A boolean setting of chat.config. A missing key is false, except unarchive_on_message, which is true.';

revoke all on function chat.flag(text) from public;
grant execute on function chat.flag(text) to authenticated, service_role;

create or replace function chat.amount(setting text, fallback int)
returns int
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce((select c.value::int from chat.config c where c.key = amount.setting), amount.fallback);
end
$$;

comment on function chat.amount(text, int) is 'A numeric setting of chat.config, or fallback if the key is missing.';

revoke all on function chat.amount(text, int) from public;
grant execute on function chat.amount(text, int) to authenticated, service_role;
