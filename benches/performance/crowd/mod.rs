//! Clients of one server that join topics, and receive and count marked messages.
//!
//! All work happens in [`Crowd::turn`], on the caller's thread. Heartbeats are sent as the official
//! clients send them, spread evenly over the interval.

pub(crate) mod lane;
pub(crate) mod publish;
pub(crate) mod window;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memchr::memmem::{self, Finder};

use crate::Failure;
use crate::client::frame::BINARY;
use crate::client::marker::{self, Marker};
use crate::client::phoenix::{self, Control, HEARTBEAT, HEARTBEAT_SECONDS, JoinConfig};
use crate::client::{Handler, SocketId, Sockets};
use crate::writer::{PEOPLE_PER_ROOM, place_of};
use lane::{Lane, Receipt};
use window::{Window, microseconds};

/// Maximum number of failure messages in the report. More would only repeat the first ones.
const MAX_COMPLAINTS: usize = 5;

/// The frames that count as deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Only binary frames of kind 4 (protocol 2.4). Broadcasts that clients send as kind 3 arrive
    /// in no other form.
    Broadcasts,
    /// Joins in presence diffs. If a client tracks again, the leave of its earlier presence does
    /// not count.
    Presences,
    /// Row changes.
    Changes,
}

/// What one client does: the topic that it joins, its user, and whether it sends.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    /// Index of the topic.
    pub(crate) topic: usize,
    /// The token. The yardstick does not require one.
    pub(crate) token: String,
    /// The options of its join.
    pub(crate) config: JoinConfig,
    /// Whether this client sends. Its own receipts do not count for a lane.
    pub(crate) publishes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Joining,
    Joined,
    Lost,
}

/// The state of each client, and everything that the clients received.
pub(crate) struct Ledger {
    counted: Counted,
    topics: Vec<String>,
    seats: Vec<Seat>,
    /// The state of each client, and when opening or joining started.
    states: Vec<(State, Instant)>,
    finder: Finder<'static>,
    /// The epoch of the markers.
    pub(crate) epoch: Instant,
    /// One lane per topic, or a single lane for a writer.
    pub(crate) lanes: Vec<Lane>,
    /// If each row is visible only to the users of its room: the number of rooms that rows are
    /// written to. Clients 2n and 2n + 1 share room n.
    pub(crate) rooms: Option<u64>,
    /// Everything received since the window was last taken.
    pub(crate) window: Window,
    /// Time from opening the connection to the upgrade.
    pub(crate) connect_us: Histogram<u64>,
    /// Time from sending the join to its reply.
    pub(crate) join_us: Histogram<u64>,
    /// Clients that have joined.
    pub(crate) joined: usize,
    /// Clients whose row changes are live.
    pub(crate) subscribed: usize,
    /// Clients that were refused or disconnected.
    pub(crate) lost: usize,
    /// The first failure messages.
    pub(crate) complaints: Vec<String>,
}

/// Clients and their ledger.
pub(crate) struct Crowd {
    pub(crate) sockets: Sockets,
    pub(crate) ledger: Ledger,
    /// When the heartbeats started, and how many have been sent.
    heart: (Instant, u64),
}

impl Crowd {
    /// Creates clients that are not connected yet. Topics include their prefix `realtime:`.
    pub(crate) fn new(
        server: SocketAddr,
        counted: Counted,
        topics: Vec<String>,
        seats: Vec<Seat>,
    ) -> Result<Self, Failure> {
        let mut receivers = vec![0; topics.len()];
        for seat in seats.iter().filter(|seat| !seat.publishes) {
            receivers[seat.topic] += 1;
        }
        let now = Instant::now();
        Ok(Self {
            sockets: Sockets::to(server)?,
            ledger: Ledger {
                counted,
                topics,
                seats,
                states: Vec::new(),
                finder: marker::finder(),
                epoch: now,
                lanes: receivers.into_iter().map(Lane::new).collect(),
                rooms: None,
                window: Window::new(microseconds()?),
                connect_us: microseconds()?,
                join_us: microseconds()?,
                joined: 0,
                subscribed: 0,
                lost: 0,
                complaints: Vec::new(),
            },
            heart: (now, 0),
        })
    }

