//! A soak test that compresses hours of normal use into minutes: random joins, leaves, broadcasts
//! from clients and from the database, presence, row changes and lost connections, in public and
//! private channels, on sockets of both protocol versions.
//!
//! Each message must arrive exactly once at every member that was joined throughout, and at no
//! other client. Afterwards the server must not hold more resources than before.

mod account;
mod client;
mod message;
mod vitals;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::Failure;
use crate::client::Sockets;
use crate::client::marker::Marker;
use crate::client::phoenix::{HEARTBEAT_SECONDS, JoinConfig};
use crate::database::{Database, connect, current_thread};
use crate::row::{changes, joins};
use crate::server::Server;
use account::{ClientId, WrongDeliveries};
use client::{Channel, Client, Clients, ROWS, Stage};
use message::Version;
use vitals::{Holdings, Memory};

const CLIENTS: usize = 120;
const TOPICS: usize = 12;
/// Topics per client. The client subscribes to row changes in the first one.
const TOPICS_PER_CLIENT: usize = 3;

/// Attempted broadcasts from clients per second.
const BROADCASTS: f64 = 100.0;
/// Broadcasts from the database per second.
const DATABASE_BROADCASTS: f64 = 10.0;
/// Row changes per second.
const ROW_CHANGES: f64 = 20.0;
/// Attempted joins and leaves per second.
const JOINS_AND_LEAVES: f64 = 10.0;
/// Attempts to track or untrack presence per second. They are few enough for the limit of Supabase
/// Realtime, 5 in 30 seconds per channel.
const TRACKS: f64 = 4.0;
/// Attempts to disconnect a client per second.
const DISCONNECTS: f64 = 1.0;

/// Maximum time at the end for outstanding deliveries to arrive, and for the server to release the
/// resources of clients that are gone.
const QUIET: Duration = Duration::from_secs(20);

/// Maximum memory growth that does not count as a leak, in percent per minute: the range of
/// sampling noise.
const MAX_GROWTH: f64 = 1.0;

/// Runs for `duration`. Returns the result and whether it is correct.
pub(crate) fn soak(duration: Duration, seed: u64) -> Result<(Value, bool), Failure> {
    let database = Database::start()?;
    changes::prepare(&database, CLIENTS)?;
    database.execute(joins::POLICIES)?;
    let server = Server::rapport(&database)?;
    let mut soak = Soak::new(&database, &server, seed)?;

    // A warm-up with every client triggers all one-time allocations.
    soak.live(Duration::from_secs(5).min(duration))?;
    soak.leave_all_topics()?;
    let before = soak.resources_at_rest(&Holdings::default())?;
    let mut memory = Memory::new();
    let end = Instant::now() + duration;
    while Instant::now() < end {
        soak.live(Duration::from_millis(500))?;
        memory.sample(&server);
    }
    soak.drain()?;
    let presences_wrong = soak.presences_wrong();
    soak.leave_all_topics()?;
    let after = soak.resources_at_rest(&before)?;
    let Soak {
        mut clients,
        writer,
        ..
    } = soak;
    writer.finish()?;
    clients.account.close();
    server.stop()?;

    let leftovers = after.leftovers(&before);
    let (first_kib, last_kib) = memory.ends();
    let slope = memory.slope();
    let wrong = clients.account.wrong;
    let is_well = wrong == WrongDeliveries::default()
        && presences_wrong == 0
        && clients.complaints.is_empty()
        && leftovers.is_empty()
        && slope.is_none_or(|slope| slope < MAX_GROWTH);
    let result = json!({
        "what": "soak", "minutes": duration.as_secs_f64() / 60.0, "seed": seed,
        "clients": CLIENTS, "topics": TOPICS,
        "messages": clients.account.sent,
        "deliveries_owed": clients.account.awaited, "deliveries": clients.account.delivered,
        "lost": wrong.lost, "repeated": wrong.repeated, "misdelivered": wrong.misdelivered,
        "late": wrong.late, "presences_wrong": presences_wrong,
        "memory_kib": {"first": first_kib, "last": last_kib},
        "memory_slope_percent_per_minute": slope,
        "descriptors": [before.descriptors, after.descriptors],
        "tasks": [before.tasks, after.tasks],
        "database_sessions": [before.backends, after.backends],
        "leftovers": leftovers, "faults": clients.complaints, "holds": is_well,
    });
    Ok((result, is_well))
}

