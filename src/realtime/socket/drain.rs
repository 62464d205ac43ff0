//! Emptying the server before it stops.
//!
//! Every client comes back at once, to this server's successor or to another, and joins all its
//! channels again. Told one after the other, they come one after the other.

use std::time::Duration;

use tokio::time::Instant;

use super::super::error::CloseReason;
use super::super::hub::Hub;

/// The pause between two sockets at most: a few need not be spread, since a hundred reconnects in a
/// second are no burden.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Refuses joins and handshakes, then tells every socket to go, one after the other, in no longer than
/// `window`. Returns when all are told; they end by themselves.
pub async fn drain(hub: &Hub, window: Duration) {
    hub.refuse_joins();
    let mut sockets = hub.sockets().all();
    // In the order in which they came, the clients of one page would all go together.
    fastrand::shuffle(&mut sockets);
    let pause = pause(sockets.len(), window);
    let begin = Instant::now();
    for (at, socket) in (0..).zip(sockets) {
        let due = begin + pause * at;
        // A timer has a resolution of one millisecond, in which many sockets may be due.
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        socket.close(CloseReason::Restarting);
    }
    // Whoever was accepted at the last moment.
    hub.close_all();
}

/// The pause between two sockets.
fn pause(sockets: usize, window: Duration) -> Duration {
    let count = u32::try_from(sockets).unwrap_or(u32::MAX).max(1);
    (window / count).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_spread_over_the_window_and_a_few_need_no_window() {
        const WINDOW: Duration = Duration::from_secs(3);
        for (sockets, expected) in [
            (0, LONGEST_PAUSE),
            (1, LONGEST_PAUSE),
            (300, LONGEST_PAUSE),
            (3_000, Duration::from_millis(1)),
            (100_000, Duration::from_micros(30)),
        ] {
            assert_eq!(pause(sockets, WINDOW), expected, "{sockets}");
        }
        assert_eq!(pause(5, Duration::ZERO), Duration::ZERO);
    }
}
