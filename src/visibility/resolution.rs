//! Resolves one table batch: evaluates filters, checks access, and collects the recipients.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::binding::SubscribeOptions;
use super::checks::{Check, CheckResult, StaleCatalog};
use super::columns::{ColumnsKey, VisibleColumns, visible_columns};
use super::conditions::{PendingConditions, PendingDelivery};
use super::decisions::{
    DELETED, Decisions, IMAGE, KEY, Numbers, OldRowDecision, RoleAccess, SnapshotsBefore,
    UNAUTHORIZED,
};
use super::delivery::{Delivery, Payload, Recipient};
use super::predicate::{Test, is_true};
use super::queries::{DatabaseState, Principal};
use super::recipients::{RecipientGroups, add, unanswered_text};
use super::record::{RecordDetail, change_bytes};
use super::row_access::Access;
use super::snapshots::HeldSnapshot;
use super::subscription::{Subscription, filtered_value};
use super::table::{Table, TableRights};
use super::table_batch::Resolution;
use crate::change::{Action, ChangeEvent, ColumnValue};

/// A principal with the subscriptions and changes that may match.
struct Receiver<'a> {
    principal: Arc<Principal>,
    unfiltered: Vec<Arc<Subscription>>,
    matched: Vec<FilterMatch<'a>>,
}

/// A change that a filter accepts, as far as this process can evaluate it.
struct FilterMatch<'a> {
    change: usize,
    subscription: Arc<Subscription>,
    /// The conditions that PostgreSQL has to evaluate, each with the value.
    pending: Vec<(usize, &'a ColumnValue)>,
}

impl Receiver<'_> {
    /// Whether subscriptions without a filter request inserts, updates and deletes.
    fn actions(&self) -> [bool; 3] {
        [Action::Insert, Action::Update, Action::Delete].map(|action| {
            self.unfiltered
                .iter()
                .any(|subscription| subscription.event.accepts(action))
        })
    }
}

/// The collected deliveries: those that are decided, and those that depend on filter conditions.
struct Output<'o, 'a> {
    groups: &'o mut RecipientGroups,
    conditions: &'o mut PendingConditions<'a>,
}

impl<'a> Resolution<'a> {
    /// The deliveries of the table batch.
    ///
    /// # Errors
    /// See [`super::checks::run_checks`].
    pub(super) async fn deliver(&self, may_be_stale: bool) -> Result<Vec<Delivery>, StaleCatalog> {
        let Some(table) = self.catalog.table(self.table_batch.relation.oid) else {
            // The table was dropped or is not in our publication, so access to it is unknown.
            return Ok(Vec::new());
        };
        let mut groups: RecipientGroups = self
            .table_batch
            .changes
            .iter()
            .map(|_| Vec::new())
            .collect();
        let roles = self.role_access(table);
        self.refuse(&roles, &mut groups);
        if self.table_batch.candidates.is_empty() {
            return Ok(self.deliveries(groups));
        }
        let receivers = self.receivers(table, &roles);
        let mut before = SnapshotsBefore::default();
        let mut decisions: HashMap<&str, Decisions> = HashMap::new();
        for receiver in &receivers {
            let role = receiver.principal.identity.role.as_str();
            if let (false, Some(role_access)) = (decisions.contains_key(role), roles.get(role)) {
                decisions.insert(role, self.decisions(table, role_access, &mut before));
            }
        }
        let (checks, owners) = self.checks(&receivers, &roles, &decisions);
        let mut results = self.run_checks(&checks, may_be_stale).await?;
        for (place, snapshot) in before.snapshots.into_iter().enumerate() {
            let is_concerned = owners.iter().map(|(_, kind)| *kind == DELETED + place);
            // Boxed: its state would be part of every resolution and is rarely needed.
            Box::pin(self.check_before(&checks, &mut results, is_concerned, snapshot)).await?;
        }
        let mut answers: HashMap<(usize, usize), CheckResult> =
            owners.into_iter().zip(results).collect();
        let mut conditions = PendingConditions::default();
        // The results of one principal, by kind. Reused, because there can be thousands of
        // principals.
        let mut own: Vec<CheckResult> = Vec::new();
        for (position, receiver) in receivers.iter().enumerate() {
            let role = receiver.principal.identity.role.as_str();
            let (Some(role_access), Some(decisions)) = (roles.get(role), decisions.get(role))
            else {
                continue;
            };
            own.clear();
            own.extend(
                (0..decisions.inputs.len())
                    .map(|kind| answers.remove(&(position, kind)).unwrap_or_default()),
            );
            let mut out = Output {
                groups: &mut groups,
                conditions: &mut conditions,
            };
            self.add_recipients(table, role_access, receiver, decisions, &own, &mut out);
        }
        conditions
            .evaluate(self, table, may_be_stale, &mut groups)
            .await?;
        Ok(self.deliveries(groups))
    }