/// One random event.
type Act<'a> = fn(&mut Soak<'a>);

struct Soak<'a> {
    database: &'a Database,
    server: &'a Server,
    sockets: Sockets,
    clients: Clients,
    writer: Writer,
    random: Rng,
    /// Last sequence number of each topic. The last entry belongs to the rows.
    sequences: Vec<u32>,
    joins: u64,
    heart: (Instant, u64),
}

impl<'a> Soak<'a> {
    fn new(database: &'a Database, server: &'a Server, seed: u64) -> Result<Self, Failure> {
        let mut random = Rng::with_seed(seed);
        let all = (0..CLIENTS)
            .map(|id| {
                let topics = random.choose_multiple(0..TOPICS, TOPICS_PER_CLIENT);
                let channels = topics
                    .into_iter()
                    .enumerate()
                    .map(|(place, topic)| Channel {
                        topic,
                        stage: Stage::Out,
                        join_ref: String::new(),
                        has_bindings: place == 0,
                        is_subscribed: false,
                        is_tracked: false,
                        present: Default::default(),
                    });
                Ok(Client {
                    version: if id % 2 == 0 {
                        Version::V1
                    } else {
                        Version::V2
                    },
                    token: database.token(id)?,
                    is_open: false,
                    channels: channels.collect(),
                    returns: Some(Instant::now()),
                })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        Ok(Self {
            database,
            server,
            sockets: Sockets::to(server.address)?,
            clients: Clients::new(all),
            writer: Writer::start(database.url())?,
            random,
            sequences: vec![0; TOPICS + 1],
            joins: 0,
            heart: (Instant::now(), 0),
        })
    }

    /// Simulates normal use for a while.
    fn live(&mut self, duration: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut done = 0.0;
        let kinds: [(f64, Act<'a>); 6] = [
            (BROADCASTS, Self::broadcast),
            (DATABASE_BROADCASTS, Self::broadcast_from_the_database),
            (ROW_CHANGES, Self::change_a_row),
            (JOINS_AND_LEAVES, Self::join_or_leave),
            (TRACKS, Self::track_or_untrack),
            (DISCONNECTS, Self::disconnect),
        ];
        let rate: f64 = kinds.iter().map(|(rate, _)| rate).sum();
        while begun.elapsed() < duration {
            self.come_back()?;
            while done < begun.elapsed().as_secs_f64() * rate {
                let mut pick = self.random.f64() * rate;
                for (share, act) in kinds {
                    if pick < share {
                        act(self);
                        break;
                    }
                    pick -= share;
                }
                done += 1.0;
            }
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let due = self.heart.0.elapsed().as_secs_f64() / HEARTBEAT_SECONDS * CLIENTS as f64;
        while self.heart.1 < due as u64 {
            let id = (self.heart.1 % CLIENTS as u64) as ClientId;
            if self.clients.all[id].is_open {
                let text = self.clients.all[id].version.heartbeat();
                self.sockets.send_text(id, &text, &mut self.clients);
            }
            self.heart.1 += 1;
        }
        self.clients.account.expire();
        Ok(self
            .sockets
            .turn(Duration::from_millis(2), &mut self.clients)?)
    }

    /// Reconnects the clients that are due.
    fn come_back(&mut self) -> Result<(), Failure> {
        for id in 0..CLIENTS {
            let client = &mut self.clients.all[id];
            if client.returns.is_some_and(|at| at <= Instant::now()) {
                client.returns = None;
                self.sockets
                    .open_at(id, &client.version.path(&client.token))?;
            }
        }
        Ok(())
    }

    /// Returns a random channel of a random connected client.
    fn any_channel(&mut self) -> Option<(ClientId, usize)> {
        let id = self.random.usize(0..CLIENTS);
        let channel = self.random.usize(0..TOPICS_PER_CLIENT);
        self.clients.all[id].is_open.then_some((id, channel))
    }

    fn next_sequence(&mut self, lane: usize) -> u32 {
        let place = lane.min(TOPICS);
        self.sequences[place] += 1;
        self.sequences[place]
    }

    fn broadcast(&mut self) {
        let Some((id, at)) = self.any_channel() else {
            return;
        };
        let channel = &self.clients.all[id].channels[at];
        if channel.stage != Stage::In {
            return;
        }
        let (topic, join_ref) = (channel.topic, channel.join_ref.clone());
        let sequence = self.next_sequence(topic);
        let mut to = self.clients.members(topic);
        to.remove(&id);
        let key = (topic, sequence);
        self.clients.account.expect(key, Some(id), to);
        let marker = Marker {
            sent_ns: 0,
            lane: topic,
            sequence,
        };
        let version = self.clients.all[id].version;
        let name = Clients::topic_name(topic);
        let (opcode, payload) = version.broadcast(&join_ref, &name, &marker.text());
        self.sockets.queue(id, opcode, &payload);
        self.sockets.flush(id, &mut self.clients);
    }

    fn broadcast_from_the_database(&mut self) {
        let topic = self.random.usize(0..TOPICS);
        let sequence = self.next_sequence(topic);
        let marker = Marker {
            sent_ns: 0,
            lane: topic,
            sequence,
        };
        let write = Write::Broadcast {
            topic,
            marker: marker.text(),
        };
        if self.writer.write(write) {
            let to = self.clients.members(topic);
            self.clients.account.expect((topic, sequence), None, to);
        }
    }

    fn change_a_row(&mut self) {
        let room = self.random.usize(0..CLIENTS / 2);
        let sequence = self.next_sequence(ROWS);
        let marker = Marker {
            // The number of the room instead of a time. Receivers use it to check whether they may
            // see the row.
            sent_ns: room as u64,
            lane: ROWS,
            sequence,
        };
        // The deliveries are required only if the write is queued.
        let write = Write::Row {
            room,
            body: marker.text(),
        };
        if self.writer.write(write) {
            let to = self.clients.subscribers(room);
            self.clients.account.expect((ROWS, sequence), None, to);
        }
    }

    fn join_or_leave(&mut self) {
        let Some((id, at)) = self.any_channel() else {
            return;
        };
        let client = &mut self.clients.all[id];
        let channel = &mut client.channels[at];
        let name = Clients::topic_name(channel.topic);
        let text = match channel.stage {
            Stage::Out => {
                self.joins += 1;
                channel.join_ref = format!("join-{}", self.joins);
                channel.reset(Stage::Joining);
                let binding =
                    json!({"event": "INSERT", "schema": "public", "table": "bench_items"});
                let config = JoinConfig {
                    presence_key: Some(Client::presence_key(id)),
                    is_private: is_private(channel.topic),
                    bindings: if channel.has_bindings {
                        vec![binding]
                    } else {
                        Vec::new()
                    },
                };
                let join_ref = &channel.join_ref;
                client.version.join(join_ref, &name, &client.token, &config)
            }
            // Clients usually stay.
            Stage::In if self.random.u8(0..4) == 0 => {
                let (topic, has_bindings) = (channel.topic, channel.has_bindings);
                channel.reset(Stage::Leaving);
                let text = client.version.leave(&channel.join_ref, &name);
                self.clients.account.excuse(id, topic);
                if has_bindings {
                    self.clients.account.excuse(id, ROWS);
                }
                text
            }
            _ => return,
        };
        self.sockets.send_text(id, &text, &mut self.clients);
    }

    fn track_or_untrack(&mut self) {
        let Some((id, at)) = self.any_channel() else {
            return;
        };
        let client = &mut self.clients.all[id];
        let channel = &mut client.channels[at];
        if channel.stage != Stage::In {
            return;
        }
        channel.is_tracked = !channel.is_tracked;
        let name = Clients::topic_name(channel.topic);
        let text = client
            .version
            .presence(&channel.join_ref, &name, channel.is_tracked);
        self.sockets.send_text(id, &text, &mut self.clients);
    }

    fn disconnect(&mut self) {
        let Some((id, _)) = self.any_channel() else {
            return;
        };
        self.sockets.close(id);
        let pause = Duration::from_millis(self.random.u64(100..3000));
        self.clients.gone(id, pause);
    }

    /// Stops all activity and waits until every required delivery has arrived.
    fn drain(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        // Presence and joins in flight do not count as required deliveries, so there is a minimum
        // wait.
        let at_least = Duration::from_secs(3);
        while begun.elapsed() < at_least
            || (self.clients.account.outstanding() > 0 && begun.elapsed() < QUIET)
        {
            self.turn()?;
        }
        Ok(())
    }

    /// Returns the number of channels in which a client sees other presence keys than those that
    /// clients track.
    fn presences_wrong(&mut self) -> usize {
        let mut wrong = Vec::new();
        for topic in 0..TOPICS {
            let tracked = self.clients.tracked(topic);
            for (id, client) in self.clients.all.iter().enumerate() {
                for channel in &client.channels {
                    let seen = channel.present.keys();
                    if channel.topic == topic
                        && channel.stage == Stage::In
                        && !(channel.present.len() == tracked.len()
                            && seen.clone().all(|key| tracked.contains(key)))
                    {
                        wrong.push(format!(
                            "client {id} sees {:?} present in topic {topic} instead of {tracked:?}",
                            seen.collect::<Vec<_>>()
                        ));
                    }
                }
            }
        }
        let count = wrong.len();
        wrong
            .into_iter()
            .for_each(|reason| self.clients.complain(reason));
        count
    }

    fn leave_all_topics(&mut self) -> Result<(), Failure> {
        self.drain()?;
        for id in 0..CLIENTS {
            self.sockets.close(id);
            self.clients.gone(id, Duration::ZERO);
        }
        Ok(())
    }

    /// Returns the server's resources once they have fallen to `wanted`, or after [`QUIET`]. If
    /// `wanted` is empty, it suffices that no sockets and channels are open.
    fn resources_at_rest(&self, wanted: &Holdings) -> Result<Holdings, Failure> {
        let begun = Instant::now();
        loop {
            let holdings = Holdings::take(self.server, self.database)?;
            let is_first = *wanted == Holdings::default();
            let is_at_rest = if is_first {
                holdings.sockets == 0 && holdings.channels == 0
            } else {
                holdings.leftovers(wanted).is_empty()
            };
            // The first measurement takes at least this long, so that the tasks of closed sockets
            // have ended.
            let is_long = begun.elapsed() > Duration::from_secs(2);
            if (is_at_rest && (is_long || !is_first)) || begun.elapsed() > QUIET {
                return Ok(holdings);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Returns whether the topic is private: every third one is, with policies that allow all users.
fn is_private(topic: usize) -> bool {
    topic.is_multiple_of(3)
}

/// A write to the database.
enum Write {
    Row { room: usize, body: String },
    Broadcast { topic: usize, marker: String },
}

/// A thread that performs each write in a separate transaction.
struct Writer {
    orders: SyncSender<Write>,
    thread: JoinHandle<Result<(), String>>,
}

impl Writer {
    fn start(url: String) -> Result<Self, Failure> {
        let (orders, queue) = sync_channel(1000);
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || carry_out(&url, &queue).map_err(|error| error.to_string()))?;
        Ok(Self { orders, thread })
    }

    /// Queues a write. Returns false if the database is too far behind.
    fn write(&self, write: Write) -> bool {
        self.orders.try_send(write).is_ok()
    }

    fn finish(self) -> Result<(), Failure> {
        drop(self.orders);
        match self.thread.join() {
            Ok(result) => Ok(result?),
            Err(_) => Err("the writer panicked".into()),
        }
    }
}

fn carry_out(url: &str, queue: &Receiver<Write>) -> Result<(), Failure> {
    let runtime = current_thread()?;
    let (client, insert, send) = runtime.block_on(async {
        let client = connect(url).await?;
        let insert = "insert into public.bench_items (room, body) values ($1, $2)";
        let send = "select realtime.send(jsonb_build_object('m', $1::text), 'message', $2::text, $3::boolean)";
        let insert = client.prepare(insert).await?;
        let send = client.prepare(send).await?;
        Ok::<_, tokio_postgres::Error>((client, insert, send))
    })?;
    while let Ok(write) = queue.recv() {
        match write {
            Write::Row { room, body } => {
                let room = i32::try_from(room)?;
                runtime.block_on(client.execute(&insert, &[&room, &body]))?;
            }
            Write::Broadcast { topic, marker } => {
                let name = format!("soak-{topic}");
                let is_private = is_private(topic);
                runtime.block_on(client.execute(&send, &[&marker, &name, &is_private]))?;
            }
        }
    }
    Ok(())
}
