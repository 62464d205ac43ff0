//! Readiness of the process, as reported by its subsystems.
//!
//! Readiness flows upward as data: subsystems report into a handle and `/ready` only reads it, so
//! no route depends on the subsystems.

use serde::Serialize;
use tokio::sync::watch;

/// The state of the replication stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicationState {
    /// Connecting, at start or after a lost connection.
    #[default]
    Connecting,
    /// Changes are delivered as they are committed.
    Streaming,
    /// Waiting for the next attempt, because the database refused.
    Failing,
}

/// Whether the replication slot is in use, and by which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// This process.
    Active,
    /// Another process.
    Taken,
    /// No process.
    Inactive,
    /// It can no longer be read: PostgreSQL removed WAL that it needs.
    Lost,
}

/// The replication slot at the last check. The check uses the connection that reads the slot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SlotReport {
    /// Whether the slot is in use, and by which process.
    pub state: SlotState,
    /// WAL written but not yet acknowledged, in bytes.
    pub lag_bytes: u64,
    /// Recent delay between writing WAL and acknowledging it, in seconds, as measured by
    /// PostgreSQL. `None` if there was nothing to measure.
    pub lag_seconds: Option<f64>,
    /// WAL that the database retains for the slot, in bytes.
    pub wal_held_bytes: u64,
}

/// The last reported state of all parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Whether the database answered the last check.
    pub database_reachable: bool,
    /// The state of the replication stream.
    pub replication: ReplicationState,
    /// The replication slot; `None` while no connection reads it.
    pub slot: Option<SlotReport>,
    /// Whether the process is shutting down and accepts no new work.
    pub draining: bool,
}

impl Report {
    /// Whether the process accepts work: it can answer requests and delivers changes.
    pub fn is_ready(self) -> bool {
        self.database_reachable && self.replication == ReplicationState::Streaming && !self.draining
    }
}

/// A handle to the shared report. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness {
    report: watch::Sender<Report>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            report: watch::Sender::new(Report::default()),
        }
    }
}

impl Readiness {
    /// A report without any state yet, which counts as not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reports whether the database answers.
    pub fn set_database_reachable(&self, reachable: bool) {
        self.change(|report| report.database_reachable = reachable);
    }

    /// Reports the state of the replication stream. Unless it is streaming, the information about
    /// the slot is outdated and therefore removed.
    pub fn set_replication(&self, state: ReplicationState) {
        self.change(|report| {
            report.replication = state;
            if state != ReplicationState::Streaming {
                report.slot = None;
            }
        });
    }

    /// Reports the result of a slot check.
    pub fn set_slot(&self, slot: SlotReport) {
        self.change(|report| report.slot = Some(slot));
    }

    /// Reports that the process is shutting down, which is final.
    pub fn set_draining(&self) {
        self.change(|report| report.draining = true);
    }

    /// The last reported state.
    pub fn report(&self) -> Report {
        *self.report.borrow()
    }

    /// Waits until the process is ready.
    pub async fn wait_until_ready(&self) {
        let mut reports = self.report.subscribe();
        // `self` owns the sender, so the wait ends only when the condition holds.
        let _ = reports.wait_for(|report| report.is_ready()).await;
    }

    /// Applies a change. Waiting tasks wake up only if it changed the report.
    fn change(&self, set: impl FnOnce(&mut Report)) {
        self.report.send_if_modified(|report| {
            let before = *report;
            set(report);
            *report != before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_requires_all_parts_and_no_shutdown() {
        let readiness = Readiness::new();
        assert!(!readiness.report().is_ready());
        readiness.set_database_reachable(true);
        assert!(!readiness.report().is_ready());
        readiness.set_replication(ReplicationState::Streaming);
        readiness.wait_until_ready().await;
        readiness.set_replication(ReplicationState::Failing);
        assert!(!readiness.report().is_ready());
        readiness.set_replication(ReplicationState::Streaming);
        readiness.set_draining();
        assert!(!readiness.report().is_ready());
    }
}
