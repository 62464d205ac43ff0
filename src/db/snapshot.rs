//! Determines whether a transaction whose commit is in the WAL is visible in a snapshot.
//!
//! A commit record is written, and may reach the replication stream, before other transactions see
//! the changes. PostgreSQL removes the transaction from the list of running ones only afterwards,
//! and with synchronous replication only after the standby has confirmed the commit (PostgreSQL
//! manual, section 27.2.8).

use tokio_postgres::Row;

use super::error::DbError;

/// A `pg_snapshot` (PostgreSQL manual, section 9.27, table 9.85), reduced to the fields that are
/// needed to look up a transaction id. The WAL contains only the lower 32 bits of ids.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The first transaction id that had not started.
    xmax: u64,
    /// The transaction ids that were running.
    running: Vec<u64>,
}

impl Snapshot {
    /// A query that returns its own snapshot.
    pub const CURRENT: &str = "select pg_catalog.pg_current_snapshot()::text";

    /// Reads the result of [`Self::CURRENT`].
    ///
    /// # Errors
    /// Returns an error if the result is not a snapshot.
    pub fn read(rows: &[Row]) -> Result<Self, DbError> {
        let unexpected = || DbError::Unexpected("the result is not a snapshot".into());
        let text: &str = rows
            .first()
            .ok_or_else(unexpected)?
            .try_get(0)
            .map_err(|error| DbError::Unexpected(error.into()))?;
        Self::parse(text).ok_or_else(unexpected)
    }

    /// Parses `xmin:xmax:xip,xip,…`, each with 64 bits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':').skip(1);
        let xmax = parts.next()?.parse().ok()?;
        let running = parts
            .next()?
            .split(',')
            .filter(|xid| !xid.is_empty())
            .map(|xid| xid.parse().ok())
            .collect::<Option<_>>()?;
        Some(Self { xmax, running })
    }

    /// Returns whether a committed transaction had ended when the snapshot was taken.
    pub fn sees(&self, xid: u32) -> bool {
        let xid = self.full_xid(xid);
        xid < self.xmax && !self.running.contains(&xid)
    }

    /// Returns the 64-bit transaction id for the lower 32 bits in the WAL: the id that is nearest
    /// to the snapshot. It is unique, because the ids in use span less than half of the 32-bit
    /// range (PostgreSQL manual, section 25.1.5).
    pub fn full_xid(&self, xid: u32) -> u64 {
        const HALF: u64 = 1 << 31;
        const CIRCLE: u64 = 1 << 32;
        let here = (self.xmax & !(CIRCLE - 1)) | u64::from(xid);
        if here >= self.xmax + HALF && here >= CIRCLE {
            here - CIRCLE
        } else if here + HALF < self.xmax {
            here + CIRCLE
        } else {
            here
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_transactions_that_had_ended() {
        // Snapshot, transaction, whether the snapshot sees it.
        let cases = [
            ("10:10:", 9, true),
            ("10:10:", 10, false),
            ("10:10:", 11, false),
            ("10:15:10,12", 9, true),
            ("10:15:10,12", 10, false),
            ("10:15:10,12", 11, true),
            ("10:15:10,12", 12, false),
            ("10:15:10,12", 14, true),
            ("10:15:10,12", 15, false),
            // Around a wraparound: 2^32 + 2 comes after 2^32 - 1.
            (
                "4294967290:4294967298:4294967295,4294967297",
                u32::MAX - 1,
                true,
            ),
            (
                "4294967290:4294967298:4294967295,4294967297",
                u32::MAX,
                false,
            ),
            ("4294967290:4294967298:4294967295,4294967297", 0, true),
            ("4294967290:4294967298:4294967295,4294967297", 1, false),
            ("4294967290:4294967298:4294967295,4294967297", 2, false),
        ];
        for (text, xid, is_seen) in cases {
            let snapshot = Snapshot::parse(text).unwrap();
            assert_eq!(snapshot.sees(xid), is_seen, "{xid} in {text}");
        }
        for text in ["", "1", "1:2", "1:x:", "1:2:x"] {
            assert_eq!(Snapshot::parse(text), None, "{text}");
        }
    }
}
