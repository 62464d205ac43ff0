//! Sends unread totals to the devices of users whose totals may have changed (chat API 2.7).
//!
//! Changes gather for a moment, and one query reads the totals of many users. Only users with a
//! subscribed device are queried.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use super::topics;
use crate::auth::Claims;
use crate::bus::broadcasts::{Broadcasts, ServerBroadcast};
use crate::db::{Db, DbError, Query, Snapshot};
use crate::shutdown::Tasks;

/// How long changes gather before the query. A device receives a new total within 100 ms, and a
/// burst of messages causes one query.
const GATHERING: Duration = Duration::from_millis(50);

/// Users per query.
const PEOPLE_PER_QUESTION: usize = 1_000;

/// The pause after a failed query.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a change waits for its commit, which the WAL has shown, to become visible. A commit
/// that never becomes visible belongs to another history of the database.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);

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
    /// A standard mutex, held only to mark users or to take all marks. Bounded by the topics with
    /// subscribers.
    marks: Mutex<HashMap<Uuid, Mark>>,
    news: Notify,
}

/// Why a user's totals must be read.
#[derive(Clone, Debug)]
struct Mark {
    /// The transactions that changed something. The snapshot of the query must see all of them.
    xids: Vec<u32>,
    since: Instant,
}

impl Unread {
    pub(super) fn new(broadcasts: Broadcasts) -> Self {
        Self {
            inner: Arc::new(Inner {
                broadcasts,
                marks: Mutex::default(),
                news: Notify::new(),
            }),
        }
    }

    /// Records that a transaction changed something that counts for this user.
    pub(super) fn changed(&self, person: Uuid, xid: u32) {
        if !self
            .inner
            .broadcasts
            .has_members(&topics::of_person(person))
        {
            return;
        }
        let mut marks = self.lock();
        let mark = marks.entry(person).or_insert_with(Mark::new);
        // A transaction that changes several rows of a user is recorded once.
        if mark.xids.last() != Some(&xid) {
            mark.xids.push(xid);
        }
        drop(marks);
        self.inner.news.notify_one();
    }

    /// Marks all users with a subscribed device, because changes may have been missed.
    pub(super) fn everybody(&self) {
        let names = self.inner.broadcasts.topics(topics::PERSON);
        let mut marks = self.lock();
        for person in topics::ids(&names, topics::PERSON) {
            marks.entry(person).or_insert_with(Mark::new);
        }
        drop(marks);
        self.inner.news.notify_one();
    }

    /// Reads and sends totals until the server stops.
    pub(super) async fn run(self, db: Db, tasks: Tasks) {
        let telling = async {
            loop {
                if self.lock().is_empty() {
                    self.inner.news.notified().await;
                    continue;
                }
                tokio::time::sleep(GATHERING).await;
                let mut marks: Vec<_> = std::mem::take(&mut *self.lock()).into_iter().collect();
                marks.retain(|(person, _)| {
                    self.inner
                        .broadcasts
                        .has_members(&topics::of_person(*person))
                });
                let mut is_failing = false;
                for marks in marks.chunks(PEOPLE_PER_QUESTION) {
                    if let Err(error) = self.tell(&db, marks).await {
                        tracing::debug!(%error, "cannot read unread totals; retrying");
                        self.put_back(marks);
                        is_failing = true;
                    }
                }
                if is_failing {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        tokio::select! {
            () = telling => {}
            () = tasks.token().cancelled() => {}
        }
    }

    async fn tell(&self, db: &Db, marks: &[(Uuid, Mark)]) -> Result<(), DbError> {
        let people: Vec<Uuid> = marks.iter().map(|(person, _)| *person).collect();
        let answers = db
            .run_as(
                &Claims::of_service(),
                // The snapshot comes first. If it is older than the totals, they are only read
                // again.
                &[
                    Query {
                        sql: Snapshot::CURRENT,
                        parameters: &[],
                    },
                    Query {
                        sql: TOTALS,
                        parameters: &[&people],
                    },
                ],
            )
            .await?;
        let [snapshot, totals] = answers.as_slice() else {
            return Err(DbError::Unexpected(
                "two queries did not return two results".into(),
            ));
        };
        let snapshot = Snapshot::read(snapshot)?;
        let marks: HashMap<_, _> = marks.iter().map(|(person, mark)| (*person, mark)).collect();
        let mut early = Vec::new();
        for row in totals {
            let person: Uuid = value(row, 0)?;
            if let Some(mark) = marks.get(&person)
                && !mark.xids.iter().all(|xid| snapshot.sees(*xid))
                && mark.since.elapsed() < COMMIT_PATIENCE
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
        self.put_back(&early);
        Ok(())
    }

    /// Adds marks back and merges them with newer ones.
    fn put_back(&self, marks: &[(Uuid, Mark)]) {
        let mut kept = self.lock();
        for (person, mark) in marks {
            let kept = kept.entry(*person).or_insert_with(Mark::new);
            kept.xids.extend(&mark.xids);
            kept.since = kept.since.min(mark.since);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Mark>> {
        self.inner
            .marks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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

fn value<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, DbError> {
    row.try_get(index)
        .map_err(|error| DbError::Unexpected(error.into()))
}
