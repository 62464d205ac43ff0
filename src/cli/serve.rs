//! `rapport serve`: runs the server with an existing database.

use clap::Args;

use super::listen::ListenArguments;
use super::migrate::migrate;
use super::open_files;
use super::stop::{RefreshSignal, StopSignals, stop};
use super::{CliError, runtime, service_manager};
use crate::app::App;
use crate::config::{Config, Flag, Inputs, MigrateConfig};
use crate::observability::logging;
use crate::shutdown::Tasks;

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    #[command(flatten)]
    listen: ListenArguments,
    /// Update the database to this version's schema first
    #[arg(long)]
    migrate: bool,
}

/// Serves until a stop signal arrives.
pub(super) fn run<'a>(
    arguments: &ServeArguments,
    inputs: impl Fn(Vec<Flag>) -> Inputs<'a>,
) -> Result<(), CliError> {
    let inputs = inputs(arguments.listen.flags());
    let config = Config::load(&inputs)?;
    logging::start(&config.log)?;
    open_files::raise_limit(config.realtime.max_sockets);
    runtime()?.block_on(async {
        let mut signals = StopSignals::listen().map_err(CliError::Process)?;
        let mut refresh = RefreshSignal::listen().map_err(CliError::Process)?;
        let tasks = Tasks::new();
        if arguments.migrate {
            let installed = migrate(&MigrateConfig::load(&inputs)?, &tasks).await?;
            tracing::info!(
                migrations = installed.migrations.len(),
                definitions = installed.definitions.len(),
                host_preset = installed.host_preset,
                "schema is up to date"
            );
        }
        let app = App::start(&config, &tasks).await?;
        let watchdog = service_manager::started(app.local_address(), &tasks);
        tokio::select! {
            () = signals.wait() => {}
            () = refresh.refresh(&app) => {}
        }
        service_manager::stopping(&watchdog);
        stop(app, signals).await
    })
}
