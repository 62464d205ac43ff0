//! Sends the draft of a conversation, and whether the member may write in it, to the member's
//! devices (`draft` and `can_send` of `conversation.updated`).
//!
//! Neither value is a column in the WAL. Changes are therefore collected, and one query reads the
//! values of many memberships. Only users with a subscribed device are queried. Only this module
//! sends the two fields, and its queries run one after another, so a device never receives an older
//! value after a newer one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::gathering::{Gathering, Pace, Pending, Remaining, is_early, read_with_snapshot, value};
use super::topics;
use crate::auth::Claims;
use crate::bus::broadcasts::{Broadcasts, ServerBroadcast};
use crate::db::{Db, DbError, Query};
use crate::shutdown::Tasks;

/// These pauses delay a draft on other devices. That does not matter, because a draft is saved only
/// every few seconds while its author types.
const PACE: Pace = Pace {
    gathering: Duration::from_millis(50),
    until_visible: Duration::from_millis(500),
    after_failure: Duration::from_millis(500),
};

/// Maximum number of memberships per query. Each costs about a tenth of a millisecond, so a query
/// stays below the timeout of a statement.
const MEMBERSHIPS_PER_QUERY: usize = 1_000;

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
    changes: Gathering<Changes>,
}

#[derive(Debug, Default)]
struct Changes {
    /// The recorded memberships. Bounded by the memberships of users with devices.
    memberships: HashMap<Membership, Change>,
    /// Users whose standing in the application changed: whether they are active, their role, or
    /// their teams. Bounded by the connected users.
    people: HashSet<Uuid>,
    /// Direct conversations of which a member's standing changed. Bounded by the conversations
    /// whose topic has subscribers.
    conversations: HashSet<Uuid>,
}

impl Changes {
    fn is_of_standing(&self) -> bool {
        !self.people.is_empty() || !self.conversations.is_empty()
    }
}

impl Pending for Changes {
    fn is_empty(&self) -> bool {
        self.memberships.is_empty() && !self.is_of_standing()
    }

    fn put_back(&mut self, earlier: Self) {
        for (membership, change) in earlier.memberships {
            self.memberships.entry(membership).or_insert(change);
        }
        self.people.extend(earlier.people);
        self.conversations.extend(earlier.conversations);
    }
}

/// The conversation and the user of a membership.
type Membership = (Uuid, Uuid);

/// A change that the query's snapshot must include.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// The last transaction that changed the membership. A snapshot that includes it also includes
    /// the earlier ones, because a writer of a row waits for the previous writer to end. `None` for
    /// a changed standing, which has been read from the database and is therefore visible.
    xid: Option<u32>,
    /// When the change was recorded.
    since: Instant,
}

impl Composing {
    pub(super) fn new(broadcasts: Broadcasts) -> Self {
        Self {
            inner: Arc::new(Inner {
                broadcasts,
                changes: Gathering::default(),
            }),
        }
    }

    /// Records that a transaction changed a draft or a block of this member.
    pub(super) fn changed(&self, membership: Membership, xid: u32) {
        let change = Change {
            xid: Some(xid),
            since: Instant::now(),
        };
        let changes = &self.inner.changes;
        changes.add(|changes| changes.memberships.insert(membership, change));
    }

    /// Records that the application changed whether a user is active, or the user's role or teams.
    pub(super) fn standing_changed(&self, person: Uuid) {
        let changes = &self.inner.changes;
        changes.add(|changes| changes.people.insert(person));
    }

    /// Records that the standing of one of the two members of a direct conversation changed.
    pub(super) fn conversation_changed(&self, conversation: Uuid) {
        let changes = &self.inner.changes;
        changes.add(|changes| changes.conversations.insert(conversation));
    }

    /// Reads and sends values until the server stops.
    pub(super) async fn run(self, db: Db, tasks: Tasks) {
        let handle = |changes| self.send(&db, changes);
        self.inner.changes.run(PACE, &tasks, handle).await;
    }

    async fn send(&self, db: &Db, changes: Changes) -> Remaining<Changes> {
        let mut remaining = Remaining::<Changes>::default();
        match self.send_all(db, &changes).await {
            Ok(early) => remaining.early.memberships = early,
            Err(error) => {
                tracing::debug!(%error, "cannot read drafts and permissions to send; retrying");
                remaining.failed = changes;
            }
        }
        remaining
    }

    /// Sends the current values for all recorded changes. Returns the changes that are not visible
    /// yet.
    async fn send_all(
        &self,
        db: &Db,
        recorded: &Changes,
    ) -> Result<HashMap<Membership, Change>, DbError> {
        let mut changes = recorded.memberships.clone();
        if recorded.is_of_standing() {
            let people: Vec<Uuid> = recorded.people.iter().copied().collect();
            let places: Vec<Uuid> = recorded.conversations.iter().copied().collect();
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
        let mut early = HashMap::new();
        for changes in changes.chunks(MEMBERSHIPS_PER_QUERY) {
            early.extend(self.send_chunk(db, changes).await?);
        }
        Ok(early)
    }

    async fn send_chunk(
        &self,
        db: &Db,
        changes: &[(Membership, Change)],
    ) -> Result<HashMap<Membership, Change>, DbError> {
        let people: Vec<Uuid> = changes.iter().map(|((_, person), _)| *person).collect();
        let places: Vec<Uuid> = changes.iter().map(|((place, _), _)| *place).collect();
        let query = Query {
            sql: COMPOSING,
            parameters: &[&people, &places],
        };
        let (snapshot, rows) = read_with_snapshot(db, query).await?;
        let now = Instant::now();
        let changes: HashMap<_, _> = changes.iter().copied().collect();
        let mut early = HashMap::new();
        for row in &rows {
            let (person, conversation): Membership = (value(row, 0)?, value(row, 1)?);
            let membership = (conversation, person);
            if let Some(change) = changes.get(&membership)
                && is_early(&snapshot, change.xid.as_slice(), change.since, now)
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
        Ok(early)
    }
}
