//! Sends the server's own broadcasts from the bus to the members of their private topics.

use std::sync::Arc;

use super::hub::{Hub, TopicKey};
use super::protocol::{Broadcast, UserPayload};
use crate::bus::broadcasts::{Audiences, BroadcastListener};
use crate::observability::excerpt::Excerpt;
use crate::shutdown::Tasks;

/// Approximate number of frames queued before other tasks of the worker thread run. `change_feed`
/// uses the same number and gives the reason.
const FRAMES_PER_TURN: usize = 2_048;

/// Runs until all senders are dropped or the server stops.
pub async fn run(mut listener: BroadcastListener, hub: Arc<Hub>, tasks: Tasks) {
    let audiences: Arc<dyn Audiences> = Arc::clone(&hub) as _;
    listener.set_audiences(audiences);
    let feed = async {
        while let Some(first) = listener.next().await {
            let mut deliveries = hub.deliveries();
            let mut frames = 0;
            let mut next = Some(first);
            while let Some(broadcast) = next {
                let message = Broadcast::User {
                    event: broadcast.event,
                    metadata: "",
                    payload: UserPayload::Json(&broadcast.payload),
                };
                let key = TopicKey::new(&broadcast.topic, true);
                match deliveries.broadcast(&key, &message, None) {
                    Ok(members) => frames += members.max(1),
                    Err(error) => {
                        tracing::error!(topic = %Excerpt(&broadcast.topic), %error, "cannot encode a broadcast of the server; dropping it");
                    }
                }
                if frames > FRAMES_PER_TURN {
                    break;
                }
                next = listener.try_next();
            }
            drop(deliveries);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = feed => {}
        () = tasks.token().cancelled() => {}
    }
}

impl Audiences for Hub {
    fn has_members(&self, topic: &str) -> bool {
        self.topic(&TopicKey::new(topic, true)).is_some()
    }

    fn topics(&self, prefix: &str) -> Vec<String> {
        self.private_topics(prefix)
    }
}
