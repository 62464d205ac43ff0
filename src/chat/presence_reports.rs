//! Derives presence from live sockets. When a user's number of sockets at this process changes, the
//! process writes the new number to the database (`sql/definitions/chat/80_presence.sql`;
//! docs/api.md, *Presence*).
//!
//! A user whose number of sockets stays the same causes no queries. The process holds a lease and
//! renews it every third of the lease's length. If a lease expires, the sockets of its process no
//! longer count as soon as another process renews its own lease. Users without other devices then
//! appear offline. Sockets stay open while the database is unreachable. When the database is
//! reachable again, the process writes the current numbers.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::FromSqlOwned;
use uuid::Uuid;

use crate::auth::Claims;
use crate::bus::people::People;
use crate::config::ChatConfig;
use crate::db::{Db, DbError};
use crate::observability::excerpt::Excerpt;
use crate::observability::metrics::PresenceMetrics;
use crate::shutdown::Tasks;

/// How long arrivals are collected before they are written.
const GATHERING: Duration = Duration::from_millis(100);

/// Maximum number of users per statement.
const PEOPLE_PER_STATEMENT: usize = 1_000;

/// The pause after a failed statement. Also the pause before a report is repeated because the
/// user's rows were locked.
const PAUSE: Duration = Duration::from_secs(1);

const KEEP: &str = "select chat.keep_presence($1::uuid, $2::int)";
const REPORT: &str = "select chat.report_devices($1::uuid, $2::uuid[], $3::int[], $4::boolean[])";

/// Reports the presence of users at this process to the database.
pub(super) struct PresenceReporter {
    db: Db,
    people: People,
    grace: Duration,
    lease: Duration,
    metrics: PresenceMetrics,
    /// A new id for every run. The reports of an earlier run end with the lease of that run.
    process: Uuid,
    queue: ReportQueue,
    /// Whether the database refused the last failed statement. Only the first of consecutive
    /// refusals is logged as a warning.
    is_refused: bool,
}

/// The reports that have been written, and those that are pending. Bounded by the users who have
/// sockets, or had them within the grace period.
#[derive(Debug, Default)]
struct ReportQueue {
    /// The number of sockets per user, as last written.
    written: HashMap<Uuid, usize>,
    due: HashMap<Uuid, Due>,
}

/// A pending report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    at: Instant,
    /// Whether a socket was opened since the last report that is still valid. If so, the report
    /// overrides an "offline" that the user reported earlier, for instance by signing out.
    arrived: bool,
}

/// The report about one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Report {
    person: Uuid,
    devices: usize,
    arrived: bool,
}

impl ReportQueue {
    /// Records a change of a user's number of sockets. An arrival is reported soon, together with
    /// others. A departure waits, because the user may return within the grace period.
    fn note(&mut self, person: Uuid, devices: usize, arrived: bool, now: Instant, grace: Duration) {
        let written = self.written.get(&person).copied().unwrap_or(0);
        let at = if arrived {
            now + GATHERING
        } else if devices == written {
            return;
        } else {
            now + grace
        };
        let due = self.due.entry(person).or_insert(Due { at, arrived });
        due.at = due.at.min(at);
        due.arrived |= arrived;
    }

    /// Schedules a report about each of these users, because the earlier reports are no longer
    /// valid.
    fn forget(&mut self, users: Vec<Uuid>, now: Instant) {
        self.written.clear();
        self.due.clear();
        for person in users {
            self.due.insert(
                person,
                Due {
                    at: now,
                    arrived: true,
                },
            );
        }
    }

    /// Returns when the next report is due.
    fn next(&self) -> Option<Instant> {
        self.due.values().map(|due| due.at).min()
    }

    /// Takes the reports that are due, with the current numbers of sockets. Omits reports that
    /// would change nothing.
    fn take(&mut self, people: &People, now: Instant) -> Vec<Report> {
        let taken: Vec<_> = self.due.extract_if(|_, due| due.at <= now).collect();
        let mut reports: Vec<_> = taken
            .into_iter()
            .map(|(person, due)| Report {
                person,
                devices: people.devices(person),
                arrived: due.arrived,
            })
            .filter(|report| {
                let written = self.written.get(&report.person).copied().unwrap_or(0);
                report.devices != written || (report.arrived && written > 0)
            })
            .collect();
        reports.sort_unstable_by_key(|report| report.person);
        reports
    }

