//! Resolves a batch of committed changes: divides it into table batches and decides each of them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::catalog::Catalog;
use super::checks::StaleCatalog;
use super::committed::PendingCommits;
use super::delivery::{Delivery, Payload, Recipient, Resolved};
use super::engine::Engine;
use super::error::{QueryError, SubscribeError};
use super::subscription::{Candidates, Checked, Draft, Outdated};
use super::table_batch::{Resolution, TableBatch};
use crate::change::{ChangeTransaction, Relation};

/// The catalogue has been read again. Before the batch is decided, its generated columns must be
/// added under this reading.
struct CatalogChanged(Arc<Catalog>);

impl Engine {
    /// See [`super::Visibility::resolve`].
    pub(super) async fn resolve<'b>(&self, batch: &'b [Arc<ChangeTransaction>]) -> Resolved<'b> {
        let Some(mut catalog) = self.catalog.latest() else {
            // No channel has subscribed yet.
            return Resolved {
                batch: Cow::Borrowed(batch),
                deliveries: Vec::new(),
            };
        };
        loop {
            let completed = self.add_generated_columns(&catalog, batch).await;
            match self.decide(&catalog, &completed).await {
                Ok(deliveries) => {
                    return Resolved {
                        batch: completed,
                        deliveries,
                    };
                }
                Err(CatalogChanged(renewed)) => catalog = renewed,
            }
        }
    }

    /// Returns the deliveries of a batch whose generated columns were added under a reading of the
    /// catalogue.
    ///
    /// # Errors
    /// If there is a newer reading, under which the generated columns may differ.
    async fn decide(
        &self,
        completed_under: &Arc<Catalog>,
        batch: &[Arc<ChangeTransaction>],
    ) -> Result<Vec<Delivery>, CatalogChanged> {
        let mut table_batches = self.table_batches(batch);
        if table_batches.is_empty() {
            return Ok(Vec::new());
        }
        for table_batch in &table_batches {
            self.metrics
                .batch_changes
                .observe(table_batch.changes.len() as f64);
        }
        let commits = self
            .commits
            .pending(batch.iter().map(|changes| changes.xid));
        let begun = Instant::now();
        let (ahead, mut catalog) = tokio::join!(
            self.resolve_speculatively(&table_batches, &commits),
            self.catalog_for(&table_batches, &commits)
        );
        let is_complete = Arc::ptr_eq(&catalog, completed_under)
            || !(catalog.has_generated_columns || completed_under.has_generated_columns);
        if !is_complete {
            return Err(CatalogChanged(catalog));
        }
        if let Some((reading, deliveries)) = ahead
            && Arc::ptr_eq(&reading, &catalog)
        {
            self.metrics
                .ask_seconds
                .observe(begun.elapsed().as_secs_f64());
            return Ok(deliveries);
        }
        let mut deliveries = Vec::new();
        if table_batches
            .iter()
            .any(|table_batch| !table_batch.outdated.is_empty() && agrees(&catalog, table_batch))
        {
            deliveries = self.renew_filters(&catalog, &table_batches).await;
            table_batches = self.table_batches(batch);
            catalog = self.catalog_for(&table_batches, &commits).await;
        }
        let roles = roles(&table_batches);
        let begun = Instant::now();
        for table_batch in &table_batches {
            // In the first attempt, a statement may no longer match the tables. A later attempt
            // ends early only if a query becomes impossible. Each query can become impossible only
            // once.
            let mut may_be_stale = true;
            loop {
                let resolution = Resolution::new(self, &catalog, table_batch, &commits);
                match resolution.deliver(may_be_stale).await {
                    Ok(found) => {
                        deliveries.extend(found);
                        break;
                    }
                    Err(StaleCatalog) => {
                        catalog = self.catalog_within(&roles, Duration::ZERO).await
                    }
                }
                may_be_stale = false;
            }
        }
        self.metrics
            .ask_seconds
            .observe(begun.elapsed().as_secs_f64());
        Ok(in_order(deliveries))
    }

    /// Resolves with a reading that is too old, while [`Self::catalog_for`] verifies the reading.
    /// The result is valid only if the reading turns out to be current. Returns `None` if no
    /// reading has to be verified, or if the batch cannot be resolved with it.
    async fn resolve_speculatively(
        &self,
        table_batches: &[TableBatch<'_>],
        commits: &PendingCommits<'_>,
    ) -> Option<(Arc<Catalog>, Vec<Delivery>)> {
        let catalog = self
            .catalog
            .unverified(&roles(table_batches), self.age_limit(table_batches))?;
        if table_batches
            .iter()
            .any(|table_batch| !table_batch.outdated.is_empty() || !agrees(&catalog, table_batch))
        {
            return None;
        }
        let mut deliveries = Vec::new();
        for table_batch in table_batches {
            let resolution = Resolution::new(self, &catalog, table_batch, commits);
            deliveries.extend(resolution.deliver(true).await.ok()?);
        }
        Some((catalog, in_order(deliveries)))
    }

    /// Returns a reading of the catalogue for these table batches. If the stream shows that a table
    /// may have changed, the reading begins after the commits are visible.
    async fn catalog_for(
        &self,
        table_batches: &[TableBatch<'_>],
        commits: &PendingCommits<'_>,
    ) -> Arc<Catalog> {
        let limit = self.age_limit(table_batches);
        if limit.is_zero() {
            commits.wait_visible().await;
            self.descriptions
                .record(table_batches.iter().map(|table_batch| table_batch.relation));
        } else {
            self.catalog.verify_ahead();
        }
        self.catalog_within(&roles(table_batches), limit).await
    }

    /// Returns the maximum age of a reading for these table batches.
    fn age_limit(&self, table_batches: &[TableBatch<'_>]) -> Duration {
        let latest = self.catalog.latest();
        // The stream does not show changes to the policies and rights of partitioned tables.
        let is_partitioned = |table_batch: &TableBatch<'_>| {
            let table = latest.as_ref()?.table(table_batch.relation.oid)?;
            Some(table.is_partitioned)
        };
        if table_batches
            .iter()
            .any(|table_batch| is_partitioned(table_batch) == Some(true))
        {
            return Duration::ZERO;
        }
        let relations = table_batches.iter().map(|table_batch| table_batch.relation);
        self.descriptions
            .age_limit(relations)
            .min(self.catalog.ttl())
    }

    /// Checks the bindings of outdated channels again, with the current types of the columns. If a
    /// filter no longer fits, the channel loses its bindings and receives the error that a new join
    /// would get.
    async fn renew_filters(
        &self,
        catalog: &Arc<Catalog>,
        table_batches: &[TableBatch<'_>],
    ) -> Vec<Delivery> {
        let mut refused = Vec::new();
        for table_batch in table_batches
            .iter()
            .filter(|table_batch| agrees(catalog, table_batch))
        {
            for outdated in &table_batch.outdated {
                let (checked, error) = match self.check_again(catalog, outdated).await {
                    Ok(drafts) => {
                        let catalog = Arc::clone(catalog);
                        (Some(Checked { catalog, drafts }), None)
                    }
                    Err(error) => (None, Some(error)),
                };
                let is_renewed = self.with_subscriptions(|subscriptions| {
                    subscriptions.replace_outdated(outdated, checked)
                });
                if let (true, Some(error), Some((transaction, change))) =
                    (is_renewed, error, table_batch.places.first())
                {
                    self.metrics.unanswered.inc();
                    refused.push(Delivery {
                        transaction: *transaction,
                        change: *change,
                        payload: Payload::CheckFailed(error.client_text()),
                        recipients: vec![Recipient {
                            channel: outdated.channel,
                            ids: Vec::new(),
                        }],
                    });
                }
            }
        }
        refused
    }

    /// Checks the bindings of an outdated channel again. Waits while the database is unreachable.
    async fn check_again(
        &self,
        catalog: &Arc<Catalog>,
        outdated: &Outdated,
    ) -> Result<Vec<Draft>, SubscribeError> {
        let mut backoff = Backoff::new(&self.metrics);
        loop {
            let principal = &outdated.principal;
            match self
                .check_bindings_in(catalog, principal, &outdated.bindings)
                .await
            {
                Err(SubscribeError::Unavailable) => {
                    backoff.wait(&QueryError::Unavailable(None)).await;
                }
                settled => return settled,
            }
        }
    }

    fn table_batches<'a>(&self, batch: &'a [Arc<ChangeTransaction>]) -> Vec<TableBatch<'a>> {
        let mut table_batches: Vec<TableBatch<'a>> = Vec::new();
        // Changes share one `Relation` until the stream contains a new definition of the table.
        let mut by_relation: HashMap<*const Relation, usize> = HashMap::new();
        for (transaction, changes) in batch.iter().enumerate() {
            for (change, event) in changes.changes.iter().enumerate() {
                let table_batch = *by_relation
                    .entry(Arc::as_ptr(&event.relation))
                    .or_insert_with(|| {
                        table_batches.push(TableBatch {
                            relation: &event.relation,
                            changes: Vec::new(),
                            places: Vec::new(),
                            transactions: batch,
                            candidates: Candidates::default(),
                            outdated: Vec::new(),
                        });
                        table_batches.len() - 1
                    });
                table_batches[table_batch].changes.push(event);
                table_batches[table_batch]
                    .places
                    .push((transaction, change));
            }
        }
        self.with_subscriptions(|subscriptions| {
            for table_batch in &mut table_batches {
                table_batch.candidates =
                    subscriptions.candidates(table_batch.relation, &table_batch.changes);
                table_batch.outdated = subscriptions.outdated(table_batch.relation);
            }
        });
        table_batches.retain(|table_batch| {
            !table_batch.candidates.roles.is_empty() || !table_batch.outdated.is_empty()
        });
        table_batches
    }
}

fn in_order(mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
    deliveries.sort_by_key(|delivery| (delivery.transaction, delivery.change));
    deliveries
}

/// Returns the roles of all subscribers that may receive a change.
fn roles<'a>(table_batches: &'a [TableBatch<'_>]) -> Vec<&'a str> {
    let roles: HashSet<&str> = table_batches
        .iter()
        .flat_map(|table_batch| {
            let outdated = table_batch.outdated.iter();
            let candidates = table_batch.candidates.roles.iter().map(|role| &**role);
            candidates.chain(outdated.map(|it| it.principal.identity.role.as_str()))
        })
        .collect();
    roles.into_iter().collect()
}

fn agrees(catalog: &Catalog, table_batch: &TableBatch<'_>) -> bool {
    catalog
        .table(table_batch.relation.oid)
        .is_some_and(|table| table.agrees_with(table_batch.relation))
}
