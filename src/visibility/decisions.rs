//! Determines how each change of a table batch is decided for a role: always visible, never
//! visible, or by a check.

use std::collections::HashMap;
use std::sync::Arc;

use super::checks::Inputs;
use super::record::{new_value, old_row, old_value};
use super::row_access::{Access, access};
use super::snapshots::HeldSnapshot;
use super::table::{Table, TableRights};
use super::table_batch::Resolution;
use crate::change::{Action, ChangeEvent, OldRow, RowChange};

/// The error for a table without a primary key (protocol 6.5, item 1).
const NO_PRIMARY_KEY: &str = "Error 400: Bad Request, no primary key";

/// The error for a role that may not select the primary key (protocol 6.5, item 2).
pub(super) const UNAUTHORIZED: &str = "Error 401: Unauthorized";

/// The kind of check that evaluates the policies on the row's image. Kinds serve as indexes.
pub(super) const IMAGE: usize = 0;

/// The kind of check that selects the stored row by its key.
pub(super) const KEY: usize = 1;

/// The first kind of check for deleted rows whose policies read other rows. The policies are
/// evaluated on the old image, first in the current state, then in a snapshot. Each snapshot has
/// its own kind, because equal images can have different results in different snapshots.
pub(super) const DELETED: usize = 2;

/// The snapshots from before the transactions of deleted rows.
#[derive(Default)]
pub(super) struct SnapshotsBefore {
    pub(super) snapshots: Vec<Arc<HeldSnapshot>>,
    /// For each transaction, by its index in the batch, the index of its snapshot in `snapshots`.
    places: HashMap<usize, Option<usize>>,
}

/// A role's access to the rows of a table batch.
pub(super) struct RoleAccess<'a> {
    pub(super) rights: &'a TableRights,
    pub(super) row_access: Access,
    /// The error that subscribers with this role receive instead of inserted and updated rows.
    pub(super) refusal: Option<&'static str>,
}

/// How a change is decided for a role.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Visible,
    Hidden,
    /// Decided by the result of a check: its kind, and the number of the input.
    Check(usize, u32),
    /// The change cannot be decided.
    Unknown,
}

/// The decision about the old row of an UPDATE: which of the subscribers that may see the new row
/// also receive more of the old row than its primary key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OldRowDecision {
    /// All of these subscribers.
    AsNew,
    /// The subscribers for which the old image, which is this input of [`IMAGE`], is accepted too.
    Check(u32),
    /// No subscriber, because the WAL lacks a value that the policies read.
    Unknown,
}

/// The decisions about all changes of a table batch for one role.
pub(super) struct Decisions {
    by_change: Vec<Decision>,
    /// The decision about the old row of each change.
    pub(super) old_rows: Vec<OldRowDecision>,
    /// The inputs for each kind of check.
    pub(super) inputs: Vec<Arc<Inputs>>,
    /// The changes that each input decides.
    pub(super) changes_of: Vec<Vec<Vec<usize>>>,
    /// Changes that are visible without a check.
    pub(super) always: Vec<usize>,
    /// Changes that cannot be decided.
    pub(super) unknown: Vec<usize>,
}

/// The numbers of the inputs, for each kind of check.
pub(super) type Numbers = Arc<[Arc<[u32]>]>;

impl Decisions {
    /// Returns the numbers of the inputs that decide these changes.
    pub(super) fn numbers(&self, changes: impl Iterator<Item = usize>) -> Numbers {
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
    /// Returns the index of the snapshot from before the transaction of a change, or `None` if
    /// there is none.
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

impl<'a> Resolution<'a> {
    /// Returns the access of each role with subscriptions to the table.
    pub(super) fn role_access(&self, table: &Table) -> HashMap<&'a str, RoleAccess<'a>> {
        let mut roles = HashMap::new();
        for role in &self.table_batch.candidates.roles {
            let role = &**role;
            // A role that does not exist sees no rows.
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

    /// Determines how each change is decided for a role.
    pub(super) fn decisions(
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

    /// Decides about the old row of each UPDATE. One statement evaluates the policies on old and
    /// new images. If both images have the same values in the columns that the policies read, they
    /// are the same input.
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
}
