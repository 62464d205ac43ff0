//! Closes all sockets before the server stops.
//!
//! Every client reconnects immediately, to this server's successor or to another server, and
//! rejoins all its channels. Closing the sockets one by one spreads these reconnects over time.

use std::time::Duration;

use tokio::time::Instant;

use super::super::wire::close::CloseReason;
use super::registry::Hub;

/// The longest pause between closing two sockets. A few sockets need not be spread further, because
/// a hundred reconnects per second are a small load.
const MAX_PAUSE: Duration = Duration::from_millis(10);

/// Refuses joins and handshakes, then closes the sockets one by one within `window`. Returns when
/// all sockets are closing; their tasks finish on their own.
pub async fn drain(hub: &Hub, window: Duration) {
    hub.refuse_joins();
    let mut sockets = hub.sockets().all();
    // Shuffled, so that sockets that connected together, such as those of one web page, are not
    // closed together.
    fastrand::shuffle(&mut sockets);
    let pause = pause(sockets.len(), window);
    let begin = Instant::now();
    for (at, socket) in (0..).zip(sockets) {
        let due = begin + pause * at;
        // A timer has a resolution of one millisecond, within which several sockets may be due.
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        socket.close(CloseReason::Restarting);
    }
    // This closes sockets that were accepted in the meantime.
    hub.close_all();
}

/// Returns the pause between closing two sockets.
fn pause(sockets: usize, window: Duration) -> Duration {
    let count = u32::try_from(sockets).unwrap_or(u32::MAX).max(1);
    (window / count).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_are_spread_over_the_window_but_few_sockets_take_less_time() {
        const WINDOW: Duration = Duration::from_secs(3);
        for (sockets, expected) in [
            (0, MAX_PAUSE),
            (1, MAX_PAUSE),
            (300, MAX_PAUSE),
            (3_000, Duration::from_millis(1)),
            (100_000, Duration::from_micros(30)),
        ] {
            assert_eq!(pause(sockets, WINDOW), expected, "{sockets}");
        }
        assert_eq!(pause(5, Duration::ZERO), Duration::ZERO);
    }
}