    /// Checks again, in a snapshot from before the deletions, the rows that the policies hide now.
    /// Adds those that the policies showed then to `results`.
    ///
    /// # Errors
    /// See [`super::checks::run_checks`].
    async fn check_before(
        &self,
        checks: &[Check],
        results: &mut [CheckResult],
        is_concerned: impl Iterator<Item = bool>,
        snapshot: Arc<HeldSnapshot>,
    ) -> Result<(), StaleCatalog> {
        let mut hidden_checks = Vec::new();
        let mut places = Vec::new();
        // Principals with the same inputs share them, so that one call can check them all.
        let mut shared: HashSet<Arc<[u32]>> = HashSet::new();
        for (place, _) in is_concerned.enumerate().filter(|(_, it)| *it) {
            let (check, result) = (&checks[place], &results[place]);
            let failed = result.failed.iter().map(|(number, _)| number);
            let answered: HashSet<&u32> = result.accepted.iter().chain(failed).collect();
            let hidden = check.numbers.iter().filter(|it| !answered.contains(it));
            let hidden: Vec<u32> = hidden.copied().collect();
            if hidden.is_empty() {
                continue;
            }
            let numbers = shared.get(hidden.as_slice()).map(Arc::clone);
            let numbers = numbers.unwrap_or_else(|| {
                let numbers: Arc<[u32]> = hidden.into();
                shared.insert(Arc::clone(&numbers));
                numbers
            });
            hidden_checks.push(Check {
                numbers,
                ..check.clone()
            });
            places.push(place);
        }
        let numbers = hidden_checks
            .iter()
            .map(|check| check.numbers.len() as u64)
            .sum();
        self.engine.metrics.asked_before.inc_by(numbers);
        let state = DatabaseState::Snapshot(snapshot);
        let found = self
            .engine
            .run_checks(&hidden_checks, &state, false)
            .await?;
        for (place, found) in places.into_iter().zip(found) {
            results[place].accepted.extend(found.accepted);
        }
        Ok(())
    }

