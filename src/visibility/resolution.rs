//! One table's changes under one reading of the catalogue: whose filter accepts, who may see, what they receive.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use super::ask::{Asker, State};
use super::catalog::{Catalog, Table, TableRights};
use super::columns::{ColumnsKey, VisibleColumns, visible_columns};
use super::committed::Commits;
use super::conditions::{Conditions, Waiting};
use super::delivery::{Delivery, Payload, Recipient};
use super::inquiry::{Inputs, Item, Outcome, Stale};
use super::past::Moment;
use super::predicate::{Test, is_true};
use super::record::{RecordDetail, change_bytes, new_value, old_row, old_value};
use super::resolve::{Resolver, Run};
use super::row_access::{Access, access};
use super::subscription::{Subscription, filtered_value};
use super::{ChannelId, SubscribeOptions};
use crate::change::{Action, ChangeEvent, ColumnValue, OldRow, RowChange};

/// What the client is told when nobody may see rows of a table over this protocol (protocol 6.5).
const NO_PRIMARY_KEY: &str = "Error 400: Bad Request, no primary key";
const UNAUTHORIZED: &str = "Error 401: Unauthorized";

/// One run under one reading of the catalogue.
pub(super) struct Resolution<'a> {
    pub(super) resolver: &'a Resolver,
    pub(super) catalog: &'a Catalog,
    pub(super) run: &'a Run<'a>,
    pub(super) commits: &'a Commits<'a>,
}

/// What is known about a role for one run.
struct RoleFacts<'a> {
    rights: &'a TableRights,
    access: Access,
    /// The error that everyone with this role gets instead of inserted and updated rows.
    refusal: Option<&'static str>,
}

/// An identity and what of the run concerns it.
struct Person<'a> {
    asker: Arc<Asker>,
    open: Vec<Arc<Subscription>>,
    matched: Vec<Matched<'a>>,
}

/// A change that a filter accepts as far as can be told here.
struct Matched<'a> {
    change: usize,
    subscription: Arc<Subscription>,
    /// The conditions that PostgreSQL has to decide, with the values.
    asked: Vec<(usize, &'a ColumnValue)>,
}

/// What decides about a change for everyone with the same role.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decider {
    Visible,
    Hidden,
    /// The answer to a question of this kind about this input.
    Asked(usize, u32),
    /// Nothing can tell.
    Unknown,
}

/// Who receives more of the old row of an UPDATE than its primary key, among those who may see the
/// new row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OldRowDecider {
    /// All of them.
    AsNew,
    /// Those for whom this input of [`IMAGE`], the old image, is visible too.
    Asked(u32),
    /// None of them, because the WAL lacks a value that the policies read.
    Unknown,
}

/// What decides about each change of a run, for one role.
struct Deciders {
    by_change: Vec<Decider>,
    /// For each change, who receives the old row.
    old_rows: Vec<OldRowDecider>,
    /// Inputs, for each kind of question.
    inputs: Vec<Arc<Inputs>>,
    /// For each of the inputs the changes that it decides about.
    changes_of: Vec<Vec<Vec<usize>>>,
    /// Changes that are visible without a question.
    always: Vec<usize>,
    /// Changes nobody can tell about.
    unknown: Vec<usize>,
}

/// Numbers of inputs, for each kind of question.
type Numbers = Arc<[Arc<[u32]>]>;