    /// Records that these reports were written.
    fn mark_written(&mut self, reports: &[Report]) {
        for report in reports {
            if report.devices == 0 {
                self.written.remove(&report.person);
            } else {
                self.written.insert(report.person, report.devices);
            }
        }
    }

    /// Schedules these reports again, because they were not written.
    fn put_back(&mut self, reports: &[Report], at: Instant) {
        for report in reports {
            let due = self.due.entry(report.person).or_insert(Due {
                at,
                arrived: report.arrived,
            });
            due.at = due.at.min(at);
            due.arrived |= report.arrived;
        }
    }
}

impl PresenceReporter {
    pub(super) fn new(
        db: Db,
        people: People,
        config: &ChatConfig,
        metrics: PresenceMetrics,
    ) -> Self {
        Self {
            db,
            people,
            grace: config.presence_grace,
            lease: config.presence_lease,
            metrics,
            process: Uuid::new_v4(),
            queue: ReportQueue::default(),
            is_refused: false,
        }
    }

    /// Runs until the server stops. The lease is not ended then, so users who reconnect to another
    /// process before it expires never appear offline.
    pub(super) async fn run(mut self, tasks: Tasks) {
        tokio::select! {
            () = self.follow_devices() => {}
            () = tasks.token().cancelled() => {}
        }
    }

