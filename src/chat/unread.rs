//! Sends unread totals to the devices of users whose totals may have changed (docs/api.md, *Live
//! changes*).
//!
//! Changes are collected for a moment, and one query reads the totals of many users. Only users
//! with a subscribed device are queried.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::gathering::{Gathering, Pace, Pending, Remaining, is_early, read_with_snapshot, value};
use super::topics;
use crate::bus::broadcasts::{Broadcasts, ServerBroadcast};
use crate::db::{Db, DbError, Query};
use crate::shutdown::Tasks;

/// With these pauses, a device receives a new total within 100 ms.
const PACE: Pace = Pace {
    gathering: Duration::from_millis(50),
    until_visible: Duration::ZERO,
    after_failure: Duration::from_secs(1),
};

/// Maximum number of users per query.
const PEOPLE_PER_QUERY: usize = 1_000;

const TOTALS: &str = "\
    select t.user_id, t.total, t.conversations, t.mentions from chat.unread_totals($1::uuid[]) t";

/// The users whose totals may have changed. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Unread {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    broadcasts: Broadcasts,
    /// The marked users. Bounded by the topics with subscribers.
    marks: Gathering<HashMap<Uuid, Mark>>,
}

/// The changes for which a user's totals must be read.
#[derive(Clone, Debug)]
struct Mark {
    /// The transactions of these changes. The snapshot of the query must include all of them.
    xids: Vec<u32>,
    /// When the first of them was recorded.
    since: Instant,
}

impl Unread {
    pub(super) fn new(broadcasts: Broadcasts) -> Self {
        Self {
            inner: Arc::new(Inner {
                broadcasts,
                marks: Gathering::default(),
            }),
        }
    }

    /// Records that a transaction changed rows that affect this user's totals.
    pub(super) fn changed(&self, person: Uuid, xid: u32) {
        if !self.is_listening(person) {
            return;
        }
        self.inner.marks.add(|marks| {
            let mark = marks.entry(person).or_insert_with(Mark::new);
            // A transaction that changes several rows of a user is recorded once.
            if mark.xids.last() != Some(&xid) {
                mark.xids.push(xid);
            }
        });
    }

    /// Marks all users with a subscribed device, because changes may have been missed.
    pub(super) fn mark_all(&self) {
        let names = self.inner.broadcasts.topics(topics::PERSON);
        self.inner.marks.add(|marks| {
            for person in topics::ids(&names, topics::PERSON) {
                marks.entry(person).or_insert_with(Mark::new);
            }
        });
    }

    /// Reads and sends totals until the server stops.
    pub(super) async fn run(self, db: Db, tasks: Tasks) {
        let handle = |marks| self.send(&db, marks);
        self.inner.marks.run(PACE, &tasks, handle).await;
    }

    /// Returns whether a device of this user is subscribed.
    fn is_listening(&self, person: Uuid) -> bool {
        let topic = topics::of_person(person);
        self.inner.broadcasts.has_members(&topic)
    }

    async fn send(&self, db: &Db, marks: HashMap<Uuid, Mark>) -> Remaining<HashMap<Uuid, Mark>> {
        let mut remaining = Remaining::<HashMap<Uuid, Mark>>::default();
        let mut marks: Vec<_> = marks.into_iter().collect();
        marks.retain(|(person, _)| self.is_listening(*person));
        for marks in marks.chunks(PEOPLE_PER_QUERY) {
            match self.send_chunk(db, marks).await {
                Ok(early) => remaining.early.extend(early),
                Err(error) => {
                    tracing::debug!(%error, "cannot read unread totals; retrying");
                    remaining.failed.extend(marks.iter().cloned());
                }
            }
        }
        remaining
    }

    /// Sends the totals of some users. Returns the marks whose changes are not visible yet.
    async fn send_chunk(
        &self,
        db: &Db,
        marks: &[(Uuid, Mark)],
    ) -> Result<Vec<(Uuid, Mark)>, DbError> {
        let people: Vec<Uuid> = marks.iter().map(|(person, _)| *person).collect();
        let query = Query {
            sql: TOTALS,
            parameters: &[&people],
        };
        let (snapshot, totals) = read_with_snapshot(db, query).await?;
        let now = Instant::now();
        let marks: HashMap<_, _> = marks.iter().map(|(person, mark)| (*person, mark)).collect();
        let mut early = Vec::new();
        for row in &totals {
            let person: Uuid = value(row, 0)?;
            if let Some(mark) = marks.get(&person)
                && is_early(&snapshot, &mark.xids, mark.since, now)
            {
                early.push((person, (*mark).clone()));
                continue;
            }
            let (total, conversations, mentions): (i64, i64, i64) =
                (value(row, 1)?, value(row, 2)?, value(row, 3)?);
            self.inner.broadcasts.send(ServerBroadcast {
                topic: topics::of_person(person),
                event: "unread.updated",
                payload: json!({
                    "total": total,
                    "conversations": conversations,
                    "mentions": mentions,
                })
                .to_string()
                .into(),
            });
        }
        Ok(early)
    }
}

impl Pending for HashMap<Uuid, Mark> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn put_back(&mut self, earlier: Self) {
        for (person, mark) in earlier {
            let kept = self.entry(person).or_insert_with(Mark::new);
            kept.xids.extend(&mark.xids);
            kept.since = kept.since.min(mark.since);
        }
    }
}

impl Mark {
    fn new() -> Self {
        Self {
            xids: Vec::new(),
            since: Instant::now(),
        }
    }
}