    /// The checks to run. For each, the index of the receiver and the kind.
    fn checks(
        &self,
        receivers: &[Receiver<'_>],
        roles: &HashMap<&str, RoleAccess<'_>>,
        decisions: &HashMap<&str, Decisions>,
    ) -> (Vec<Check>, Vec<(usize, usize)>) {
        let mut checks = Vec::new();
        let mut owners = Vec::new();
        // Receivers without filters that request the same kinds of changes share their inputs.
        let mut shared: HashMap<(&str, [bool; 3]), Numbers> = HashMap::new();
        for (position, receiver) in receivers.iter().enumerate() {
            let role = receiver.principal.identity.role.as_str();
            let (Some(role_access), Some(decisions)) = (roles.get(role), decisions.get(role))
            else {
                continue;
            };
            let Access::ByQuery(queries) = &role_access.row_access else {
                continue;
            };
            let numbers = if receiver.matched.is_empty() {
                let shared = shared
                    .entry((role, receiver.actions()))
                    .or_insert_with(|| decisions.numbers(self.wanted(receiver)));
                Arc::clone(shared)
            } else {
                decisions.numbers(self.wanted(receiver))
            };
            for (kind, numbers) in numbers.iter().enumerate() {
                let row_query = if kind == KEY {
                    &queries.key
                } else {
                    &queries.image
                };
                let (Some(row_query), false) = (row_query, numbers.is_empty()) else {
                    continue;
                };
                let metrics = &self.engine.metrics;
                let counter = if kind == KEY {
                    &metrics.asked_by_key
                } else {
                    &metrics.asked_by_image
                };
                counter.inc_by(numbers.len() as u64);
                checks.push(Check {
                    principal: Arc::clone(&receiver.principal),
                    query: Arc::clone(&row_query.query),
                    inputs: Arc::clone(&decisions.inputs[kind]),
                    numbers: Arc::clone(numbers),
                    operand: None,
                });
                owners.push((position, kind));
            }
        }
        (checks, owners)
    }

    /// Adds the errors for roles that cannot receive inserted and updated rows, whatever the
    /// filters.
    fn refuse(&self, roles: &HashMap<&str, RoleAccess<'_>>, groups: &mut RecipientGroups) {
        let tells_unauthorized = self.engine.config.tell_unauthorized;
        let is_told = |refusal| tells_unauthorized || refusal != UNAUTHORIZED;
        let refused: HashSet<&str> = roles
            .iter()
            .filter(|(_, role_access)| role_access.refusal.is_some_and(is_told))
            .map(|(role, _)| *role)
            .collect();
        if refused.is_empty() {
            return;
        }
        let subscriptions = self.engine.with_subscriptions(|subscriptions| {
            subscriptions.with_roles(&self.table_batch.relation.table, &refused)
        });
        for (change, event) in self.table_batch.changes.iter().enumerate() {
            let action = event.action();
            if action == Action::Delete {
                continue;
            }
            for subscription in &subscriptions {
                let role_access = roles.get(subscription.principal.identity.role.as_str());
                if let Some(refusal) = role_access.and_then(|it| it.refusal)
                    && subscription.event.accepts(action)
                {
                    add(&mut groups[change], Payload::Refused(refusal), subscription);
                }
            }
        }
    }

    /// The principals with the changes that may match, as far as filters are evaluated here.
    /// Conditions that need PostgreSQL are evaluated later, only on visible rows. A filter can be
    /// written to fail or to be slow on a certain value, which would reveal hidden rows.
    fn receivers(&self, table: &Table, roles: &HashMap<&str, RoleAccess<'_>>) -> Vec<Receiver<'a>> {
        let mut receivers: Vec<Receiver<'a>> = Vec::new();
        // By the principal's address, which is unique per identity.
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

    /// Evaluates conditions in this process. `None` if the filter rejects the change; otherwise the
    /// conditions that PostgreSQL has to evaluate, with the values.
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
            // A match would reveal something about the value.
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

    /// The indexes of the changes that a subscription of the receiver accepts, unordered and
    /// possibly repeated.
    fn wanted<'p>(&'p self, receiver: &'p Receiver<'_>) -> impl Iterator<Item = usize> + 'p {
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

    /// Adds the deliveries to one receiver. The cost grows with the number of visible rows.
    fn add_recipients(
        &self,
        table: &Table,
        role_access: &RoleAccess<'_>,
        receiver: &Receiver<'a>,
        decisions: &Decisions,
        answers: &[CheckResult],
        out: &mut Output<'_, 'a>,
    ) {
        let mut matched: HashMap<usize, Vec<&FilterMatch<'a>>> = HashMap::new();
        for accepted in &receiver.matched {
            matched.entry(accepted.change).or_default().push(accepted);
        }
        let mut column_sets = ColumnSets::default();
        let is_checked = |decision: &OldRowDecision| matches!(decision, OldRowDecision::Check(_));
        let accepted_images: HashSet<u32> = match answers.get(IMAGE) {
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
                    Some(sqlstate) => {
                        self.engine.metrics.unanswered.inc();
                        Payload::Unanswered(unanswered_text(
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
                            // The role has no right on the table, so it is not told about the
                            // deletion at all.
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
        for (changes_of, result) in decisions.changes_of.iter().zip(answers) {
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

    fn deliveries(&self, groups: RecipientGroups) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        for (change, groups) in groups.into_iter().enumerate() {
            let (transaction, place) = self.table_batch.places[change];
            for (payload, mut bindings) in groups {
                bindings.sort_unstable();
                bindings.dedup();
                let mut recipients: Vec<Recipient> = Vec::new();
                for (channel, id) in bindings {
                    match recipients.last_mut() {
                        Some(last) if last.channel == channel => last.ids.push(id),
                        _ => recipients.push(Recipient {
                            channel,
                            ids: vec![id],
                        }),
                    }
                }
                deliveries.push(Delivery {
                    transaction,
                    change: place,
                    payload,
                    recipients,
                });
            }
        }
        deliveries
    }
}

/// The column sets of one receiver, usually one.
#[derive(Default)]
struct ColumnSets(Vec<(Selection, Arc<VisibleColumns>)>);

/// The options of a subscription that determine its columns, and whether the old row is hidden.
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
