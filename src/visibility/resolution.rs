//! One table's changes under one reading of the catalogue: whose filter accepts, who may see, what they receive.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use super::ask::Asker;
use super::catalog::{Catalog, Table, TableRights};
use super::columns::{ColumnsKey, VisibleColumns, visible_columns};
use super::committed::Commits;
use super::conditions::{Conditions, Waiting};
use super::delivery::{Delivery, Payload, Recipient};
use super::inquiry::{Inputs, Item, Outcome, Stale};
use super::predicate::{Test, is_true};
use super::record::{RecordDetail, change_bytes, new_value, old_row, old_value};
use super::resolve::{Resolver, Run};
use super::row_access::{Access, access};
use super::subscription::{Subscription, filtered_value};
use super::{ChannelId, SubscribeOptions};
use crate::change::{Action, ChangeEvent, ColumnValue, OldRow};

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
    /// The policies on this input.
    Image(u32),
    /// The row itself, by this key.
    Key(u32),
    /// Nothing can tell.
    Unknown,
}

/// What decides about each change of a run, for one role.
struct Deciders {
    by_change: Vec<Decider>,
    /// Inputs of images and of keys.
    inputs: [Arc<Inputs>; 2],
    /// For each of the inputs the changes that it decides about.
    changes_of: [Vec<Vec<usize>>; 2],
    /// Changes that are visible without a question.
    always: Vec<usize>,
    /// Changes nobody can tell about.
    unknown: Vec<usize>,
}

/// Numbers of inputs, of images and of keys.
type Numbers = [Arc<[u32]>; 2];

impl Deciders {
    /// The inputs that decide about these changes, of images and of keys.
    fn numbers(&self, changes: impl Iterator<Item = usize>) -> Numbers {
        let mut numbers = [Vec::new(), Vec::new()];
        for change in changes {
            match self.by_change[change] {
                Decider::Image(number) => numbers[IMAGE].push(number),
                Decider::Key(number) => numbers[KEY].push(number),
                Decider::Visible | Decider::Hidden | Decider::Unknown => {}
            }
        }
        numbers.map(|mut numbers| {
            numbers.sort_unstable();
            numbers.dedup();
            numbers.into()
        })
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

/// Places of the two kinds of question about a row.
const IMAGE: usize = 0;
const KEY: usize = 1;

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
        let mut deciders: HashMap<&str, Deciders> = HashMap::new();
        for person in &people {
            let role = person.asker.identity.role.as_str();
            if let (false, Some(facts)) = (deciders.contains_key(role), roles.get(role)) {
                deciders.insert(role, self.deciders(table, facts));
            }
        }
        let (items, owners) = self.items(&people, &roles, &deciders);
        let outcomes = self.ask(&items, may_be_stale).await?;
        let mut answers: HashMap<(usize, usize), Outcome> =
            owners.into_iter().zip(outcomes).collect();
        let mut conditions = Conditions::default();
        for (position, person) in people.iter().enumerate() {
            let role = person.asker.identity.role.as_str();
            let (Some(facts), Some(deciders)) = (roles.get(role), deciders.get(role)) else {
                continue;
            };
            let answers =
                [IMAGE, KEY].map(|kind| answers.remove(&(position, kind)).unwrap_or_default());
            let mut out = Out {
                groups: &mut groups,
                conditions: &mut conditions,
            };
            self.hand_out(table, facts, person, deciders, &answers, &mut out);
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
        self.resolver.settle(items, may_be_stale).await
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
                shared
                    .entry((role, person.actions()))
                    .or_insert_with(|| deciders.numbers(self.wanted(person)))
                    .clone()
            } else {
                deciders.numbers(self.wanted(person))
            };
            for (kind, numbers) in numbers.into_iter().enumerate() {
                let inquiry = [&inquiry.image, &inquiry.key][kind];
                let (Some(inquiry), false) = (inquiry, numbers.is_empty()) else {
                    continue;
                };
                let metrics = &self.resolver.metrics;
                [&metrics.asked_by_image, &metrics.asked_by_key][kind].inc_by(numbers.len() as u64);
                items.push(Item {
                    asker: Arc::clone(&person.asker),
                    question: Arc::clone(&inquiry.question),
                    inputs: Arc::clone(&deciders.inputs[kind]),
                    numbers,
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
        let refused: HashSet<&str> = roles
            .iter()
            .filter(|(_, facts)| facts.refusal.is_some())
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
    fn deciders(&self, table: &Table, facts: &RoleFacts<'_>) -> Deciders {
        let mut inputs = [Inputs::default(), Inputs::default()];
        let by_change: Vec<Decider> = self
            .run
            .changes
            .iter()
            .map(|event| self.decider(table, facts, event, &mut inputs))
            .collect();
        let mut deciders = Deciders {
            changes_of: [IMAGE, KEY].map(|kind| vec![Vec::new(); inputs[kind].len()]),
            always: Vec::new(),
            unknown: Vec::new(),
            inputs: inputs.map(Arc::new),
            by_change,
        };
        for (change, decider) in deciders.by_change.iter().enumerate() {
            match decider {
                Decider::Visible => deciders.always.push(change),
                Decider::Unknown => deciders.unknown.push(change),
                Decider::Image(number) => {
                    deciders.changes_of[IMAGE][*number as usize].push(change);
                }
                Decider::Key(number) => deciders.changes_of[KEY][*number as usize].push(change),
                Decider::Hidden => {}
            }
        }
        deciders
    }

    fn decider(
        &self,
        table: &Table,
        facts: &RoleFacts<'_>,
        event: &ChangeEvent,
        inputs: &mut [Inputs; 2],
    ) -> Decider {
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
                Some(input) => Decider::Image(inputs[IMAGE].number(input)),
                None if self.resolver.config.delete_without_old_row => Decider::Visible,
                None => Decider::Hidden,
            };
        }
        let value = |index| new_value(row, index);
        if let Some(input) = inquiry.image.as_ref().and_then(|image| image.input(value)) {
            return Decider::Image(inputs[IMAGE].number(input));
        }
        match inquiry.key.as_ref().and_then(|key| key.input(value)) {
            Some(input) => Decider::Key(inputs[KEY].number(input)),
            None => Decider::Unknown,
        }
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
        answers: &[Outcome; 2],
        out: &mut Out<'_, 'a>,
    ) {
        let mut matched: HashMap<usize, Vec<&Matched<'a>>> = HashMap::new();
        for accepted in &person.matched {
            matched.entry(accepted.change).or_default().push(accepted);
        }
        let mut column_sets = ColumnSets::default();
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
                        let columns = column_sets.of(self, table, facts, subscription);
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

/// What a subscription says about columns.
type Selection = (Option<Arc<[String]>>, SubscribeOptions);

impl ColumnSets {
    fn of(
        &mut self,
        resolution: &Resolution<'_>,
        table: &Table,
        facts: &RoleFacts<'_>,
        subscription: &Subscription,
    ) -> Arc<VisibleColumns> {
        let known = self.0.iter().find(|((select, options), _)| {
            *options == subscription.options && *select == subscription.select
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
        };
        let columns = resolution.catalog.columns(key, relation, || {
            visible_columns(
                table,
                relation,
                facts.rights,
                subscription.select.as_deref(),
                subscription.options,
                &resolution.resolver.config.tables_without_old_rows,
            )
        });
        let selection = (subscription.select.clone(), subscription.options);
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
