//! `rapport serve`: runs the server with an existing database.

use std::net::IpAddr;

use clap::Args;

use super::migrate::migrate;
use super::open_files;
use super::stop::{StopSignals, stop};
use super::{CliError, runtime, service_manager};
use crate::app::App;
use crate::config::{Config, Flag, Inputs, MigrateConfig};
use crate::observability::logging;
use crate::shutdown::Tasks;

/// The address of the listener, for all commands that refer to it.
#[derive(Debug, Args)]
pub(super) struct ListenArguments {
    /// Address of the server
    #[arg(long)]
    address: Option<IpAddr>,
    /// Port of the server; 0 selects any free one
    #[arg(long)]
    port: Option<u16>,
}

impl ListenArguments {
    /// Returns the settings that were given.
    pub(super) fn flags(&self) -> Vec<Flag> {
        let address = self.address.map(|address| Flag {
            name: "--address",
            key: "server.address",
            value: address.to_string(),
        });
        let port = self.port.map(|port| Flag {
            name: "--port",
            key: "server.port",
            value: port.to_string(),
        });
        address.into_iter().chain(port).collect()
    }
}

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
        signals.wait().await;
        service_manager::stopping(&watchdog);
        stop(app, signals).await
    })
}
