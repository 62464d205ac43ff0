//! A hundred users who chat in rooms of ten and subscribe to the rows of a table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memchr::memmem::Finder;
use serde_json::{Value, json};

use crate::Failure;
use crate::client::frame::BINARY;
use crate::client::marker::{self, Marker};
use crate::client::phoenix::{self, Control, HEARTBEAT, HEARTBEAT_SECONDS, JoinConfig};
use crate::client::{Handler, SocketId, Sockets};
use crate::crowd::window::{microseconds, quantiles};
use crate::database::{Database, connect, current_thread};
use crate::server::Server;

/// Number of users.
pub(super) const CLIENTS: usize = 100;
const PER_ROOM: usize = 10;

/// Number of messages that each user sends per second.
const BROADCASTS_PER_SECOND: f64 = 1.0;
/// Pause between two rows.
const ROWS_EVERY: Duration = Duration::from_millis(100);

/// The lane of the markers in rows (`client/marker.rs`). Broadcasts have their sender's number as
/// their lane.
const ROWS: usize = 0xffff;

/// Maximum time for all users to connect, and for outstanding deliveries to arrive at the end of a
/// phase.
const PATIENCE: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
    create table public.bench_seen (id bigint generated always as identity primary key, body text not null);
    grant select on public.bench_seen to authenticated;
    alter publication supabase_realtime add table public.bench_seen;";

/// The messages that the users have received.
struct Seen {
    tokens: Vec<String>,
    finder: Finder<'static>,
    epoch: Instant,
    broadcasts_us: Histogram<u64>,
    rows_us: Histogram<u64>,
    subscribed: usize,
    faults: Vec<String>,
}

pub(super) struct Honest {
    sockets: Sockets,
    seen: Seen,
    /// Start of the phase.
    begun: Instant,
    /// Number of broadcasts sent in the phase.
    sent: u64,
    /// Number of heartbeats sent in the phase.
    beats: u64,
    /// Number of rows written before the phase.
    rows_before: u64,
    /// Number of rows written in total.
    rows: Arc<AtomicU64>,
    is_writing: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<Result<(), String>>>,
}

fn room(client: usize) -> String {
    format!("realtime:room {}", client / PER_ROOM)
}

impl Honest {
    /// Connects all users.
    pub(super) fn gather(database: &Database, server: &Server) -> Result<Self, Failure> {
        database.execute(SCHEMA)?;
        let epoch = Instant::now();
        let tokens = (0..CLIENTS).map(|number| database.token(number));
        let mut honest = Self {
            sockets: Sockets::to(server.address)?,
            seen: Seen {
                tokens: tokens.collect::<Result<_, _>>()?,
                finder: marker::finder(),
                epoch,
                broadcasts_us: microseconds()?,
                rows_us: microseconds()?,
                subscribed: 0,
                faults: Vec::new(),
            },
            begun: epoch,
            sent: 0,
            beats: 0,
            rows_before: 0,
            rows: Arc::default(),
            is_writing: Arc::default(),
            stop: Arc::default(),
            writer: None,
        };
        for number in 0..CLIENTS {
            let path = phoenix::path(&honest.seen.tokens[number]);
            honest.sockets.open(&path)?;
        }
        let shared = (
            Arc::clone(&honest.rows),
            Arc::clone(&honest.is_writing),
            Arc::clone(&honest.stop),
        );
        let url = database.url();
        honest.writer = Some(std::thread::spawn(move || {
            let runtime = current_thread().map_err(|error| error.to_string())?;
            let writing = runtime.block_on(write(&url, epoch, &shared));
            writing.map_err(|error| error.to_string())
        }));
        while honest.seen.subscribed < CLIENTS {
            honest
                .sockets
                .turn(Duration::from_millis(10), &mut honest.seen)?;
            if epoch.elapsed() > PATIENCE || !honest.seen.faults.is_empty() {
                return Err(
                    format!("not all users are connected: {:?}", honest.seen.faults).into(),
                );
            }
        }
        Ok(honest)
    }

    /// Starts a phase.
    pub(super) fn begin(&mut self) {
        self.seen.broadcasts_us.reset();
        self.seen.rows_us.reset();
        (self.begun, self.sent, self.beats) = (Instant::now(), 0, 0);
        self.rows_before = self.rows.load(Ordering::Relaxed);
        self.is_writing.store(true, Ordering::Relaxed);
    }

