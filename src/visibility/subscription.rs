//! Stores the registered bindings, indexed so that a change finds the bindings that it may match.
//!
//! Bindings with an `eq` or `in` condition in their filter are indexed by its values, so a change
//! is compared only with those for its own value. One lock protects all bindings. It is held only
//! for work in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::binding::{Binding, ChannelId, SubscribeOptions, Subscriber};
use super::catalog::Catalog;
use super::error::SubscribeError;
use super::identity::Identity;
use super::predicate::{Predicate, Test, TypedCondition};
use super::queries::Principal;
use super::record::{new_value, old_value};
use super::request::EventSelector;
use super::waiting::{WaitingChannels, not_published, unpublished};
use crate::change::{ChangeEvent, ColumnValue, Relation, RowChange, TableName};

/// Maximum number of subscriptions of one user. Each change of a table is compared with all of them
/// that are not indexed, and all changes wait for that. A binding with a filter and without a table
/// has a subscription for each table.
const MAX_SUBSCRIPTIONS_PER_USER: usize = 10_000;

/// Maximum number of conditions of one user that PostgreSQL evaluates. Each costs a statement for
/// every batch with a row that the user may see.
const MAX_QUERY_CONDITIONS_PER_USER: usize = 100;

/// A registered binding for one table, or for all tables that match a pattern.
#[derive(Debug)]
pub(super) struct Subscription {
    number: u64,
    pub(super) channel: ChannelId,
    /// The id that the client received.
    pub(super) binding: u32,
    pub(super) principal: Arc<Principal>,
    pub(super) event: EventSelector,
    pub(super) target: Target,
    pub(super) predicate: Predicate,
    /// Selected columns, sorted. The primary key is always included.
    pub(super) select: Option<Arc<[String]>>,
    pub(super) options: SubscribeOptions,
    /// The subscription's place in the index.
    index_key: IndexKey,
}

/// The tables that a subscription includes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// One table.
    Table(TableName),
    /// All tables, all tables of one schema, or the tables with one name in all schemas. An absent
    /// schema or name means any.
    Pattern {
        schema: Option<String>,
        name: Option<String>,
    },
}

impl Target {
    fn accepts(&self, table: &TableName) -> bool {
        match self {
            Self::Table(own) => own == table,
            Self::Pattern { schema, name } => {
                schema.as_ref().is_none_or(|schema| *schema == table.schema)
                    && name.as_ref().is_none_or(|name| *name == table.name)
            }
        }
    }
}

/// The place of a subscription in the index of its table.
#[derive(Clone, Debug)]
pub(super) enum IndexKey {
    /// The subscription has no filter.
    Unfiltered,
    /// A condition requires one of these texts in a column of this type.
    Values {
        column: Arc<str>,
        type_oid: u32,
        texts: Vec<Bytes>,
    },
    /// The filter must be evaluated for every change.
    Scanned,
}

/// A subscription before it is registered.
pub(super) struct Draft {
    pub(super) binding: u32,
    pub(super) event: EventSelector,
    pub(super) target: Target,
    pub(super) predicate: Predicate,
    pub(super) select: Option<Arc<[String]>>,
    pub(super) index_key: IndexKey,
}

/// The subscriptions that result from a channel's bindings, and the reading with which the bindings
/// were checked.
pub(super) struct Checked {
    pub(super) catalog: Arc<Catalog>,
    pub(super) drafts: Vec<Draft>,
}

type Set = HashMap<u64, Arc<Subscription>>;

/// A column, and its type when a condition on it was checked.
type TypedColumn = (Arc<str>, u32);

/// The subscriptions of one table.
#[derive(Default)]
struct TableSubscriptions {
    unfiltered: Set,
    scanned: Set,
    values: HashMap<TypedColumn, HashMap<Bytes, Set>>,
    /// The number of subscriptions of each role.
    roles: HashMap<Arc<str>, usize>,
    /// The channels whose filters use a column, by the number of the subscription.
    typed: HashMap<TypedColumn, HashMap<u64, ChannelId>>,
}