impl Deciders {
    /// The inputs that decide about these changes.
    fn numbers(&self, changes: impl Iterator<Item = usize>) -> Numbers {
        let mut numbers = vec![Vec::new(); self.inputs.len()];
        for change in changes {
            if let Decider::Asked(kind, number) = self.by_change[change] {
                numbers[kind].push(number);
                if let OldRowDecider::Asked(number) = self.old_rows[change] {
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

impl Person<'_> {
    /// Whether subscriptions without a filter want insertions, updates, deletions.
    fn actions(&self) -> [bool; 3] {
        [Action::Insert, Action::Update, Action::Delete].map(|action| {
            self.open
                .iter()
                .any(|subscription| subscription.event.accepts(action))
        })
    }
}

/// The kinds of question about a row, by their places: the policies on its image, and the row
/// itself by its key.
const IMAGE: usize = 0;
const KEY: usize = 1;

/// From here on: the policies on the image of a deleted row, one kind for each moment that is asked
/// about where the policies hide it now.
const DELETED: usize = 2;

/// Moments before the transactions of deleted rows.
#[derive(Default)]
struct Moments {
    moments: Vec<Arc<Moment>>,
    /// The place of its own, by the index of its transaction.
    places: HashMap<usize, Option<usize>>,
}

/// Per change of the run: groups of recipients by payload.
pub(super) type Groups = Vec<Vec<Group>>;

/// A payload with channels and bindings that receive it.
pub(super) type Group = (Payload, Vec<(ChannelId, u32)>);

/// Where what people receive goes: to them, or where it waits for their filters.
struct Out<'o, 'a> {
    groups: &'o mut Groups,
    conditions: &'o mut Conditions<'a>,
}

impl<'a> Resolution<'a> {
    pub(super) fn new(
        resolver: &'a Resolver,
        catalog: &'a Catalog,
        run: &'a Run<'a>,
        commits: &'a Commits<'a>,
    ) -> Self {
        Self {
            resolver,
            catalog,
            run,
            commits,
        }
    }

    /// The deliveries of the run.
    ///
    /// # Errors
    /// As [`super::inquiry::settle`].
    pub(super) async fn deliver(&self, may_be_stale: bool) -> Result<Vec<Delivery>, Stale> {
        let Some(table) = self.catalog.table(self.run.relation.oid) else {
            // Dropped since, or not of our publication: nobody can tell who may see it.
            return Ok(Vec::new());
        };
        let mut groups: Groups = self.run.changes.iter().map(|_| Vec::new()).collect();
        let roles = self.role_facts(table);
        self.refuse(&roles, &mut groups);
        if self.run.candidates.is_empty() {
            return Ok(self.deliveries(groups));
        }
        let people = self.people(table, &roles);
        let mut moments = Moments::default();
        let mut deciders: HashMap<&str, Deciders> = HashMap::new();
        for person in &people {
            let role = person.asker.identity.role.as_str();
            if let (false, Some(facts)) = (deciders.contains_key(role), roles.get(role)) {
                deciders.insert(role, self.deciders(table, facts, &mut moments));
            }
        }
        let (items, owners) = self.items(&people, &roles, &deciders);
        let mut outcomes = self.ask(&items, may_be_stale).await?;
        for (place, moment) in moments.moments.into_iter().enumerate() {
            let of_moment = owners.iter().map(|(_, kind)| *kind == DELETED + place);
            self.ask_before(&items, &mut outcomes, of_moment, moment)
                .await?;
        }
        let mut answers: HashMap<(usize, usize), Outcome> =
            owners.into_iter().zip(outcomes).collect();
        let mut conditions = Conditions::default();
        // Of one person, by kind. One place for all, because there may be thousands.
        let mut own: Vec<Outcome> = Vec::new();
        for (position, person) in people.iter().enumerate() {
            let role = person.asker.identity.role.as_str();
            let (Some(facts), Some(deciders)) = (roles.get(role), deciders.get(role)) else {
                continue;
            };
            own.clear();
            own.extend(
                (0..deciders.inputs.len())
                    .map(|kind| answers.remove(&(position, kind)).unwrap_or_default()),
            );
            let mut out = Out {
                groups: &mut groups,
                conditions: &mut conditions,
            };
            self.hand_out(table, facts, person, deciders, &own, &mut out);
        }
        conditions
            .decide(self, table, may_be_stale, &mut groups)
            .await?;
        Ok(self.deliveries(groups))
    }

    /// Asks, with snapshots that see the transactions of the batch.
    ///
    /// # Errors
    /// As [`super::inquiry::settle`].
    pub(super) async fn ask(
        &self,
        items: &[Item],
        may_be_stale: bool,
    ) -> Result<Vec<Outcome>, Stale> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        self.commits.seen().await;
        let xids = self.run.batch.iter().map(|transaction| transaction.xid);
        let resolver = self.resolver;
        let (found, ()) = tokio::join!(
            resolver.settle(items, &State::Now, may_be_stale),
            resolver.past.catch_up(xids)
        );
        found
    }

    /// Asks about a moment before what the policies hide now, and adds what they showed then.
    ///
    /// # Errors
    /// As [`super::inquiry::settle`].
    async fn ask_before(
        &self,
        items: &[Item],
        outcomes: &mut [Outcome],
        is_concerned: impl Iterator<Item = bool>,
        moment: Arc<Moment>,
    ) -> Result<(), Stale> {
        let mut asked = Vec::new();
        let mut places = Vec::new();
        // Those who are asked about the same inputs share them, so that one call asks for all.
        let mut shared: HashSet<Arc<[u32]>> = HashSet::new();
        for (place, _) in is_concerned.enumerate().filter(|(_, it)| *it) {
            let (item, outcome) = (&items[place], &outcomes[place]);
            let failed = outcome.failed.iter().map(|(number, _)| number);
            let answered: HashSet<&u32> = outcome.visible.iter().chain(failed).collect();
            let hidden = item.numbers.iter().filter(|it| !answered.contains(it));
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
            asked.push(Item {
                numbers,
                ..item.clone()
            });
            places.push(place);
        }
        let numbers = asked.iter().map(|item| item.numbers.len() as u64).sum();
        self.resolver.metrics.asked_before.inc_by(numbers);
        let state = State::At(moment);
        let found = self.resolver.settle(&asked, &state, false).await?;
        for (place, found) in places.into_iter().zip(found) {
            outcomes[place].visible.extend(found.visible);
        }
        Ok(())
    }

    /// What is to be asked in whose name, with the place of the person and the kind of question.
    fn items(
        &self,
        people: &[Person<'_>],
        roles: &HashMap<&str, RoleFacts<'_>>,
        deciders: &HashMap<&str, Deciders>,
    ) -> (Vec<Item>, Vec<(usize, usize)>) {
        let mut items = Vec::new();
        let mut owners = Vec::new();
        // People without filters who want the same kinds of change are asked about the same inputs.
        let mut shared: HashMap<(&str, [bool; 3]), Numbers> = HashMap::new();
        for (position, person) in people.iter().enumerate() {
            let role = person.asker.identity.role.as_str();
            let (Some(facts), Some(deciders)) = (roles.get(role), deciders.get(role)) else {
                continue;
            };
            let Access::Asked(inquiry) = &facts.access else {
                continue;
            };
            let numbers = if person.matched.is_empty() {
                let known = shared
                    .entry((role, person.actions()))
                    .or_insert_with(|| deciders.numbers(self.wanted(person)));
                Arc::clone(known)
            } else {
                deciders.numbers(self.wanted(person))
            };
            for (kind, numbers) in numbers.iter().enumerate() {
                let inquiry = if kind == KEY {
                    &inquiry.key
                } else {
                    &inquiry.image
                };
                let (Some(inquiry), false) = (inquiry, numbers.is_empty()) else {
                    continue;
                };
                let metrics = &self.resolver.metrics;
                let counter = if kind == KEY {
                    &metrics.asked_by_key
                } else {
                    &metrics.asked_by_image
                };
                counter.inc_by(numbers.len() as u64);
                items.push(Item {
                    asker: Arc::clone(&person.asker),
                    question: Arc::clone(&inquiry.question),
                    inputs: Arc::clone(&deciders.inputs[kind]),
                    numbers: Arc::clone(numbers),
                    operand: None,
                });
                owners.push((position, kind));
            }
        }
        (items, owners)
    }

    fn role_facts(&self, table: &Table) -> HashMap<&'a str, RoleFacts<'a>> {
        let mut roles = HashMap::new();
        for role in &self.run.candidates.roles {
            let role = &**role;
            // A role that is gone sees nothing.
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
            let facts = RoleFacts {
                rights,
                access: access(self.catalog, table, self.run.relation, role, rights),
                refusal,
            };
            roles.insert(role, facts);
        }
        roles
    }

    /// Tells everyone whose role cannot receive inserted and updated rows; filters do not count.
    fn refuse(&self, roles: &HashMap<&str, RoleFacts<'_>>, groups: &mut Groups) {
        let tells_unauthorized = self.resolver.config.tell_unauthorized;
        let is_told = |refusal| tells_unauthorized || refusal != UNAUTHORIZED;
        let refused: HashSet<&str> = roles
            .iter()
            .filter(|(_, facts)| facts.refusal.is_some_and(is_told))
            .map(|(role, _)| *role)
            .collect();
        if refused.is_empty() {
            return;
        }
        let everyone = self
            .resolver
            .subscriptions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .everyone(&self.run.relation.table, &refused);
        for (change, event) in self.run.changes.iter().enumerate() {
            let action = event.action();
            if action == Action::Delete {
                continue;
            }
            for subscription in &everyone {
                let facts = roles.get(subscription.asker.identity.role.as_str());
                if let Some(refusal) = facts.and_then(|facts| facts.refusal)
                    && subscription.event.accepts(action)
                {
                    add(&mut groups[change], Payload::Refused(refusal), subscription);
                }
            }
        }
    }

    /// Identities with the changes that concern them, as far as filters are decided here. What
    /// PostgreSQL has to decide waits until it is known whether the row may be seen: a filter can be
    /// made to fail on a value of one's choice, or to take long, which would tell of hidden rows.
    fn people(&self, table: &Table, roles: &HashMap<&str, RoleFacts<'_>>) -> Vec<Person<'a>> {
        let mut people: Vec<Person<'a>> = Vec::new();
        // By the asker's address, of which there is one for each identity.
        let mut by_asker: HashMap<usize, usize> = HashMap::new();
        let mut person = |subscription: &Subscription, people: &mut Vec<Person<'a>>| {
            *by_asker
                .entry(Arc::as_ptr(&subscription.asker).addr())
                .or_insert_with(|| {
                    people.push(Person {
                        asker: Arc::clone(&subscription.asker),
                        open: Vec::new(),
                        matched: Vec::new(),
                    });
                    people.len() - 1
                })
        };
        for subscription in &self.run.candidates.open {
            let position = person(subscription, &mut people);
            people[position].open.push(Arc::clone(subscription));
        }
        for (change, subscription) in &self.run.candidates.filtered {
            let role = subscription.asker.identity.role.as_str();
            let Some(facts) = roles.get(role) else {
                continue;
            };
            let Some(asked) = self.local_conditions(table, facts.rights, *change, subscription)
            else {
                continue;
            };
            let position = person(subscription, &mut people);
            people[position].matched.push(Matched {
                change: *change,
                subscription: Arc::clone(subscription),
                asked,
            });
        }
        people
    }

    /// Decides what can be decided here. `None` if the filter does not accept the change, else
    /// the conditions that PostgreSQL has to decide, with the values.
    fn local_conditions(
        &self,
        table: &Table,
        rights: &TableRights,
        change: usize,
        subscription: &Subscription,
    ) -> Option<Vec<(usize, &'a ColumnValue)>> {
        let relation = self.run.relation;
        let mut asked = Vec::new();
        for (position, condition) in subscription.predicate.conditions.iter().enumerate() {
            let index = relation.columns.iter().position(|published| {
                published.name == condition.column && published.type_oid == condition.type_oid
            })?;
            // Whether a filter matches tells something about the value.
            let column = table.column(&condition.column)?;
            if !rights.selectable.contains(&column.number) {
                return None;
            }
            let row = &self.run.changes[change].row;
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
                Test::Asked { .. } => asked.push((position, value)),
            }
        }
        Some(asked)
    }

    /// What decides about each change for everyone with the same role.
    fn deciders(&self, table: &Table, facts: &RoleFacts<'_>, moments: &mut Moments) -> Deciders {
        let mut inputs: Vec<Inputs> = Vec::new();
        let by_change: Vec<Decider> = (0..self.run.changes.len())
            .map(|change| self.decider(table, facts, change, moments, &mut inputs))
            .collect();
        let old_rows = self.old_row_deciders(table, facts, &by_change, &mut inputs);
        let changes_of = inputs.iter().map(|inputs| vec![Vec::new(); inputs.len()]);
        let mut deciders = Deciders {
            changes_of: changes_of.collect(),
            always: Vec::new(),
            unknown: Vec::new(),
            inputs: inputs.into_iter().map(Arc::new).collect(),
            by_change,
            old_rows,
        };
        for (change, decider) in deciders.by_change.iter().enumerate() {
            match decider {
                Decider::Visible => deciders.always.push(change),
                Decider::Unknown => deciders.unknown.push(change),
                Decider::Asked(kind, number) => {
                    deciders.changes_of[*kind][*number as usize].push(change);
                }
                Decider::Hidden => {}
            }
        }
        deciders
    }

    fn decider(
        &self,
        table: &Table,
        facts: &RoleFacts<'_>,
        change: usize,
        moments: &mut Moments,
        inputs: &mut Vec<Inputs>,
    ) -> Decider {
        let event = self.run.changes[change];
        let mut asked = |kind: usize, input| {
            if inputs.len() <= kind {
                inputs.resize_with(kind + 1, Inputs::default);
            }
            Decider::Asked(kind, inputs[kind].number(input))
        };
        let is_delete = event.action() == Action::Delete;
        if !is_delete && facts.refusal.is_some() {
            return Decider::Hidden;
        }
        let inquiry = match &facts.access {
            Access::Visible => return Decider::Visible,
            Access::Hidden => return Decider::Hidden,
            Access::Asked(inquiry) => inquiry,
        };
        let row = &event.row;
        if is_delete {
            let is_whole =
                table.has_whole_old_rows && matches!(old_row(row), Some(OldRow::Full(_)));
            let image = inquiry.image.as_ref().filter(|_| is_whole);
            let input =
                image.and_then(|image| image.input(|index| old_value(row, index, false, is_whole)));
            return match input {
                Some(input) => {
                    let moment = inquiry
                        .looks_elsewhere
                        .then(|| self.moment(change, moments));
                    let kind = moment.flatten().map_or(IMAGE, |place| DELETED + place);
                    asked(kind, input)
                }
                None if self.resolver.config.delete_without_old_row => Decider::Visible,
                None => Decider::Hidden,
            };
        }
        let value = |index| new_value(row, index);
        if let Some(input) = inquiry.image.as_ref().and_then(|image| image.input(value)) {
            return asked(IMAGE, input);
        }
        match inquiry.key.as_ref().and_then(|key| key.input(value)) {
            Some(input) => asked(KEY, input),
            None => Decider::Unknown,
        }
    }

    /// Decides about the old row of each UPDATE. The same statement evaluates the policies on old and
    /// new images, and an old image with the same values of the columns that they read is the same
    /// input.
    fn old_row_deciders(
        &self,
        table: &Table,
        facts: &RoleFacts<'_>,
        by_change: &[Decider],
        inputs: &mut [Inputs],
    ) -> Vec<OldRowDecider> {
        let changes = &self.run.changes;
        let has_old_image = |event: &&ChangeEvent| {
            // Without an old image, `old_record` consists of values of the new row.
            matches!(event.row, RowChange::Update { old: Some(_), .. })
        };
        let (Access::Asked(inquiry), true) = (&facts.access, changes.iter().any(has_old_image))
        else {
            return vec![OldRowDecider::AsNew; changes.len()];
        };
        let name = format!("{}.{}", table.name.schema, table.name.name);
        let config = &self.resolver.config;
        if config.tables_with_unchecked_old_rows.contains(&name)
            || config.tables_without_old_rows.contains(&name)
        {
            return vec![OldRowDecider::AsNew; changes.len()];
        }
        let is_key_only = self.run.relation.columns.iter().all(|published| {
            table.column(&published.name).is_some_and(|column| {
                let is_identity = if table.is_partitioned {
                    column.is_identity
                } else {
                    published.is_identity
                };
                column.is_primary_key || !is_identity
            })
        });
        let decide = |(event, new): (&&ChangeEvent, &Decider)| {
            let row = &event.row;
            let (RowChange::Update { old: Some(old), .. }, Decider::Asked(kind, number)) =
                (row, new)
            else {
                return OldRowDecider::AsNew;
            };
            if is_key_only && matches!(old, OldRow::Key(_)) {
                return OldRowDecider::AsNew;
            }
            let value = |index| old_value(row, index, false, table.has_whole_old_rows);
            let image = inquiry.image.as_ref();
            let input = image.and_then(|image| image.input(value));
            match (input, inputs.get_mut(IMAGE)) {
                (Some(input), Some(images)) => {
                    let old_number = images.number(input);
                    if (*kind, *number) == (IMAGE, old_number) {
                        OldRowDecider::AsNew
                    } else {
                        OldRowDecider::Asked(old_number)
                    }
                }
                _ => OldRowDecider::Unknown,
            }
        };
        changes.iter().zip(by_change).map(decide).collect()
    }

    /// The place of the moment before the transaction of a change, if one is held.
    fn moment(&self, change: usize, moments: &mut Moments) -> Option<usize> {
        let (transaction, _) = self.run.places[change];
        let Moments { moments, places } = moments;
        *places.entry(transaction).or_insert_with(|| {
            let xid = self.run.batch.get(transaction)?.xid;
            let moment = self.resolver.past.before(xid)?;
            let known = moments.iter().position(|known| Arc::ptr_eq(known, &moment));
            Some(known.unwrap_or_else(|| {
                moments.push(moment);
                moments.len() - 1
            }))
        })
    }

    /// Changes that some subscription of a person accepts, ascending or not, repeated or not.
    fn wanted<'p>(&'p self, person: &'p Person<'_>) -> impl Iterator<Item = usize> + 'p {
        let [insert, update, delete] = person.actions();
        let is_wanted = move |event: &ChangeEvent| match event.action() {
            Action::Insert => insert,
            Action::Update => update,
            Action::Delete => delete,
        };
        self.run
            .changes
            .iter()
            .enumerate()
            .filter(move |(_, event)| is_wanted(event))
            .map(|(change, _)| change)
            .chain(person.matched.iter().map(|matched| matched.change))
    }

    /// Adds what one person receives, at a cost that grows with what they see.
    fn hand_out(
        &self,
        table: &Table,
        facts: &RoleFacts<'_>,
        person: &Person<'a>,
        deciders: &Deciders,
        answers: &[Outcome],
        out: &mut Out<'_, 'a>,
    ) {
        let mut matched: HashMap<usize, Vec<&Matched<'a>>> = HashMap::new();
        for accepted in &person.matched {
            matched.entry(accepted.change).or_default().push(accepted);
        }
        let mut column_sets = ColumnSets::default();
        let is_asked = |decider: &OldRowDecider| matches!(decider, OldRowDecider::Asked(_));
        let visible_images: HashSet<u32> = match answers.get(IMAGE) {
            Some(images) if deciders.old_rows.iter().any(is_asked) => {
                images.visible.iter().copied().collect()
            }
            _ => HashSet::new(),
        };
        let mut give = |change: usize, failure: Option<&str>| {
            let event = self.run.changes[change];
            let action = event.action();
            let open = person
                .open
                .iter()
                .filter(|subscription| subscription.event.accepts(action))
                .map(|subscription| (subscription, [].as_slice()));
            let matched = matched.get(&change).into_iter().flatten();
            let matched = matched.map(|matched| (&matched.subscription, matched.asked.as_slice()));
            for (subscription, asked) in open.chain(matched) {
                let payload = match failure {
                    Some(sqlstate) => {
                        self.resolver.metrics.unanswered.inc();
                        Payload::Unanswered(unanswered_text(
                            &self.run.relation.table.to_string(),
                            sqlstate,
                        ))
                    }
                    None => {
                        let hides_old_row = match &deciders.old_rows[change] {
                            OldRowDecider::AsNew => false,
                            OldRowDecider::Asked(number) => !visible_images.contains(number),
                            OldRowDecider::Unknown => true,
                        };
                        let columns =
                            column_sets.of(self, table, facts, subscription, hides_old_row);
                        if action == Action::Delete && columns.columns.is_empty() {
                            // A role without any right on the table: the others learn at least that a row is gone.
                            continue;
                        }
                        Payload::Row(columns, self.detail(event))
                    }
                };
                if failure.is_some() || asked.is_empty() {
                    add(&mut out.groups[change], payload, subscription);
                } else {
                    out.conditions.waiting.push(Waiting {
                        change,
                        subscription: Arc::clone(subscription),
                        conditions: asked.to_vec(),
                        payload,
                    });
                }
            }
        };
        for change in &deciders.always {
            give(*change, None);
        }
        self.resolver
            .metrics
            .decided_locally
            .inc_by(deciders.always.len() as u64);
        for change in &deciders.unknown {
            give(*change, Some("the row is not known in full"));
        }
        for (changes_of, outcome) in deciders.changes_of.iter().zip(answers) {
            for number in &outcome.visible {
                for change in &changes_of[*number as usize] {
                    give(*change, None);
                }
            }
            for (number, sqlstate) in &outcome.failed {
                for change in &changes_of[*number as usize] {
                    give(*change, Some(sqlstate));
                }
            }
        }
    }

    fn detail(&self, event: &ChangeEvent) -> RecordDetail {
        if change_bytes(&event.row) > self.resolver.max_record_bytes {
            RecordDetail::ShortValues
        } else {
            RecordDetail::Whole
        }
    }

    fn deliveries(&self, groups: Groups) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        for (change, groups) in groups.into_iter().enumerate() {
            let (transaction, place) = self.run.places[change];
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

/// What a client is told of a row whose check failed. It names the kind of failure and no value.
pub(super) fn unanswered_text(table: &str, reason: &str) -> String {
    format!("A change of {table} was not delivered: the row-level security check failed ({reason})")
}

/// Column sets of one person: as a rule one.
#[derive(Default)]
struct ColumnSets(Vec<(Selection, Arc<VisibleColumns>)>);

/// What a subscription says about columns, and whether the old row is hidden.
type Selection = (Option<Arc<[String]>>, SubscribeOptions, bool);

impl ColumnSets {
    fn of(
        &mut self,
        resolution: &Resolution<'_>,
        table: &Table,
        facts: &RoleFacts<'_>,
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
        let relation = resolution.run.relation;
        let key = ColumnsKey {
            table: table.oid,
            role: subscription.asker.identity.role.clone(),
            select: subscription.select.clone(),
            options: subscription.options,
            hides_old_row,
        };
        let columns = resolution.catalog.columns(key, relation, || {
            let columns = visible_columns(
                table,
                relation,
                facts.rights,
                subscription.select.as_deref(),
                subscription.options,
                &resolution.resolver.config.tables_without_old_rows,
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

/// Adds a recipient to the group that receives this payload.
pub(super) fn add(groups: &mut Vec<Group>, payload: Payload, subscription: &Subscription) {
    let recipient = (subscription.channel, subscription.binding);
    let is_same = |known: &Payload| match (known, &payload) {
        (Payload::Row(known, known_detail), Payload::Row(columns, detail)) => {
            Arc::ptr_eq(known, columns) && known_detail == detail
        }
        (Payload::Refused(known), Payload::Refused(text)) => known == text,
        (Payload::Unanswered(known), Payload::Unanswered(text)) => known == text,
        _ => false,
    };
    match groups.iter_mut().find(|(known, _)| is_same(known)) {
        Some((_, recipients)) => recipients.push(recipient),
        None => groups.push((payload, vec![recipient])),
    }
}
