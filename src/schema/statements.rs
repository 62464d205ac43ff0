//! The statements that an installation executes in addition to the files in `sql/`. `rapport
//! migrate` executes all of them. The script `sql/install.sql` contains them too, except
//! [`SET_STORAGE_URL`].

use super::files::{Definition, Migration};

/// The first statements of an installation, in this program and in `sql/install.sql`. If several
/// servers start at the same time, they wait here for the first one to finish. After that, the
/// installer waits only briefly for a lock that another transaction holds, because all later users
/// of the locked table queue behind the installer.
pub(super) const PREPARE: &[&str] = &[
    "set local statement_timeout = 0",
    "set local search_path = pg_catalog, pg_temp",
    LOCK,
    "set local lock_timeout = '5s'",
    CHECK_OWNERS,
];

/// Makes installers wait for each other, with a lock on a row that no other role may lock. Until
/// the table exists, only an advisory lock is possible. Every user of the database can take and
/// keep an advisory lock, so the wait for it is short, and the refusal names the holder. The number
/// of the advisory lock is `rapport` in ASCII; `pg_locks` shows its two halves.
///
/// If the login may not lock the row, the lock is skipped without an error.
/// [`super::ledger::Pending::read`] then reports the missing rights.
const LOCK: &str = "do $lock$
declare
  holders text;
begin
  if not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'chat' and c.relname = 'locks') then
    begin
      perform set_config('lock_timeout', '10s', true);
      perform pg_advisory_xact_lock(32195282895598196);
    exception when lock_not_available then
      select string_agg(format('%s (user %s)', l.pid, coalesce(a.usename, '?')), ', ') into holders
      from pg_locks l
      left join pg_stat_activity a on a.pid = l.pid
      join pg_database d on d.oid = l.database and d.datname = current_database()
      where l.locktype = 'advisory' and l.granted and l.objsubid = 1
        and (l.classid::int8 << 32 | l.objid::int8) = 32195282895598196;
      raise exception 'The advisory lock of the installation is held by process %.', coalesce(holders, '?')
        using errcode = 'RP002', hint = 'If no other installation is running, end the process with pg_terminate_backend().';
    end;
  end if;
  if exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'chat' and c.relname = 'locks') then
    begin
      perform set_config('lock_timeout', '60s', true);
      perform from chat.locks where purpose = 'installation' for update;
    exception when insufficient_privilege then
      null;
    end;
  end if;
end
$lock$";

/// Refuses to install into objects that another role owns. Their owner could later replace what the
/// installation puts there, and the server and every user of the chat would execute it. Superusers,
/// the owner of the database, and the login itself are trusted. The owner of the schema `chat` is
/// also trusted for the functions in `public`. Supabase's own roles, whose names Supabase reserves,
/// are trusted for everything except the schema `chat`.
///
/// This runs before anything else and calls no function of `chat`, because those functions could
/// already be another role's. It runs again at the end, because an object may have been created in
/// between.
pub(super) const CHECK_OWNERS: &str = "do $owners$
declare
  chat_owner constant oid := (select nspowner from pg_namespace where nspname = 'chat');
  found record;
begin
  for found in
    select format('schema %I', n.nspname) as object, n.nspowner as owner
    from pg_namespace n
    where n.nspname in ('chat', 'auth', 'realtime')
    union all
    select format('function %s', p.oid::regprocedure), p.proowner
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'public'
      and p.proname in ('get_or_create_conversation', 'mark_conversation_read')
      and p.proowner is distinct from chat_owner
  loop
    continue when exists (
      select from pg_roles r
      where r.oid = found.owner
        and (r.rolsuper
          or r.rolname = current_user
          or r.rolname ~ '^supabase_(auth_|realtime_)?admin$' and found.object <> 'schema chat'
          or r.oid = (select d.datdba from pg_database d where d.datname = current_database()))
    );
    raise exception 'The % belongs to role %, who could replace what is installed there.', found.object, found.owner::regrole
      using errcode = 'RP003', hint = format(
        'If it is yours, run \"alter %s owner to %s\", or install as its owner. If it is not, drop it.',
        found.object, quote_ident(current_user)
      );
  end loop;
end
$owners$";

/// Runs at every installation, not only when its definition changes, because the login may differ.
pub(super) const GRANT_ROLES: &str = "select chat.grant_roles_to_installer()";

/// Runs at every installation, because the application may have added a column.
pub(super) const GRANT_COLUMNS: &str = "select chat.grant_shared_columns()";

/// Sets the storage address, but does not overwrite a value that the operator has set.
pub(super) const SET_STORAGE_URL: &str = "update chat.config set value = to_jsonb($1::text) \
     where key = 'storage_url' and value = 'null'";

/// Returns the statement that records a migration in the ledger.
pub(super) fn insert_migration(migration: &Migration) -> String {
    format!(
        "insert into chat.schema_migrations (version, name, checksum) values\n  ({}, {}, {});",
        migration.version,
        quoted(&migration.name),
        quoted(&migration.checksum),
    )
}

/// Returns the statement that records a definition in the ledger.
pub(super) fn insert_definition(definition: &Definition) -> String {
    format!(
        "insert into chat.schema_definitions (path, checksum) values\n  ({}, {})\n\
         on conflict (path) do update set checksum = excluded.checksum, applied_at = clock_timestamp();",
        quoted(&definition.name),
        quoted(&definition.checksum),
    )
}

/// Returns a string literal (PostgreSQL manual, section 4.1.2.1). Requires
/// `standard_conforming_strings`, which is on by default.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_cannot_end_a_literal() {
        assert_eq!(quoted("it's"), "'it''s'");
    }
}
