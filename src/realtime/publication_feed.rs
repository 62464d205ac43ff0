//! Sends a `system` message to a channel when one of its tables leaves the publication, and when
//! all its tables are published again.

use std::sync::Arc;

use super::hub::Hub;
use super::protocol::SystemNotice;
use crate::shutdown::Tasks;
use crate::visibility::Visibility;

/// Runs until the server stops.
pub async fn run(visibility: Visibility, hub: Arc<Hub>, tasks: Tasks) {
    let feed = async {
        loop {
            let news = visibility.publication_news().await;
            let mut deliveries = hub.deliveries();
            for (channel, result) in news {
                let notice = match result {
                    Ok(()) => hub.mark_subscribed(channel).notice(),
                    Err(error) => {
                        hub.unmark_subscribed(channel);
                        SystemNotice::changes_error(error.client_text())
                    }
                };
                deliveries.system(channel, &notice);
            }
        }
    };
    tokio::select! {
        () = feed => {}
        () = tasks.token().cancelled() => {}
    }
}