/// The bindings of a channel, and the subscriptions that result from them.
struct Registered {
    subscriber: Subscriber,
    /// The key in [`Subscriptions::counted`], if the subscriber is limited.
    counted_for: Option<Arc<str>>,
    bindings: Arc<[Binding]>,
    subscriptions: Vec<Arc<Subscription>>,
    /// The last reading in which all tables of the channel were published.
    found_in: Arc<Catalog>,
}

impl Registered {
    fn totals(&self) -> Totals {
        Totals::of(self.subscriptions.iter().map(|it| &it.predicate))
    }
}

/// A channel with a filter whose column is missing or has another type than when the filter was
/// checked.
pub(super) struct Outdated {
    pub(super) channel: ChannelId,
    pub(super) principal: Arc<Principal>,
    pub(super) bindings: Arc<[Binding]>,
    /// Distinguishes this registration from a later one.
    number: u64,
}

/// Returns the key under which the subscriptions of a channel are counted: the user, or without a
/// `sub` the client's address. Returns `None` if they are not limited. Clients without a `sub` may
/// all have the same claims, so a limit for these claims would let one client exclude the others.
fn limited_as(principal: &Principal, address: Option<u16>) -> Option<Arc<str>> {
    if !principal.subject.is_empty() {
        return Some(Arc::clone(&principal.user));
    }
    // A server of the application may subscribe for many users.
    if principal.identity.role == "service_role" {
        return None;
    }
    // A `sub` cannot contain NUL.
    address.map(|address| format!("\0{address}").into())
}

/// All subscriptions.
#[derive(Default)]
pub(super) struct Subscriptions {
    next: u64,
    channels: HashMap<ChannelId, Registered>,
    tables: HashMap<TableName, TableSubscriptions>,
    patterns: Set,
    /// The principal of each identity, with the number of its channels.
    principals: HashMap<Arc<Identity>, (Arc<Principal>, usize)>,
    /// The totals of each user, and of each address whose clients have no `sub`, by the key that
    /// [`limited_as`] returns.
    counted: HashMap<Arc<str>, Totals>,
    /// Channels that will be registered once their tables are published.
    pub(super) waiting: WaitingChannels,
}

/// Numbers of registered subscriptions, and of their conditions that PostgreSQL evaluates.
#[derive(Clone, Copy, Default)]
struct Totals {
    subscriptions: usize,
    query_conditions: usize,
}

impl Totals {
    fn of<'a>(predicates: impl Iterator<Item = &'a Predicate>) -> Self {
        let mut totals = Self::default();
        for predicate in predicates {
            let conditions = predicate.conditions.iter();
            let is_query = |it: &&TypedCondition| matches!(it.test, Test::Query { .. });
            totals.subscriptions += 1;
            totals.query_conditions += conditions.filter(is_query).count();
        }
        totals
    }
}

/// The subscriptions that the changes of a table batch may match.
#[derive(Default)]
pub(super) struct Candidates {
    /// Subscriptions without a filter, which match every change of the requested kind.
    pub(super) unfiltered: Vec<Arc<Subscription>>,
    /// Pairs of the index of a change in the table batch and a subscription whose filter may accept
    /// the change.
    pub(super) filtered: Vec<(usize, Arc<Subscription>)>,
    /// The roles of all subscriptions to the table, whatever their filters.
    pub(super) roles: HashSet<Arc<str>>,
}

impl Candidates {
    /// Returns whether no subscription may match.
    pub(super) fn is_empty(&self) -> bool {
        self.unfiltered.is_empty() && self.filtered.is_empty()
    }
}

impl Subscriptions {
    /// Registers the subscriptions of a channel in place of its previous ones.
    ///
    /// # Errors
    /// If the user would have too many subscriptions, or too many conditions that PostgreSQL
    /// evaluates. The channel then keeps its previous subscriptions.
    pub(super) fn register(
        &mut self,
        channel: ChannelId,
        subscriber: Subscriber,
        bindings: Arc<[Binding]>,
        checked: Checked,
    ) -> Result<(), SubscribeError> {
        self.check_limits(channel, &subscriber, &checked.drafts)?;
        self.replace(channel, subscriber, bindings, checked);
        Ok(())
    }

