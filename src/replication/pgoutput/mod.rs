//! Bytes of PostgreSQL's `pgoutput` plugin, protocol version 1, to [`WalMessage`].
//!
//! Pure: no I/O, no state, and no input makes it panic. Column values and message
//! contents are slices of the bytes that came in, not copies.
//! Format: PostgreSQL manual, "Logical Replication Message Formats".

mod message;
mod tuple;

#[cfg(any(test, fuzzing))]
pub(super) mod encode;
#[cfg(test)]
mod tests;

pub(super) use message::{WalMessage, decode, timestamp};

use bytes::{Buf, Bytes};
use thiserror::Error;

/// Why bytes are not a message of protocol version 1.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// The message ends inside a field.
    #[error("The message ends inside the field `{0}`")]
    Truncated(&'static str),
    /// The first byte names no message of this version.
    #[error("There is no message of kind 0x{0:02x}")]
    UnknownKind(u8),
    /// A byte that selects a form has none of the known values.
    #[error("The field `{field}` has the unknown value 0x{value:02x}")]
    UnknownValue {
        /// Name of the field in the manual.
        field: &'static str,
        /// What stood there.
        value: u8,
    },
    /// A count or length is negative.
    #[error("The field `{0}` is negative")]
    Negative(&'static str),
    /// A name is not UTF-8, although the session asked for it.
    #[error("The field `{0}` is not UTF-8")]
    NotUtf8(&'static str),
    /// Bytes are left over where the message should end.
    #[error("{0} bytes follow the end of the message")]
    TrailingBytes(usize),
}

/// A cursor over one message that checks before every step.
struct Reader {
    bytes: Bytes,
}

impl Reader {
    fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    fn need(&self, count: usize, field: &'static str) -> Result<(), DecodeError> {
        if self.bytes.remaining() < count {
            return Err(DecodeError::Truncated(field));
        }
        Ok(())
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.need(1, field)?;
        Ok(self.bytes.get_u8())
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.need(4, field)?;
        Ok(self.bytes.get_u32())
    }

    fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.need(4, field)?;
        Ok(self.bytes.get_i32())
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.need(8, field)?;
        Ok(self.bytes.get_u64())
    }

    fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.need(8, field)?;
        Ok(self.bytes.get_i64())
    }

    /// A number of columns: `Int16`, never negative.
    fn column_count(&mut self) -> Result<usize, DecodeError> {
        const FIELD: &str = "number of columns";
        self.need(2, FIELD)?;
        usize::try_from(self.bytes.get_i16()).map_err(|_| DecodeError::Negative(FIELD))
    }

    /// A length or count: `Int32`, never negative. It is only a claim: what it counts may be missing.
    fn length(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        usize::try_from(self.i32(field)?).map_err(|_| DecodeError::Negative(field))
    }

    fn take(&mut self, count: usize, field: &'static str) -> Result<Bytes, DecodeError> {
        self.need(count, field)?;
        Ok(self.bytes.split_to(count))
    }

    /// A text that ends with a zero byte.
    fn string(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let length = self
            .bytes
            .iter()
            .position(|&byte| byte == 0)
            .ok_or(DecodeError::Truncated(field))?;
        let text = self.bytes.split_to(length);
        self.bytes.advance(1);
        std::str::from_utf8(&text)
            .map(str::to_owned)
            .map_err(|_| DecodeError::NotUtf8(field))
    }

    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes(left)),
        }
    }
}
