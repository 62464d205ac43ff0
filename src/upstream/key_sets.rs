//! Keeps the published key sets of all issuers current.
//!
//! A set that cannot be fetched again is used until its maximum age. Then it is removed, and its
//! tokens are refused, because the issuer may have revoked a key.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::connect::{Connector, TlsError, tls};
use super::key_request::{Fetch, Fetched, HttpFetch};
use super::target::uses_tls;
use crate::auth::{KeyFeed, Verifier};
use crate::config::Config;
use crate::observability::metrics::{AuthMetrics, KeySetMetrics};
use crate::shutdown::Tasks;

/// The shortest time after which a set is fetched again if the response has a `max-age`.
const MIN_REFRESH: Duration = Duration::from_secs(60);

/// The longest such time. A revoked key is accepted until the set is fetched again.
const MAX_REFRESH: Duration = Duration::from_secs(3_600);

/// The delay after the first failure. It doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest delay after a failure.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// The part by which intervals vary in both directions, so that servers which started together do
/// not fetch together.
const JITTER: f64 = 0.1;

/// The name of the first issuer in metrics and logs, if no `iss` is configured for it.
const FIRST_ISSUER: &str = "project";

/// Starts a task for each published key set of the verifier.
///
/// # Errors
/// [`TlsError`] if a set is fetched with TLS, and certificates could not be verified.
pub fn fetch_key_sets(
    config: &Config,
    verifier: &Verifier,
    metrics: &AuthMetrics,
    tasks: &Tasks,
) -> Result<(), TlsError> {
    let feeds = verifier.feeds();
    if feeds.is_empty() {
        return Ok(());
    }
    let is_https = |feed: &KeyFeed| {
        let url = feed.location().address();
        url.is_some_and(|url| url.scheme_str() == Some("https"))
    };
    let upstream = &config.upstream;
    let is_tls_used = uses_tls(upstream) || feeds.iter().any(is_https);
    let tls = tls(upstream.tls_ca.as_deref(), is_tls_used)?;
    let client = Connector::new(tls, upstream.connect).key_client(tasks.clone());
    let intervals = Intervals {
        refresh: config.auth.jwks_refresh,
        max_age: config.auth.jwks_max_age,
    };
    for feed in feeds {
        let issuer = feed.issuers().first().map_or(FIRST_ISSUER, String::as_str);
        if let Some(url) = feed.location().address() {
            tracing::info!(issuer, %url, "tokens are verified with a published key set");
        }
        let metrics = metrics.key_set(issuer);
        let location = feed.location().clone();
        let fetch = HttpFetch::new(client.clone(), location, feed.issuers());
        let stop = tasks.token().clone();
        tasks.spawn("key set", async move {
            tokio::select! {
                () = run(feed, fetch, intervals, metrics) => {}
                () = stop.cancelled() => {}
            }
        });
    }
    Ok(())
}

/// How often a set is fetched, and how long it is used.
#[derive(Clone, Copy)]
struct Intervals {
    /// Applies if the response has no `max-age`.
    refresh: Duration,
    max_age: Duration,
}

/// Fetches a set periodically, and removes it when it reaches its maximum age.
async fn run(feed: KeyFeed, mut fetch: impl Fetch, intervals: Intervals, metrics: KeySetMetrics) {
    let mut failures: u32 = 0;
    // When the current set must be removed, unless it is fetched again.
    let mut expiry: Option<Instant> = None;
    let url = feed.location().address().cloned().unwrap_or_default();
    loop {
        feed.begin();
        let begun = Instant::now();
        let delay = match fetch.fetch().await {
            Ok(Fetched { keys, max_age }) => {
                if failures > 0 {
                    tracing::info!(%url, "key set is available again");
                }
                failures = 0;
                // The age counts from the request, because the issuer may have changed the set
                // before the response arrives.
                expiry = Some(begun + intervals.max_age);
                let has_changed = keys.is_some_and(|keys| feed.replace(keys));
                metrics.fetched(has_changed);
                max_age.map_or(intervals.refresh, |age| age.clamp(MIN_REFRESH, MAX_REFRESH))
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(%url, %error, "key set cannot be fetched; retrying");
                }
                metrics.failed();
                failures = failures.saturating_add(1);
                retry_delay(failures)
            }
        };
        feed.end(failures == 0);
        // Two attempts are at most about half of the maximum age apart, so a set that can be
        // fetched never reaches that age.
        let next = Instant::now() + varied(delay.min(intervals.max_age / 2));
        loop {
            let wake = expiry.map_or(next, |expiry| expiry.min(next));
            tokio::select! {
                () = feed.wanted() => break,
                () = sleep_until(wake) => {}
            }
            if expiry.is_some_and(|expiry| expiry <= Instant::now()) {
                expiry = None;
                tracing::error!(%url, "key set is too old; its tokens are refused");
                metrics.removed();
                feed.remove();
                fetch.forget();
            }
            if next <= Instant::now() {
                break;
            }
        }
    }
}

fn retry_delay(failures: u32) -> Duration {
    let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
    FIRST_RETRY.saturating_mul(factor).min(LAST_RETRY)
}

fn varied(interval: Duration) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())
}

#[cfg(test)]
#[path = "key_sets/tests.rs"]
mod tests;