    fn check_limits(
        &self,
        channel: ChannelId,
        subscriber: &Subscriber,
        drafts: &[Draft],
    ) -> Result<(), SubscribeError> {
        let identity = &subscriber.identity;
        let known = self.principals.get(identity).map(|(it, _)| Arc::clone(it));
        let principal = known.unwrap_or_else(|| Arc::new(Principal::new(Arc::clone(identity))));
        let Some(counted_for) = limited_as(&principal, subscriber.address) else {
            return Ok(());
        };
        let wanted = Totals::of(drafts.iter().map(|draft| &draft.predicate));
        let others = self.counted.get(&counted_for).copied();
        let others = others.unwrap_or_default();
        let replaced = match self.channels.get(&channel) {
            Some(registered) if registered.counted_for.as_ref() == Some(&counted_for) => {
                registered.totals()
            }
            _ => Totals::default(),
        };
        let subscriptions = others.subscriptions - replaced.subscriptions + wanted.subscriptions;
        let conditions =
            others.query_conditions - replaced.query_conditions + wanted.query_conditions;
        if subscriptions > MAX_SUBSCRIPTIONS_PER_USER {
            return Err(SubscribeError::TooManyBindings(MAX_SUBSCRIPTIONS_PER_USER));
        }
        // A channel without such conditions is not refused because the user's other channels have
        // them.
        if wanted.query_conditions > 0 && conditions > MAX_QUERY_CONDITIONS_PER_USER {
            return Err(SubscribeError::TooManyFilters(
                MAX_QUERY_CONDITIONS_PER_USER,
            ));
        }
        Ok(())
    }

