//! The rows of the table in `docs/benchmarks.md`: what each row measures, with floors and goals.

mod attendance;
mod broadcast;
pub(crate) mod changes;
mod database_broadcast;
mod idle;
pub(crate) mod joins;
mod presence;
mod rest;
mod restart;

use std::time::Duration;

use crate::Failure;
use crate::crowd::Seat;
use crate::database::Database;
use crate::report::Outcome;

/// One row.
pub(crate) struct Row {
    pub(crate) number: u32,
    pub(crate) what: &'static str,
    pub(crate) measure: fn(&Laboratory) -> Result<Outcome, Failure>,
}

/// All rows, in the order of the table.
pub(crate) const ROWS: &[Row] = &[
    Row {
        number: 1,
        what: "broadcast, one in flight, 1,000 receivers",
        measure: broadcast::thousand,
    },
    Row {
        number: 2,
        what: "broadcast, one in flight, 100 receivers",
        measure: broadcast::hundred,
    },
    Row {
        number: 3,
        what: "broadcast, one in flight in each of 100 rooms of 10",
        measure: broadcast::rooms,
    },
    Row {
        number: 4,
        what: "broadcast, one in flight, 5,000 receivers",
        measure: broadcast::five_thousand,
    },
    Row {
        number: 5,
        what: "broadcast, 8 queued per socket, 1,000 receivers",
        measure: broadcast::queued,
    },
    Row {
        number: 6,
        what: "p99 at 20,000 deliveries/s to 1,000 receivers, relative to the yardstick",
        measure: broadcast::paced,
    },
    Row {
        number: 7,
        what: "latency of a broadcast to 100 receivers, one in flight",
        measure: broadcast::latency,
    },
    Row {
        number: 8,
        what: "memory of 10,000 idle joined sockets",
        measure: idle::memory,
    },
    Row {
        number: 9,
        what: "connecting and joining a public channel",
        measure: joins::public,
    },
    Row {
        number: 10,
        what: "connecting and joining a private channel",
        measure: joins::private,
    },
    Row {
        number: 11,
        what: "latency from the statement that writes a row to the client, on an idle server",
        measure: changes::latency,
    },
    Row {
        number: 12,
        what: "row changes under a policy that PostgreSQL must evaluate, each for two users",
        measure: changes::throughput,
    },
    Row {
        number: 13,
        what: "the same with 5,000 users subscribed to the whole table",
        measure: changes::crowded,
    },
    Row {
        number: 16,
        what: "row changes without subscribers",
        measure: changes::unsubscribed,
    },
    Row {
        number: 17,
        what: "300 users of one channel track presence at once",
        measure: presence::storm,
    },
    Row {
        number: 18,
        what: "heartbeats of 5,000 sockets",
        measure: idle::heartbeats,
    },
    Row {
        number: 19,
        what: "sending a message over REST",
        measure: rest::sending,
    },
    Row {
        number: 20,
        what: "a page of 50 messages from a conversation of a million",
        measure: rest::history,
    },
    Row {
        number: 21,
        what: "searching a million messages, of which the caller may see 300,000",
        measure: rest::search,
    },
    Row {
        number: 22,
        what: "10,000 clients reconnect and join after a restart",
        measure: restart::measure,
    },
    Row {
        number: 23,
        what: "broadcasts from the database to 100 receivers",
        measure: database_broadcast::measure,
    },
    Row {
        number: 24,
        what: "5,000 users come online and stay",
        measure: attendance::measure,
    },
];

/// The environment of every measurement.
pub(crate) struct Laboratory {
    pub(crate) database: Database,
    pub(crate) settings: Settings,
}

/// Duration and size of measurements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Number of measurements. In a comparison, each side is measured this often, alternately.
    pub(crate) runs: usize,
    /// Duration of one measurement.
    pub(crate) window: Duration,
    /// Whether the run only checks that everything works, with few sockets and meaningless figures.
    pub(crate) is_quick: bool,
}

impl Settings {
    /// Returns the number of clients: `many`, or at most 20 in a quick run.
    pub(crate) fn clients(&self, many: usize) -> usize {
        if self.is_quick { many.min(20) } else { many }
    }

    /// Returns the pause before a measurement, in which earlier work finishes.
    pub(crate) fn pause(&self) -> Duration {
        self.window.min(Duration::from_secs(1)) / 2
    }
}

impl Laboratory {
    /// Distributes clients evenly over the topics. Each client has its own user.
    pub(crate) fn seats(&self, clients: usize, topics: usize) -> Result<Vec<Seat>, Failure> {
        (0..clients)
            .map(|person| {
                Ok(Seat {
                    topic: person % topics,
                    token: self.database.token(person)?,
                    config: Default::default(),
                    publishes: false,
                })
            })
            .collect()
    }
}

/// Maximum concurrent joins while a crowd connects, below the accept queue of the yardstick (128).
pub(crate) const JOINS_AT_ONCE: usize = 100;

/// Timeout for a crowd to connect.
pub(crate) const JOIN_PATIENCE: Duration = Duration::from_secs(120);
