//! Caches the latest reading of the catalogue and renews it.
//!
//! If a reading is too old for a decision, its fingerprint is first compared with the current one.
//! The catalogue is read again only if they differ. The maximum age depends on the tables (see
//! [`super::descriptions`]).
//!
//! A comparison takes several milliseconds. [`CatalogCache::verify_ahead`] therefore begins one
//! before the reading is too old, so that under a steady load no row waits for it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::catalog::{self, Catalog, FINGERPRINTED};
use super::error::QueryError;
use super::fingerprint;
use super::published::PUBLISHED;
use crate::db::connect::Connector;
use crate::observability::metrics::VisibilityMetrics;
use crate::shutdown::Tasks;

/// The settings of the connection. With an empty search path, names outside `pg_catalog` are
/// printed with their schema, so the printed expressions mean the same on every other connection.
const CONNECTION_SETTINGS: &str = "\
    set search_path = ''; set statement_timeout = '10s'; \
    set idle_in_transaction_session_timeout = '30s'";

/// Maximum time for one reading, after which its connection is dropped. This exceeds the server's
/// own limit for each statement, so it usually matters only if the network loses packets.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

const BEGIN: &str = "begin isolation level repeatable read read only";

/// The latest reading, and the connection for the next one.
pub(super) struct CatalogCache {
    connector: Connector,
    tasks: Tasks,
    publication: String,
    /// The statement that computes the fingerprint.
    fingerprint: String,
    ttl: Duration,
    metrics: VisibilityMetrics,
    /// The latest reading. A std lock, because it is held only to copy or replace the reading's
    /// pointer.
    latest: Mutex<Option<Verified>>,
    /// When the last failed attempt ended. A std lock, because it is held only to copy or replace
    /// the time.
    failed_at: Mutex<Option<Instant>>,
    /// The connection for readings. An async lock, because it is held during a reading. A caller
    /// that waited for the lock uses the reading of the previous holder.
    connection: tokio::sync::Mutex<Option<Client>>,
}

#[derive(Clone)]
struct Verified {
    catalog: Arc<Catalog>,
    /// A time before the snapshot in which the reading was verified.
    at: Instant,
}

impl CatalogCache {
    pub(super) fn new(
        connector: Connector,
        publication: String,
        ttl: Duration,
        metrics: VisibilityMetrics,
        tasks: &Tasks,
    ) -> Self {
        Self {
            connector,
            tasks: tasks.clone(),
            publication,
            fingerprint: fingerprint::statement(PUBLISHED, FINGERPRINTED),
            ttl,
            metrics,
            latest: Mutex::new(None),
            failed_at: Mutex::new(None),
            connection: tokio::sync::Mutex::new(None),
        }
    }

    /// Returns the maximum age of a reading while the stream shows no change.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns a reading that includes `roles` and is younger than [`Self::ttl`].
    ///
    /// # Errors
    /// If the database is unreachable or refuses a statement.
    pub(super) async fn current(&self, roles: &[&str]) -> Result<Arc<Catalog>, QueryError> {
        self.within(roles, self.ttl).await
    }

    /// Returns a reading that includes `roles` and began after this call.
    ///
    /// # Errors
    /// The same as for [`Self::current`].
    pub(super) async fn renewed(&self, roles: &[&str]) -> Result<Arc<Catalog>, QueryError> {
        self.within(roles, Duration::ZERO).await
    }

    /// Returns a reading that includes `roles` and is younger than `limit` or began after this
    /// call.
    ///
    /// # Errors
    /// The same as for [`Self::current`].
    pub(super) async fn within(
        &self,
        roles: &[&str],
        limit: Duration,
    ) -> Result<Arc<Catalog>, QueryError> {
        if let Some(catalog) = self.fresh(roles, limit) {
            return Ok(catalog);
        }
        let asked_at = Instant::now();
        let mut connection = self.connection.lock().await;
        // Another caller may have read the catalogue while this one waited for the connection.
        if let Some(catalog) = self.fresh(roles, limit.max(asked_at.elapsed())) {
            return Ok(catalog);
        }
        self.renew(&mut connection, roles, asked_at).await
    }

    /// Verifies the latest reading in the background if it will soon be too old; see [`is_due`].
    /// Does nothing while another reading runs. A failure is not reported, because the first caller
    /// that needs a new reading tries again.
    pub(super) fn verify_ahead(self: &Arc<Self>) {
        let age = {
            let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            latest.as_ref().map(|latest| latest.at.elapsed())
        };
        let is_due = age.is_some_and(|age| is_due(age, self.ttl));
        if !is_due || self.connection.try_lock().is_err() {
            return;
        }
        let (cache, token) = (Arc::clone(self), self.tasks.token().clone());
        self.tasks.spawn("verify the catalogue", async move {
            // Several calls can start a task before the first task takes the lock. The later tasks
            // then find its reading, which is younger than the limit.
            let reading = cache.within(&[], verified_ahead_after(cache.ttl));
            let _ = token.run_until_cancelled(reading).await;
        });
    }

