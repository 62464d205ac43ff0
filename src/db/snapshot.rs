//! What a snapshot of the database sees of what the log says is committed.
//!
//! A commit record is written, and may be sent to us, before the transaction ends for everyone else: PostgreSQL takes
//! it off the list of running transactions after that, and with synchronous replication only when the standby has
//! answered (PostgreSQL manual 27.2.8).

/// A `pg_snapshot` (PostgreSQL manual 9.27, table 9.85), as far as it tells about transactions of
/// which the log holds the lower half of the number.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The first that had not begun.
    xmax: u64,
    /// Those that were running.
    running: Vec<u64>,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,xip,…`, of 64 bits each.
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

    /// Whether a committed transaction had ended when the snapshot was taken.
    pub fn sees(&self, xid: u32) -> bool {
        let xid = self.whole(xid);
        xid < self.xmax && !self.running.contains(&xid)
    }

    /// All 64 bits of a number of which the log has the lower half: of those with that half the nearest one, since
    /// the lower halves in use are less than half their circle apart (PostgreSQL manual 25.1.5).
    pub fn whole(&self, xid: u32) -> u64 {
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
    fn a_snapshot_sees_what_had_ended_when_it_was_taken() {
        // Snapshot, transaction, whether it is seen.
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
            // Around the end of a cycle: 2^32 + 2 comes after 2^32 - 1.
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
