//! The cursors of `/sync`.
//!
//! Cursors are not signed. The contents of a cursor only select from the rows that its caller may
//! see. Only values that PostgreSQL can read are accepted.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a client has seen and, during a chain, how far it has come. A chain consists of the pages
/// of one catch-up, which all lead to the same snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The identity of the database, see `chat.sync_identity()`.
    pub(super) database: String,
    /// When `since` (during a chain: `until`) was taken, in microseconds since the epoch.
    pub(super) taken_at_us: i64,
    /// The client has seen everything that is visible in this snapshot. `None` during the first
    /// load.
    pub(super) since: Option<Snapshot>,
    /// Where the chain continues. `None` if everything up to `since` has been fetched.
    pub(super) chain: Option<Chain>,
}

/// Where a chain continues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Chain {
    /// The snapshot that the client will have seen at the end of the chain.
    pub(super) until: Snapshot,
    /// The last row that the client has received.
    pub(super) after: Position,
}

/// The last row of a page.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Position {
    /// A row in the list of conversations, during the first load.
    List {
        is_pinned: bool,
        /// Microseconds since the epoch, the precision of PostgreSQL.
        activity_us: i64,
        id: Uuid,
    },
    /// A changed conversation.
    Conversations { id: Uuid },
    /// A removed message.
    Removals { xid: u64, id: Uuid },
    /// A changed message.
    Messages {
        conversation: Uuid,
        xid: u64,
        id: Uuid,
    },
}

/// A `pg_snapshot` in its text form `xmin:xmax:xip,…`, which PostgreSQL accepts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Snapshot(String);

impl Snapshot {
    /// Returns the text form.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Snapshot {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_snapshot(&text) {
            Ok(Self(text))
        } else {
            Err("not a snapshot")
        }
    }
}

impl From<Snapshot> for String {
    fn from(snapshot: Snapshot) -> Self {
        snapshot.0
    }
}

/// Returns whether the text meets the conditions of PostgreSQL's `parse_snapshot`: 0 < xmin <=
/// every xip < xmax, in ascending order.
fn is_snapshot(text: &str) -> bool {
    let mut parts = text.splitn(3, ':');
    let mut next = || parts.next().map(str::to_owned).unwrap_or_default();
    let (xmin, xmax, in_progress) = (next(), next(), next());
    let (Some(xmin), Some(xmax)) = (xid(&xmin), xid(&xmax)) else {
        return false;
    };
    let mut least = xmin;
    xmin <= xmax
        && (in_progress.is_empty()
            || in_progress.split(',').all(|running| {
                let fits = xid(running).filter(|xid| *xid >= least && *xid < xmax);
                least = fits.unwrap_or(least);
                fits.is_some()
            }))
        && text.matches(':').count() == 2
}

/// Parses a transaction id as PostgreSQL prints it. Zero is not a valid id.
pub(super) fn xid(text: &str) -> Option<u64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|xid: &u64| is_plain && *xid > 0 && i64::try_from(*xid).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::pagination;

    #[test]
    fn only_snapshots_valid_for_postgresql_are_accepted() {
        for text in ["1:1:", "3:9:3,4,8", "100:100:", "7:8:7"] {
            assert!(is_snapshot(text), "{text}");
        }
        for text in [
            "",
            ":",
            "::",
            "1:1",
            "0:1:",
            "2:1:",
            "1:2:2",
            "1:9:0",
            "1:9:4,3",
            "1:9:3,",
            "1:9:,3",
            "1:9:3:",
            "a:9:",
            "+1:9:",
            " 1:9:",
            "1:9:3, 4",
            "1:99999999999999999999:",
            "-1:2:",
            "1:18446744073709551615:",
        ] {
            assert!(!is_snapshot(text), "{text}");
        }
    }

    #[test]
    fn cursors_survive_a_round_trip() {
        let snapshot = |text: &str| Snapshot::try_from(text.to_owned()).expect("a snapshot");
        let cursor = Cursor {
            database: "d".into(),
            taken_at_us: 7,
            since: Some(snapshot("1:1:")),
            chain: Some(Chain {
                until: snapshot("3:9:3,4"),
                after: Position::Removals {
                    xid: 5,
                    id: Uuid::nil(),
                },
            }),
        };
        let written = pagination::cursor(&cursor).expect("writes");
        assert_eq!(
            pagination::position::<Cursor>(&written).expect("ours"),
            cursor
        );
    }
}
