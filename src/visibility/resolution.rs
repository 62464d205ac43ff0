//! Resolves one table batch: checks who may see its changes, and collects the deliveries.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::addressing::Output;
use super::checks::{AccessCheck, AccessCheckResult, StaleCatalog};
use super::conditions::PendingConditions;
use super::decisions::{
    DELETED, Decisions, KEY, Numbers, RoleAccess, SnapshotsBefore, UNAUTHORIZED,
};
use super::delivery::{Delivery, Payload, Recipient};
use super::queries::DatabaseState;
use super::receivers::Receiver;
use super::recipients::{RecipientGroups, add};
use super::row_access::Access;
use super::snapshots::HeldSnapshot;
use super::table_batch::Resolution;
use crate::change::Action;

impl Resolution<'_> {
    /// Returns the deliveries of the table batch.
    ///
    /// # Errors
    /// See [`super::checks::run_checks`].
    pub(super) async fn deliver(&self, may_be_stale: bool) -> Result<Vec<Delivery>, StaleCatalog> {
        let Some(table) = self.catalog.table(self.table_batch.relation.oid) else {
            // The table was dropped or is not in the publication, so access to it is unknown.
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
            // Boxed, because this future is large and rarely needed, and would otherwise enlarge
            // the future of every batch.
            Box::pin(self.check_before(&checks, &mut results, is_concerned, snapshot)).await?;
        }
        let mut by_owner: HashMap<(usize, usize), AccessCheckResult> =
            owners.into_iter().zip(results).collect();
        let mut conditions = PendingConditions::default();
        // The results of one principal, by kind. Reused, because there can be thousands of
        // principals.
        let mut own: Vec<AccessCheckResult> = Vec::new();
        for (position, receiver) in receivers.iter().enumerate() {
            let role = receiver.principal.identity.role.as_str();
            let (Some(role_access), Some(decisions)) = (roles.get(role), decisions.get(role))
            else {
                continue;
            };
            own.clear();
            own.extend(
                (0..decisions.inputs.len())
                    .map(|kind| by_owner.remove(&(position, kind)).unwrap_or_default()),
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

    /// Repeats the checks of the rows that the policies hide now, in a snapshot from before the
    /// deletions. Adds the rows that are visible in the snapshot to `results`.
    ///
    /// # Errors
    /// See [`super::checks::run_checks`].
    async fn check_before(
        &self,
        checks: &[AccessCheck],
        results: &mut [AccessCheckResult],
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
            hidden_checks.push(AccessCheck {
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

    /// Returns the checks to run and, for each of them, the index of the receiver and the kind.
    fn checks(
        &self,
        receivers: &[Receiver<'_>],
        roles: &HashMap<&str, RoleAccess<'_>>,
        decisions: &HashMap<&str, Decisions>,
    ) -> (Vec<AccessCheck>, Vec<(usize, usize)>) {
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
                checks.push(AccessCheck {
                    principal: Arc::clone(&receiver.principal),
                    query: Arc::clone(&row_query.query),
                    inputs: Arc::clone(&decisions.inputs[kind]),
                    numbers: Arc::clone(numbers),
                    filter: None,
                });
                owners.push((position, kind));
            }
        }
        (checks, owners)
    }

    /// Adds the errors for roles that cannot receive inserted and updated rows, whatever the
    /// filters of their subscriptions.
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
