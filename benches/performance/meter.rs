//! The cost of a period: elapsed seconds, and CPU seconds of each process.

use std::time::Instant;

use serde_json::{Value, json};

use crate::process::{database_cpu_seconds, own_cpu_seconds};
use crate::report::{median, rounded};
use crate::server::Server;

/// The cost of a period. All values are in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    /// CPU time of the server process.
    pub(crate) server_cpu: f64,
    /// CPU time of all PostgreSQL processes.
    pub(crate) database_cpu: f64,
    /// CPU time of the load generator, which is this process.
    pub(crate) own_cpu: f64,
}

impl Cost {
    /// Returns the median numbers of busy cores per process.
    pub(crate) fn medians<'a>(costs: impl Iterator<Item = &'a Self> + Clone) -> Value {
        let of = |spent: fn(&Self) -> f64| {
            let cores = costs.clone().map(|cost| spent(cost) / cost.seconds);
            rounded(median(cores))
        };
        json!({
            "server": of(|cost| cost.server_cpu),
            "database": of(|cost| cost.database_cpu),
            "generator": of(|cost| cost.own_cpu),
        })
    }
}

/// A measurement in progress.
pub(crate) struct Meter<'a> {
    server: &'a Server,
    begun: Instant,
    server_cpu: f64,
    database_cpu: f64,
    own_cpu: f64,
}

impl<'a> Meter<'a> {
    /// Starts a measurement.
    pub(crate) fn start(server: &'a Server) -> Self {
        Self {
            server,
            database_cpu: database_cpu_seconds(),
            own_cpu: own_cpu_seconds(),
            server_cpu: server.process.cpu_seconds(),
            begun: Instant::now(),
        }
    }

    /// Ends the measurement.
    pub(crate) fn stop(self) -> Cost {
        let seconds = self.begun.elapsed().as_secs_f64();
        Cost {
            seconds,
            server_cpu: self.server.process.cpu_seconds() - self.server_cpu,
            database_cpu: database_cpu_seconds() - self.database_cpu,
            own_cpu: own_cpu_seconds() - self.own_cpu,
        }
    }
}
