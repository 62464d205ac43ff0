//! The readiness of the process, as its subsystems report it.
//!
//! Readiness is passed upward as data. Subsystems report their state through a handle and `/ready`
//! only reads the report, so no route depends on the subsystems.

use serde::Serialize;
use tokio::sync::watch;

/// The state of the replication stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicationState {
    /// The stream is connecting, at the start or after a lost connection.
    #[default]
    Connecting,
    /// Changes are delivered as they are committed.
    Streaming,
    /// The database responded to the last attempt with an error. The stream tries again.
    Failing,
}

/// Whether the replication slot is in use, and by which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// This process reads the slot.
    Active,
    /// Another process reads the slot.
    Taken,
    /// No process reads the slot.
    Inactive,
    /// The slot can no longer be read, because PostgreSQL has removed WAL that it needs.
    Lost,
}

/// The replication slot at the last check. Checks run only while this process has a replication
/// connection, which normally reads the slot.
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

/// The last reported state of all subsystems.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Whether the database responded to the last check.
    pub database_reachable: bool,
    /// The state of the replication stream.
    pub replication: ReplicationState,
    /// The replication slot at the last check. `None` until the first check of a connection, and
    /// while the stream is not [`ReplicationState::Streaming`].
    pub slot: Option<SlotReport>,
    /// Whether the process is shutting down and accepts no new work.
    pub draining: bool,
}

impl Report {
    /// Returns whether the process accepts work, which means that it can serve requests and
    /// delivers changes.
    pub fn is_ready(self) -> bool {
        self.database_reachable && self.replication == ReplicationState::Streaming && !self.draining
    }
}

/// A handle to the shared report. Clones are cheap and share the report.
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
    /// Creates a report in which the process is not ready yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reports whether the database responds.
    pub fn set_database_reachable(&self, reachable: bool) {
        self.change(|report| report.database_reachable = reachable);
    }

    /// Reports the state of the replication stream. In any state but streaming, the information
    /// about the slot is outdated and therefore removed.
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

    /// Returns the last reported state.
    pub fn report(&self) -> Report {
        *self.report.borrow()
    }

    /// Waits until the process is ready.
    pub async fn wait_until_ready(&self) {
        let mut reports = self.report.subscribe();
        // `self` owns the sender, so the wait ends only when the process is ready.
        let _ = reports.wait_for(|report| report.is_ready()).await;
    }

    /// Applies a change. Waiting tasks wake up only if the report has changed.
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
