//! Rates of the whole server: events, row changes, joins and presence per second, averaged over a
//! minute (protocol 4.4).
//!
//! Counting is one addition to a shared number, without a lock or a clock, because every broadcast
//! and every join is counted. Once a second, a task takes the count and computes the average.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::config::RealtimeConfig;

/// How often averages are computed. Supabase Realtime computes them every five seconds. With a
/// shorter interval, a rate above its limit is noticed earlier, and so is its return below the
/// limit.
const TICK: Duration = Duration::from_secs(1);

/// Number of seconds that an average covers, as in Supabase Realtime.
const SPAN_SECONDS: usize = 60;

/// Minimum number of seconds that an average covers. Otherwise a burst in the first second after
/// the start would look like a sustained rate. In Supabase Realtime this is the length of the first
/// bucket.
const MIN_SPAN_SECONDS: u64 = 5;

/// One rate and its limit.
#[derive(Debug)]
pub struct Rate {
    /// The name of the rate in the log.
    name: &'static str,
    limit: u64,
    /// The count since the last tick. Accessed with relaxed ordering, because no other memory
    /// access depends on its order.
    current: AtomicU64,
    average: AtomicU64,
    is_over: AtomicBool,
    /// Number of excesses so far. An excess is a period in which the average is at or above the
    /// limit.
    excesses: AtomicU32,
}

/// All rates.
#[derive(Debug)]
pub struct Rates {
    /// Messages that were sent, and their deliveries.
    pub events: Rate,
    /// Row changes that were delivered. As in Supabase Realtime, they have a separate rate with the
    /// same limit as events, so that a bulk load does not prevent users from sending.
    pub changes: Rate,
    /// Joins that passed the check of this rate.
    pub joins: Rate,
    /// Presence pushes, and the deliveries of presence states and diffs.
    pub presence: Rate,
}

impl Rate {
    fn new(name: &'static str, limit: u64) -> Self {
        Self {
            name,
            limit,
            current: AtomicU64::new(0),
            average: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            excesses: AtomicU32::new(0),
        }
    }

    /// Adds `count` to the current count.
    pub fn add(&self, count: u64) {
        self.current.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns whether the last computed average has reached the limit.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Returns the number of the current or last excess, starting at 1.
    pub fn excess(&self) -> u32 {
        self.excesses.load(Ordering::Relaxed)
    }

    /// Returns the last computed average per second, rounded down.
    pub fn average(&self) -> u64 {
        self.average.load(Ordering::Relaxed)
    }

    /// Returns the limit per second.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Moves the count into `window`, which advances by `seconds`, and computes the average.
    fn tick(&self, window: &mut Window, seconds: usize) {
        window.push(self.current.swap(0, Ordering::Relaxed), seconds);
        let span = MIN_SPAN_SECONDS.max(window.counts.len() as u64);
        self.average.store(window.sum / span, Ordering::Relaxed);
        let is_over = window.sum >= self.limit.saturating_mul(span);
        let (rate, limit, average) = (self.name, self.limit, window.sum / span);
        if is_over && !self.is_over() {
            tracing::warn!(rate, limit, average, "rate limit of the server reached");
            // Incremented before the flag is set, so that a reader of the flag also sees the new
            // number.
            self.excesses.fetch_add(1, Ordering::Relaxed);
        } else if !is_over && self.is_over() {
            tracing::info!(
                rate,
                limit,
                average,
                "rate of the server is below its limit again"
            );
        }
        self.is_over.store(is_over, Ordering::Release);
    }
}

impl Rates {
    /// Creates rates without limits.
    pub fn unlimited() -> Self {
        Self {
            events: Rate::new("events", u64::MAX),
            changes: Rate::new("changes", u64::MAX),
            joins: Rate::new("joins", u64::MAX),
            presence: Rate::new("presence", u64::MAX),
        }
    }

    /// Creates rates with the configured limits.
    pub fn new(config: &RealtimeConfig) -> Self {
        Self {
            events: Rate::new("events", config.max_events_per_second),
            changes: Rate::new("changes", config.max_events_per_second),
            joins: Rate::new("joins", config.max_joins_per_second),
            presence: Rate::new("presence", config.max_presence_events_per_second),
        }
    }
}

/// Computes the averages until `stop`.
pub async fn run(rates: Arc<Rates>, stop: CancellationToken) {
    let mut windows = <[Window; 4]>::default();
    let mut ticks = tokio::time::interval(TICK);
    // A late tick covers more seconds. If missed ticks were caught up on instead, one of them would
    // look like a burst.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = ticks.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = Instant::now();
        // Rounded to whole seconds. The remainder is left for the next tick.
        let seconds = (now - last + TICK / 2).as_secs().max(1);
        last += Duration::from_secs(seconds);
        let seconds = usize::try_from(seconds).unwrap_or(SPAN_SECONDS);
        let all = [&rates.events, &rates.changes, &rates.joins, &rates.presence];
        for (rate, window) in all.into_iter().zip(&mut windows) {
            rate.tick(window, seconds);
        }
    }
}

/// The counts of the last seconds, one per second.
#[derive(Debug, Default)]
struct Window {
    counts: VecDeque<u64>,
    sum: u64,
}

impl Window {
    /// Appends a count that covers `seconds`. The whole count is assigned to the last of them.
    fn push(&mut self, count: u64, seconds: usize) {
        for _ in 1..seconds.min(SPAN_SECONDS) {
            self.counts.push_back(0);
        }
        self.counts.push_back(count);
        self.sum += count;
        while self.counts.len() > SPAN_SECONDS {
            self.sum -= self.counts.pop_front().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_covers_a_minute_and_at_least_five_seconds() {
        let rate = Rate::new("events", 10);
        let mut window = Window::default();
        // (count, seconds, average afterwards, whether over the limit)
        let steps = [
            (49, 1, 9, false),
            (1, 1, 10, true),
            (0, 3, 10, true),
            (0, 1, 8, false),
            (499, 49, 9, false),
            (51, 5, 10, true),
            // The first count is a minute old now.
            (0, 1, 9, false),
            (0, 1_000, 0, false),
            (600, 1, 10, true),
        ];
        for (count, seconds, average, is_over) in steps {
            rate.add(count);
            rate.tick(&mut window, seconds);
            assert_eq!(
                (rate.average(), rate.is_over()),
                (average, is_over),
                "{count}"
            );
        }
        assert_eq!(rate.excess(), 3);
    }
}
