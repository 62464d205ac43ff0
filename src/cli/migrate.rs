//! `rapport migrate`: updates the schema to this version, or shows what would be applied.

use std::path::PathBuf;

use clap::Args;
use tokio_postgres::Client;
use tokio_postgres::error::{DbError, Severity};

use super::sql_files::{write_parts, write_supabase_migrations};
use super::{CliError, print, runtime};
use crate::config::{ChatConfig, Inputs, MigrateConfig, SupabaseConfig, load_for_sql_files};
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
    /// With --sql: write the whole schema to files of at most 200 KiB, without using the database
    #[arg(
        long,
        value_name = "DIRECTORY",
        requires = "sql",
        num_args = 0..=1,
        default_missing_value = "rapport-sql"
    )]
    parts: Option<PathBuf>,
    /// Write what the files in supabase/migrations lack to new files there, without using the
    /// database
    #[arg(
        long,
        value_name = "DIRECTORY",
        conflicts_with_all = ["sql", "dry_run"],
        num_args = 0..=1,
        default_missing_value = "supabase/migrations"
    )]
    supabase: Option<PathBuf>,
}

/// Updates the schema, or shows the pending changes.
pub(super) fn run(arguments: &MigrateArguments, inputs: &Inputs<'_>) -> Result<(), CliError> {
    if arguments.parts.is_some() || arguments.supabase.is_some() {
        return write_files(arguments, inputs);
    }
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
            return print(
                &schema::pending_sql(&mut client, &options(&config.supabase, &config.chat)).await?,
            );
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

/// Writes the schema to files and prints their paths.
fn write_files(arguments: &MigrateArguments, inputs: &Inputs<'_>) -> Result<(), CliError> {
    let (supabase, chat) = load_for_sql_files(inputs)?;
    let options = options(&supabase, &chat);
    let mut written = Vec::new();
    if let Some(directory) = &arguments.parts {
        written.extend(write_parts(directory, &options)?);
    }
    if let Some(directory) = &arguments.supabase {
        written.extend(write_supabase_migrations(directory, &options)?);
    }
    if written.is_empty() {
        return print("The files are up to date.\n");
    }
    let lines = written.iter().map(|path| format!("{}\n", path.display()));
    print(&lines.collect::<String>())
}

/// Updates the configured database to this program's schema.
pub(super) async fn migrate(config: &MigrateConfig, tasks: &Tasks) -> Result<Installed, CliError> {
    let mut client = connect(config, tasks).await?;
    Ok(schema::install(&mut client, &options(&config.supabase, &config.chat)).await?)
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

pub(super) fn options(supabase: &SupabaseConfig, chat: &ChatConfig) -> InstallOptions {
    InstallOptions {
        host_preset: chat.host_preset.as_str().to_owned(),
        // The path below which Supabase's gateway serves files (Supabase, "Storage").
        storage_url: supabase.url.as_ref().map(|url| format!("{url}/storage/v1")),
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
