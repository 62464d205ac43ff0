//! Applies pending files in one transaction.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Transaction};

use super::error::SchemaError;
use super::files::{Definition, LEDGER, Migration};
use super::ledger::Pending;
use super::statements::{
    CHECK_OWNERS, GRANT_COLUMNS, GRANT_ROLES, PREPARE, SET_STORAGE_URL, insert_definition,
    insert_migration, quoted,
};

/// Options that depend on the application around the chat.
#[derive(Clone, Debug)]
pub struct InstallOptions {
    /// The source of users and teams: a preset of `chat.install_host_mapping`.
    pub host_preset: String,
    /// The URL below which the files in messages must be stored. Used if `chat.config` contains
    /// none.
    pub storage_url: Option<String>,
}

impl Default for InstallOptions {
    fn default() -> Self {
        Self {
            host_preset: "auto".to_owned(),
            storage_url: None,
        }
    }
}

/// The files that were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// The applied files of `sql/migrations`.
    pub migrations: Vec<String>,
    /// The applied files of `sql/definitions`.
    pub definitions: Vec<String>,
    /// The host preset in force.
    pub host_preset: String,
}

/// Updates the database to this program's schema. Does nothing if the schema is up to date.
///
/// # Errors
/// See [`SchemaError`]. On an error nothing is changed.
pub async fn install(
    client: &mut Client,
    options: &InstallOptions,
) -> Result<Installed, SchemaError> {
    let tx = begin(client).await?;
    let mut installed = apply_pending(&tx).await?;
    execute(&tx, "Granting the server's roles", GRANT_ROLES, &[]).await?;
    execute(&tx, "Granting columns", GRANT_COLUMNS, &[]).await?;
    installed.host_preset = map_host(&tx, &options.host_preset).await?;
    if let Some(url) = &options.storage_url {
        execute(&tx, "Setting the storage address", SET_STORAGE_URL, &[url]).await?;
    }
    batch(&tx, "Checking the owners", CHECK_OWNERS).await?;
    tx.commit()
        .await
        .map_err(|error| SchemaError::statement("Committing", error))?;
    Ok(installed)
}

/// Returns the files that [`install`] would apply, in order. Changes nothing.
///
/// # Errors
/// See [`SchemaError`].
pub async fn plan(client: &mut Client) -> Result<Vec<String>, SchemaError> {
    let tx = begin(client).await?;
    let pending = Pending::read(&tx).await?;
    let ledger = pending.ledger.then(|| "ledger.sql".to_owned());
    let migrations = pending.migrations.iter().map(Migration::path);
    let definitions = pending.definitions.iter().map(Definition::path);
    Ok(ledger
        .into_iter()
        .chain(migrations)
        .chain(definitions)
        .collect())
}

/// Returns the statements that [`install`] would execute, without the commands of `psql`, which SQL
/// editors do not support. Changes nothing.
///
/// # Errors
/// See [`SchemaError`].
pub async fn pending_sql(
    client: &mut Client,
    options: &InstallOptions,
) -> Result<String, SchemaError> {
    let tx = begin(client).await?;
    let pending = Pending::read(&tx).await?;
    let mut sql = String::from("begin;\n");
    for statement in PREPARE {
        sql.push_str(&format!("{statement};\n"));
    }
    let mut add = |path: &str, text: &str| sql.push_str(&format!("\n-- {path}\n\n{text}\n"));
    if pending.ledger {
        add("ledger.sql", LEDGER);
    }
    for migration in &pending.migrations {
        add(&migration.path(), migration.text);
        add("ledger", &insert_migration(migration));
    }
    for definition in &pending.definitions {
        add(&definition.path(), definition.text);
        add("ledger", &insert_definition(definition));
    }
    sql.push_str(&format!(
        "\n{GRANT_ROLES};\n{GRANT_COLUMNS};\nselect chat.install_host_mapping({});\n",
        quoted(&options.host_preset)
    ));
    if let Some(url) = &options.storage_url {
        sql.push_str(&format!(
            "{};\n",
            SET_STORAGE_URL.replace("$1", &quoted(url))
        ));
    }
    sql.push_str(&format!("{CHECK_OWNERS};\ncommit;\n"));
    Ok(sql)
}

/// Applies the pending files.
pub(super) async fn apply_pending(tx: &Transaction<'_>) -> Result<Installed, SchemaError> {
    let pending = Pending::read(tx).await?;
    if pending.ledger {
        batch(tx, "ledger.sql", LEDGER).await?;
    }
    let mut installed = Installed::default();
    for migration in &pending.migrations {
        // The ledger's row is written first: if two installers pass the lock, they collide before
        // any DDL.
        execute(
            tx,
            "Writing the ledger",
            "insert into chat.schema_migrations (version, name, checksum) values ($1, $2, $3)",
            &[&migration.version, &migration.name, &migration.checksum],
        )
        .await?;
        batch(tx, &migration.path(), migration.text).await?;
        installed.migrations.push(migration.path());
    }
    for definition in &pending.definitions {
        batch(tx, &definition.path(), definition.text).await?;
        execute(
            tx,
            "Writing the ledger",
            "insert into chat.schema_definitions (path, checksum) values ($1, $2)
             on conflict (path) do update
             set checksum = excluded.checksum, applied_at = clock_timestamp()",
            &[&definition.name, &definition.checksum],
        )
        .await?;
        installed.definitions.push(definition.path());
    }
    Ok(installed)
}

pub(super) async fn begin(client: &mut Client) -> Result<Transaction<'_>, SchemaError> {
    let failed = |error| SchemaError::statement("Acquiring the installation lock", error);
    let tx = client.transaction().await.map_err(failed)?;
    tx.batch_execute(&PREPARE.join(";\n"))
        .await
        .map_err(failed)?;
    Ok(tx)
}

async fn map_host(tx: &Transaction<'_>, preset: &str) -> Result<String, SchemaError> {
    let failed = |error| SchemaError::statement("Mapping users and teams", error);
    let row = tx
        .query_one("select chat.install_host_mapping($1)", &[&preset])
        .await
        .map_err(failed)?;
    row.try_get(0).map_err(failed)
}

async fn batch(tx: &Transaction<'_>, path: &str, text: &str) -> Result<(), SchemaError> {
    tx.batch_execute(text)
        .await
        .map_err(|error| SchemaError::statement(path, error))
}

async fn execute(
    tx: &Transaction<'_>,
    what: &str,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<(), SchemaError> {
    tx.execute(statement, parameters)
        .await
        .map(drop)
        .map_err(|error| SchemaError::statement(what, error))
}
