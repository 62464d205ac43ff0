//! The changes of one table in a batch, and the context in which they are decided.

use std::sync::Arc;

use super::catalog::Catalog;
use super::checks::{AccessCheck, AccessCheckResult, StaleCatalog};
use super::committed::PendingCommits;
use super::engine::Engine;
use super::queries::DatabaseState;
use super::subscription::{Candidates, Outdated};
use crate::change::{ChangeEvent, ChangeTransaction, Relation};

/// The changes of a batch with the same table definition, and the subscriptions that they may
/// match.
pub(super) struct TableBatch<'a> {
    pub(super) relation: &'a Arc<Relation>,
    pub(super) changes: Vec<&'a ChangeEvent>,
    /// For each of `changes`, the index of the transaction and the index of the change in it.
    pub(super) places: Vec<(usize, usize)>,
    pub(super) transactions: &'a [Arc<ChangeTransaction>],
    pub(super) candidates: Candidates,
    /// Channels whose filters were checked when the columns had other types.
    pub(super) outdated: Vec<Outdated>,
}

/// A table batch, with the reading of the catalogue and the commits under which it is decided.
pub(super) struct Resolution<'a> {
    pub(super) engine: &'a Engine,
    pub(super) catalog: &'a Catalog,
    pub(super) table_batch: &'a TableBatch<'a>,
    pub(super) commits: &'a PendingCommits<'a>,
}

impl<'a> Resolution<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        catalog: &'a Catalog,
        table_batch: &'a TableBatch<'a>,
        commits: &'a PendingCommits<'a>,
    ) -> Self {
        Self {
            engine,
            catalog,
            table_batch,
            commits,
        }
    }

    /// Runs checks after the transactions of the batch have become visible.
    ///
    /// # Errors
    /// See [`super::checks::run_checks`].
    pub(super) async fn run_checks(
        &self,
        checks: &[AccessCheck],
        may_be_stale: bool,
    ) -> Result<Vec<AccessCheckResult>, StaleCatalog> {
        if checks.is_empty() {
            return Ok(Vec::new());
        }
        self.commits.wait_visible().await;
        let xids = self
            .table_batch
            .transactions
            .iter()
            .map(|transaction| transaction.xid);
        let engine = self.engine;
        let (found, ()) = tokio::join!(
            engine.run_checks(checks, &DatabaseState::Current, may_be_stale),
            engine.snapshots.catch_up(xids)
        );
        found
    }
}
