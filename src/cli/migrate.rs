//! `rapport migrate`: updates the schema to this version, or shows what would be applied.

use clap::Args;
use tokio_postgres::Client;
use tokio_postgres::error::{DbError, Severity};

use super::{CliError, print, runtime};
use crate::config::{Inputs, MigrateConfig};
use crate::db::connect::Connector;
use crate::schema::{self, InstallOptions, Installed};
use crate::shutdown::Tasks;

#[derive(Debug, Args)]
pub(super) struct MigrateArguments {
    /// List the files that would be applied, without changing anything
    #[arg(long, conflicts_with = "sql")]
    dry_run: bool,
    /// Print the pending SQL for an SQL editor, without changing anything
    #[arg(long)]
    sql: bool,
}

/// Updates the schema, or shows the pending changes.
pub(super) fn run(arguments: &MigrateArguments, inputs: &Inputs<'_>) -> Result<(), CliError> {
    let config = MigrateConfig::load(inputs)?;
    crate::observability::logging::start(&config.log)?;
    runtime()?.block_on(async {
        let tasks = Tasks::new();
        if arguments.dry_run {
            let plan = schema::plan(&mut connect(&config, &tasks).await?).await?;
            return print(&lines("would be applied", &plan));
        }
        if arguments.sql {
            let mut client = connect(&config, &tasks).await?;
            return print(&schema::pending_sql(&mut client, &options(&config)).await?);
        }
        let installed = migrate(&config, &tasks).await?;
        let files = [installed.migrations, installed.definitions].concat();
        print(&lines("applied", &files))?;
        print(&format!(
            "Users and teams are found by: {}\n",
            installed.host_preset
        ))
    })
}

/// Updates the configured database to this program's schema.
pub(super) async fn migrate(config: &MigrateConfig, tasks: &Tasks) -> Result<Installed, CliError> {
    let mut client = connect(config, tasks).await?;
    Ok(schema::install(&mut client, &options(config)).await?)
}

pub(super) async fn connect(config: &MigrateConfig, tasks: &Tasks) -> Result<Client, CliError> {
    let connector = Connector::new(config.database.url.expose())?;
    // Warnings report what the installation could not do. Notices are routine ("does not exist,
    // skipping").
    let warn = |notice: DbError| {
        if notice.parsed_severity() == Some(Severity::Warning) {
            tracing::warn!("{}", notice.message());
        }
    };
    Ok(connector
        .connect_with_notices("rapport migrate", tasks, warn)
        .await?)
}

pub(super) fn options(config: &MigrateConfig) -> InstallOptions {
    InstallOptions {
        host_preset: config.chat.host_preset.as_str().to_owned(),
        // The path below which Supabase's gateway serves files (Supabase, "Storage").
        storage_url: config
            .supabase
            .url
            .as_ref()
            .map(|url| format!("{url}/storage/v1")),
    }
}

fn lines(done: &str, files: &[String]) -> String {
    if files.is_empty() {
        return "The schema is up to date.\n".to_owned();
    }
    files
        .iter()
        .map(|file| format!("{done}: {file}\n"))
        .collect()
}
