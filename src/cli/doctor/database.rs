//! `db.*`: the database server and the connection to it.

use tokio_postgres::Error;

use super::inspection::Inspection;
use super::report::Verdict;

/// The oldest PostgreSQL version that the schema supports.
const OLDEST_VERSION: i32 = 15;

/// Connections beside those of `database.request_pool_size` and `visibility.pool_size`: 2 for the
/// server's own statements, 2 that check filters, 2 for the catalogue and commits, 3 for snapshots,
/// 8 for private channels, 2 for replay, 4 for stored broadcasts, and 2 that control replication
/// and partitions (docs/operations.md, "Connections and `max_connections`").
const OTHER_CONNECTIONS: usize = 25;

/// Whether the version is supported.
pub(super) async fn version(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select current_setting('server_version_num')::int / 10000
             , current_setting('server_version')
             , current_database()::text
             , current_user::text";
    let row = inspection.client.query_one(SQL, &[]).await?;
    let (major, version): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    let (database, login): (String, String) = (row.try_get(2)?, row.try_get(3)?);
    let what = format!("PostgreSQL {version}, {database} as {login}");
    let verdict = if major >= OLDEST_VERSION {
        Verdict::ok(what)
    } else {
        Verdict::fail(what).because(format!(
            "PostgreSQL {OLDEST_VERSION} or newer is required. Upgrade the database."
        ))
    };
    Ok(verdict
        .fact("major", major)
        .fact("version", version)
        .fact("database", database)
        .fact("login", login))
}

/// Whether the database accepts writes.
pub(super) async fn standby(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    Ok(if is_standby(inspection).await? {
        Verdict::fail("the database is a standby, which accepts no writes")
            .because("Set database.url to the address of the primary.")
            .fact("standby", true)
    } else {
        Verdict::ok("the database is not a standby").fact("standby", false)
    })
}

/// Returns whether the database is a standby, which accepts no writes.
pub(super) async fn is_standby(inspection: &Inspection<'_>) -> Result<bool, Error> {
    let row = inspection
        .client
        .query_one("select pg_catalog.pg_is_in_recovery()", &[])
        .await?;
    row.try_get(0)
}

/// Whether the connection is encrypted, unless it stays on this machine.
pub(super) async fn tls(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str = "
        select s.ssl, s.version
             , pg_catalog.inet_client_addr() is null
                or pg_catalog.inet_client_addr() <<= '127.0.0.0/8' or pg_catalog.inet_client_addr() = '::1'
          from pg_catalog.pg_stat_ssl as s
         where s.pid = pg_catalog.pg_backend_pid()";
    let row = inspection.client.query_one(SQL, &[]).await?;
    let (is_encrypted, version): (bool, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    let is_local: bool = row.try_get(2)?;
    Ok(encryption(is_encrypted, version, is_local))
}

fn encryption(is_encrypted: bool, version: Option<String>, is_local: bool) -> Verdict {
    let verdict = match &version {
        Some(version) if is_encrypted => Verdict::ok(format!("the connection uses {version}")),
        _ if is_local => Verdict::ok("the connection does not leave this machine"),
        _ => Verdict::warn("the connection to the database is not encrypted").because(
            "Messages cross the network in plain text. \
             Add sslmode=verify-full to database.url, or at least sslmode=require.",
        ),
    };
    verdict
        .fact("encrypted", is_encrypted)
        .fact("tls_version", version)
        .fact("local", is_local)
}

/// Whether the database allows as many connections as the server may open.
pub(super) async fn connections(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    // Since PostgreSQL 16, `reserved_connections` is a second group that other logins cannot use.
    const SQL: &str = "
        select current_setting('max_connections')::bigint
             , current_setting('superuser_reserved_connections')::bigint
                + coalesce(current_setting('reserved_connections', true)::bigint, 0)
             , (select count(*) from pg_catalog.pg_stat_activity
                 where backend_type = 'client backend' and not starts_with(application_name, 'rapport'))";
    let config = inspection.config;
    let needed =
        config.database.request_pool_size + config.visibility.pool_size + OTHER_CONNECTIONS;
    let row = inspection.client.query_one(SQL, &[]).await?;
    let (maximum, reserved): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let in_use: i64 = row.try_get(2)?;
    let available = maximum - reserved;
    let what =
        format!("PostgreSQL allows {available} connections, and the server opens up to {needed}");
    let verdict = if usize::try_from(available).is_ok_and(|available| available >= needed) {
        Verdict::ok(what)
    } else {
        Verdict::warn(what).because(
            "Under load, requests will fail. \
             Raise max_connections, or lower database.request_pool_size and visibility.pool_size.",
        )
    };
    Ok(verdict
        .fact("max_connections", maximum)
        .fact("reserved", reserved)
        .fact("in_use_by_others", in_use)
        .fact("needed", needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_connection_over_the_network_is_a_problem() {
        let tls = || Some("TLSv1.3".to_owned());
        for (is_encrypted, version, is_local, level) in [
            (true, tls(), false, "ok"),
            (true, tls(), true, "ok"),
            (false, None, true, "ok"),
            (false, None, false, "warn"),
        ] {
            let verdict = encryption(is_encrypted, version, is_local);
            assert_eq!(serde_json::to_value(verdict).unwrap()["level"], level);
        }
    }
}
