//! What a client asks for with `persist` (4.8): that a broadcast is stored and can be replayed.

use serde_json::{Map, Value};
use thiserror::Error;

/// How long a broadcast is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Seconds; as long as messages are kept at all if the client named none.
    pub ttl_seconds: Option<i32>,
}

/// Why `persist` cannot be followed. The text is what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PersistError {
    /// Neither a boolean nor an object that may have a `ttl`.
    #[error("must be true, or an object whose ttl is a whole number of seconds")]
    Unreadable,
    /// Not a time for which messages are kept; holds the longest.
    #[error("must have a ttl from 1 to {0} seconds")]
    Ttl(i32),
    /// The channel is public: nobody decides who may read what is stored.
    #[error("can only be used on private channels")]
    Public,
}

impl Persist {
    /// Reads the metadata of a binary push. Whatever else they hold is ignored, as in the original.
    ///
    /// # Errors
    /// See [`PersistError`]; `max_ttl` is the longest time in seconds.
    pub fn of_metadata(metadata: &str, max_ttl: i32) -> Result<Option<Self>, PersistError> {
        if metadata.is_empty() {
            return Ok(None);
        }
        let metadata: Map<String, Value> = serde_json::from_str(metadata).unwrap_or_default();
        match metadata.get("persist") {
            None | Some(Value::Null | Value::Bool(false)) => Ok(None),
            Some(Value::Bool(true)) => Ok(Some(Self { ttl_seconds: None })),
            Some(Value::Object(options)) => match options.get("ttl") {
                None | Some(Value::Null) => Ok(Some(Self { ttl_seconds: None })),
                Some(Value::Number(ttl)) => Self::within(ttl.as_i64(), max_ttl),
                Some(_) => Err(PersistError::Unreadable),
            },
            Some(_) => Err(PersistError::Unreadable),
        }
    }

    /// Reads the parameters `persist` and `persist[ttl]` of an address.
    ///
    /// # Errors
    /// As [`Persist::of_metadata`].
    pub fn of_query(
        persist: Option<&str>,
        ttl: Option<&str>,
        max_ttl: i32,
    ) -> Result<Option<Self>, PersistError> {
        match (persist, ttl) {
            (None | Some("true"), Some(ttl)) => Self::within(ttl.parse().ok(), max_ttl),
            (Some("true"), None) => Ok(Some(Self { ttl_seconds: None })),
            (None | Some("false"), None) => Ok(None),
            _ => Err(PersistError::Unreadable),
        }
    }

    /// A `ttl` that is a whole number, if it is one that can be followed.
    fn within(ttl: Option<i64>, max_ttl: i32) -> Result<Option<Self>, PersistError> {
        let ttl = ttl.ok_or(PersistError::Unreadable)?;
        match i32::try_from(ttl) {
            Ok(ttl) if (1..=max_ttl).contains(&ttl) => Ok(Some(Self {
                ttl_seconds: Some(ttl),
            })),
            _ => Err(PersistError::Ttl(max_ttl)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i32 = 86_400;

    const FOREVER: Result<Option<Persist>, PersistError> = Ok(Some(Persist { ttl_seconds: None }));

    fn seconds(ttl: i32) -> Result<Option<Persist>, PersistError> {
        Ok(Some(Persist {
            ttl_seconds: Some(ttl),
        }))
    }

    #[test]
    fn metadata_ask_for_it_in_the_forms_of_clients() {
        let cases = [
            ("", Ok(None)),
            ("{}", Ok(None)),
            (r#"{"other":1}"#, Ok(None)),
            ("[true]", Ok(None)),
            ("nonsense", Ok(None)),
            (r#"{"persist":false}"#, Ok(None)),
            (r#"{"persist":null}"#, Ok(None)),
            (r#"{"persist":true}"#, FOREVER),
            (r#"{"persist":{}}"#, FOREVER),
            (r#"{"persist":{"ttl":null}}"#, FOREVER),
            (r#"{"persist":{"ttl":60}}"#, seconds(60)),
            (r#"{"persist":{"ttl":86400}}"#, seconds(DAY)),
            (r#"{"persist":{"ttl":86401}}"#, Err(PersistError::Ttl(DAY))),
            (r#"{"persist":{"ttl":0}}"#, Err(PersistError::Ttl(DAY))),
            (r#"{"persist":{"ttl":-1}}"#, Err(PersistError::Ttl(DAY))),
            (r#"{"persist":{"ttl":1e99}}"#, Err(PersistError::Unreadable)),
            (r#"{"persist":{"ttl":0.5}}"#, Err(PersistError::Unreadable)),
            (r#"{"persist":{"ttl":"60"}}"#, Err(PersistError::Unreadable)),
            (r#"{"persist":"true"}"#, Err(PersistError::Unreadable)),
            (r#"{"persist":1}"#, Err(PersistError::Unreadable)),
        ];
        for (metadata, expected) in cases {
            assert_eq!(Persist::of_metadata(metadata, DAY), expected, "{metadata}");
        }
    }

    #[test]
    fn addresses_ask_for_it_in_the_forms_of_clients() {
        let cases = [
            (None, None, Ok(None)),
            (Some("false"), None, Ok(None)),
            (Some("true"), None, FOREVER),
            (None, Some("60"), seconds(60)),
            (Some("true"), Some("60"), seconds(60)),
            (None, Some("86401"), Err(PersistError::Ttl(DAY))),
            (None, Some("NaN"), Err(PersistError::Unreadable)),
            (None, Some(""), Err(PersistError::Unreadable)),
            (Some("false"), Some("60"), Err(PersistError::Unreadable)),
            (Some("1"), None, Err(PersistError::Unreadable)),
        ];
        for (persist, ttl, expected) in cases {
            let got = Persist::of_query(persist, ttl, DAY);
            assert_eq!(got, expected, "{persist:?} {ttl:?}");
        }
    }
}
