//! From committed changes to deliveries: gathers a batch by table and keeps at it until it is decided.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ask::{AskPool, State};
use super::catalog::{Catalog, CatalogCache};
use super::committed::{CommitWatch, Commits};
use super::delivery::{Delivery, Payload, Recipient, Resolved};
use super::descriptions::Descriptions;
use super::error::{AskError, SubscribeError};
use super::inquiry::{Item, Outcome, Patience, Stale, settle};
use super::resolution::Resolution;
use super::slow_filters::SlowFilters;
use super::snapshots::SnapshotHistory;
use super::subscription::{Candidates, Checked, Draft, Outdated, Subscriptions};
use crate::change::{ChangeEvent, ChangeTransaction, Relation};
use crate::config::VisibilityConfig;
use crate::observability::metrics::VisibilityMetrics;

/// Everything a resolution needs.
pub(super) struct Resolver {
    pub(super) subscriptions: Mutex<Subscriptions>,
    pub(super) catalog: CatalogCache,
    pub(super) commits: CommitWatch,
    /// The states before deletions.
    pub(super) snapshots: Arc<SnapshotHistory>,
    pub(super) pool: AskPool,
    pub(super) metrics: VisibilityMetrics,
    pub(super) config: VisibilityConfig,
    pub(super) max_record_bytes: usize,
    /// The latest description of each table in the stream.
    pub(super) descriptions: Descriptions,
    /// Whose filters are not applied for now.
    pub(super) slow_filters: SlowFilters,
}

/// The changes of one table in a batch under one description, and whom they may concern.
pub(super) struct Run<'a> {
    pub(super) relation: &'a Arc<Relation>,
    pub(super) changes: Vec<&'a ChangeEvent>,
    /// Index of transaction and change, for each of `changes`.
    pub(super) places: Vec<(usize, usize)>,
    pub(super) batch: &'a [Arc<ChangeTransaction>],
    pub(super) candidates: Candidates,
    /// Channels whose filters were checked for another shape of the table.
    outdated: Vec<Outdated>,
}

/// A batch is to be completed under this reading of the catalogue first.
struct OtherReading(Arc<Catalog>);

