//! Adds the receivers of the decided changes to the deliveries, with the columns that each receiver
//! may see.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::binding::SubscribeOptions;
use super::checks::AccessCheckResult;
use super::columns::{ColumnsKey, VisibleColumns, visible_columns};
use super::conditions::{PendingConditions, PendingDelivery};
use super::decisions::{Decisions, IMAGE, OldRowDecision, RoleAccess};
use super::delivery::Payload;
use super::receivers::{FilterMatch, Receiver};
use super::recipients::{RecipientGroups, add, check_failed_text};
use super::record::{RecordDetail, change_bytes};
use super::subscription::Subscription;
use super::table::Table;
use super::table_batch::Resolution;
use crate::change::{Action, ChangeEvent};

/// The collected deliveries: the final ones, and those that still depend on filter conditions.
pub(super) struct Output<'o, 'a> {
    pub(super) groups: &'o mut RecipientGroups,
    pub(super) conditions: &'o mut PendingConditions<'a>,
}

impl<'a> Resolution<'a> {
    /// Adds all deliveries to one receiver. The cost grows with the number of visible rows.
    pub(super) fn add_recipients(
        &self,
        table: &Table,
        role_access: &RoleAccess<'_>,
        receiver: &Receiver<'a>,
        decisions: &Decisions,
        results: &[AccessCheckResult],
        out: &mut Output<'_, 'a>,
    ) {
        let mut matched: HashMap<usize, Vec<&FilterMatch<'a>>> = HashMap::new();
        for accepted in &receiver.matched {
            matched.entry(accepted.change).or_default().push(accepted);
        }
        let mut column_sets = ColumnSets::default();
        let is_checked = |decision: &OldRowDecision| matches!(decision, OldRowDecision::Check(_));
        let accepted_images: HashSet<u32> = match results.get(IMAGE) {
            Some(images) if decisions.old_rows.iter().any(is_checked) => {
                images.accepted.iter().copied().collect()
            }
            _ => HashSet::new(),
        };
        let mut add_delivery = |change: usize, failure: Option<&str>| {
            let event = self.table_batch.changes[change];
            let action = event.action();
            let unfiltered = receiver
                .unfiltered
                .iter()
                .filter(|subscription| subscription.event.accepts(action))
                .map(|subscription| (subscription, [].as_slice()));
            let matched = matched.get(&change).into_iter().flatten();
            let matched =
                matched.map(|matched| (&matched.subscription, matched.pending.as_slice()));
            for (subscription, pending) in unfiltered.chain(matched) {
                let payload = match failure {
                    // The error would show that a hidden row satisfies the filter.
                    Some(_) if !subscription.predicate.conditions.is_empty() => {
                        self.engine.metrics.unanswered.inc();
                        continue;
                    }
                    Some(sqlstate) => {
                        self.engine.metrics.unanswered.inc();
                        Payload::CheckFailed(check_failed_text(
                            &self.table_batch.relation.table.to_string(),
                            sqlstate,
                        ))
                    }
                    None => {
                        let hides_old_row = match &decisions.old_rows[change] {
                            OldRowDecision::AsNew => false,
                            OldRowDecision::Check(number) => !accepted_images.contains(number),
                            OldRowDecision::Unknown => true,
                        };
                        let columns =
                            column_sets.of(self, table, role_access, subscription, hides_old_row);
                        if action == Action::Delete && columns.columns.is_empty() {
                            // The role has no right on the table, so its subscribers do not receive
                            // the deletion at all.
                            continue;
                        }
                        Payload::Row(columns, self.detail(event))
                    }
                };
                if failure.is_some() || pending.is_empty() {
                    add(&mut out.groups[change], payload, subscription);
                } else {
                    out.conditions.waiting.push(PendingDelivery {
                        change,
                        subscription: Arc::clone(subscription),
                        conditions: pending.to_vec(),
                        payload,
                    });
                }
            }
        };
        for change in &decisions.always {
            add_delivery(*change, None);
        }
        self.engine
            .metrics
            .decided_locally
            .inc_by(decisions.always.len() as u64);
        for change in &decisions.unknown {
            add_delivery(*change, Some("the row is not known in full"));
        }
        for (changes_of, result) in decisions.changes_of.iter().zip(results) {
            for number in &result.accepted {
                for change in &changes_of[*number as usize] {
                    add_delivery(*change, None);
                }
            }
            for (number, sqlstate) in &result.failed {
                for change in &changes_of[*number as usize] {
                    add_delivery(*change, Some(sqlstate));
                }
            }
        }
    }

    fn detail(&self, event: &ChangeEvent) -> RecordDetail {
        if change_bytes(&event.row) > self.engine.max_record_bytes {
            RecordDetail::ShortValues
        } else {
            RecordDetail::Whole
        }
    }
}

/// The column sets of one receiver. There is usually only one.
#[derive(Default)]
struct ColumnSets(Vec<(Selection, Arc<VisibleColumns>)>);

/// The key of a column set: the `select` list and options of the subscription, and whether the old
/// row is hidden.
type Selection = (Option<Arc<[String]>>, SubscribeOptions, bool);

impl ColumnSets {
    fn of(
        &mut self,
        resolution: &Resolution<'_>,
        table: &Table,
        role_access: &RoleAccess<'_>,
        subscription: &Subscription,
        hides_old_row: bool,
    ) -> Arc<VisibleColumns> {
        let known = self.0.iter().find(|((select, options, hides), _)| {
            *options == subscription.options
                && *select == subscription.select
                && *hides == hides_old_row
        });
        if let Some((_, columns)) = known {
            return Arc::clone(columns);
        }
        let relation = resolution.table_batch.relation;
        let key = ColumnsKey {
            table: table.oid,
            role: subscription.principal.identity.role.clone(),
            select: subscription.select.clone(),
            options: subscription.options,
            hides_old_row,
        };
        let columns = resolution.catalog.columns(key, relation, || {
            let columns = visible_columns(
                table,
                relation,
                role_access.rights,
                subscription.select.as_deref(),
                subscription.options,
                &resolution.engine.config.tables_without_old_rows,
            );
            match hides_old_row {
                true => columns.without_old_rows(),
                false => columns,
            }
        });
        let selection = (
            subscription.select.clone(),
            subscription.options,
            hides_old_row,
        );
        self.0.push((selection, Arc::clone(&columns)));
        columns
    }
}
