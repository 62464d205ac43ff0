//! Clients of one server that join topics, receive marked messages and count them.
//!
//! Everything happens in [`Crowd::turn`], on the caller's thread. Heartbeats are sent as the official
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

/// Refusals that are kept for the report; more would only repeat them.
const MAX_COMPLAINTS: usize = 5;

/// Which frames deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Binary frames of kind 4 alone: a client that sends kind 3 reads no other broadcasts.
    Broadcasts,
    /// People who joined: one that is listed as left, because it is tracked anew, does not count.
    Presences,
    /// Row changes.
    Changes,
}

/// One client: what it joins and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    /// Index into the topics.
    pub(crate) topic: usize,
    /// Its token; the yardstick asks for none.
    pub(crate) token: String,
    /// What its join asks for.
    pub(crate) config: JoinConfig,
    /// It sends, and what it receives is counted for no lane.
    pub(crate) publishes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Joining,
    Joined,
    Lost,
}

/// Where each client is, and what has been received.
pub(crate) struct Ledger {
    counted: Counted,
    topics: Vec<String>,
    seats: Vec<Seat>,
    states: Vec<(State, Instant)>,
    finder: Finder<'static>,
    /// The moment that markers count from.
    pub(crate) epoch: Instant,
    /// One for each topic, or one for a writer.
    pub(crate) lanes: Vec<Lane>,
    /// How many rooms rows are written to, where each is only for the people of its room.
    pub(crate) rooms: Option<u64>,
    /// What has been received since it was last taken.
    pub(crate) window: Window,
    /// From the first byte to the upgrade.
    pub(crate) connect_us: Histogram<u64>,
    /// From the join to its reply.
    pub(crate) join_us: Histogram<u64>,
    /// Clients whose join was accepted.
    pub(crate) joined: usize,
    /// Clients that were told that their row changes are live.
    pub(crate) subscribed: usize,
    /// Clients that were refused or closed.
    pub(crate) lost: usize,
    /// The first reasons why.
    pub(crate) complaints: Vec<String>,
}

/// Clients and their ledger.
pub(crate) struct Crowd {
    pub(crate) sockets: Sockets,
    pub(crate) ledger: Ledger,
    /// When heartbeats began, and how many have been sent.
    heart: (Instant, u64),
}

impl Crowd {
    /// Clients that have not connected yet. Topics carry their prefix `realtime:`.
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

    /// Connects everybody and has them join, this many at a time. Returns when all have an answer.
    ///
    /// # Errors
    /// When somebody is refused, or not answered within `patience`.
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
                    .complain(format!("not all have joined in {patience:?}"));
                break;
            }
        }
        self.heart = (Instant::now(), 0);
        if self.ledger.joined == all {
            return Ok(());
        }
        Err(format!(
            "{} of {all} have joined: {}",
            self.ledger.joined,
            self.ledger.complaints.join("; ")
        )
        .into())
    }

    /// Waits until everybody's row changes are live.
    ///
    /// # Errors
    /// When somebody is not told so within `patience`.
    pub(crate) fn subscribe(&mut self, patience: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        while self.ledger.subscribed < self.ledger.joined {
            self.turn(Duration::from_millis(10))?;
            if begun.elapsed() > patience || self.ledger.lost > 0 {
                return Err(format!(
                    "{} of {} are subscribed: {}",
                    self.ledger.subscribed,
                    self.ledger.joined,
                    self.ledger.complaints.join("; ")
                )
                .into());
            }
        }
        Ok(())
    }

    /// Does nothing but what clients always do.
    pub(crate) fn idle(&mut self, duration: Duration) -> Result<(), Failure> {
        let end = Instant::now() + duration;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.turn(left.min(Duration::from_millis(20)))?;
        }
        Ok(())
    }

    /// Sends the heartbeats that are due, waits at most `timeout`, and handles what has come.
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

    /// Has this client send one text frame.
    pub(crate) fn say(&mut self, id: SocketId, text: &str) {
        self.sockets.send_text(id, text, &mut self.ledger);
    }

    /// Has this client become present in its topic, marked as its lane's next message.
    pub(crate) fn track(&mut self, id: SocketId) {
        let lane = self.ledger.seats[id].topic;
        let marker = self.ledger.mark(lane);
        let text = phoenix::track(&self.ledger.topics[lane], &marker);
        self.say(id, &text);
    }
}

impl Ledger {
    fn answered(&self) -> usize {
        self.joined + self.lost
    }

    /// Nanoseconds since the epoch of the run.
    pub(crate) fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// A marker for the next message of this lane.
    pub(crate) fn mark(&mut self, lane: usize) -> String {
        let marker = Marker {
            sent_ns: self.now_ns(),
            lane,
            sequence: self.lanes[lane].sent(Instant::now()),
        };
        marker.text()
    }

    /// Messages that are not at every receiver yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.lanes.iter().map(|lane| lane.outstanding).sum()
    }

    /// Remembers why something went wrong.
    pub(crate) fn complain(&mut self, reason: String) {
        if self.complaints.len() < MAX_COMPLAINTS {
            self.complaints.push(reason);
        }
    }

    /// What went wrong in a run besides speed, given its window and how many messages were lost.
    pub(crate) fn faults(&mut self, window: &Window, lost: u64) -> Vec<String> {
        let rest = &self.window;
        let mut faults = std::mem::take(&mut self.complaints);
        for (count, fault) in [
            (lost, "did not reach everybody they are for in time"),
            (window.repeated + rest.repeated, "came twice"),
            (
                window.misdelivered + rest.misdelivered,
                "came to somebody they are not for",
            ),
            (window.late + rest.late, "came after they had been given up"),
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

/// The part of a `presence_diff` that lists who has come.
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
