//! Finds the principals that may receive changes of a table batch, as far as this can be determined
//! without PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;

use super::decisions::RoleAccess;
use super::predicate::{Test, is_true};
use super::queries::Principal;
use super::subscription::{Subscription, filtered_value};
use super::table::{Table, TableRights};
use super::table_batch::Resolution;
use crate::change::{Action, ChangeEvent, ColumnValue};

/// A principal with the subscriptions and changes that may match.
pub(super) struct Receiver<'a> {
    pub(super) principal: Arc<Principal>,
    /// The subscriptions without a filter.
    pub(super) unfiltered: Vec<Arc<Subscription>>,
    /// The changes that the filters of other subscriptions may accept.
    pub(super) matched: Vec<FilterMatch<'a>>,
}

/// A change, and a subscription whose filter accepts it as far as this process can evaluate the
/// filter.
pub(super) struct FilterMatch<'a> {
    /// The index of the change in the table batch.
    pub(super) change: usize,
    pub(super) subscription: Arc<Subscription>,
    /// The conditions that PostgreSQL has to evaluate, each as its index in the filter and the
    /// value.
    pub(super) pending: Vec<(usize, &'a ColumnValue)>,
}

impl Receiver<'_> {
    /// Returns whether the subscriptions without a filter request inserts, whether they request
    /// updates, and whether they request deletes.
    pub(super) fn actions(&self) -> [bool; 3] {
        [Action::Insert, Action::Update, Action::Delete].map(|action| {
            self.unfiltered
                .iter()
                .any(|subscription| subscription.event.accepts(action))
        })
    }
}

impl<'a> Resolution<'a> {
    /// Returns the principals with the changes that may match, as far as filters are evaluated
    /// here. Conditions that need PostgreSQL are evaluated later and only on visible rows.
    /// Otherwise a filter that is written to fail or to be slow on a certain value would reveal
    /// hidden rows.
    pub(super) fn receivers(
        &self,
        table: &Table,
        roles: &HashMap<&str, RoleAccess<'_>>,
    ) -> Vec<Receiver<'a>> {
        let mut receivers: Vec<Receiver<'a>> = Vec::new();
        // The keys are the principals' addresses, which are unique per identity.
        let mut by_principal: HashMap<usize, usize> = HashMap::new();
        let mut receiver = |subscription: &Subscription, receivers: &mut Vec<Receiver<'a>>| {
            *by_principal
                .entry(Arc::as_ptr(&subscription.principal).addr())
                .or_insert_with(|| {
                    receivers.push(Receiver {
                        principal: Arc::clone(&subscription.principal),
                        unfiltered: Vec::new(),
                        matched: Vec::new(),
                    });
                    receivers.len() - 1
                })
        };
        for subscription in &self.table_batch.candidates.unfiltered {
            let position = receiver(subscription, &mut receivers);
            receivers[position]
                .unfiltered
                .push(Arc::clone(subscription));
        }
        for (change, subscription) in &self.table_batch.candidates.filtered {
            let role = subscription.principal.identity.role.as_str();
            let Some(role_access) = roles.get(role) else {
                continue;
            };
            let Some(pending) =
                self.local_conditions(table, role_access.rights, *change, subscription)
            else {
                continue;
            };
            let position = receiver(subscription, &mut receivers);
            receivers[position].matched.push(FilterMatch {
                change: *change,
                subscription: Arc::clone(subscription),
                pending,
            });
        }
        receivers
    }

    /// Evaluates the conditions of a filter in this process. Returns the conditions that PostgreSQL
    /// has to evaluate, with the values, or `None` if the filter rejects the change.
    fn local_conditions(
        &self,
        table: &Table,
        rights: &TableRights,
        change: usize,
        subscription: &Subscription,
    ) -> Option<Vec<(usize, &'a ColumnValue)>> {
        let relation = self.table_batch.relation;
        let mut pending = Vec::new();
        for (position, condition) in subscription.predicate.conditions.iter().enumerate() {
            let index = relation.columns.iter().position(|published| {
                published.name == condition.column && published.type_oid == condition.type_oid
            })?;
            // If the role may not select the column, a match would reveal something about the
            // value.
            let column = table.column(&condition.column)?;
            if !rights.selectable.contains(&column.number) {
                return None;
            }
            let row = &self.table_batch.changes[change].row;
            let value = filtered_value(row, index, table.has_whole_old_rows)?;
            match &condition.test {
                Test::Local {
                    comparison,
                    is_negated,
                    kind,
                } => {
                    if !is_true(comparison, *is_negated, *kind, value) {
                        return None;
                    }
                }
                Test::Query { .. } => pending.push((position, value)),
            }
        }
        Some(pending)
    }

    /// Returns the indexes of the changes that a subscription of the receiver accepts, unordered
    /// and possibly repeated.
    pub(super) fn wanted<'p>(
        &'p self,
        receiver: &'p Receiver<'_>,
    ) -> impl Iterator<Item = usize> + 'p {
        let [insert, update, delete] = receiver.actions();
        let is_wanted = move |event: &ChangeEvent| match event.action() {
            Action::Insert => insert,
            Action::Update => update,
            Action::Delete => delete,
        };
        self.table_batch
            .changes
            .iter()
            .enumerate()
            .filter(move |(_, event)| is_wanted(event))
            .map(|(change, _)| change)
            .chain(receiver.matched.iter().map(|matched| matched.change))
    }
}
