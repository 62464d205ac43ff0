//! Turns row images into the JSON of `record` and `old_record`.
//!
//! Values come as PostgreSQL prints them and leave as `to_jsonb` would make them of the same
//! value (protocol 6.4), with two differences of the protocol: `bytea` is bare hex, and a
//! number keeps the digits it was printed with. Nothing is parsed further than its type needs.

use super::columns::{OldKeyOnly, VisibleColumn, VisibleColumns};
use super::encoding::write_value;
use crate::change::{ColumnValue, OldRow, Row, RowChange};

/// How much of a record is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordDetail {
    /// Every visible value.
    Whole,
    /// The change is larger than the limit: only short values are sent, together with the
    /// error [`PAYLOAD_TOO_LARGE`].
    ShortValues,
}

/// The error that goes with [`RecordDetail::ShortValues`] (protocol 6.5).
pub const PAYLOAD_TOO_LARGE: &str = "Error 413: Payload Too Large";

/// Values of up to this many bytes stay in a record that is too large (protocol 6.5).
const SHORT_VALUE_BYTES: usize = 64;

/// Bytes of the images of a change, counted as the text of their values.
pub(crate) fn change_bytes(change: &RowChange) -> usize {
    let row_bytes = |row: &Row| {
        row.0
            .iter()
            .map(|value| match value {
                ColumnValue::Text(text) => text.len(),
                ColumnValue::Null | ColumnValue::Unchanged => 0,
            })
            .sum::<usize>()
    };
    let new = new_row(change).map_or(0, row_bytes);
    let old = old_row(change).map_or(0, |old| row_bytes(old.row()));
    new + old
}

/// The image after the change; a DELETE has none.
pub(crate) fn new_row(change: &RowChange) -> Option<&Row> {
    match change {
        RowChange::Insert { new } | RowChange::Update { new, .. } => Some(new),
        RowChange::Delete { .. } => None,
    }
}

/// The image before the change, as far as the log keeps one.
pub(crate) fn old_row(change: &RowChange) -> Option<&OldRow> {
    match change {
        RowChange::Insert { .. } | RowChange::Update { old: None, .. } => None,
        RowChange::Update { old: Some(old), .. } | RowChange::Delete { old } => Some(old),
    }
}

/// The value of a column after the change. A value that the change did not touch and the log
/// does not repeat is taken from the old image, if that has it.
pub(crate) fn new_value(change: &RowChange, index: usize) -> Option<&ColumnValue> {
    let value = new_row(change)?.0.get(index)?;
    if *value != ColumnValue::Unchanged {
        return Some(value);
    }
    // A value that is stored out of line is not null, so a null here stands for no value.
    old_row(change)?
        .row()
        .0
        .get(index)
        .filter(|value| matches!(value, ColumnValue::Text(_)))
}

/// The value of a column before the change, as far as the log tells it: of the old image, or where
/// there is none of the new row, because then the columns of the replica identity have not changed.
///
/// A null of an image of the key stands for a value that the log does not hold: the columns of a
/// replica identity are never null. `has_whole_rows` tells whether a full image can be trusted to be full.
pub(crate) fn old_value(
    change: &RowChange,
    index: usize,
    is_identity: bool,
    has_whole_rows: bool,
) -> Option<&ColumnValue> {
    let (row, has_nulls) = match change {
        RowChange::Insert { .. } => return None,
        RowChange::Update { old: None, new } => (is_identity.then_some(new)?, false),
        RowChange::Update { old: Some(old), .. } | RowChange::Delete { old } => {
            (old.row(), has_whole_rows && matches!(old, OldRow::Full(_)))
        }
    };
    row.0.get(index).filter(|value| match value {
        ColumnValue::Text(_) => true,
        ColumnValue::Null => has_nulls,
        ColumnValue::Unchanged => false,
    })
}

/// Writes the `record` object of an INSERT or UPDATE; of a DELETE an empty object. A column
/// whose value is unknown is left out (protocol 6.5, item 7).
pub fn write_record(
    out: &mut Vec<u8>,
    change: &RowChange,
    columns: &VisibleColumns,
    detail: RecordDetail,
) {
    write_object(out, &columns.columns, detail, |column| {
        new_value(change, column.index)
    });
}

/// Writes the `old_record` object of an UPDATE or DELETE: what is known of the old row.
pub fn write_old_record(
    out: &mut Vec<u8>,
    change: &RowChange,
    columns: &VisibleColumns,
    detail: RecordDetail,
) {
    let is_key_only = match columns.old_key_only {
        OldKeyOnly::Nothing => false,
        OldKeyOnly::Deletes => matches!(change, RowChange::Delete { .. }),
        OldKeyOnly::Everything => true,
    };
    write_object(out, &columns.columns, detail, |column| {
        if is_key_only && !column.is_primary_key {
            return None;
        }
        old_value(
            change,
            column.index,
            column.is_identity,
            columns.has_whole_old_rows,
        )
    });
}

fn write_object<'a>(
    out: &mut Vec<u8>,
    columns: &[VisibleColumn],
    detail: RecordDetail,
    value_of: impl Fn(&VisibleColumn) -> Option<&'a ColumnValue>,
) {
    out.push(b'{');
    let mut is_first = true;
    for column in columns {
        let Some(value) = value_of(column) else {
            continue;
        };
        if let (RecordDetail::ShortValues, ColumnValue::Text(text)) = (detail, value)
            && text.len() > SHORT_VALUE_BYTES
        {
            continue;
        }
        if !is_first {
            out.push(b',');
        }
        is_first = false;
        out.extend_from_slice(&column.name_json);
        match value {
            ColumnValue::Text(text) => write_value(out, text, &column.encoding),
            ColumnValue::Null | ColumnValue::Unchanged => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
}
