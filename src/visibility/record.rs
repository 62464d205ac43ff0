//! Writes row images as the JSON of `record` and `old_record`.

use super::columns::{OldKeyOnly, VisibleColumn, VisibleColumns};
use super::encoding::write_value;
use crate::change::{ColumnValue, OldRow, Row, RowChange};

/// The extent of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordDetail {
    /// All visible values.
    Whole,
    /// Only short values, with the error [`PAYLOAD_TOO_LARGE`], because the change exceeds the size
    /// limit.
    ShortValues,
}

/// The error for [`RecordDetail::ShortValues`] (protocol 6.5, item 8).
pub const PAYLOAD_TOO_LARGE: &str = "Error 413: Payload Too Large";

/// Maximum bytes of a value in a record that is too large (protocol 6.5, item 8).
const SHORT_VALUE_BYTES: usize = 64;

/// Returns the size of a change: the bytes of all values in its images, as text.
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

/// Returns the image after the change. A DELETE has none.
pub(crate) fn new_row(change: &RowChange) -> Option<&Row> {
    match change {
        RowChange::Insert { new } | RowChange::Update { new, .. } => Some(new),
        RowChange::Delete { .. } => None,
    }
}

/// Returns the image before the change, if the WAL contains one.
pub(crate) fn old_row(change: &RowChange) -> Option<&OldRow> {
    match change {
        RowChange::Insert { .. } | RowChange::Update { old: None, .. } => None,
        RowChange::Update { old: Some(old), .. } | RowChange::Delete { old } => Some(old),
    }
}

/// Returns the value of a column after the change. If the change did not touch the value and the
/// new image omits it, the value is taken from the old image, if that contains it.
pub(crate) fn new_value(change: &RowChange, index: usize) -> Option<&ColumnValue> {
    let value = new_row(change)?.0.get(index)?;
    if *value != ColumnValue::Unchanged {
        return Some(value);
    }
    // A value that is stored out of line is not null. A null in the old image therefore means that
    // the value is missing.
    old_row(change)?
        .row()
        .0
        .get(index)
        .filter(|value| matches!(value, ColumnValue::Text(_)))
}

/// Returns the value of a column before the change, if the WAL contains it. If there is no old
/// image, a column of the replica identity (`is_identity`) has not changed, so its value is taken
/// from the new row.
///
/// In a key image, null means that the value is missing, because the columns of a replica identity
/// are never null. `has_whole_rows` states whether an image that is marked as full really is full.
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

/// Writes the `record` object of an INSERT or UPDATE. For a DELETE it is empty. Columns with
/// unknown values are omitted (protocol 6.5, item 7).
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

/// Writes the `old_record` object of an UPDATE or DELETE, with the known values of the old row.
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
