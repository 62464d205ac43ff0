//! Makes sockets check their tokens again after the keys of an issuer have changed.
//!
//! Each socket checks its own channels (`session/keys.rs`). All sockets are woken, because a
//! channel that is just being joined is not listed anywhere yet.

use std::sync::Arc;

use super::hub::Hub;
use crate::auth::Verifier;
use crate::shutdown::Tasks;

/// Runs until the server stops.
pub async fn run(verifier: Verifier, hub: Arc<Hub>, tasks: Tasks) {
    let mut changes = verifier.key_changes();
    // The server holds the verifier, so the sender outlives this task.
    let waking = async {
        while changes.changed().await.is_ok() {
            hub.request_key_checks();
        }
    };
    tokio::select! {
        () = waking => {}
        () = tasks.token().cancelled() => {}
    }
}
