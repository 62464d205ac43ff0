//! The clients of the soak test: their channels, what they receive, and their view of presence.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use serde_json::Value;

use super::account::{Account, ClientId};
use super::message::{Version, topic_of_binary};
use crate::client::frame::BINARY;
use crate::client::marker::{self, Marker};
use crate::client::{Handler, SocketId, Sockets};

/// The lane of row changes. A lane is a stream of messages with its own sequence numbers. The
/// broadcasts of each topic have one, numbered by the topic's index.
pub(super) const ROWS: usize = 0xffff;

/// Maximum number of failure messages in the report.
const MAX_COMPLAINTS: usize = 10;

/// The stage of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Out,
    Joining,
    In,
    Leaving,
}

/// The membership of one client in one topic.
pub(super) struct Channel {
    pub(super) topic: usize,
    pub(super) stage: Stage,
    /// The reference of the client's last join to this topic. References are unique.
    pub(super) join_ref: String,
    /// Whether the client's joins request row changes.
    pub(super) has_bindings: bool,
    /// Whether the server has reported that row changes are live.
    pub(super) is_subscribed: bool,
    /// Whether the client has tracked its presence and not untracked it since.
    pub(super) is_tracked: bool,
    /// The presence state received from the server: keys with the references of their entries.
    pub(super) present: HashMap<String, HashSet<String>>,
}

impl Channel {
    /// Resets everything that ends with the membership.
    pub(super) fn reset(&mut self, stage: Stage) {
        self.stage = stage;
        self.is_subscribed = false;
        self.is_tracked = false;
        self.present.clear();
    }
}

/// A user with one socket.
pub(super) struct Client {
    pub(super) version: Version,
    pub(super) token: String,
    pub(super) is_open: bool,
    pub(super) channels: Vec<Channel>,
    /// When the client may reconnect.
    pub(super) returns: Option<Instant>,
}

impl Client {
    /// Returns the presence key of a client.
    pub(super) fn presence_key(id: ClientId) -> String {
        format!("person-{id}")
    }
}

/// All clients, and the deliveries that they must receive.
pub(super) struct Clients {
    pub(super) all: Vec<Client>,
    pub(super) account: Account,
    pub(super) complaints: Vec<String>,
    finder: Finder<'static>,
}

impl Clients {
    pub(super) fn new(all: Vec<Client>) -> Self {
        Self {
            all,
            account: Account::default(),
            complaints: Vec::new(),
            finder: marker::finder(),
        }
    }

    /// Returns the name of a topic.
    pub(super) fn topic_name(topic: usize) -> String {
        format!("realtime:soak-{topic}")
    }

    /// Returns the members of a topic whose joins succeeded.
    pub(super) fn members(&self, topic: usize) -> HashSet<ClientId> {
        self.of_channels(|channel| channel.topic == topic && channel.stage == Stage::In)
    }

    /// Returns the clients of a room that are subscribed to row changes. Clients 2n and 2n + 1
    /// share room n, and only they may see its rows.
    pub(super) fn subscribers(&self, room: usize) -> HashSet<ClientId> {
        let mut found =
            self.of_channels(|channel| channel.is_subscribed && channel.stage == Stage::In);
        found.retain(|client| client / 2 == room);
        found
    }

    fn of_channels(&self, matches: impl Fn(&Channel) -> bool) -> HashSet<ClientId> {
        let clients = self.all.iter().enumerate();
        clients
            .filter(|(_, client)| client.channels.iter().any(&matches))
            .map(|(id, _)| id)
            .collect()
    }

    /// Records a failure message.
    pub(super) fn complain(&mut self, reason: String) {
        if self.complaints.len() < MAX_COMPLAINTS {
            self.complaints.push(reason);
        }
    }

    /// Returns the presence keys that a topic should have: those of the clients that track presence
    /// in it.
    pub(super) fn tracked(&self, topic: usize) -> HashSet<String> {
        let tracked = self.of_channels(|channel| channel.topic == topic && channel.is_tracked);
        tracked.into_iter().map(Client::presence_key).collect()
    }

