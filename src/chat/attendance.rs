//! Keeps presence from live sockets: who has how many at this process, written down when that changes
//! (chat API 2.7, `sql/definitions/chat/80_presence.sql`).
//!
//! Guarantees: somebody who is online and idle costs the database nothing. The process holds a lease, prolonged
//! every third of its length; whom a process vouches for whose lease ran out is offline to everybody who reads, and is
//! written down as such by whoever prolongs next. While the database is away sockets notice nothing: what is written
//! when it is back is what is true then.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::auth::Claims;
use crate::bus::people::People;
use crate::config::ChatConfig;
use crate::db::{Db, DbError};
use crate::observability::metrics::PresenceMetrics;
use crate::shutdown::Tasks;

/// How long arrivals gather before they are written.
const GATHERING: Duration = Duration::from_millis(100);

/// People whom one statement reports.
const PEOPLE_PER_STATEMENT: usize = 1_000;

/// The pause after a statement that failed.
const PAUSE: Duration = Duration::from_secs(1);

const KEEP: &str = "select chat.keep_presence($1::uuid, $2::int)";
const REPORT: &str = "select chat.report_devices($1::uuid, $2::uuid[], $3::int[], $4::boolean[])";

/// What is known at this process.
pub(super) struct Attendance {
    db: Db,
    people: People,
    grace: Duration,
    lease: Duration,
    metrics: PresenceMetrics,
    /// A new one in every run: what an earlier run reported ends with its lease.
    process: Uuid,
    ledger: Ledger,
    /// The database refuses what is asked here, and operators have been told.
    is_refused: bool,
}

/// What has been written and what is to be. Bounded by the people who have sockets, or had within the grace.
#[derive(Debug, Default)]
struct Ledger {
    /// Sockets of each person as they were written last.
    written: HashMap<Uuid, usize>,
    due: HashMap<Uuid, Due>,
}

/// A report that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    at: Instant,
    /// A socket has come since the last report, which ends an earlier "offline".
    came: bool,
}

/// What is said of one person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Report {
    person: Uuid,
    devices: usize,
    came: bool,
}

impl Ledger {
    /// Somebody has come or gone, and has this many sockets now. Who has come is reported with all others who
    /// do; who has gone may be back within the grace.
    fn note(&mut self, person: Uuid, devices: usize, came: bool, now: Instant, grace: Duration) {
        let written = self.written.get(&person).copied().unwrap_or(0);
        let at = if came {
            now + GATHERING
        } else if devices == written {
            return;
        } else {
            now + grace
        };
        let due = self.due.entry(person).or_insert(Due { at, came });
        due.at = due.at.min(at);
        due.came |= came;
    }

    /// Everybody is to be reported again, as nothing that was reported before holds.
    fn forget(&mut self, everybody: Vec<Uuid>, now: Instant) {
        self.written.clear();
        self.due.clear();
        for person in everybody {
            self.due.insert(
                person,
                Due {
                    at: now,
                    came: true,
                },
            );
        }
    }

    /// When the next report is due.
    fn next(&self) -> Option<Instant> {
        self.due.values().map(|due| due.at).min()
    }

    /// The reports that are due, of people as they are now; nothing of those of whom that is written already.
    fn take(&mut self, people: &People, now: Instant) -> Vec<Report> {
        let taken: Vec<_> = self.due.extract_if(|_, due| due.at <= now).collect();
        let mut reports: Vec<_> = taken
            .into_iter()
            .map(|(person, due)| Report {
                person,
                devices: people.devices(person),
                came: due.came,
            })
            .filter(|report| {
                let written = self.written.get(&report.person).copied().unwrap_or(0);
                report.devices != written || (report.came && written > 0)
            })
            .collect();
        reports.sort_unstable_by_key(|report| report.person);
        reports
    }

    /// These were written.
    fn settle(&mut self, reports: &[Report]) {
        for report in reports {
            if report.devices == 0 {
                self.written.remove(&report.person);
            } else {
                self.written.insert(report.person, report.devices);
            }
        }
    }

    /// These were not.
    fn put_back(&mut self, reports: &[Report], at: Instant) {
        for report in reports {
            let due = self.due.entry(report.person).or_insert(Due {
                at,
                came: report.came,
            });
            due.at = due.at.min(at);
            due.came |= report.came;
        }
    }
}