    async fn follow_devices(&mut self) {
        let mut lease_at = Instant::now();
        let mut has_lease = false;
        loop {
            let wake = match self.queue.next() {
                Some(due) if has_lease => due.min(lease_at),
                _ => lease_at,
            };
            tokio::select! {
                () = self.people.changed() => {
                    // Users who connect at the same time are handled together.
                    tokio::time::sleep(GATHERING / 4).await;
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            let now = Instant::now();
            for (person, arrived) in self.people.take_changed() {
                let devices = self.people.devices(person);
                self.queue.note(person, devices, arrived, now, self.grace);
            }
            if lease_at <= now {
                has_lease = self.prolong(now).await;
                let mut pause = self.lease / 3;
                if !has_lease && !self.is_refused {
                    pause = pause.min(PAUSE);
                }
                lease_at = Instant::now() + pause;
            }
            if has_lease && !self.report().await {
                lease_at = Instant::now();
            }
            let here = self.queue.written.len();
            self.metrics
                .people
                .set(i64::try_from(here).unwrap_or(i64::MAX));
        }
    }

    /// Renews the lease. Returns whether the process now has a lease.
    async fn prolong(&mut self, now: Instant) -> bool {
        let lease_ms = i32::try_from(self.lease.as_millis()).unwrap_or(i32::MAX);
        let answer = self
            .db
            .query_as(&Claims::of_service(), KEEP, &[&self.process, &lease_ms])
            .await;
        match only(answer) {
            Ok(true) => {
                self.is_refused = false;
                true
            }
            Ok(false) => {
                self.is_refused = false;
                self.metrics.leases.inc();
                self.queue.forget(self.people.all(), now);
                true
            }
            Err(error) => {
                self.note_failure(&error);
                false
            }
        }
    }

    /// Writes the reports that are due. Returns `false` if the process has no lease.
    async fn report(&mut self) -> bool {
        let now = Instant::now();
        let reports = self.queue.take(&self.people, now);
        for reports in reports.chunks(PEOPLE_PER_STATEMENT) {
            match self.write(reports).await {
                Ok(Some(held)) => {
                    let (held, written): (Vec<_>, Vec<_>) = reports
                        .iter()
                        .copied()
                        .partition(|report| held.contains(&report.person));
                    self.metrics.reports.inc_by(written.len() as u64);
                    self.metrics.reports_held.inc_by(held.len() as u64);
                    self.queue.mark_written(&written);
                    self.queue.put_back(&held, Instant::now() + PAUSE);
                }
                Ok(None) => {
                    self.queue.put_back(reports, now);
                    return false;
                }
                Err(error) => {
                    self.note_failure(&error);
                    self.queue.put_back(reports, Instant::now() + PAUSE);
                }
            }
        }
        true
    }

    /// Logs a failed statement. Only the first of consecutive refusals is a warning, because a
    /// database without the chat's schema is not an error.
    fn note_failure(&mut self, error: &DbError) {
        let is_refused = matches!(error, DbError::Refused(_) | DbError::Unexpected(_));
        if is_refused && !self.is_refused {
            tracing::warn!(error = %Excerpt(&error), "cannot write presence; retrying");
        } else {
            tracing::debug!(error = %Excerpt(&error), "cannot write presence; retrying");
        }
        self.is_refused = is_refused;
    }

    /// Writes the reports. Returns the users whose rows another transaction has locked; their
    /// reports were not written. Returns `None` if the process has no lease.
    async fn write(&self, reports: &[Report]) -> Result<Option<HashSet<Uuid>>, DbError> {
        let people: Vec<Uuid> = reports.iter().map(|report| report.person).collect();
        let devices: Vec<i32> = reports
            .iter()
            .map(|report| i32::try_from(report.devices).unwrap_or(i32::MAX))
            .collect();
        let arrived: Vec<bool> = reports.iter().map(|report| report.arrived).collect();
        let answer = self
            .db
            .query_as(
                &Claims::of_service(),
                REPORT,
                &[&self.process, &people, &devices, &arrived],
            )
            .await;
        let held: Option<Vec<Uuid>> = only(answer)?;
        Ok(held.map(HashSet::from_iter))
    }
}

/// Returns the only value of the only row.
fn only<T: FromSqlOwned>(answer: Result<Vec<tokio_postgres::Row>, DbError>) -> Result<T, DbError> {
    let rows = answer?;
    let row = rows
        .first()
        .ok_or_else(|| DbError::Unexpected("a function returned no row".into()))?;
    row.try_get(0)
        .map_err(|error| DbError::Unexpected(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANA: Uuid = Uuid::from_u128(1);
    const GRACE: Duration = Duration::from_secs(10);

    /// Returns Ana's reports that are due: the number of her sockets, and whether one was opened.
    fn due(queue: &mut ReportQueue, people: &People, now: Instant) -> Vec<(usize, bool)> {
        let reports = queue.take(people, now);
        queue.mark_written(&reports);
        reports
            .iter()
            .map(|report| (report.devices, report.arrived))
            .collect()
    }

    fn note(queue: &mut ReportQueue, people: &People, now: Instant) {
        for (person, arrived) in people.take_changed() {
            queue.note(person, people.devices(person), arrived, now, GRACE);
        }
    }

    #[test]
    fn arrivals_are_reported_soon_and_departures_after_the_grace_period() {
        let (mut queue, people, begun) =
            (ReportQueue::default(), People::default(), Instant::now());
        let first = people.enter(ANA);
        note(&mut queue, &people, begun);
        assert_eq!(due(&mut queue, &people, begun), []);
        let mut now = begun + GATHERING;
        assert_eq!(due(&mut queue, &people, now), [(1, true)]);
        assert_eq!(queue.next(), None, "an idle user has no pending report");

        let second = people.enter(ANA);
        note(&mut queue, &people, now);
        now += GATHERING;
        assert_eq!(due(&mut queue, &people, now), [(2, true)]);
        drop((first, second));
        note(&mut queue, &people, now);
        assert_eq!(due(&mut queue, &people, now + GRACE / 2), []);
        assert_eq!(due(&mut queue, &people, now + GRACE), [(0, false)]);
        assert!(queue.written.is_empty() && queue.due.is_empty());
    }

    #[test]
    fn a_user_who_returns_within_the_grace_period_is_never_reported_as_gone() {
        let (mut queue, people, now) = (ReportQueue::default(), People::default(), Instant::now());
        let first = people.enter(ANA);
        note(&mut queue, &people, now);
        assert_eq!(due(&mut queue, &people, now + GATHERING), [(1, true)]);
        drop(first);
        note(&mut queue, &people, now);
        let _second = people.enter(ANA);
        note(&mut queue, &people, now);
        let reports = due(&mut queue, &people, now + GATHERING);
        assert_eq!(reports, [(1, true)], "she may have signed out in between");
        assert_eq!(due(&mut queue, &people, now + GRACE), []);
    }

    #[test]
    fn failed_reports_are_retried_with_the_current_state() {
        let (mut queue, people, now) = (ReportQueue::default(), People::default(), Instant::now());
        let device = people.enter(ANA);
        note(&mut queue, &people, now);
        let reports = queue.take(&people, now + GATHERING);
        assert_eq!(reports.len(), 1);
        queue.put_back(&reports, now + PAUSE);
        drop(device);
        note(&mut queue, &people, now);
        assert_eq!(
            due(&mut queue, &people, now + PAUSE),
            [],
            "a socket that was never reported needs no report"
        );
        let _again = people.enter(ANA);
        queue.forget(people.all(), now);
        assert_eq!(due(&mut queue, &people, now), [(1, true)]);
    }
}