    fn delivered(&mut self, id: ClientId, topic: Option<&str>, payload: &[u8]) {
        for marker in Marker::all_in(&self.finder, payload) {
            let client = &self.all[id];
            // Messages that were in flight when the client sent a leave may still arrive.
            let is_member = |channel: &Channel| channel.stage != Stage::Out;
            let is_entitled = if marker.lane == ROWS {
                let room = usize::try_from(marker.sent_ns).unwrap_or(usize::MAX);
                id / 2 == room
                    && client
                        .channels
                        .iter()
                        .any(|c| c.has_bindings && is_member(c))
            } else {
                topic == Some(Self::topic_name(marker.lane).as_str())
                    && client
                        .channels
                        .iter()
                        .any(|c| c.topic == marker.lane && is_member(c))
            };
            self.account
                .receive((marker.lane, marker.sequence), id, is_entitled);
        }
    }

    fn channel_mut(&mut self, id: ClientId, topic: &str) -> Option<&mut Channel> {
        let mut channels = self.all[id].channels.iter_mut();
        channels.find(|channel| Self::topic_name(channel.topic) == topic)
    }

    fn replied(&mut self, id: ClientId, topic: &str, reference: &str, payload: &Value) {
        if payload["status"] != "ok" {
            self.complain(format!("client {id}, {topic}, {reference}: {payload}"));
        }
        let Some(channel) = self.channel_mut(id, topic) else {
            return;
        };
        match channel.stage {
            Stage::Joining if channel.join_ref == reference => channel.stage = Stage::In,
            Stage::Leaving if reference == "leave" => channel.reset(Stage::Out),
            _ => {}
        }
    }
}

impl Handler for Clients {
    fn opened(&mut self, _sockets: &mut Sockets, id: SocketId) {
        self.all[id].is_open = true;
    }

    fn message(&mut self, _sockets: &mut Sockets, id: SocketId, opcode: u8, payload: &[u8]) {
        if opcode == BINARY {
            let topic = topic_of_binary(payload).map(str::to_owned);
            return self.delivered(id, topic.as_deref(), payload);
        }
        let Some((topic, event, reference, body)) = self.all[id].version.read(payload) else {
            self.complain(format!("client {id} received an unreadable message"));
            return;
        };
        match event.as_str() {
            "broadcast" | "postgres_changes" => self.delivered(id, Some(&topic), payload),
            "phx_reply" => self.replied(id, &topic, &reference, &body),
            "system" if body["status"] == "ok" => {
                if let Some(channel) = self.channel_mut(id, &topic) {
                    channel.is_subscribed = channel.stage == Stage::In;
                }
            }
            "presence_state" => {
                if let Some(channel) = self.channel_mut(id, &topic) {
                    channel.present.clear();
                    join_all(&mut channel.present, &body);
                }
            }
            "presence_diff" => {
                if let Some(channel) = self.channel_mut(id, &topic) {
                    join_all(&mut channel.present, &body["joins"]);
                    leave_all(&mut channel.present, &body["leaves"]);
                }
            }
            "system" | "phx_error" => self.complain(format!("client {id}: {body}")),
            _ => {}
        }
    }

    fn closed(&mut self, id: SocketId, reason: &str) {
        self.complain(format!("client {id} was closed: {reason}"));
        self.all[id].is_open = false;
        self.gone(id, Duration::from_secs(1));
    }
}

impl Clients {
    /// Handles a lost connection. The client must receive nothing more.
    pub(super) fn gone(&mut self, id: ClientId, returns_after: Duration) {
        self.account.excuse_sender(id);
        self.account.excuse(id, ROWS);
        let client = &mut self.all[id];
        client.is_open = false;
        client.returns = Some(Instant::now() + returns_after);
        for channel in &mut client.channels {
            channel.reset(Stage::Out);
            self.account.excuse(id, channel.topic);
        }
    }
}

/// Returns the presence entries of `{key: {"metas": [{"phx_ref": …}]}}`.
fn entries(people: &Value) -> impl Iterator<Item = (&String, &str)> {
    let people = people.as_object().into_iter().flatten();
    people.flat_map(|(key, presence)| {
        let metas = presence["metas"].as_array().into_iter().flatten();
        metas.filter_map(move |meta| Some((key, meta["phx_ref"].as_str()?)))
    })
}

fn join_all(present: &mut HashMap<String, HashSet<String>>, joins: &Value) {
    for (key, reference) in entries(joins) {
        let references = present.entry(key.clone()).or_default();
        references.insert(reference.to_owned());
    }
}

fn leave_all(present: &mut HashMap<String, HashSet<String>>, leaves: &Value) {
    for (key, reference) in entries(leaves) {
        if let Some(references) = present.get_mut(key) {
            references.remove(reference);
            if references.is_empty() {
                present.remove(key);
            }
        }
    }
}
