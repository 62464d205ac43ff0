//! Detects changes of the standing of users: whether they are active, their role, and their teams.
//!
//! The application keeps these values in its own tables, which may not be published. Some of them
//! change with time alone, for example when a ban ends. They are therefore read periodically, for
//! many users per statement, and compared with the values read before. This covers connected users,
//! and both members of each direct conversation whose topic has a joined channel.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use uuid::Uuid;

use crate::auth::Claims;
use crate::bus::Bus;
use crate::bus::broadcasts::Broadcasts;
use crate::bus::people::People;
use crate::bus::rechecks::Rechecks;
use crate::chat::composing::Composing;
use crate::chat::topics;
use crate::db::{Db, DbError, Query};
use crate::limits::UnixMillis;
use crate::observability::excerpt::Excerpt;
use crate::observability::metrics::ChatMetrics;
use crate::shutdown::Tasks;

/// The minimum pause between two comparisons. A suspension must take effect within a second, so
/// half a second remains for the comparison and the recheck.
const PERIOD: Duration = Duration::from_millis(500);

/// The pause is at least this multiple of the time that the comparison took, so that comparisons
/// occupy one connection for at most a tenth of the time. The wait for a connection does not count.
/// Otherwise, comparisons would be rarest when every connection is busy. A user costs about 20
/// microseconds: up to 2,500 connected users are compared every half second, and 20,000 every four
/// seconds.
const PAUSE_PER_WORK: u32 = 9;

/// Ids per statement, so that no statement takes long.
const IDS_PER_STATEMENT: usize = 1_000;

/// How long the standing of a disconnected user is remembered. Users who reconnect are compared
/// with that standing and not rechecked as new, so that a mass reconnection does not double the
/// permission checks.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

const STANDINGS: &str = "select s.id, s.standing from chat.standings($1::uuid[], $2::uuid[]) s";

/// Compares standings and requests rechecks.
#[derive(Debug)]
pub(in crate::chat) struct Standings {
    broadcasts: Broadcasts,
    people: People,
    rechecks: Rechecks,
    composing: Composing,
    metrics: ChatMetrics,
    known: HashMap<Uuid, Known>,
}

/// The last known standing of a user or conversation. There is one for each user and conversation
/// that was compared in the last ten minutes. `seen_at` therefore has the smallest type for a time.
#[derive(Clone, Copy, Debug)]
struct Known {
    standing: i64,
    seen_at: UnixMillis,
}

/// What a comparison covers: the standing of each user, or the standings of both members of each
/// direct conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Person,
    Conversation,
}

impl Standings {
    pub(in crate::chat) fn new(bus: &Bus, composing: Composing, metrics: ChatMetrics) -> Self {
        Self {
            broadcasts: bus.broadcasts().clone(),
            people: bus.people().clone(),
            rechecks: bus.rechecks().clone(),
            composing,
            metrics,
            known: HashMap::new(),
        }
    }

    /// Runs until the server stops.
    pub(in crate::chat) async fn run(mut self, db: Db, tasks: Tasks) {
        let comparing = async {
            loop {
                let mut work = Duration::ZERO;
                match self.compare(&db, &mut work).await {
                    Ok(()) => {
                        self.metrics.standings_compared.inc();
                    }
                    // The next comparison finds what changed in the meantime.
                    Err(error) => {
                        tracing::debug!(error = %Excerpt(&error), "cannot read the standing of connected users; retrying");
                    }
                }
                let pause = work.saturating_mul(PAUSE_PER_WORK).max(PERIOD);
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            () = comparing => {}
            () = tasks.token().cancelled() => {}
        }
    }

    /// Compares all standings. Adds to `work` the time that the queries took.
    async fn compare(&mut self, db: &Db, work: &mut Duration) -> Result<(), DbError> {
        let people = self.people.all();
        self.compare_each(db, Subject::Person, &people, work)
            .await?;
        let names = self.broadcasts.topics(topics::CONVERSATION);
        let conversations: HashSet<Uuid> = topics::ids(&names, topics::CONVERSATION).collect();
        let conversations: Vec<Uuid> = conversations.into_iter().collect();
        self.compare_each(db, Subject::Conversation, &conversations, work)
            .await?;
        let now = UnixMillis::now();
        self.known
            .retain(|_, known| now.since(known.seen_at) < REMEMBERED_FOR);
        Ok(())
    }

    async fn compare_each(
        &mut self,
        db: &Db,
        subject: Subject,
        ids: &[Uuid],
        work: &mut Duration,
    ) -> Result<(), DbError> {
        let none: &[Uuid] = &[];
        for ids in ids.chunks(IDS_PER_STATEMENT) {
            let (people, conversations) = match subject {
                Subject::Person => (ids, none),
                Subject::Conversation => (none, ids),
            };
            let query = Query {
                sql: STANDINGS,
                parameters: &[&people, &conversations],
            };
            let rows = db.query_timed(&Claims::of_service(), query, work).await?;
            for row in rows {
                let unexpected = |error: tokio_postgres::Error| DbError::Unexpected(error.into());
                let id: Uuid = row.try_get(0).map_err(unexpected)?;
                let standing: i64 = row.try_get(1).map_err(unexpected)?;
                // Drafts and `can_send` depend on the standing. The first known standing is not a
                // change.
                if self.differs(id, standing) {
                    match subject {
                        Subject::Person => self.composing.standing_changed(id),
                        Subject::Conversation => self.composing.conversation_changed(id),
                    }
                }
                if self.is_news(id, standing) {
                    match subject {
                        Subject::Person => self.rechecks.request_user(id),
                        Subject::Conversation => {
                            self.rechecks.request_topic(topics::of_conversation(id));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns whether a standing differs from the recorded one.
    fn differs(&self, id: Uuid, standing: i64) -> bool {
        let before = self.known.get(&id);
        before.is_some_and(|before| before.standing != standing)
    }

    /// Records a standing and returns whether it requires a recheck, because it is the first or
    /// differs from the previous one. The permissions of the join were checked before the first
    /// standing was read. Without this recheck, a change in between would never be noticed.
    fn is_news(&mut self, id: Uuid, standing: i64) -> bool {
        let seen_at = UnixMillis::now();
        let before = self.known.insert(id, Known { standing, seen_at });
        before.is_none_or(|before| before.standing != standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::metrics::BusMetrics;

    #[test]
    fn the_first_standing_and_every_different_one_are_news() {
        let (bus, _listener) = Bus::new(1, BusMetrics::default());
        let composing = Composing::new(bus.broadcasts().clone());
        let mut standings = Standings::new(&bus, composing, ChatMetrics::default());
        let (ana, ben) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let seen = [(ana, 1), (ana, 1), (ben, 1), (ana, 2), (ana, 1), (ben, 1)];
        let news = seen.map(|(id, standing)| standings.is_news(id, standing));
        assert_eq!(news, [true, false, true, true, true, false]);
    }
}
