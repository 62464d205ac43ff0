//! Whether the process can do its work, as the subsystems report it.
//!
//! Readiness flows upward as data: subsystems report into a handle, `/ready` only reads it, and
//! so no route needs to know the subsystems.

use serde::Serialize;
use tokio::sync::watch;

/// Where reading row changes stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicationState {
    /// Not connected, for the first time or again.
    #[default]
    Connecting,
    /// Changes are delivered as they are committed.
    Streaming,
    /// Given up until the next attempt, because the database refused.
    Failing,
}

/// Who reads the replication slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// This process.
    Active,
    /// Another process.
    Taken,
    /// Nobody.
    Inactive,
    /// Nobody can any more: PostgreSQL removed log that it needs.
    Lost,
}

/// The replication slot, as it was when last looked at over the connection that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SlotReport {
    /// Who reads it.
    pub state: SlotState,
    /// Log that is written and not acknowledged, in bytes.
    pub lag_bytes: u64,
    /// Time from writing log to its acknowledgement, in seconds, as PostgreSQL measured it
    /// lately; `None` when there was nothing to measure.
    pub lag_seconds: Option<f64>,
    /// Log that the database holds back for the slot, in bytes.
    pub wal_held_bytes: u64,
}

/// What was last reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Whether the database answered when it was last asked.
    pub database_reachable: bool,
    /// Where reading row changes stands.
    pub replication: ReplicationState,
    /// The replication slot; `None` while there is no connection that reads it.
    pub slot: Option<SlotReport>,
    /// Whether the process is stopping and wants no new work.
    pub draining: bool,
}

impl Report {
    /// Whether new work is welcome: requests are answered and changes are delivered.
    pub fn is_ready(self) -> bool {
        self.database_reachable && self.replication == ReplicationState::Streaming && !self.draining
    }
}

/// The handle. Cheap to clone; clones share one report.
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
    /// Nothing reported yet: not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reports whether the database answered.
    pub fn set_database_reachable(&self, reachable: bool) {
        self.change(|report| report.database_reachable = reachable);
    }

    /// Reports where reading row changes stands. What was known of the slot is known no more when it
    /// is not read.
    pub fn set_replication(&self, state: ReplicationState) {
        self.change(|report| {
            report.replication = state;
            if state != ReplicationState::Streaming {
                report.slot = None;
            }
        });
    }

    /// Reports a look at the replication slot.
    pub fn set_slot(&self, slot: SlotReport) {
        self.change(|report| report.slot = Some(slot));
    }

    /// Reports that the process is stopping. It does not become ready again.
    pub fn set_draining(&self) {
        self.change(|report| report.draining = true);
    }

    /// What was last reported.
    pub fn report(&self) -> Report {
        *self.report.borrow()
    }

    /// Waits until everything is ready; at once if it is.
    pub async fn wait_until_ready(&self) {
        let mut reports = self.report.subscribe();
        // The sender lives in `self`, so waiting ends only with the condition.
        let _ = reports.wait_for(|report| report.is_ready()).await;
    }

    /// Only a change wakes those who wait.
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
    async fn it_is_ready_when_all_parts_are_and_not_while_stopping() {
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
