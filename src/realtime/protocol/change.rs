//! The `data` of a row change (protocol 6.4). It is encoded once, and all channels that receive it
//! share the bytes.

use jiff::Timestamp;

use super::json::push_string;
use crate::change::{Action, TableName, TimestampMicros};

/// A row change on the wire. The row images are not included: the arguments of
/// [`ChangeData::write`] write them.
#[derive(Clone, Copy, Debug)]
pub struct ChangeData<'a> {
    /// The table.
    pub table: &'a TableName,
    /// The kind of the change.
    pub action: Action,
    /// What the receivers learn about the row.
    pub row: RowData<'a>,
}

/// What the receivers of a change learn about the row.
#[derive(Clone, Copy, Debug)]
pub enum RowData<'a> {
    /// The receivers may see the row, so its images are written.
    Visible {
        /// The time of the commit. It is written in milliseconds.
        committed_at: TimestampMicros,
        /// The JSON array of columns.
        columns: &'a [u8],
        /// The reason why the images are incomplete, or `None` if they are complete (protocol 6.5,
        /// item 8).
        error: Option<&'static str>,
    },
    /// Receivers learn only that the row changed, and the reason why the row is withheld (protocol
    /// 6.5). The images are written as `{}`.
    Refused(&'static str),
}

impl ChangeData<'_> {
    /// Writes the JSON object. `record` and `old_record` write the row images after and before the
    /// change, also as JSON objects. `record` is not called for a DELETE, `old_record` is not
    /// called for an INSERT, and neither is called if the row is refused.
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        record: impl FnOnce(&mut Vec<u8>),
        old_record: impl FnOnce(&mut Vec<u8>),
    ) {
        out.extend_from_slice(b"{\"schema\":");
        push_string(out, &self.table.schema);
        out.extend_from_slice(b",\"table\":");
        push_string(out, &self.table.name);
        out.extend_from_slice(b",\"commit_timestamp\":");
        match self.row {
            RowData::Visible { committed_at, .. } => push_string(out, &milliseconds(committed_at)),
            RowData::Refused(_) => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"type\":");
        push_string(out, self.action.as_str());
        out.extend_from_slice(b",\"columns\":");
        out.extend_from_slice(match self.row {
            RowData::Visible { columns, .. } => columns,
            RowData::Refused(_) => b"[]",
        });
        if self.action != Action::Delete {
            out.extend_from_slice(b",\"record\":");
            self.push_image(out, record);
        }
        if self.action != Action::Insert {
            out.extend_from_slice(b",\"old_record\":");
            self.push_image(out, old_record);
        }
        out.extend_from_slice(b",\"errors\":");
        match self.row {
            RowData::Visible { error: None, .. } => out.extend_from_slice(b"null"),
            RowData::Visible {
                error: Some(reason),
                ..
            }
            | RowData::Refused(reason) => {
                out.push(b'[');
                push_string(out, reason);
                out.push(b']');
            }
        }
        out.push(b'}');
    }

    fn push_image(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        match self.row {
            RowData::Visible { .. } => write(out),
            RowData::Refused(_) => out.extend_from_slice(b"{}"),
        }
    }
}

/// Formats a time as `2026-01-02T03:04:05.678Z`. A time outside the years −9999 to 9999 is written
/// as the epoch; only a broken clock writes such a time to the WAL.
fn milliseconds(time: TimestampMicros) -> String {
    let timestamp = Timestamp::from_microsecond(time.0).unwrap_or(Timestamp::UNIX_EPOCH);
    timestamp.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
