//! Broadcasts from clients: sent as soon as the previous ones have arrived, or at a fixed rate.

use std::time::{Duration, Instant};

use super::Crowd;
use crate::Failure;
use crate::client::frame::BINARY;
use crate::client::phoenix::{self, JOIN_REF};

/// Bytes in each payload in addition to the marker, as in a chat message with names and times.
const PADDING: usize = 180;

/// How long a message may take before it counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// When to send the next broadcast.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Sends this many per topic with one write, then waits until all receivers have received them.
    InFlight(u32),
    /// Sends this many per second, whether or not the previous ones have arrived.
    PerSecond(f64),
}

/// Sends broadcasts from the publishing client of each topic.
pub(crate) struct Publisher {
    pace: Pace,
    padding: String,
    /// The publishing client of each topic.
    senders: Vec<usize>,
    begun: Instant,
    /// Number of messages sent.
    pub(crate) sent: u64,
    /// Number of messages that did not reach every receiver in time.
    pub(crate) lost: u64,
}

impl Publisher {
    /// Creates the publisher and starts its clock.
    pub(crate) fn new(crowd: &Crowd, pace: Pace) -> Self {
        let mut senders = vec![0; crowd.ledger.topics.len()];
        for (id, seat) in crowd.ledger.seats.iter().enumerate() {
            if seat.publishes {
                senders[seat.topic] = id;
            }
        }
        Self {
            pace,
            padding: "x".repeat(PADDING),
            senders,
            begun: Instant::now(),
            sent: 0,
            lost: 0,
        }
    }

    /// Sends and receives until `end`.
    pub(crate) fn run(&mut self, crowd: &mut Crowd, end: Instant) -> Result<(), Failure> {
        while Instant::now() < end {
            let wait = self.send_due(crowd);
            crowd.turn(wait)?;
            let now = Instant::now();
            for lane in &mut crowd.ledger.lanes {
                self.lost += lane.expire(now, LOST_AFTER);
            }
        }
        Ok(())
    }

    /// Receives outstanding messages. Messages that do not arrive count as lost.
    pub(crate) fn drain(&mut self, crowd: &mut Crowd) -> Result<(), Failure> {
        let begun = Instant::now();
        while crowd.ledger.outstanding() > 0 && begun.elapsed() < LOST_AFTER {
            crowd.turn(Duration::from_millis(5))?;
        }
        self.lost += crowd.ledger.outstanding() as u64;
        Ok(())
    }

    /// Sends due broadcasts and returns how long to wait for events.
    fn send_due(&mut self, crowd: &mut Crowd) -> Duration {
        match self.pace {
            Pace::InFlight(burst) => {
                for topic in 0..self.senders.len() {
                    if crowd.ledger.lanes[topic].outstanding == 0 {
                        self.send(crowd, topic, burst);
                    }
                }
                Duration::from_millis(5)
            }
            Pace::PerSecond(rate) => {
                let next = loop {
                    let due = Duration::from_secs_f64(self.sent as f64 / rate);
                    let wait = due.saturating_sub(self.begun.elapsed());
                    if !wait.is_zero() {
                        break wait;
                    }
                    let topic = self.sent as usize % self.senders.len();
                    self.send(crowd, topic, 1);
                };
                next.min(Duration::from_millis(20))
            }
        }
    }

    fn send(&mut self, crowd: &mut Crowd, topic: usize, burst: u32) {
        let sender = self.senders[topic];
        for _ in 0..burst {
            let marker = crowd.ledger.mark(topic);
            let payload = format!(r#"{{"m":"{marker}","pad":"{}"}}"#, self.padding);
            let frame = phoenix::broadcast(JOIN_REF, &crowd.ledger.topics[topic], &payload);
            crowd.sockets.queue(sender, BINARY, &frame);
            self.sent += 1;
        }
        crowd.sockets.flush(sender, &mut crowd.ledger);
    }
}