    /// Like [`Self::register`], without limits: for a channel that was registered before.
    pub(super) fn replace(
        &mut self,
        channel: ChannelId,
        subscriber: Subscriber,
        bindings: Arc<[Binding]>,
        Checked { catalog, drafts }: Checked,
    ) {
        self.remove(channel);
        if drafts.is_empty() {
            return;
        }
        let identity = &subscriber.identity;
        let (principal, channels) = self
            .principals
            .entry(Arc::clone(identity))
            .or_insert_with(|| (Arc::new(Principal::new(Arc::clone(identity))), 0));
        *channels += 1;
        let principal = Arc::clone(principal);
        let mut registered = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let subscription = Arc::new(Subscription {
                number: self.next,
                channel,
                binding: draft.binding,
                principal: Arc::clone(&principal),
                event: draft.event,
                target: draft.target,
                predicate: draft.predicate,
                select: draft.select,
                options: subscriber.options,
                index_key: draft.index_key,
            });
            self.next += 1;
            self.index(&subscription);
            registered.push(subscription);
        }
        let registered = Registered {
            counted_for: limited_as(&principal, subscriber.address),
            subscriber,
            bindings,
            subscriptions: registered,
            found_in: catalog,
        };
        let totals = registered.totals();
        if let Some(counted_for) = &registered.counted_for {
            let all = self.counted.entry(Arc::clone(counted_for)).or_default();
            all.subscriptions += totals.subscriptions;
            all.query_conditions += totals.query_conditions;
        }
        self.channels.insert(channel, registered);
    }

    /// Registers the result of a new check for an outdated channel, or removes the channel if
    /// `checked` is `None`. Does nothing and returns false if the channel has been registered again
    /// in the meantime.
    pub(super) fn replace_outdated(
        &mut self,
        outdated: &Outdated,
        checked: Option<Checked>,
    ) -> bool {
        let registered = self.channels.get(&outdated.channel);
        let same = registered.filter(|registered| {
            let first = registered.subscriptions.first();
            first.is_some_and(|first| first.number == outdated.number)
        });
        let Some(subscriber) = same.map(|registered| registered.subscriber.clone()) else {
            return false;
        };
        match checked {
            Some(checked) => {
                let bindings = Arc::clone(&outdated.bindings);
                self.replace(outdated.channel, subscriber, bindings, checked);
            }
            None => self.remove(outdated.channel),
        }
        true
    }

    /// Moves channels with a table that is no longer published to `waiting`. Returns these channels
    /// with their errors.
    pub(super) fn unregister_unpublished(
        &mut self,
        catalog: &Arc<Catalog>,
    ) -> Vec<(ChannelId, SubscribeError)> {
        let mut unregistered = Vec::new();
        for (channel, registered) in &mut self.channels {
            if Arc::ptr_eq(&registered.found_in, catalog) {
                continue;
            }
            match unpublished(catalog, &registered.bindings) {
                Some(request) => unregistered.push((*channel, not_published(request))),
                None => registered.found_in = Arc::clone(catalog),
            }
        }
        for (channel, _) in &unregistered {
            if let Some(registered) = self.channels.get(channel) {
                let bindings = Arc::clone(&registered.bindings);
                let subscriber = registered.subscriber.clone();
                self.remove(*channel);
                self.waiting.add(*channel, subscriber, bindings);
            }
        }
        unregistered
    }

    /// Returns the channels with a filter on a column that is missing from this table definition or
    /// has another type in it.
    pub(super) fn outdated(&self, relation: &Relation) -> Vec<Outdated> {
        let Some(table) = self.tables.get(&relation.table) else {
            return Vec::new();
        };
        let channels: HashSet<ChannelId> = table
            .typed
            .iter()
            .filter(|((column, type_oid), _)| {
                let mut columns = relation.columns.iter();
                !columns.any(|now| *now.name == **column && now.type_oid == *type_oid)
            })
            .flat_map(|(_, channels)| channels.values().copied())
            .collect();
        channels
            .into_iter()
            .filter_map(|channel| {
                let registered = self.channels.get(&channel)?;
                let first = registered.subscriptions.first()?;
                Some(Outdated {
                    channel,
                    principal: Arc::clone(&first.principal),
                    bindings: Arc::clone(&registered.bindings),
                    number: first.number,
                })
            })
            .collect()
    }

    /// Removes a channel.
    pub(super) fn remove(&mut self, channel: ChannelId) {
        self.waiting.remove(channel);
        let Some(registered) = self.channels.remove(&channel) else {
            return;
        };
        let totals = registered.totals();
        if let Some(counted_for) = &registered.counted_for
            && let Some(all) = self.counted.get_mut(counted_for)
        {
            all.subscriptions -= totals.subscriptions;
            all.query_conditions -= totals.query_conditions;
            if all.subscriptions == 0 {
                self.counted.remove(counted_for);
            }
        }
        let subscriptions = registered.subscriptions;
        for subscription in &subscriptions {
            self.unindex(subscription);
        }
        if let Some(first) = subscriptions.first() {
            let identity = &first.principal.identity;
            if let Some((_, channels)) = self.principals.get_mut(identity) {
                *channels -= 1;
                if *channels == 0 {
                    self.principals.remove(identity);
                }
            }
        }
    }

    fn index(&mut self, subscription: &Arc<Subscription>) {
        let number = subscription.number;
        let Target::Table(table) = &subscription.target else {
            self.patterns.insert(number, Arc::clone(subscription));
            return;
        };
        let table = self.tables.entry(table.clone()).or_default();
        let role: Arc<str> = subscription.principal.identity.role.as_str().into();
        *table.roles.entry(role).or_default() += 1;
        for condition in &subscription.predicate.conditions {
            table
                .typed
                .entry((condition.column.as_str().into(), condition.type_oid))
                .or_default()
                .insert(number, subscription.channel);
        }
        match &subscription.index_key {
            IndexKey::Unfiltered => {
                table.unfiltered.insert(number, Arc::clone(subscription));
            }
            IndexKey::Scanned => {
                table.scanned.insert(number, Arc::clone(subscription));
            }
            IndexKey::Values {
                column,
                type_oid,
                texts,
            } => {
                let by_text = table
                    .values
                    .entry((Arc::clone(column), *type_oid))
                    .or_default();
                for text in texts {
                    by_text
                        .entry(text.clone())
                        .or_default()
                        .insert(number, Arc::clone(subscription));
                }
            }
        }
    }

    fn unindex(&mut self, subscription: &Subscription) {
        let number = subscription.number;
        let Target::Table(name) = &subscription.target else {
            self.patterns.remove(&number);
            return;
        };
        let Some(table) = self.tables.get_mut(name) else {
            return;
        };
        let role = subscription.principal.identity.role.as_str();
        if let Some(count) = table.roles.get_mut(role) {
            *count -= 1;
            if *count == 0 {
                table.roles.remove(role);
            }
        }
        for condition in &subscription.predicate.conditions {
            let key = (condition.column.as_str().into(), condition.type_oid);
            if let Some(channels) = table.typed.get_mut(&key) {
                channels.remove(&number);
                if channels.is_empty() {
                    table.typed.remove(&key);
                }
            }
        }
        match &subscription.index_key {
            IndexKey::Unfiltered => {
                table.unfiltered.remove(&number);
            }
            IndexKey::Scanned => {
                table.scanned.remove(&number);
            }
            IndexKey::Values {
                column,
                type_oid,
                texts,
            } => {
                let key = (Arc::clone(column), *type_oid);
                if let Some(by_text) = table.values.get_mut(&key) {
                    for text in texts {
                        if let Some(set) = by_text.get_mut(text) {
                            set.remove(&number);
                            if set.is_empty() {
                                by_text.remove(text);
                            }
                        }
                    }
                    if by_text.is_empty() {
                        table.values.remove(&key);
                    }
                }
            }
        }
        if table.unfiltered.is_empty() && table.scanned.is_empty() && table.values.is_empty() {
            self.tables.remove(name);
        }
    }

    /// Returns whether there are neither registered nor waiting channels.
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.waiting.is_empty()
    }

    /// Returns whether a subscription includes this table.
    pub(super) fn has(&self, table: &TableName) -> bool {
        let mut patterns = self.patterns.values();
        self.tables.contains_key(table) || patterns.any(|it| it.target.accepts(table))
    }

    /// Returns the number of registered channels.
    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Returns the subscriptions that changes of one table definition may match.
    pub(super) fn candidates(&self, relation: &Relation, changes: &[&ChangeEvent]) -> Candidates {
        let mut candidates = Candidates::default();
        candidates.unfiltered.extend(
            self.patterns
                .values()
                .filter(|subscription| subscription.target.accepts(&relation.table))
                .cloned(),
        );
        for subscription in &candidates.unfiltered {
            let role = subscription.principal.identity.role.as_str();
            if !candidates.roles.contains(role) {
                candidates.roles.insert(role.into());
            }
        }
        let Some(table) = self.tables.get(&relation.table) else {
            return candidates;
        };
        candidates.roles.extend(table.roles.keys().cloned());
        candidates
            .unfiltered
            .extend(table.unfiltered.values().cloned());
        let push = |place: usize, set: &Set, candidates: &mut Candidates| {
            for subscription in set.values() {
                if subscription.event.accepts(changes[place].action()) {
                    candidates.filtered.push((place, Arc::clone(subscription)));
                }
            }
        };
        for place in 0..changes.len() {
            push(place, &table.scanned, &mut candidates);
        }
        for ((column, type_oid), by_text) in &table.values {
            let place_in_row = relation.columns.iter().position(|published| {
                *published.name == **column && published.type_oid == *type_oid
            });
            let Some(place_in_row) = place_in_row else {
                // The column is missing or has another type, so these conditions cannot be true.
                continue;
            };
            for (place, change) in changes.iter().enumerate() {
                // Only texts are indexed, and a text in an old image is known whether the image is
                // full or not.
                if let Some(ColumnValue::Text(text)) =
                    filtered_value(&change.row, place_in_row, false)
                    && let Some(set) = by_text.get(text)
                {
                    push(place, set, &mut candidates);
                }
            }
        }
        candidates
    }

    /// Returns the subscriptions to a table with one of these roles, whatever their filters.
    pub(super) fn with_roles(
        &self,
        table: &TableName,
        roles: &HashSet<&str>,
    ) -> Vec<Arc<Subscription>> {
        self.channels
            .values()
            .flat_map(|registered| &registered.subscriptions)
            .filter(|subscription| {
                roles.contains(subscription.principal.identity.role.as_str())
                    && subscription.target.accepts(table)
            })
            .cloned()
            .collect()
    }
}

