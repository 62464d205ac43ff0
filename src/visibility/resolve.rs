//! From committed changes to deliveries: gathers a batch by table and keeps at it until it is decided.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::ask::AskPool;
use super::catalog::{Catalog, CatalogCache};
use super::delivery::Delivery;
use super::inquiry::{Item, Outcome, Patience, Stale, settle};
use super::resolution::Resolution;
use super::subscription::{Candidates, Subscriptions};
use crate::change::{ChangeEvent, ChangeTransaction, Relation};
use crate::config::VisibilityConfig;
use crate::observability::metrics::VisibilityMetrics;

/// Everything a resolution needs.
pub(super) struct Resolver {
    pub(super) subscriptions: Mutex<Subscriptions>,
    pub(super) catalog: CatalogCache,
    pub(super) pool: AskPool,
    pub(super) metrics: VisibilityMetrics,
    pub(super) config: VisibilityConfig,
    pub(super) max_record_bytes: usize,
    /// Table shapes that did not agree with the catalogue even when it had just been read:
    /// the stream is behind or ahead of it. A std lock: held for a look-up.
    pub(super) disagreeing: Mutex<HashMap<u32, Arc<Relation>>>,
}

/// The changes of one table in a batch that have the same shape, and whom they may concern.
pub(super) struct Run<'a> {
    pub(super) relation: &'a Arc<Relation>,
    pub(super) changes: Vec<&'a ChangeEvent>,
    /// Index of transaction and change, for each of `changes`.
    pub(super) places: Vec<(usize, usize)>,
    pub(super) candidates: Candidates,
}

impl Resolver {
    /// See [`super::Visibility::resolve`].
    pub(super) async fn resolve(&self, batch: &[Arc<ChangeTransaction>]) -> Vec<Delivery> {
        let runs = self.runs(batch);
        if runs.is_empty() {
            return Vec::new();
        }
        let roles: HashSet<&str> = runs
            .iter()
            .flat_map(|run| run.candidates.subscriptions())
            .map(|subscription| subscription.asker.identity.role.as_str())
            .collect();
        let roles: Vec<&str> = roles.into_iter().collect();
        let mut catalog = self.current(&roles).await;
        if self.disagrees(&catalog, &runs) {
            catalog = self.renewed(&roles).await;
            self.note_disagreement(&catalog, &runs);
        }
        let begun = Instant::now();
        let mut deliveries = Vec::new();
        for run in &runs {
            self.metrics.batch_changes.observe(run.changes.len() as f64);
            // The first attempt may meet statements that the catalogue has left behind. A later
            // one ends early only if it found a question impossible, which it finds but once.
            let mut may_be_stale = true;
            loop {
                let resolution = Resolution::new(self, &catalog, run);
                match resolution.deliver(may_be_stale).await {
                    Ok(found) => {
                        deliveries.extend(found);
                        break;
                    }
                    Err(Stale) => catalog = self.renewed(&roles).await,
                }
                may_be_stale = false;
            }
        }
        self.metrics
            .ask_seconds
            .observe(begun.elapsed().as_secs_f64());
        deliveries.sort_by_key(|delivery| (delivery.transaction, delivery.change));
        deliveries
    }

    fn runs<'a>(&self, batch: &'a [Arc<ChangeTransaction>]) -> Vec<Run<'a>> {
        let mut runs: Vec<Run<'a>> = Vec::new();
        // A relation is one shared value until its shape changes.
        let mut by_relation: HashMap<*const Relation, usize> = HashMap::new();
        for (transaction, changes) in batch.iter().enumerate() {
            for (change, event) in changes.changes.iter().enumerate() {
                let run = *by_relation
                    .entry(Arc::as_ptr(&event.relation))
                    .or_insert_with(|| {
                        runs.push(Run {
                            relation: &event.relation,
                            changes: Vec::new(),
                            places: Vec::new(),
                            candidates: Candidates::default(),
                        });
                        runs.len() - 1
                    });
                runs[run].changes.push(event);
                runs[run].places.push((transaction, change));
            }
        }
        let subscriptions = self
            .subscriptions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for run in &mut runs {
            run.candidates = subscriptions.candidates(run.relation, &run.changes);
        }
        runs.retain(|run| !run.candidates.is_empty());
        runs
    }

    /// Asks everything until there is an answer; see [`settle`].
    pub(super) async fn settle(
        &self,
        items: &[Item],
        may_be_stale: bool,
    ) -> Result<Vec<Outcome>, Stale> {
        let max_inputs = self.config.batch_max_rows;
        settle(&self.pool, &self.metrics, max_inputs, items, may_be_stale).await
    }

    /// A reading of the catalogue that is not too old, waited for as long as it takes.
    async fn current(&self, roles: &[&str]) -> Arc<Catalog> {
        let mut patience = Patience::new(&self.metrics);
        loop {
            match self.catalog.current(roles).await {
                Ok(catalog) => return catalog,
                Err(error) => patience.wait(&error).await,
            }
        }
    }

    /// A reading of the catalogue from now on, waited for as long as it takes.
    async fn renewed(&self, roles: &[&str]) -> Arc<Catalog> {
        let mut patience = Patience::new(&self.metrics);
        loop {
            match self.catalog.renewed(roles).await {
                Ok(catalog) => return catalog,
                Err(error) => patience.wait(&error).await,
            }
        }
    }

    /// Whether some shape in the stream is not the catalogue's, and that is news.
    fn disagrees(&self, catalog: &Catalog, runs: &[Run<'_>]) -> bool {
        let known = self
            .disagreeing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        runs.iter()
            .any(|run| !agrees(catalog, run) && known.get(&run.relation.oid) != Some(run.relation))
    }

    fn note_disagreement(&self, catalog: &Catalog, runs: &[Run<'_>]) {
        let mut known = self
            .disagreeing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for run in runs {
            if agrees(catalog, run) {
                known.remove(&run.relation.oid);
            } else {
                known.insert(run.relation.oid, Arc::clone(run.relation));
            }
        }
    }
}

fn agrees(catalog: &Catalog, run: &Run<'_>) -> bool {
    catalog
        .table(run.relation.oid)
        .is_some_and(|table| table.agrees_with(run.relation))
}