    /// Connects and joins all clients, at most `at_once` at a time. Returns once every join has a
    /// reply.
    ///
    /// # Errors
    /// Fails if a join is refused, or has no reply within `patience`.
    pub(crate) fn gather(&mut self, at_once: usize, patience: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        let all = self.ledger.seats.len();
        while self.ledger.answered() < all {
            while self.ledger.states.len() < all
                && self.ledger.states.len() - self.ledger.answered() < at_once
            {
                let path = phoenix::path(&self.ledger.seats[self.ledger.states.len()].token);
                self.ledger.states.push((State::Opening, Instant::now()));
                self.sockets.open(&path)?;
            }
            self.sockets
                .turn(Duration::from_millis(1), &mut self.ledger)?;
            if begun.elapsed() > patience {
                self.ledger
                    .complain(format!("not all clients joined within {patience:?}"));
                break;
            }
        }
        self.heart = (Instant::now(), 0);
        if self.ledger.joined == all {
            return Ok(());
        }
        Err(format!(
            "{} of {all} clients joined: {}",
            self.ledger.joined,
            self.ledger.complaints.join("; ")
        )
        .into())
    }

    /// Waits until the row changes of all clients are live.
    ///
    /// # Errors
    /// Fails if that takes longer than `patience`.
    pub(crate) fn subscribe(&mut self, patience: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        while self.ledger.subscribed < self.ledger.joined {
            self.turn(Duration::from_millis(10))?;
            if begun.elapsed() > patience || self.ledger.lost > 0 {
                return Err(format!(
                    "{} of {} clients are subscribed: {}",
                    self.ledger.subscribed,
                    self.ledger.joined,
                    self.ledger.complaints.join("; ")
                )
                .into());
            }
        }
        Ok(())
    }

    /// Sends only heartbeats, and receives, for `duration`.
    pub(crate) fn idle(&mut self, duration: Duration) -> Result<(), Failure> {
        let end = Instant::now() + duration;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.turn(left.min(Duration::from_millis(20)))?;
        }
        Ok(())
    }

    /// Sends due heartbeats, waits at most `timeout`, and handles everything that arrived.
    pub(crate) fn turn(&mut self, timeout: Duration) -> Result<(), Failure> {
        let all = self.ledger.states.len() as u64;
        let (begun, sent) = &mut self.heart;
        let due = (begun.elapsed().as_secs_f64() / HEARTBEAT_SECONDS * all as f64) as u64;
        while *sent < due {
            let id = (*sent % all) as SocketId;
            self.sockets.send_text(id, HEARTBEAT, &mut self.ledger);
            *sent += 1;
        }
        Ok(self.sockets.turn(timeout, &mut self.ledger)?)
    }

    /// Sends one text frame from this client.
    pub(crate) fn send(&mut self, id: SocketId, text: &str) {
        self.sockets.send_text(id, text, &mut self.ledger);
    }

    /// Tracks the presence of this client, marked as the next message of its lane.
    pub(crate) fn track(&mut self, id: SocketId) {
        let lane = self.ledger.seats[id].topic;
        let marker = self.ledger.mark(lane);
        let text = phoenix::track(&self.ledger.topics[lane], &marker);
        self.send(id, &text);
    }
}

impl Ledger {
    fn answered(&self) -> usize {
        self.joined + self.lost
    }

    /// Returns the nanoseconds since the epoch of the run.
    pub(crate) fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Records that the next message of this lane is sent, and returns its marker.
    pub(crate) fn mark(&mut self, lane: usize) -> String {
        let marker = Marker {
            sent_ns: self.now_ns(),
            lane,
            sequence: self.lanes[lane].sent(Instant::now()),
        };
        marker.text()
    }

    /// Returns the number of messages that have not reached every receiver.
    pub(crate) fn outstanding(&self) -> usize {
        self.lanes.iter().map(|lane| lane.outstanding).sum()
    }

    /// Records a failure message.
    pub(crate) fn complain(&mut self, reason: String) {
        if self.complaints.len() < MAX_COMPLAINTS {
            self.complaints.push(reason);
        }
    }

