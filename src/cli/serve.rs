//! `rapport serve`: runs the server with an existing database.

use std::net::IpAddr;

use clap::Args;

use super::migrate::migrate;
use super::open_files;
use super::stop::{RefreshSignal, StopSignals, stop};
use super::{CliError, runtime};
use crate::app::App;
use crate::config::{Config, Flag, Inputs, MigrateConfig};
use crate::observability::logging;
use crate::shutdown::Tasks;

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Address to listen on
    #[arg(long)]
    address: Option<IpAddr>,
    /// Port to listen on; 0 selects any free one
    #[arg(long)]
    port: Option<u16>,
    /// Update the database to this version's schema first
    #[arg(long)]
    migrate: bool,
}

/// Serves until a stop signal arrives.
pub(super) fn run<'a>(
    arguments: &ServeArguments,
    inputs: impl Fn(Vec<Flag>) -> Inputs<'a>,
) -> Result<(), CliError> {
    let address = arguments.address.map(|address| Flag {
        name: "--address",
        key: "server.address",
        value: address.to_string(),
    });
    let port = arguments.port.map(|port| Flag {
        name: "--port",
        key: "server.port",
        value: port.to_string(),
    });
    let inputs = inputs(address.into_iter().chain(port).collect());
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
        tokio::select! {
            () = signals.wait() => {}
            () = refresh.refresh(&app) => {}
        }
        stop(app, signals).await
    })
}