impl Resolver {
    /// See [`super::Visibility::resolve`].
    pub(super) async fn resolve<'b>(&self, batch: &'b [Arc<ChangeTransaction>]) -> Resolved<'b> {
        let Some(mut catalog) = self.catalog.latest() else {
            // Nobody has subscribed yet.
            return Resolved {
                batch: Cow::Borrowed(batch),
                deliveries: Vec::new(),
            };
        };
        loop {
            let completed = self.complete(&catalog, batch).await;
            match self.decide(&catalog, &completed).await {
                Ok(deliveries) => {
                    return Resolved {
                        batch: completed,
                        deliveries,
                    };
                }
                Err(OtherReading(renewed)) => catalog = renewed,
            }
        }
    }

    /// The deliveries of a batch that was completed under a reading of the catalogue.
    ///
    /// # Errors
    /// When there is another reading by now, under which the batch may have to be completed differently.
    async fn decide(
        &self,
        completed_under: &Arc<Catalog>,
        batch: &[Arc<ChangeTransaction>],
    ) -> Result<Vec<Delivery>, OtherReading> {
        let mut runs = self.runs(batch);
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        for run in &runs {
            self.metrics.batch_changes.observe(run.changes.len() as f64);
        }
        let commits = self
            .commits
            .commits(batch.iter().map(|changes| changes.xid));
        let begun = Instant::now();
        let (ahead, mut catalog) = tokio::join!(
            self.resolve_ahead(&runs, &commits),
            self.catalog_for(&runs, &commits)
        );
        let is_completed = Arc::ptr_eq(&catalog, completed_under)
            || !(catalog.has_generated_columns || completed_under.has_generated_columns);
        if !is_completed {
            return Err(OtherReading(catalog));
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
        if runs
            .iter()
            .any(|run| !run.outdated.is_empty() && agrees(&catalog, run))
        {
            deliveries = self.renew_filters(&catalog, &runs).await;
            runs = self.runs(batch);
            catalog = self.catalog_for(&runs, &commits).await;
        }
        let roles = roles(&runs);
        let begun = Instant::now();
        for run in &runs {
            // The first attempt may meet statements that the catalogue has left behind. A later
            // one ends early only if it found a question impossible, which it finds but once.
            let mut may_be_stale = true;
            loop {
                let resolution = Resolution::new(self, &catalog, run, &commits);
                match resolution.deliver(may_be_stale).await {
                    Ok(found) => {
                        deliveries.extend(found);
                        break;
                    }
                    Err(Stale) => catalog = self.reading(&roles, Duration::ZERO).await,
                }
                may_be_stale = false;
            }
        }
        self.metrics
            .ask_seconds
            .observe(begun.elapsed().as_secs_f64());
        Ok(in_order(deliveries))
    }

    /// Resolves with a reading of the catalogue that is too old, while [`Self::catalog_for`] verifies
    /// it. The result is valid only if the reading is found to be unchanged. `None` if no
    /// reading has to be verified.
    async fn resolve_ahead(
        &self,
        runs: &[Run<'_>],
        commits: &Commits<'_>,
    ) -> Option<(Arc<Catalog>, Vec<Delivery>)> {
        let catalog = self
            .catalog
            .unverified(&roles(runs), self.age_limit(runs))?;
        if runs
            .iter()
            .any(|run| !run.outdated.is_empty() || !agrees(&catalog, run))
        {
            return None;
        }
        let mut deliveries = Vec::new();
        for run in runs {
            let resolution = Resolution::new(self, &catalog, run, commits);
            deliveries.extend(resolution.deliver(true).await.ok()?);
        }
        Some((catalog, in_order(deliveries)))
    }

    /// A reading of the catalogue for these runs. If the stream shows that a table may have
    /// changed, it begins after the commits are visible.
    async fn catalog_for(&self, runs: &[Run<'_>], commits: &Commits<'_>) -> Arc<Catalog> {
        let limit = self.age_limit(runs);
        if limit.is_zero() {
            commits.seen().await;
            self.descriptions
                .record(runs.iter().map(|run| run.relation));
        }
        self.reading(&roles(runs), limit).await
    }

    /// The maximum age of a reading of the catalogue for these runs.
    fn age_limit(&self, runs: &[Run<'_>]) -> Duration {
        let latest = self.catalog.latest();
        // The stream does not show changes of its policies and rights.
        let is_partitioned = |run: &Run<'_>| {
            let table = latest.as_ref()?.table(run.relation.oid)?;
            Some(table.is_partitioned)
        };
        if runs.iter().any(|run| is_partitioned(run) == Some(true)) {
            return Duration::ZERO;
        }
        let relations = runs.iter().map(|run| run.relation);
        self.descriptions
            .age_limit(relations)
            .min(self.catalog.ttl())
    }

    /// Checks the bindings of outdated channels again, for the types that columns have now. A
    /// channel whose filter no longer fits is told so and has no bindings any more, as if it
    /// joined now.
    async fn renew_filters(&self, catalog: &Arc<Catalog>, runs: &[Run<'_>]) -> Vec<Delivery> {
        let mut refused = Vec::new();
        for run in runs.iter().filter(|run| agrees(catalog, run)) {
            for outdated in &run.outdated {
                let (checked, error) = match self.check_again(catalog, outdated).await {
                    Ok(drafts) => {
                        let catalog = Arc::clone(catalog);
                        (Some(Checked { catalog, drafts }), None)
                    }
                    Err(error) => (None, Some(error)),
                };
                let is_renewed = self
                    .subscriptions
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .renew(outdated, checked);
                if let (true, Some(error), Some((transaction, change))) =
                    (is_renewed, error, run.places.first())
                {
                    self.metrics.unanswered.inc();
                    refused.push(Delivery {
                        transaction: *transaction,
                        change: *change,
                        payload: Payload::Unanswered(error.client_text()),
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

    /// Waits for as long as the database is away.
    async fn check_again(
        &self,
        catalog: &Arc<Catalog>,
        outdated: &Outdated,
    ) -> Result<Vec<Draft>, SubscribeError> {
        let mut patience = Patience::new(&self.metrics);
        loop {
            let asker = &outdated.asker;
            match self.check(catalog, asker, &outdated.bindings).await {
                Err(SubscribeError::Unavailable) => {
                    patience.wait(&AskError::Unavailable(None)).await;
                }
                settled => return settled,
            }
        }
    }

    fn runs<'a>(&self, batch: &'a [Arc<ChangeTransaction>]) -> Vec<Run<'a>> {
        let mut runs: Vec<Run<'a>> = Vec::new();
        // A relation is one shared value until it is described again.
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
                            batch,
                            candidates: Candidates::default(),
                            outdated: Vec::new(),
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
            run.outdated = subscriptions.outdated(run.relation);
        }
        runs.retain(|run| !run.candidates.roles.is_empty() || !run.outdated.is_empty());
        runs
    }

    /// Asks everything until there is an answer; see [`settle`].
    pub(super) async fn settle(
        &self,
        items: &[Item],
        state: &State,
        may_be_stale: bool,
    ) -> Result<Vec<Outcome>, Stale> {
        let max_inputs = self.config.batch_max_rows;
        let (pool, metrics) = (&self.pool, &self.metrics);
        settle(pool, metrics, max_inputs, items, state, may_be_stale).await
    }

    /// Whether a subscribed table needs snapshots from before its deletions.
    fn needs_snapshots(&self) -> bool {
        let Some(catalog) = self.catalog.latest() else {
            return false;
        };
        let mut tables = catalog.tables().filter(|table| table.needs_snapshots());
        tables.any(|table| self.with_subscriptions(|subscriptions| subscriptions.has(&table.name)))
    }

    /// Starts to take snapshots if they are needed, and waits for the first.
    pub(super) async fn start_snapshots(self: &Arc<Self>) {
        if self.needs_snapshots() {
            let resolver = Arc::clone(self);
            let is_needed = move || resolver.needs_snapshots();
            self.snapshots.start(is_needed).await;
        }
    }

    /// A reading of the catalogue within this age. Waits for as long as the database is away.
    async fn reading(&self, roles: &[&str], limit: Duration) -> Arc<Catalog> {
        let mut patience = Patience::new(&self.metrics);
        loop {
            match self.catalog.within(roles, limit).await {
                Ok(catalog) => return catalog,
                Err(error) => patience.wait(&error).await,
            }
        }
    }
}

fn in_order(mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
    deliveries.sort_by_key(|delivery| (delivery.transaction, delivery.change));
    deliveries
}

/// The roles of everyone concerned.
fn roles<'a>(runs: &'a [Run<'_>]) -> Vec<&'a str> {
    let roles: HashSet<&str> = runs
        .iter()
        .flat_map(|run| {
            let outdated = run.outdated.iter();
            let candidates = run.candidates.roles.iter().map(|role| &**role);
            candidates.chain(outdated.map(|it| it.asker.identity.role.as_str()))
        })
        .collect();
    roles.into_iter().collect()
}

fn agrees(catalog: &Catalog, run: &Run<'_>) -> bool {
    catalog
        .table(run.relation.oid)
        .is_some_and(|table| table.agrees_with(run.relation))
}
