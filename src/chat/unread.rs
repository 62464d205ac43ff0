//! Unread totals, told to the devices of those whose totals may have changed (chat API 2.7).
//!
//! Whoever is marked is asked about together with all others of the same moment, one question for
//! many people, and only if one of their devices listens.

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

/// How long changes gather before the database is asked: a badge is told within 100 ms, and a burst of messages
/// asks once.
const GATHERING: Duration = Duration::from_millis(50);

/// People that one question is about.
const PEOPLE_PER_QUESTION: usize = 1_000;

/// The pause after a question that was not answered.
const PAUSE: Duration = Duration::from_secs(1);

/// How long an answer waits for a commit that the log has shown and the database does not. One that never
/// comes is of another history of the database.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);

const TOTALS: &str = "\
    select t.user_id, t.total, t.conversations, t.mentions from chat.unread_totals($1::uuid[]) t";

/// Whose totals may have changed. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Unread {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    broadcasts: Broadcasts,
    /// A plain mutex: held to mark somebody, or to take all marks. Bounded by the topics with members.
    marks: Mutex<HashMap<Uuid, Mark>>,
    news: Notify,
}

/// Why somebody's totals are asked for.
#[derive(Clone, Debug)]
struct Mark {
    /// The transactions that changed something, which the answer must have seen.
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

    /// A transaction changed something that counts for this person.
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
        // A transaction changes many rows of one person, or one.
        if mark.xids.last() != Some(&xid) {
            mark.xids.push(xid);
        }
        drop(marks);
        self.inner.news.notify_one();
    }

    /// Something may have been missed: whoever listens is told.
    pub(super) fn everybody(&self) {
        let names = self.inner.broadcasts.topics(topics::PERSON);
        let mut marks = self.lock();
        for person in topics::ids(&names, topics::PERSON) {
            marks.entry(person).or_insert_with(Mark::new);
        }
        drop(marks);
        self.inner.news.notify_one();
    }

    /// Asks and tells until the server stops.
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
                        tracing::debug!(%error, "unread totals could not be read");
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
                // The snapshot first: if it is older than the totals, they are only read again.
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
                "two questions have not two answers".into(),
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

    /// Marks again, beside what was marked meanwhile.
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
