//! Signals to the running server, and the shutdown.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliError;
use crate::app::App;

/// Receives SIGINT (Ctrl-C) and SIGTERM. While it exists, these signals no longer terminate the
/// process by themselves, so a start in progress is never interrupted halfway.
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

/// Receives SIGHUP, which asks a running server to fetch key sets. While it exists, the signal does
/// not terminate the process.
pub(super) struct RefreshSignal(Signal);

impl RefreshSignal {
    /// Installs the signal handler.
    pub(super) fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Fetches the key sets of `app` at each signal.
    pub(super) async fn refresh(&mut self, app: &App) {
        while self.0.recv().await.is_some() {
            tracing::info!("fetching key sets");
            app.refresh_keys();
        }
    }
}

impl StopSignals {
    /// Installs the signal handlers.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next stop signal.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Shuts down the server. Another stop signal forces it to stop at once.
pub(super) async fn stop(app: App, mut signals: StopSignals) -> Result<(), CliError> {
    let in_order = tokio::select! {
        in_order = app.stop() => in_order,
        () = signals.wait() => false,
    };
    if in_order {
        Ok(())
    } else {
        Err(CliError::ForcedStop)
    }
}