/// Returns the column value that filters use: the value in the new row, or the known value of a
/// deleted row. Returns `None` if the image does not contain it.
pub(super) fn filtered_value(
    change: &RowChange,
    index: usize,
    has_whole_old_rows: bool,
) -> Option<&ColumnValue> {
    match change {
        RowChange::Insert { .. } | RowChange::Update { .. } => new_value(change, index),
        RowChange::Delete { .. } => old_value(change, index, false, has_whole_old_rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Column, ReplicaIdentity, Row};

    const TEXT: u32 = 25;

    fn table() -> TableName {
        TableName::new("public", "t")
    }

    fn identity(role: &str, subject: u64) -> Arc<Identity> {
        Arc::new(Identity {
            role: role.to_owned(),
            claims: format!(r#"{{"sub":"{subject}"}}"#).into(),
        })
    }

    fn draft(binding: u32, index_key: IndexKey) -> Draft {
        Draft {
            binding,
            event: EventSelector::All,
            target: Target::Table(table()),
            predicate: Predicate::default(),
            select: None,
            index_key,
        }
    }

    fn room(text: &str) -> IndexKey {
        IndexKey::Values {
            column: "room".into(),
            type_oid: TEXT,
            texts: vec![Bytes::copy_from_slice(text.as_bytes())],
        }
    }

    fn relation(type_oid: u32) -> Arc<Relation> {
        Arc::new(Relation {
            oid: 1,
            table: table(),
            identity: ReplicaIdentity::Default,
            columns: vec![Column {
                name: "room".to_owned(),
                type_oid,
                type_modifier: -1,
                is_identity: false,
            }],
        })
    }

    fn checked(drafts: Vec<Draft>) -> Checked {
        let catalog = Arc::default();
        Checked { catalog, drafts }
    }

    fn insert(relation: &Arc<Relation>, room: &'static str) -> ChangeEvent {
        ChangeEvent {
            relation: Arc::clone(relation),
            row: RowChange::Insert {
                new: Row(vec![ColumnValue::Text(Bytes::from_static(room.as_bytes()))]),
            },
        }
    }

    #[test]
    fn a_change_finds_only_subscriptions_indexed_by_its_value() {
        let mut subscriptions = Subscriptions::default();
        for n in 0..10_000_u64 {
            let drafts = vec![draft(1, room(&(n % 100).to_string()))];
            subscriptions.replace(
                ChannelId(n),
                Subscriber::new(identity("r", n)),
                Arc::default(),
                checked(drafts),
            );
        }
        let unfiltered = vec![draft(2, IndexKey::Unfiltered), draft(3, IndexKey::Scanned)];
        subscriptions.replace(
            ChannelId(10_000),
            Subscriber::new(identity("r", 1)),
            Arc::default(),
            checked(unfiltered),
        );

        let relation_now = relation(TEXT);
        let (one, none) = (insert(&relation_now, "7"), insert(&relation_now, "lounge"));
        let found = subscriptions.candidates(&relation_now, &[&one, &none]);
        assert_eq!(found.unfiltered.len(), 1);
        let of = |place| {
            let all = found.filtered.iter().filter(move |(at, _)| *at == place);
            all.count()
        };
        assert_eq!((of(0), of(1)), (101, 1));
        // The texts are not valid for a column of another type.
        let other = relation(23);
        let found = subscriptions.candidates(&other, &[&insert(&other, "7")]);
        assert_eq!((found.unfiltered.len(), found.filtered.len()), (1, 1));
    }

    fn query_draft(binding: u32) -> Draft {
        let condition = TypedCondition {
            column: "room".to_owned(),
            type_oid: TEXT,
            test: Test::Query {
                sql: String::new(),
                operand: "".into(),
            },
        };
        Draft {
            predicate: Predicate {
                conditions: vec![condition],
            },
            ..draft(binding, IndexKey::Scanned)
        }
    }

    #[test]
    fn a_user_has_a_limited_number_of_subscriptions_over_all_tokens() {
        type Make = fn(u32) -> Draft;
        let cases: [(usize, Make, &str); 2] = [
            (
                MAX_SUBSCRIPTIONS_PER_USER,
                |n| draft(n, IndexKey::Scanned),
                "at most 10000",
            ),
            (MAX_QUERY_CONDITIONS_PER_USER, query_draft, "at most 100"),
        ];
        for (limit, make, text) in cases {
            let mut subscriptions = Subscriptions::default();
            let mut register = |channel, identity: &Arc<Identity>, address, count: usize| {
                let drafts = (0..count).map(|_| make(1)).collect();
                let subscriber = Subscriber {
                    address,
                    ..Subscriber::new(Arc::clone(identity))
                };
                subscriptions
                    .register(
                        ChannelId(channel),
                        subscriber,
                        Arc::default(),
                        checked(drafts),
                    )
                    .map_err(|error| error.client_text())
            };
            let ana = identity("authenticated", 1);
            let refreshed = Arc::new(Identity {
                role: "authenticated".to_owned(),
                claims: r#"{"sub":"1","iat":2}"#.into(),
            });
            register(1, &ana, None, limit - 1).unwrap();
            register(2, &refreshed, None, 1).unwrap();
            let refused = register(3, &refreshed, None, 1).unwrap_err();
            assert!(refused.ends_with(text), "{refused}");
            // What the channel had before does not count.
            register(1, &refreshed, None, limit - 1).unwrap();
            register(4, &identity("authenticated", 2), None, limit).unwrap();
            register(1, &ana, None, 0).unwrap();
            register(3, &refreshed, None, limit - 1).unwrap();
            // Clients without a `sub` are limited by their address.
            let without_sub = |role: &str| {
                Arc::new(Identity {
                    role: role.to_owned(),
                    claims: "{}".into(),
                })
            };
            let nobody = without_sub("anon");
            register(5, &nobody, Some(1), limit).unwrap();
            register(6, &nobody, Some(1), 1).unwrap_err();
            register(6, &without_sub("authenticated"), Some(1), 1).unwrap_err();
            register(6, &nobody, Some(2), 1).unwrap();
            register(7, &without_sub("service_role"), Some(1), limit + 1).unwrap();
            register(5, &nobody, Some(1), 0).unwrap();
            register(6, &nobody, Some(1), limit).unwrap();
        }
    }

    #[test]
    fn removing_all_channels_leaves_nothing_behind() {
        let mut subscriptions = Subscriptions::default();
        let same = identity("r", 1);
        for n in 0..3 {
            let drafts = vec![
                draft(1, room("a")),
                draft(2, IndexKey::Unfiltered),
                draft(3, IndexKey::Scanned),
                Draft {
                    target: Target::Pattern {
                        schema: None,
                        name: None,
                    },
                    ..draft(4, IndexKey::Unfiltered)
                },
            ];
            // A registration without subscriptions stores nothing.
            subscriptions.replace(
                ChannelId(n),
                Subscriber::new(identity("r", 2)),
                Arc::default(),
                checked(Vec::new()),
            );
            subscriptions.replace(
                ChannelId(n),
                Subscriber::new(Arc::clone(&same)),
                Arc::default(),
                checked(drafts),
            );
        }
        assert_eq!(subscriptions.channels(), 3);
        assert_eq!(
            subscriptions.principals.len(),
            1,
            "equal identities share one principal"
        );
        for n in 0..3 {
            subscriptions.remove(ChannelId(n));
        }
        assert_eq!(subscriptions.channels(), 0);
        assert!(subscriptions.tables.is_empty());
        assert!(subscriptions.patterns.is_empty());
        assert!(subscriptions.principals.is_empty());
        assert!(subscriptions.counted.is_empty());
    }
}
