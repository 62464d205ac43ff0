//! Passes requests to recheck permissions from the bus to the sockets of the channels.
//!
//! Each socket checks its own channels (`session/recheck.rs`), so the result is applied to the
//! current state of the channel.

use std::sync::Arc;
use std::time::Duration;

use super::hub::Hub;
use crate::bus::rechecks::Rechecks;
use crate::shutdown::Tasks;

/// The pause after a pass. A request may require a pass over all channels, so passes must not be
/// frequent.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs until the server stops.
pub async fn run(rechecks: Rechecks, hub: Arc<Hub>, tasks: Tasks) {
    let forwarding = async {
        loop {
            rechecks.requested().await;
            hub.request_rechecks(&rechecks.take());
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = forwarding => {}
        () = tasks.token().cancelled() => {}
    }
}
