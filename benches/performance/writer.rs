//! Writes rows on a separate thread. Clients receive them as row changes or as broadcasts. The
//! markers of all rows have the same lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::client::marker::Marker;
use crate::crowd::Crowd;
use crate::database::{connect, current_thread};

/// Bytes in each body in addition to the marker, as in a chat message.
const PADDING: usize = 180;

/// Time after which a row counts as lost. The longest possible queue takes less time.
const LOST_AFTER: Duration = Duration::from_secs(60);

/// Pause of a writer that has reached the limit of rows in flight.
const PAUSE: Duration = Duration::from_micros(300);

/// The rows to write, and how fast to write them.
#[derive(Clone)]
pub(crate) struct Order {
    /// The superuser's connection string.
    pub(crate) url: String,
    /// The statement. Its parameters are `$1 int[]` (places) and `$2 text[]` (bodies, each with a
    /// marker).
    pub(crate) statement: String,
    /// Number of places, such as rooms. They are used in a scattered but repeatable order.
    pub(crate) places: u64,
    /// Rows per statement. Each statement is one transaction.
    pub(crate) rows_per_statement: u64,
    /// Total rows per second. `None` writes as many as `in_flight` allows.
    pub(crate) per_second: Option<f64>,
    /// Maximum number of rows that were written and have not come back.
    pub(crate) in_flight: u64,
    /// The epoch of the markers.
    pub(crate) epoch: Instant,
}

/// State shared between the writer and its observer.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    /// Number of rows whose statement was sent.
    begun: AtomicU64,
    /// Number of rows that came back.
    returned: AtomicU64,
}

/// A writer thread.
pub(crate) struct Writer {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(order: Order) -> Result<Self, Failure> {
        let progress = Arc::new(Progress::default());
        let shared = Arc::clone(&progress);
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                let runtime = current_thread().map_err(|error| error.to_string())?;
                let done = runtime.block_on(write(&order, &shared));
                done.map_err(|error| format!("a statement failed: {error:?}"))
            })?;
        Ok(Self {
            progress,
            thread: Some(thread),
        })
    }

    /// Lets the crowd receive for `duration`, while the writer continues as rows come back. Returns
    /// the number of expired rows.
    pub(crate) fn follow(&self, crowd: &mut Crowd, duration: Duration) -> Result<u64, Failure> {
        let end = Instant::now() + duration;
        let mut lost = 0;
        while Instant::now() < end {
            crowd.turn(Duration::from_millis(1))?;
            let now = Instant::now();
            let lane = &mut crowd.ledger.lanes[0];
            lane.reach(self.progress.begun.load(Ordering::Relaxed) as u32, now);
            lost += lane.expire(now, LOST_AFTER);
            let returned = u64::from(lane.next) - lane.outstanding as u64;
            self.progress.returned.store(returned, Ordering::Relaxed);
        }
        Ok(lost)
    }

    /// Stops writing and receives outstanding rows. Returns the number of rows that did not arrive.
    pub(crate) fn drain(mut self, crowd: &mut Crowd) -> Result<u64, Failure> {
        self.progress.stop.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        let mut lost = 0;
        while begun.elapsed() < LOST_AFTER {
            lost += self.follow(crowd, Duration::from_millis(20))?;
            let is_written = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            if is_written && crowd.ledger.outstanding() == 0 {
                break;
            }
        }
        lost += crowd.ledger.outstanding() as u64;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => Err(error.into()),
            Some(Err(_)) => Err("the writer panicked".into()),
            Some(Ok(Ok(()))) | None => Ok(lost),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.progress.stop.store(true, Ordering::Relaxed);
    }
}

/// Number of users who share a room and therefore see each of its rows: users 2n and 2n + 1.
pub(crate) const PEOPLE_PER_ROOM: usize = 2;

/// Returns the place of a row. Multiplication by a prime scatters rows without a lookup table.
pub(crate) fn place_of(row: u64, places: u64) -> u64 {
    row.wrapping_mul(2_654_435_761) % places
}

async fn write(order: &Order, progress: &Progress) -> Result<(), tokio_postgres::Error> {
    let client = connect(&order.url).await?;
    let statement = client.prepare(&order.statement).await?;
    let padding = "x".repeat(PADDING);
    let begun = Instant::now();
    let mut row = 0;
    while !progress.stop.load(Ordering::Relaxed) {
        let in_flight = row - progress.returned.load(Ordering::Relaxed).min(row);
        if in_flight + order.rows_per_statement > order.in_flight {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        if let Some(rate) = order.per_second {
            let due = Duration::from_secs_f64(row as f64 / rate);
            let wait = due.saturating_sub(begun.elapsed());
            if !wait.is_zero() {
                // Wakes up regularly to check for the stop signal.
                tokio::time::sleep(wait.min(Duration::from_millis(50))).await;
                continue;
            }
        }
        let rows = row..row + order.rows_per_statement;
        let sent_ns = order.epoch.elapsed().as_nanos() as u64;
        let places: Vec<i32> = rows
            .clone()
            .map(|row| place_of(row, order.places) as i32)
            .collect();
        let bodies: Vec<String> = rows
            .clone()
            .map(|row| {
                let marker = Marker {
                    sent_ns,
                    lane: 0,
                    sequence: row as u32,
                };
                format!("{}{padding}", marker.text())
            })
            .collect();
        progress.begun.store(rows.end, Ordering::Relaxed);
        client.execute(&statement, &[&places, &bodies]).await?;
        row = rows.end;
    }
    Ok(())
}
