//! Server resources that must not grow over a long run.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::database::Database;
use crate::report::rounded;
use crate::server::{METRICS_TOKEN, Server};

/// Warm-up during which the server grows to its normal size: caches, pools, heap pages.
const WARM_UP: Duration = Duration::from_secs(120);

/// Interval of memory samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Memory over time.
pub(super) struct Memory {
    begun: Instant,
    /// Pairs of minutes and KiB.
    samples: Vec<(f64, f64)>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            samples: Vec::new(),
        }
    }

    /// Takes a sample if one is due.
    pub(super) fn sample(&mut self, server: &Server) {
        let next = SAMPLE_EVERY * u32::try_from(self.samples.len()).unwrap_or(u32::MAX);
        if self.begun.elapsed() >= next {
            let minutes = self.begun.elapsed().as_secs_f64() / 60.0;
            self.samples.push((minutes, server.process.memory_kib()));
        }
    }

    /// The first and the last sample.
    pub(super) fn ends(&self) -> (f64, f64) {
        let kib = |sample: Option<&(f64, f64)>| sample.map_or(0.0, |(_, kib)| *kib);
        (kib(self.samples.first()), kib(self.samples.last()))
    }

    /// Returns the growth per minute after the warm-up, fitted by least squares, in percent of the
    /// mean memory. Returns `None` for fewer than 10 samples.
    pub(super) fn slope(&self) -> Option<f64> {
        let warm = WARM_UP.as_secs_f64() / 60.0;
        let late = self.samples.iter().filter(|(minutes, _)| *minutes > warm);
        let count = late.clone().count() as f64;
        if count < 10.0 {
            return None;
        }
        let mean_minutes = late.clone().map(|(minutes, _)| minutes).sum::<f64>() / count;
        let mean_kib = late.clone().map(|(_, kib)| kib).sum::<f64>() / count;
        let (mut above, mut below) = (0.0, 0.0);
        for (minutes, kib) in late {
            above += (minutes - mean_minutes) * (kib - mean_kib);
            below += (minutes - mean_minutes).powi(2);
        }
        Some(rounded(100.0 * above / below / mean_kib))
    }
}

/// The open and running resources at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) descriptors: i64,
    pub(super) backends: i64,
    pub(super) sockets: i64,
    pub(super) channels: i64,
    pub(super) tasks: i64,
}

impl Holdings {
    /// Reads all values.
    pub(super) fn take(server: &Server, database: &Database) -> Result<Self, Failure> {
        let metrics = metrics(server.address)?;
        let gauge = |name: &str| -> Result<i64, Failure> {
            let line = metrics
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            Ok(line.ok_or(format!("no metric {name}"))?.parse()?)
        };
        Ok(Self {
            descriptors: i64::try_from(server.process.descriptors())?,
            backends: database.number(
                "select count(*) from pg_stat_activity
                 where backend_type in ('client backend', 'walsender')",
            )?,
            sockets: gauge("rapport_realtime_sockets")?,
            channels: gauge("rapport_realtime_channels")?,
            tasks: gauge("rapport_tasks")?,
        })
    }

    /// Returns descriptions of all resources that exceed `before`.
    pub(super) fn leftovers(&self, before: &Self) -> Vec<String> {
        // The pools keep connections open that they opened in the meantime. Each of these has a
        // descriptor and a task, which do not count.
        let pooled = self.backends - before.backends;
        let mut left = Vec::new();
        let mut compare = |what: &str, now: i64, then: i64| {
            if now > then {
                left.push(format!("{now} {what} instead of {then}"));
            }
        };
        compare("sockets", self.sockets, before.sockets);
        compare("channels", self.channels, before.channels);
        compare("descriptors", self.descriptors - pooled, before.descriptors);
        compare("tasks", self.tasks - pooled, before.tasks);
        compare(
            "PostgreSQL sessions",
            self.backends,
            before.backends + POOLED,
        );
        left
    }
}

/// Number of connections that the pools may have opened in the meantime: their default sizes.
const POOLED: i64 = 10 + 4;

/// Returns the response body of `GET /metrics`.
fn metrics(address: SocketAddr) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: rapport\r\nAuthorization: Bearer {METRICS_TOKEN}\r\n\
         Connection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