    /// Sends the messages that are due, then receives for up to a millisecond.
    pub(super) fn turn(&mut self) -> Result<(), Failure> {
        let due = |rate: f64, begun: Instant| (begun.elapsed().as_secs_f64() * rate) as u64;
        while self.sent < due(BROADCASTS_PER_SECOND * CLIENTS as f64, self.begun) {
            let client = (self.sent % CLIENTS as u64) as SocketId;
            let marker = mark(self.seen.epoch, client, self.sent);
            let payload = json!({"marker": marker, "text": "x".repeat(180)}).to_string();
            let frame = phoenix::broadcast(phoenix::JOIN_REF, &room(client), &payload);
            self.sockets.queue(client, BINARY, &frame);
            self.sockets.flush(client, &mut self.seen);
            self.sent += 1;
        }
        while self.beats < due(CLIENTS as f64 / HEARTBEAT_SECONDS, self.begun) {
            let client = (self.beats % CLIENTS as u64) as SocketId;
            self.sockets.send_text(client, HEARTBEAT, &mut self.seen);
            self.beats += 1;
        }
        Ok(self
            .sockets
            .turn(Duration::from_millis(1), &mut self.seen)?)
    }

    /// Ends a phase: waits until everything has arrived, and returns the latencies.
    pub(super) fn end(&mut self) -> Result<Value, Failure> {
        self.is_writing.store(false, Ordering::Relaxed);
        let begun = Instant::now();
        let (mut lost_broadcasts, mut lost_rows) = (1, 1);
        while (lost_broadcasts > 0 || lost_rows > 0) && begun.elapsed() < PATIENCE {
            self.sockets
                .turn(Duration::from_millis(5), &mut self.seen)?;
            let rows = self.rows.load(Ordering::Relaxed) - self.rows_before;
            let expected = self.sent * (PER_ROOM as u64 - 1);
            lost_broadcasts = expected.abs_diff(self.seen.broadcasts_us.len());
            lost_rows = (rows * CLIENTS as u64).abs_diff(self.seen.rows_us.len());
        }
        if lost_broadcasts + lost_rows > 0 {
            let fault = format!(
                "{lost_broadcasts} broadcasts and {lost_rows} rows did not arrive, or arrived twice"
            );
            self.seen.faults.push(fault);
        }
        Ok(json!({
            "broadcasts": self.seen.broadcasts_us.len(), "broadcast_ms": quantiles(&self.seen.broadcasts_us),
            "rows": self.seen.rows_us.len(), "row_ms": quantiles(&self.seen.rows_us),
        }))
    }

    /// Stops the writer and returns all faults.
    pub(super) fn faults(&mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.writer.take().map(JoinHandle::join) {
            self.seen.faults.push(error);
        }
        std::mem::take(&mut self.seen.faults)
    }
}

fn mark(epoch: Instant, lane: usize, sequence: u64) -> String {
    let sent_ns = epoch.elapsed().as_nanos() as u64;
    let sequence = sequence as u32;
    Marker {
        sent_ns,
        lane,
        sequence,
    }
    .text()
}

async fn write(
    url: &str,
    epoch: Instant,
    (rows, is_writing, stop): &(Arc<AtomicU64>, Arc<AtomicBool>, Arc<AtomicBool>),
) -> Result<(), tokio_postgres::Error> {
    let client = connect(url).await?;
    let mut ticks = tokio::time::interval(ROWS_EVERY);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        if is_writing.load(Ordering::Relaxed) {
            let body = mark(epoch, ROWS, rows.load(Ordering::Relaxed));
            // Counted first, because the row may reach all clients before the statement returns.
            rows.fetch_add(1, Ordering::Relaxed);
            client
                .execute("insert into public.bench_seen (body) values ($1)", &[&body])
                .await?;
        }
    }
    Ok(())
}

impl Handler for Seen {
    fn opened(&mut self, sockets: &mut Sockets, id: SocketId) {
        let config = JoinConfig {
            bindings: vec![json!({"event": "*", "schema": "public", "table": "bench_seen"})],
            ..JoinConfig::default()
        };
        let text = phoenix::join(&room(id), &self.tokens[id], &config);
        sockets.send_text(id, &text, self);
    }

    fn message(&mut self, _: &mut Sockets, _: SocketId, _: u8, payload: &[u8]) {
        let now = self.epoch.elapsed().as_nanos() as u64;
        let mut is_measured = false;
        for marker in Marker::all_in(&self.finder, payload) {
            is_measured = true;
            let microseconds = now.saturating_sub(marker.sent_ns) / 1000;
            let histogram = match marker.lane {
                ROWS => &mut self.rows_us,
                _ => &mut self.broadcasts_us,
            };
            histogram.saturating_record(microseconds);
        }
        if is_measured {
            return;
        }
        match phoenix::control(payload) {
            Control::Subscribed => self.subscribed += 1,
            Control::Refused(reason) | Control::Closed(reason) | Control::Warned(reason) => {
                self.faults.push(reason);
            }
            Control::Joined | Control::Other => {}
        }
    }

    fn closed(&mut self, id: SocketId, reason: &str) {
        self.faults.push(format!("client {id}: {reason}"));
    }
}