impl Attendance {
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
            ledger: Ledger::default(),
            is_refused: false,
        }
    }

    /// Runs until the server stops. It leaves the lease to run out: people whose sockets find another process
    /// before that are not seen going.
    pub(super) async fn run(mut self, tasks: Tasks) {
        tokio::select! {
            () = self.keep() => {}
            () = tasks.token().cancelled() => {}
        }
    }

    async fn keep(&mut self) {
        let mut lease_at = Instant::now();
        let mut has_lease = false;
        loop {
            let wake = match self.ledger.next() {
                Some(due) if has_lease => due.min(lease_at),
                _ => lease_at,
            };
            tokio::select! {
                () = self.people.changed() => {
                    // A crowd that comes at once is looked at once.
                    tokio::time::sleep(GATHERING / 4).await;
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            let now = Instant::now();
            for (person, came) in self.people.take_changed() {
                let devices = self.people.devices(person);
                self.ledger.note(person, devices, came, now, self.grace);
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
            let here = self.ledger.written.len();
            self.metrics
                .people
                .set(i64::try_from(here).unwrap_or(i64::MAX));
        }
    }

    /// Prolongs the lease; tells whether there is one now.
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
                self.ledger.forget(self.people.everybody(), now);
                true
            }
            Err(error) => {
                self.note_failure(&error);
                false
            }
        }
    }

    /// Writes what is due. `false` when the process turns out to have no lease.
    async fn report(&mut self) -> bool {
        let now = Instant::now();
        let reports = self.ledger.take(&self.people, now);
        for reports in reports.chunks(PEOPLE_PER_STATEMENT) {
            match self.write(reports).await {
                Ok(true) => {
                    self.metrics.reports.inc_by(reports.len() as u64);
                    self.ledger.settle(reports);
                }
                Ok(false) => {
                    self.ledger.put_back(reports, now);
                    return false;
                }
                Err(error) => {
                    self.note_failure(&error);
                    self.ledger.put_back(reports, Instant::now() + PAUSE);
                }
            }
        }
        true
    }

    /// What the database refuses is told once: it may have no schema of the chat, which is nobody's fault.
    fn note_failure(&mut self, error: &DbError) {
        let is_refused = matches!(error, DbError::Refused(_) | DbError::Unexpected(_));
        if is_refused && !self.is_refused {
            tracing::warn!(%error, "presence cannot be written; it will be tried again");
        } else {
            tracing::debug!(%error, "presence is written later");
        }
        self.is_refused = is_refused;
    }

    async fn write(&self, reports: &[Report]) -> Result<bool, DbError> {
        let people: Vec<Uuid> = reports.iter().map(|report| report.person).collect();
        let devices: Vec<i32> = reports
            .iter()
            .map(|report| i32::try_from(report.devices).unwrap_or(i32::MAX))
            .collect();
        let came: Vec<bool> = reports.iter().map(|report| report.came).collect();
        let answer = self
            .db
            .query_as(
                &Claims::of_service(),
                REPORT,
                &[&self.process, &people, &devices, &came],
            )
            .await;
        only(answer)
    }
}

/// The one value of the one row.
fn only(answer: Result<Vec<tokio_postgres::Row>, DbError>) -> Result<bool, DbError> {
    let rows = answer?;
    let row = rows
        .first()
        .ok_or_else(|| DbError::Unexpected("a function answered nothing".into()))?;
    row.try_get(0)
        .map_err(|error| DbError::Unexpected(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANA: Uuid = Uuid::from_u128(1);
    const GRACE: Duration = Duration::from_secs(10);

    /// The reports of Ana that are due, each as the number of her sockets and whether one came.
    fn due(ledger: &mut Ledger, people: &People, now: Instant) -> Vec<(usize, bool)> {
        let reports = ledger.take(people, now);
        ledger.settle(&reports);
        reports
            .iter()
            .map(|report| (report.devices, report.came))
            .collect()
    }

    fn note(ledger: &mut Ledger, people: &People, now: Instant) {
        for (person, came) in people.take_changed() {
            ledger.note(person, people.devices(person), came, now, GRACE);
        }
    }

    #[test]
    fn coming_is_reported_soon_and_going_after_the_grace() {
        let (mut ledger, people, begun) = (Ledger::default(), People::default(), Instant::now());
        let first = people.enter(ANA);
        note(&mut ledger, &people, begun);
        assert_eq!(due(&mut ledger, &people, begun), []);
        let mut now = begun + GATHERING;
        assert_eq!(due(&mut ledger, &people, now), [(1, true)]);
        assert_eq!(ledger.next(), None, "nothing is due of who is idle");

        let second = people.enter(ANA);
        note(&mut ledger, &people, now);
        now += GATHERING;
        assert_eq!(due(&mut ledger, &people, now), [(2, true)]);
        drop((first, second));
        note(&mut ledger, &people, now);
        assert_eq!(due(&mut ledger, &people, now + GRACE / 2), []);
        assert_eq!(due(&mut ledger, &people, now + GRACE), [(0, false)]);
        assert!(ledger.written.is_empty() && ledger.due.is_empty());
    }

    #[test]
    fn who_is_back_within_the_grace_was_never_away() {
        let (mut ledger, people, now) = (Ledger::default(), People::default(), Instant::now());
        let first = people.enter(ANA);
        note(&mut ledger, &people, now);
        assert_eq!(due(&mut ledger, &people, now + GATHERING), [(1, true)]);
        drop(first);
        note(&mut ledger, &people, now);
        let _second = people.enter(ANA);
        note(&mut ledger, &people, now);
        let reports = due(&mut ledger, &people, now + GATHERING);
        assert_eq!(reports, [(1, true)], "she may have signed out in between");
        assert_eq!(due(&mut ledger, &people, now + GRACE), []);
    }

    #[test]
    fn what_could_not_be_written_is_written_as_it_is_later() {
        let (mut ledger, people, now) = (Ledger::default(), People::default(), Instant::now());
        let device = people.enter(ANA);
        note(&mut ledger, &people, now);
        let reports = ledger.take(&people, now + GATHERING);
        assert_eq!(reports.len(), 1);
        ledger.put_back(&reports, now + PAUSE);
        drop(device);
        note(&mut ledger, &people, now);
        assert_eq!(
            due(&mut ledger, &people, now + PAUSE),
            [],
            "came and went unseen"
        );
        let _again = people.enter(ANA);
        ledger.forget(people.everybody(), now);
        assert_eq!(due(&mut ledger, &people, now), [(1, true)]);
    }
}
