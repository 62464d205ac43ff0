//! Sends the draft of a conversation, and whether the member may write there, to the member's
//! devices (`draft` and `can_send` of `conversation.updated`).
//!
//! Neither is a column that the WAL shows. Changes gather, and one query reads the values of many
//! memberships, only for users with a subscribed device. Only this module sends the two fields, and
//! its queries run one after the other. A device therefore never receives an older value after a
//! newer one.

use std::collections::{HashMap, HashSet};
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

/// How long changes gather before the query. A draft is saved every few seconds while its author
/// types, and another device may show it this much later.
const GATHERING: Duration = Duration::from_millis(50);

/// Memberships per query. Each costs about a tenth of a millisecond, so a query stays below the
/// timeout of a statement.
const MEMBERSHIPS_PER_QUERY: usize = 1_000;

/// The pause after a failed query, and before a change that was not visible yet is read again.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a change waits for its commit, which the WAL has shown, to become visible. A commit
/// that never becomes visible belongs to another history of the database.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);

const COMPOSING: &str = "\
    select c.user_id, c.conversation_id, c.draft, c.can_send \
    from chat.composing($1::uuid[], $2::uuid[]) c";

const MEMBERSHIPS: &str =
    "select m.user_id, m.conversation_id from chat.memberships_with($1::uuid[], $2::uuid[]) m";

/// The memberships that may have changed. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Composing {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    broadcasts: Broadcasts,
    /// A standard mutex, held only to add one entry or to take all.
    pending: Mutex<Pending>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// At most the memberships of users with devices.
    memberships: HashMap<Membership, Change>,
    /// Users whose standing in the application changed. At most the connected users.
    people: HashSet<Uuid>,
    /// Direct conversations with such a user. At most those that a client has open.
    conversations: HashSet<Uuid>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.memberships.is_empty() && !self.is_of_standing()
    }

    fn is_of_standing(&self) -> bool {
        !self.people.is_empty() || !self.conversations.is_empty()
    }
}

/// The conversation and the user of a membership.
type Membership = (Uuid, Uuid);

/// A change that the snapshot of the query must see.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// The last transaction that changed the membership. `None` if the change is elsewhere and was
    /// read from the database. A snapshot that sees the transaction also sees the earlier ones,
    /// because a writer of a row waits for the previous writer to end.
    xid: Option<u32>,
    since: Instant,
}

impl Composing {
    pub(super) fn new(broadcasts: Broadcasts) -> Self {
        Self {
            inner: Arc::new(Inner {
                broadcasts,
                pending: Mutex::default(),
                notify: Notify::new(),
            }),
        }
    }

    /// Records that a transaction changed a draft or a block of this member.
    pub(super) fn changed(&self, membership: Membership, xid: u32) {
        let change = Change {
            xid: Some(xid),
            since: Instant::now(),
        };
        self.lock().memberships.insert(membership, change);
        self.inner.notify.notify_one();
    }

    /// Records that the application changed whether a user is active, or the user's role or teams.
    pub(super) fn standing_changed(&self, person: Uuid) {
        self.lock().people.insert(person);
        self.inner.notify.notify_one();
    }

    /// Records the same change for one of the two users of a direct conversation.
    pub(super) fn conversation_changed(&self, conversation: Uuid) {
        self.lock().conversations.insert(conversation);
        self.inner.notify.notify_one();
    }

    /// Reads and sends values until the server stops.
    pub(super) async fn run(self, db: Db, tasks: Tasks) {
        let telling = async {
            loop {
                self.inner.notify.notified().await;
                tokio::time::sleep(GATHERING).await;
                let pending = std::mem::take(&mut *self.lock());
                if let Err(error) = self.tell(&db, &pending).await {
                    tracing::debug!(%error, "cannot read drafts and permissions to send; retrying");
                    self.put_back(pending);
                }
                if !self.lock().is_empty() {
                    tokio::time::sleep(PAUSE).await;
                    self.inner.notify.notify_one();
                }
            }
        };
        tokio::select! {
            () = telling => {}
            () = tasks.token().cancelled() => {}
        }
    }

    async fn tell(&self, db: &Db, pending: &Pending) -> Result<(), DbError> {
        let mut changes = pending.memberships.clone();
        if pending.is_of_standing() {
            let people: Vec<Uuid> = pending.people.iter().copied().collect();
            let places: Vec<Uuid> = pending.conversations.iter().copied().collect();
            let rows = db
                .query_as(&Claims::of_service(), MEMBERSHIPS, &[&people, &places])
                .await?;
            for row in &rows {
                changes
                    .entry((value(row, 1)?, value(row, 0)?))
                    .or_insert(Change {
                        xid: None,
                        since: Instant::now(),
                    });
            }
        }
        changes.retain(|(_, person), _| {
            let topic = topics::of_person(*person);
            self.inner.broadcasts.has_members(&topic)
        });
        let changes: Vec<(Membership, Change)> = changes.into_iter().collect();
        for changes in changes.chunks(MEMBERSHIPS_PER_QUERY) {
            self.tell_some(db, changes).await?;
        }
        Ok(())
    }

    async fn tell_some(&self, db: &Db, changes: &[(Membership, Change)]) -> Result<(), DbError> {
        let people: Vec<Uuid> = changes.iter().map(|((_, person), _)| *person).collect();
        let places: Vec<Uuid> = changes.iter().map(|((place, _), _)| *place).collect();
        let answers = db
            .run_as(
                &Claims::of_service(),
                &[
                    // In this order: if the snapshot is older than the rows, they are only read
                    // again.
                    Query {
                        sql: Snapshot::CURRENT,
                        parameters: &[],
                    },
                    Query {
                        sql: COMPOSING,
                        parameters: &[&people, &places],
                    },
                ],
            )
            .await?;
        let [snapshot, rows] = answers.as_slice() else {
            let error = "two queries did not return two results";
            return Err(DbError::Unexpected(error.into()));
        };
        let snapshot = Snapshot::read(snapshot)?;
        let changes: HashMap<_, _> = changes.iter().copied().collect();
        let mut early = HashMap::new();
        for row in rows {
            let (person, conversation): Membership = (value(row, 0)?, value(row, 1)?);
            let membership = (conversation, person);
            if let Some(change) = changes.get(&membership)
                && change.xid.is_some_and(|xid| !snapshot.sees(xid))
                && change.since.elapsed() < COMMIT_PATIENCE
            {
                early.insert(membership, *change);
                continue;
            }
            let (draft, can_send): (Option<&str>, bool) = (value(row, 2)?, value(row, 3)?);
            self.inner.broadcasts.send(ServerBroadcast {
                topic: topics::of_person(person),
                event: "conversation.updated",
                payload: json!({
                    "conversation_id": conversation,
                    "draft": draft,
                    "can_send": can_send,
                })
                .to_string()
                .into(),
            });
        }
        self.put_back(Pending {
            memberships: early,
            ..Pending::default()
        });
        Ok(())
    }

    /// Keeps changes for the next query, unless a newer change of the same membership was recorded.
    fn put_back(&self, changes: Pending) {
        let mut pending = self.lock();
        for (membership, change) in changes.memberships {
            pending.memberships.entry(membership).or_insert(change);
        }
        pending.people.extend(changes.people);
        pending.conversations.extend(changes.conversations);
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // A panic while the mutex is held leaves complete entries.
        self.inner
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn value<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, DbError> {
    row.try_get(index)
        .map_err(|error| DbError::Unexpected(error.into()))
}
