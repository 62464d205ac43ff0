//! Reads the fields of one pgoutput message, and checks each length first.

use bytes::{Buf, Bytes};
use thiserror::Error;

/// The reason why bytes are not a message of protocol version 1.
#[derive(Debug, Error, PartialEq, Eq)]
pub(in crate::replication) enum DecodeError {
    /// The message ends inside a field.
    #[error("The message ends inside the field `{0}`")]
    Truncated(&'static str),
    /// The first byte is not a message kind of this version.
    #[error("Unknown message kind 0x{0:02x}")]
    UnknownKind(u8),
    /// A byte that selects a variant has an unknown value.
    #[error("The field `{field}` has the unknown value 0x{value:02x}")]
    UnknownValue {
        /// Name of the field in the manual.
        field: &'static str,
        /// The value.
        value: u8,
    },
    /// A count or length is negative.
    #[error("The field `{0}` is negative")]
    Negative(&'static str),
    /// A name is not UTF-8, although the connection requested UTF-8.
    #[error("The field `{0}` is not UTF-8")]
    NotUtf8(&'static str),
    /// Bytes follow the end of the message.
    #[error("{0} bytes follow the end of the message")]
    TrailingBytes(usize),
}

/// A cursor over one message. Every read checks the length.
pub(super) struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    fn need(&self, count: usize, field: &'static str) -> Result<(), DecodeError> {
        if self.bytes.remaining() < count {
            return Err(DecodeError::Truncated(field));
        }
        Ok(())
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.need(1, field)?;
        Ok(self.bytes.get_u8())
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.need(4, field)?;
        Ok(self.bytes.get_u32())
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.need(4, field)?;
        Ok(self.bytes.get_i32())
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.need(8, field)?;
        Ok(self.bytes.get_u64())
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.need(8, field)?;
        Ok(self.bytes.get_i64())
    }

    /// Reads a number of columns: `Int16`, never negative.
    pub(super) fn column_count(&mut self) -> Result<usize, DecodeError> {
        const FIELD: &str = "number of columns";
        self.need(2, FIELD)?;
        usize::try_from(self.bytes.get_i16()).map_err(|_| DecodeError::Negative(FIELD))
    }

    /// Reads a length or count: `Int32`, never negative. The message may contain less than this
    /// claims.
    pub(super) fn length(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        usize::try_from(self.i32(field)?).map_err(|_| DecodeError::Negative(field))
    }

    pub(super) fn take(&mut self, count: usize, field: &'static str) -> Result<Bytes, DecodeError> {
        self.need(count, field)?;
        Ok(self.bytes.split_to(count))
    }

    /// Reads a text that is terminated by a zero byte.
    pub(super) fn string(&mut self, field: &'static str) -> Result<String, DecodeError> {
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

    pub(super) fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes(left)),
        }
    }
}
