//! The signals that ask the process to stop, and stopping.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliError;
use crate::app::App;

/// Ctrl-C and SIGTERM. From its creation on they no longer end the process by themselves, so
/// nothing is left half done between a start and the wait for the end.
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Begins to listen.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next of them.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Stops the server in order; a second signal cuts that short.
pub(super) async fn stop(app: App, mut signals: StopSignals) -> Result<(), CliError> {
    let in_order = tokio::select! {
        in_order = app.stop() => in_order,
        () = signals.wait() => false,
    };
    if in_order {
        Ok(())
    } else {
        Err(CliError::CutOff)
    }
}
