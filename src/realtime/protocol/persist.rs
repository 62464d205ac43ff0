//! The `persist` option of broadcasts (protocol 4.8), which stores a broadcast so that it can be
//! replayed.

use serde_json::{Map, Value};
use thiserror::Error;

/// The option to store a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persist {
    /// The lifetime in seconds. If `None`, the broadcast is kept as long as other stored messages.
    pub ttl_seconds: Option<i32>,
}

/// The reason why `persist` is refused. The text is sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PersistError {
    /// The option has none of the accepted forms, or its `ttl` is not a whole number.
    #[error("must be true, or an object whose ttl is a whole number of seconds")]
    Unreadable,
    /// The `ttl` is out of range. Contains the maximum in seconds.
    #[error("must have a ttl from 1 to {0} seconds")]
    Ttl(i32),
    /// The channel is public, so no policy would decide who may read the stored message.
    #[error("can only be used on private channels")]
    Public,
}

impl Persist {
    /// Reads `persist` from the metadata of a binary push. Other keys are ignored, as in Supabase
    /// Realtime.
    ///
    /// # Errors
    /// See [`PersistError`]. `max_ttl` is the maximum in seconds.
    pub fn from_metadata(metadata: &str, max_ttl: i32) -> Result<Option<Self>, PersistError> {
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

    /// Reads the query parameters `persist` and `persist[ttl]`.
    ///
    /// # Errors
    /// The same as for [`Persist::from_metadata`].
    pub fn from_query(
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

    /// Checks that a `ttl` is a whole number within the limits.
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

    const WITHOUT_TTL: Result<Option<Persist>, PersistError> =
        Ok(Some(Persist { ttl_seconds: None }));

    fn seconds(ttl: i32) -> Result<Option<Persist>, PersistError> {
        Ok(Some(Persist {
            ttl_seconds: Some(ttl),
        }))
    }

    #[test]
    fn every_form_in_metadata_is_read() {
        let cases = [
            ("", Ok(None)),
            ("{}", Ok(None)),
            (r#"{"other":1}"#, Ok(None)),
            ("[true]", Ok(None)),
            ("nonsense", Ok(None)),
            (r#"{"persist":false}"#, Ok(None)),
            (r#"{"persist":null}"#, Ok(None)),
            (r#"{"persist":true}"#, WITHOUT_TTL),
            (r#"{"persist":{}}"#, WITHOUT_TTL),
            (r#"{"persist":{"ttl":null}}"#, WITHOUT_TTL),
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
            assert_eq!(
                Persist::from_metadata(metadata, DAY),
                expected,
                "{metadata}"
            );
        }
    }

    #[test]
    fn every_form_in_queries_is_read() {
        let cases = [
            (None, None, Ok(None)),
            (Some("false"), None, Ok(None)),
            (Some("true"), None, WITHOUT_TTL),
            (None, Some("60"), seconds(60)),
            (Some("true"), Some("60"), seconds(60)),
            (None, Some("86401"), Err(PersistError::Ttl(DAY))),
            (None, Some("NaN"), Err(PersistError::Unreadable)),
            (None, Some(""), Err(PersistError::Unreadable)),
            (Some("false"), Some("60"), Err(PersistError::Unreadable)),
            (Some("1"), None, Err(PersistError::Unreadable)),
        ];
        for (persist, ttl, expected) in cases {
            let got = Persist::from_query(persist, ttl, DAY);
            assert_eq!(got, expected, "{persist:?} {ttl:?}");
        }
    }
}
