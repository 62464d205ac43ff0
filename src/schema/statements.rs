//! The statements that an installation executes in addition to the files in `sql/`. `rapport
//! migrate` executes all of them. The script `sql/install.sql` contains them too, except
//! [`SET_STORAGE_URL`].

use super::files::{Definition, Migration};

/// Settings of both installers' transactions. If several servers start at the same time, they wait
/// here for the first one to finish. After that, the installer waits only briefly for a lock that
/// another transaction holds, because all later users of the locked table queue behind the
/// installer.
pub(super) const PREPARE: &[&str] = &[
    "set local statement_timeout = 0",
    "set local search_path = pg_catalog, pg_temp",
    LOCK,
    "set local lock_timeout = '5s'",
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
