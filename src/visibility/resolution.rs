//! Resolves one table batch: evaluates filters, checks access, and collects the recipients.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::binding::SubscribeOptions;
use super::checks::{Check, CheckResult, Inputs, StaleCatalog};
use super::columns::{ColumnsKey, VisibleColumns, visible_columns};
use super::conditions::{PendingConditions, PendingDelivery};
use super::delivery::{Delivery, Payload, Recipient};
use super::predicate::{Test, is_true};
use super::queries::{DatabaseState, Principal};
use super::recipients::{RecipientGroups, add, unanswered_text};
use super::record::{RecordDetail, change_bytes, new_value, old_row, old_value};
use super::row_access::{Access, access};
use super::snapshots::HeldSnapshot;
use super::subscription::{Subscription, filtered_value};
use super::table::{Table, TableRights};
use super::table_batch::Resolution;
use crate::change::{Action, ChangeEvent, ColumnValue, OldRow, RowChange};

/// Errors for subscribers whose role cannot receive any row of a table (protocol 6.5).
const NO_PRIMARY_KEY: &str = "Error 400: Bad Request, no primary key";
const UNAUTHORIZED: &str = "Error 401: Unauthorized";

/// The access of a role to a table batch.
struct RoleAccess<'a> {
    rights: &'a TableRights,
    row_access: Access,
    /// The error that subscribers with this role receive instead of inserted and updated rows.
    refusal: Option<&'static str>,
}

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

/// How a change is decided for a role.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decision {
    Visible,
    Hidden,
    /// By the result of the check of this kind for this input.
    Check(usize, u32),
    /// It cannot be decided.
    Unknown,
}

/// Which subscribers receive more of the old row of an UPDATE than its primary key, among those who
/// may see the new row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OldRowDecision {
    /// All of them.
    AsNew,
    /// The ones for which this input of [`IMAGE`], the old image, is accepted too.
    Check(u32),
    /// None of them, because the WAL lacks a value that the policies read.
    Unknown,
}

/// How each change of a table batch is decided for a role.
struct Decisions {
    by_change: Vec<Decision>,
    /// For each change, which subscribers receive the old row.
    old_rows: Vec<OldRowDecision>,
    /// The inputs for each kind of check.
    inputs: Vec<Arc<Inputs>>,
    /// The changes that each input decides.
    changes_of: Vec<Vec<Vec<usize>>>,
    /// Changes that are visible without a check.
    always: Vec<usize>,
    /// Changes that cannot be decided.
    unknown: Vec<usize>,
}

/// Numbers of inputs, for each kind of check.
type Numbers = Arc<[Arc<[u32]>]>;

impl Decisions {
    /// The inputs that decide these changes.
    fn numbers(&self, changes: impl Iterator<Item = usize>) -> Numbers {
        let mut numbers = vec![Vec::new(); self.inputs.len()];
        for change in changes {
            if let Decision::Check(kind, number) = self.by_change[change] {
                numbers[kind].push(number);
                if let OldRowDecision::Check(number) = self.old_rows[change] {
                    numbers[IMAGE].push(number);
                }
            }
        }
        let sorted = numbers.into_iter().map(|mut numbers: Vec<u32>| {
            numbers.sort_unstable();
            numbers.dedup();
            numbers.into()
        });
        sorted.collect()
    }
}

impl SnapshotsBefore {
    /// The index of the snapshot from before the transaction of a change; `None` if there is none.
    fn find(&mut self, resolution: &Resolution<'_>, change: usize) -> Option<usize> {
        let Self { snapshots, places } = self;
        let (transaction, _) = resolution.table_batch.places[change];
        *places.entry(transaction).or_insert_with(|| {
            let xid = resolution.table_batch.transactions.get(transaction)?.xid;
            let snapshot = resolution.engine.snapshots.before(xid)?;
            let known = snapshots.iter().position(|it| Arc::ptr_eq(it, &snapshot));
            Some(known.unwrap_or_else(|| {
                snapshots.push(snapshot);
                snapshots.len() - 1
            }))
        })
    }
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

/// The kinds of checks, which serve as indexes: the policies on the row's image, and the stored row
/// by its key.
const IMAGE: usize = 0;
const KEY: usize = 1;

/// The first kind for deleted rows whose policies read other rows: the policies on the old image,
/// first in the current state, then in a snapshot. Each snapshot has a kind of its own, because
/// equal images can have different results in different snapshots.
const DELETED: usize = 2;

/// The snapshots from before the transactions of deleted rows.
#[derive(Default)]
struct SnapshotsBefore {
    snapshots: Vec<Arc<HeldSnapshot>>,
    /// The index in `snapshots` for each transaction, by the transaction's index.
    places: HashMap<usize, Option<usize>>,
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

