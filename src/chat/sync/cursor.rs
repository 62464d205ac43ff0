//! The cursors of `/sync`.
//!
//! They are not signed: what one names can only choose among what its bearer may see, and only what PostgreSQL will
//! read is taken.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a client has seen, or where it is on the way there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The database it is of, see `chat.sync_identity()`.
    pub(super) database: String,
    /// When `since` was taken, or `until` on the way there: microseconds since the epoch.
    pub(super) taken_at_us: i64,
    /// What has been seen. None during the first load.
    pub(super) since: Option<Snapshot>,
    /// Where the next page goes on. None when everything up to `since` has been fetched.
    pub(super) chain: Option<Chain>,
}

/// The rest of a chain of pages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Chain {
    /// What will have been seen at its end.
    pub(super) until: Snapshot,
    /// What the last page ended with.
    pub(super) after: Position,
}

/// The last row of a page.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Position {
    /// On the first load, in the list of conversations.
    List {
        is_pinned: bool,
        /// In microseconds since the epoch, as exact as PostgreSQL is.
        activity_us: i64,
        id: Uuid,
    },
    /// Among changed conversations.
    Conversations { id: Uuid },
    /// Among messages that were taken away.
    Removals { xid: u64, id: Uuid },
    /// Among changed messages.
    Messages {
        conversation: Uuid,
        xid: u64,
        id: Uuid,
    },
}

/// A `pg_snapshot` in its text form, `xmin:xmax:xip,…`: one that PostgreSQL will read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Snapshot(String);

impl Snapshot {
    /// As PostgreSQL reads it.
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

/// What `parse_snapshot` of PostgreSQL takes: 0 < xmin <= every xip, rising, < xmax.
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

/// A transaction id as PostgreSQL prints it. Zero names none.
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
    fn only_what_postgresql_takes_is_a_snapshot() {
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
    fn cursors_come_back() {
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
