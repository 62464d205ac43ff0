//! Decodes row images (`TupleData`).

use bytes::Bytes;

use super::reader::{DecodeError, Reader};
use crate::change::{ColumnValue, Row};

impl Reader {
    /// Reads one row image. The values share the message's memory.
    pub(super) fn row(&mut self) -> Result<Row, DecodeError> {
        let count = self.column_count()?;
        // Every column takes at least one byte, so a wrong count cannot reserve more than the
        // length of the message.
        let mut values = Vec::with_capacity(count.min(self.remaining()));
        for _ in 0..count {
            values.push(self.value()?);
        }
        Ok(Row(values))
    }

    fn value(&mut self) -> Result<ColumnValue, DecodeError> {
        match self.u8("column kind")? {
            b'n' => Ok(ColumnValue::Null),
            b'u' => Ok(ColumnValue::Unchanged),
            b't' => {
                let length = self.length("column length")?;
                Ok(ColumnValue::Text(utf8(self.take(length, "column value")?)))
            }
            // `b` (a binary value) is only sent on request, and the connection does not request it.
            value => Err(DecodeError::UnknownValue {
                field: "column kind",
                value,
            }),
        }
    }
}

/// Replaces invalid UTF-8 with U+FFFD, because refusing a row would stop the stream at that row
/// forever. PostgreSQL converts texts to UTF-8, which the connection requests. Only the texts of a
/// `SQL_ASCII` database are sent unchanged.
fn utf8(text: Bytes) -> Bytes {
    match std::str::from_utf8(&text) {
        Ok(_) => text,
        Err(_) => Bytes::from(String::from_utf8_lossy(&text).into_owned()),
    }
}