    fn role_access(&self, table: &Table) -> HashMap<&'a str, RoleAccess<'a>> {
        let mut roles = HashMap::new();
        for role in &self.table_batch.candidates.roles {
            let role = &**role;
            // A role that does not exist sees nothing.
            let Some(rights) = self.catalog.rights(role, table.oid) else {
                continue;
            };
            let refusal = if table.primary_key().next().is_none() {
                Some(NO_PRIMARY_KEY)
            } else if table
                .primary_key()
                .any(|column| !rights.selectable.contains(&column.number))
            {
                Some(UNAUTHORIZED)
            } else {
                None
            };
            let role_access = RoleAccess {
                rights,
                row_access: access(
                    &self.catalog.queries,
                    table,
                    self.table_batch.relation,
                    role,
                    rights,
                ),
                refusal,
            };
            roles.insert(role, role_access);
        }
        roles
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

    /// Determines how each change is decided for a role.
    fn decisions(
        &self,
        table: &Table,
        role_access: &RoleAccess<'_>,
        before: &mut SnapshotsBefore,
    ) -> Decisions {
        let mut inputs: Vec<Inputs> = Vec::new();
        let by_change: Vec<Decision> = (0..self.table_batch.changes.len())
            .map(|change| self.decision(table, role_access, change, before, &mut inputs))
            .collect();
        let old_rows = self.old_row_decisions(table, role_access, &by_change, &mut inputs);
        let changes_of = inputs.iter().map(|inputs| vec![Vec::new(); inputs.len()]);
        let mut decisions = Decisions {
            changes_of: changes_of.collect(),
            always: Vec::new(),
            unknown: Vec::new(),
            inputs: inputs.into_iter().map(Arc::new).collect(),
            by_change,
            old_rows,
        };
        for (change, decision) in decisions.by_change.iter().enumerate() {
            match decision {
                Decision::Visible => decisions.always.push(change),
                Decision::Unknown => decisions.unknown.push(change),
                Decision::Check(kind, number) => {
                    decisions.changes_of[*kind][*number as usize].push(change);
                }
                Decision::Hidden => {}
            }
        }
        decisions
    }

    fn decision(
        &self,
        table: &Table,
        role_access: &RoleAccess<'_>,
        change: usize,
        before: &mut SnapshotsBefore,
        inputs: &mut Vec<Inputs>,
    ) -> Decision {
        let event = self.table_batch.changes[change];
        let mut by_check = |kind: usize, input| {
            if inputs.len() <= kind {
                inputs.resize_with(kind + 1, Inputs::default);
            }
            Decision::Check(kind, inputs[kind].number(input))
        };
        let is_delete = event.action() == Action::Delete;
        if !is_delete && role_access.refusal.is_some() {
            return Decision::Hidden;
        }
        let queries = match &role_access.row_access {
            Access::Visible => return Decision::Visible,
            Access::Hidden => return Decision::Hidden,
            Access::ByQuery(queries) => queries,
        };
        let row = &event.row;
        if is_delete {
            let is_whole =
                table.has_whole_old_rows && matches!(old_row(row), Some(OldRow::Full(_)));
            let image = queries.image.as_ref().filter(|_| is_whole);
            let input =
                image.and_then(|image| image.input(|index| old_value(row, index, false, is_whole)));
            return match input {
                Some(input) => {
                    let snapshot = queries.reads_other_rows.then(|| before.find(self, change));
                    let kind = snapshot.flatten().map_or(IMAGE, |place| DELETED + place);
                    by_check(kind, input)
                }
                None if self.engine.config.delete_without_old_row => Decision::Visible,
                None => Decision::Hidden,
            };
        }
        let value = |index| new_value(row, index);
        if let Some(input) = queries.image.as_ref().and_then(|image| image.input(value)) {
            return by_check(IMAGE, input);
        }
        match queries.key.as_ref().and_then(|key| key.input(value)) {
            Some(input) => by_check(KEY, input),
            None => Decision::Unknown,
        }
    }

    /// Decides about the old row of each UPDATE. The same statement evaluates the policies on old
    /// and new images. An old image with the same values of the columns that they read is the same
    /// input.
    fn old_row_decisions(
        &self,
        table: &Table,
        role_access: &RoleAccess<'_>,
        by_change: &[Decision],
        inputs: &mut [Inputs],
    ) -> Vec<OldRowDecision> {
        let changes = &self.table_batch.changes;
        let has_old_image = |event: &&ChangeEvent| {
            // Without an old image, `old_record` consists of values of the new row.
            matches!(event.row, RowChange::Update { old: Some(_), .. })
        };
        let (Access::ByQuery(queries), true) =
            (&role_access.row_access, changes.iter().any(has_old_image))
        else {
            return vec![OldRowDecision::AsNew; changes.len()];
        };
        let name = format!("{}.{}", table.name.schema, table.name.name);
        let config = &self.engine.config;
        if config.tables_with_unchecked_old_rows.contains(&name)
            || config.tables_without_old_rows.contains(&name)
        {
            return vec![OldRowDecision::AsNew; changes.len()];
        }
        let is_key_only = self.table_batch.relation.columns.iter().all(|published| {
            table.column(&published.name).is_some_and(|column| {
                let is_identity = if table.is_partitioned {
                    column.is_identity
                } else {
                    published.is_identity
                };
                column.is_primary_key || !is_identity
            })
        });
        let decide = |(event, new): (&&ChangeEvent, &Decision)| {
            let row = &event.row;
            let (RowChange::Update { old: Some(old), .. }, Decision::Check(kind, number)) =
                (row, new)
            else {
                return OldRowDecision::AsNew;
            };
            if is_key_only && matches!(old, OldRow::Key(_)) {
                return OldRowDecision::AsNew;
            }
            let value = |index| old_value(row, index, false, table.has_whole_old_rows);
            let image = queries.image.as_ref();
            let input = image.and_then(|image| image.input(value));
            match (input, inputs.get_mut(IMAGE)) {
                (Some(input), Some(images)) => {
                    let old_number = images.number(input);
                    if (*kind, *number) == (IMAGE, old_number) {
                        OldRowDecision::AsNew
                    } else {
                        OldRowDecision::Check(old_number)
                    }
                }
                _ => OldRowDecision::Unknown,
            }
        };
        changes.iter().zip(by_change).map(decide).collect()
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