    /// Returns the latest reading, whatever its age.
    pub(super) fn latest(&self) -> Option<Arc<Catalog>> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.as_ref().map(|latest| Arc::clone(&latest.catalog))
    }

    /// Returns the latest reading, if it includes `roles` and must be verified because it is older
    /// than `limit`.
    pub(super) fn unverified(&self, roles: &[&str], limit: Duration) -> Option<Arc<Catalog>> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = latest.as_ref()?;
        (latest.at.elapsed() >= limit && latest.catalog.knows(roles))
            .then(|| Arc::clone(&latest.catalog))
    }

    fn fresh(&self, roles: &[&str], limit: Duration) -> Option<Arc<Catalog>> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = latest.as_ref()?;
        (latest.at.elapsed() < limit && latest.catalog.knows(roles))
            .then(|| Arc::clone(&latest.catalog))
    }

    /// Reads the catalogue, with the connection locked. If another caller's attempt has failed
    /// since `asked_at`, this one fails too. Otherwise waiting callers would time out one after the
    /// other.
    async fn renew(
        &self,
        connection: &mut Option<Client>,
        roles: &[&str],
        asked_at: Instant,
    ) -> Result<Arc<Catalog>, QueryError> {
        let failed_at = *self
            .failed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if failed_at.is_some_and(|failed_at| failed_at >= asked_at) {
            return Err(QueryError::Unavailable(None));
        }
        let at = Instant::now();
        let previous = self.latest();
        // The connection is taken out of the lock, so that dropping an unfinished reading also
        // drops the connection.
        let client = connection.take();
        let reading = async {
            let client = match client.filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => self.connect().await?,
            };
            let catalog = self.read(&client, previous, roles).await?;
            Ok::<_, QueryError>((client, catalog))
        };
        let result = tokio::time::timeout(READ_TIMEOUT, reading)
            .await
            .unwrap_or(Err(QueryError::Unavailable(None)));
        if result.is_err() {
            *self
                .failed_at
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        let (client, catalog) = result?;
        *connection = Some(client);
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Verified {
            catalog: Arc::clone(&catalog),
            at,
        });
        Ok(catalog)
    }

    async fn connect(&self) -> Result<Client, QueryError> {
        // Boxed, because the handshake's state is large and would otherwise enlarge every future
        // that awaits this one.
        let connecting = Box::pin(
            self.connector
                .connect("rapport visibility catalogue", &self.tasks),
        );
        let client = connecting.await?;
        client.batch_execute(CONNECTION_SETTINGS).await?;
        Ok(client)
    }

    async fn read(
        &self,
        client: &Client,
        previous: Option<Arc<Catalog>>,
        roles: &[&str],
    ) -> Result<Arc<Catalog>, QueryError> {
        client.batch_execute(BEGIN).await?;
        self.metrics.catalog_checks.inc();
        let fingerprint: String = client
            .query_one(&self.fingerprint, &[&self.publication])
            .await?
            .try_get(0)?;
        let catalog = match previous {
            Some(previous) if previous.fingerprint() == fingerprint && previous.knows(roles) => {
                previous
            }
            previous => {
                let mut wanted: HashSet<&str> = roles.iter().copied().collect();
                if let Some(previous) = &previous {
                    // The names of roles that do not exist are not kept, because clients can invent
                    // any number of them.
                    wanted.extend(previous.known_roles());
                }
                let wanted: Vec<&str> = wanted.into_iter().collect();
                self.metrics.catalog_loads.inc();
                Arc::new(catalog::load(client, &self.publication, fingerprint, &wanted).await?)
            }
        };
        client.batch_execute("rollback").await?;
        Ok(catalog)
    }
}

/// Returns the age after which a reading is verified in the background. The remaining quarter of
/// `ttl` is much longer than a comparison takes, unless the operator chose a very short `ttl`.
fn verified_ahead_after(ttl: Duration) -> Duration {
    ttl * 3 / 4
}

/// Returns whether a reading of this age is still valid and should be verified in the background.
/// An older reading is verified by the caller that needs it.
fn is_due(age: Duration, ttl: Duration) -> bool {
    age >= verified_ahead_after(ttl) && age < ttl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_due_in_the_last_quarter_of_its_ttl() {
        let (ttl, ms) = (Duration::from_secs(1), Duration::from_millis);
        assert!(!is_due(ms(0), ttl));
        assert!(!is_due(ms(749), ttl));
        assert!(is_due(ms(750), ttl));
        assert!(is_due(ms(999), ttl));
        assert!(!is_due(ms(1_000), ttl), "the caller reads it");
        assert!(!is_due(ms(0), Duration::ZERO), "nothing is cached");
    }
}
