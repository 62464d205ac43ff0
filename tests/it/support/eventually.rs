//! Waits for a condition that has no signal.

use std::time::Duration;

use tokio::time::Instant;

/// A generous limit, because a busy machine is not a failure. A passing test never waits this long.
const DEADLINE: Duration = Duration::from_secs(30);

/// The pause between two attempts.
const INTERVAL: Duration = Duration::from_millis(20);

/// Repeats `probe` until it returns a value, and returns that value. Panics with `what` after half
/// a minute.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "still not after {DEADLINE:?}: {what}"
        );
        tokio::time::sleep(INTERVAL).await;
    }
}
