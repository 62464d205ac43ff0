//! Determines how the values of each column type become JSON.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Row;

use super::encoding::ValueEncoding;
use super::error::QueryError;

/// The types by oid.
pub(super) struct Types(HashMap<u32, KnownType>);

struct KnownType {
    name: String,
    is_enum: bool,
    /// The type of which this is a domain, or 0.
    base: u32,
    /// The type of an array's elements, or 0.
    element: u32,
    delimiter: char,
    is_composite: bool,
    attributes: Vec<(String, u32)>,
}

impl Types {
    /// Reads the rows of `catalog::TYPES`.
    pub(super) fn read(rows: &[Row]) -> Result<Self, QueryError> {
        let mut types = HashMap::new();
        for row in rows {
            let delimiter: String = row.try_get(5)?;
            let names: Vec<String> = row.try_get(6)?;
            let attribute_types: Vec<u32> = row.try_get(7)?;
            types.insert(
                row.try_get(0)?,
                KnownType {
                    name: row.try_get(1)?,
                    is_enum: row.try_get(2)?,
                    base: row.try_get(3)?,
                    element: row.try_get(4)?,
                    delimiter: delimiter.chars().next().unwrap_or(','),
                    is_composite: row.try_get(8)?,
                    attributes: names.into_iter().zip(attribute_types).collect(),
                },
            );
        }
        Ok(Self(types))
    }

    /// Returns `pg_type.typname`, or an empty text if the type is unknown.
    pub(super) fn name(&self, oid: u32) -> &str {
        self.0.get(&oid).map_or("", |known| &known.name)
    }

    /// Returns the type below all domains.
    pub(super) fn base(&self, mut oid: u32) -> u32 {
        while let Some(known) = self.0.get(&oid).filter(|known| known.base != 0) {
            oid = known.base;
        }
        oid
    }

    /// Returns whether this base type is an enum.
    pub(super) fn is_enum(&self, base: u32) -> bool {
        self.0.get(&base).is_some_and(|known| known.is_enum)
    }

    /// Returns how values of a column become JSON.
    pub(super) fn column_encoding(&self, oid: u32) -> ValueEncoding {
        const BYTEA: u32 = 17;
        // Inside arrays and rows, a `bytea` keeps its `\x`, as in Supabase's server.
        if self.base(oid) == BYTEA {
            ValueEncoding::Bytea
        } else {
            self.encoding(oid)
        }
    }

    /// Returns how values of a type become JSON. The classes are those of `to_jsonb` (PostgreSQL's
    /// `json_categorize_type`), which also compares fixed oids.
    fn encoding(&self, oid: u32) -> ValueEncoding {
        let base = self.base(oid);
        match base {
            // int8, int2, int4, float4, float8, numeric
            20 | 21 | 23 | 700 | 701 | 1700 => ValueEncoding::Number,
            16 => ValueEncoding::Bool,
            // json, jsonb
            114 | 3802 => ValueEncoding::Json,
            1082 => ValueEncoding::Date,
            1114 => ValueEncoding::Timestamp,
            1184 => ValueEncoding::TimestampTz,
            _ => match self.0.get(&base) {
                Some(known) if known.element != 0 => {
                    let delimiter = self
                        .0
                        .get(&known.element)
                        .map_or(',', |element| element.delimiter);
                    ValueEncoding::Array(Arc::new(self.encoding(known.element)), delimiter)
                }
                Some(known) if known.is_composite => ValueEncoding::Composite(
                    known
                        .attributes
                        .iter()
                        .map(|(name, oid)| (name.clone(), Arc::new(self.encoding(*oid))))
                        .collect(),
                ),
                _ => ValueEncoding::Text,
            },
        }
    }
}
