//! Reports to systemd (`Type=notify`): that the server has started, that it stops, and that it
//! still responds. Without a service manager, nothing happens.

use std::net::SocketAddr;

use sd_notify::NotifyState;

use super::health;
use crate::shutdown::Tasks;

/// How many checks fit into one watchdog period. One late response must not restart the server.
const CHECKS_PER_PERIOD: u32 = 3;

/// Reports that the listener accepts connections, and starts the watchdog if systemd asks for it
/// (`WatchdogSec=`).
///
/// The start does not wait for the database. While the database is unavailable, the server waits
/// for it, and a restart would not help. Returns the tasks of the watchdog, for [`stopping`].
pub(super) fn started(address: SocketAddr, tasks: &Tasks) -> Tasks {
    let watchdog = tasks.child();
    notify(&[
        NotifyState::Ready,
        NotifyState::Status(&format!("Listening on {address}")),
    ]);
    // The timer below does not accept a period of zero.
    let period = sd_notify::watchdog_enabled().filter(|period| period.as_micros() > 0);
    let Some(period) = period else {
        return watchdog;
    };
    let stop = watchdog.token().clone();
    watchdog.spawn("watchdog", async move {
        let mut interval = tokio::time::interval(period / CHECKS_PER_PERIOD);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            // The check connects as a client does, so it fails if connections are no longer
            // accepted, if all threads are blocked, or if requests are not handled.
            match health::ask(address, "/health").await {
                Ok(_) => notify(&[NotifyState::Watchdog]),
                Err(error) => tracing::warn!(%error, "server does not respond to its watchdog"),
            }
        }
    });
    watchdog
}

/// Reports that the server is stopping, and ends the watchdog, because the listener will close.
pub(super) fn stopping(watchdog: &Tasks) {
    watchdog.stop();
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("Closing connections"),
    ]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "notifying the service manager failed");
    }
}