    /// Returns all failures except low speed, given the window of a run and the number of lost
    /// messages.
    pub(crate) fn faults(&mut self, window: &Window, lost: u64) -> Vec<String> {
        let rest = &self.window;
        let mut faults = std::mem::take(&mut self.complaints);
        for (count, fault) in [
            (lost, "did not reach all their receivers in time"),
            (window.repeated + rest.repeated, "arrived twice"),
            (
                window.misdelivered + rest.misdelivered,
                "reached a client they are not for",
            ),
            (window.late + rest.late, "arrived after they had expired"),
        ] {
            if count > 0 {
                faults.push(format!("{count} messages {fault}"));
            }
        }
        if window.deliveries == 0 {
            faults.push("nothing was delivered".to_owned());
        }
        faults
    }

    fn count(&mut self, id: SocketId, payload: &[u8]) -> bool {
        let now = self.now_ns();
        let before = self.window.deliveries;
        for marker in Marker::all_in(&self.finder, payload) {
            self.window.record(now.saturating_sub(marker.sent_ns));
            if self.seats[id].publishes {
                continue;
            }
            if let Some(rooms) = self.rooms
                && place_of(marker.sequence.into(), rooms) != (id / PEOPLE_PER_ROOM) as u64
            {
                self.window.misdelivered += 1;
                continue;
            }
            if let Some(lane) = self.lanes.get_mut(marker.lane) {
                match lane.received(marker.sequence) {
                    Receipt::Counted => {}
                    Receipt::Completed => self.window.completed += 1,
                    Receipt::Repeated => self.window.repeated += 1,
                    Receipt::Late => self.window.late += 1,
                }
            }
        }
        let is_delivery = self.window.deliveries > before;
        self.window.frames += u64::from(is_delivery);
        is_delivery
    }
}

impl Handler for Ledger {
    fn opened(&mut self, sockets: &mut Sockets, id: SocketId) {
        let now = Instant::now();
        let (state, since) = &mut self.states[id];
        self.connect_us
            .saturating_record((now - *since).as_micros() as u64);
        (*state, *since) = (State::Joining, now);
        let seat = &self.seats[id];
        let text = phoenix::join(&self.topics[seat.topic], &seat.token, &seat.config);
        sockets.send_text(id, &text, self);
    }

    fn message(&mut self, _sockets: &mut Sockets, id: SocketId, opcode: u8, payload: &[u8]) {
        let counts = match self.counted {
            Counted::Broadcasts => opcode == BINARY && payload.first() == Some(&4),
            Counted::Presences | Counted::Changes => true,
        };
        let part = match self.counted {
            Counted::Presences => joins_of(payload),
            Counted::Broadcasts | Counted::Changes => payload,
        };
        if counts && self.count(id, part) {
            return;
        }
        match phoenix::control(payload) {
            Control::Joined => {
                let (state, since) = &mut self.states[id];
                if *state == State::Joining {
                    *state = State::Joined;
                    self.join_us
                        .saturating_record(since.elapsed().as_micros() as u64);
                    self.joined += 1;
                }
            }
            Control::Subscribed => self.subscribed += 1,
            Control::Refused(reason) | Control::Closed(reason) | Control::Warned(reason) => {
                if self.states[id].0 == State::Joining {
                    self.states[id].0 = State::Lost;
                    self.lost += 1;
                }
                self.complain(reason);
            }
            Control::Other => {}
        }
    }

    fn closed(&mut self, id: SocketId, reason: &str) {
        let state = &mut self.states[id].0;
        match state {
            State::Lost => return,
            State::Joined => self.joined -= 1,
            State::Opening | State::Joining => {}
        }
        *state = State::Lost;
        self.lost += 1;
        self.complain(format!("client {id}: {reason}"));
    }
}

/// Returns the joins in a `presence_diff`.
fn joins_of(payload: &[u8]) -> &[u8] {
    let (joins, leaves) = (
        memmem::find(payload, b"\"joins\""),
        memmem::find(payload, b"\"leaves\""),
    );
    match (joins, leaves) {
        (Some(joins), Some(leaves)) if joins < leaves => &payload[joins..leaves],
        (Some(joins), _) => &payload[joins..],
        (None, _) => &[],
    }
}
