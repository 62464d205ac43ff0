//! `text[]` parameters in PostgreSQL's binary form, encoded once for all executions with the same
//! inputs.

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// An encoded `text[]` parameter.
#[derive(Clone, Debug)]
pub(crate) struct TextArray(Bytes);

impl TextArray {
    /// Encodes `values`, with `None` as null.
    pub(crate) fn new<'a>(values: impl ExactSizeIterator<Item = Option<&'a [u8]>>) -> Self {
        const TEXT_OID: i32 = 25;
        // The format of PostgreSQL's `array_recv`: number of dimensions, has-null flag, element
        // type, then the size and lower bound of each dimension, then the elements. A message holds
        // at most 1 GiB, so no length in it exceeds an i32.
        let length = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
        let mut out = BytesMut::new();
        out.put_i32(1);
        out.put_i32(1);
        out.put_i32(TEXT_OID);
        out.put_i32(length(values.len()));
        out.put_i32(1);
        for value in values {
            match value {
                Some(text) => {
                    out.put_i32(length(text.len()));
                    out.put_slice(text);
                }
                None => out.put_i32(-1),
            }
        }
        Self(out.freeze())
    }
}

impl ToSql for TextArray {
    fn to_sql(
        &self,
        _type: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(expected: &Type) -> bool {
        *expected == Type::TEXT_ARRAY
    }

    to_sql_checked!();
}
