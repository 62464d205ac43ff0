//! The reasons why a connection ended, and how the stream continues.

use pgwire_replication::PgWireError;
use thiserror::Error;

use super::assemble::AssembleError;
use super::names::MESSAGES_PUBLICATION;
use super::pgoutput::DecodeError;
use crate::db::connect::ConnectError;

/// The reason why one connection ended. All errors are retried indefinitely, except
/// [`ConnectionError::SinkClosed`] and [`ConnectionError::Stopped`].
#[derive(Debug, Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("A statement failed: {0}")]
    Query(#[from] tokio_postgres::Error),
    /// The replication connection failed. The replication crate keeps only the text of the server's
    /// error.
    #[error("The replication connection failed: {0}")]
    Stream(#[from] PgWireError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error("No response within {0} s while {1}")]
    Timeout(u64, &'static str),
    #[error("The publication `{0}` does not exist and may not be created by this role")]
    PublicationMissing(String),
    #[error("The slot `{0}` belongs to another plugin or database")]
    ForeignSlot(String),
    #[error("The slot is in use by the backend {0}")]
    SlotBusy(i32),
    #[error("The slot is no longer held by this connection")]
    SlotNotHeld,
    #[error(
        "The slot holds {held_bytes} bytes of write-ahead log, more than the {limit_bytes} allowed"
    )]
    WalHeld { held_bytes: u64, limit_bytes: u64 },
    #[error("The set of publications to read has changed")]
    PublicationsChanged,
    #[error("The server closed the replication stream")]
    Ended,
    #[error("The listeners of changes have stopped")]
    SinkClosed,
    #[error("Replication was asked to stop")]
    Stopped,
}

impl ConnectionError {
    /// Returns the error and its causes as text for operators. Omits a cause that the preceding
    /// text already contains.
    pub(super) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.ends_with(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        text
    }

    /// Returns the SQLSTATE, if the server sent one.
    pub(super) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Connect(ConnectError::Connect(error)) | Self::Query(error) => {
                error.code().map(|code| code.code())
            }
            Self::Stream(PgWireError::Server(text)) => sqlstate_in(text),
            _ => None,
        }
    }

    /// Returns whether the error means that the publication of `realtime.messages` did not exist
    /// when a change was written. Reading continues without that publication, which loses no row
    /// changes. It is included again later (`slot_watch`).
    pub(super) fn is_without_messages(&self, is_streaming: bool) -> bool {
        match self {
            Self::Stream(PgWireError::Server(text)) => {
                is_streaming
                    && self.sqlstate() == Some("42704")
                    && text.contains(&format!("\"{MESSAGES_PUBLICATION}\""))
            }
            _ => false,
        }
    }

    /// Returns whether the slot must be recreated, because reading it again would fail in the same
    /// way. `is_streaming` states whether the server had accepted the slot before the error.
    ///
    /// - 42704 while streaming: the publication of row changes did not exist when the change was
    ///   written. The decoder reads the catalogue as it was at that time, so creating the
    ///   publication now does not help.
    /// - 58P01: the WAL that the slot needs is gone.
    /// - [`ConnectionError::WalHeld`]: the slot holds more WAL than the configuration allows.
    ///
    /// A missing slot (42704 before streaming) or an invalidated one (55000) is detected in
    /// `pg_replication_slots` when the next connection is prepared.
    pub(super) fn needs_new_slot(&self, is_streaming: bool) -> bool {
        match self {
            Self::WalHeld { .. } => true,
            Self::Stream(_) => match self.sqlstate() {
                Some("42704") => is_streaming && !self.is_without_messages(is_streaming),
                Some("58P01") => true,
                _ => false,
            },
            _ => false,
        }
    }
}

/// Returns the code at the end of a text such as `terminating connection (SQLSTATE 57P01)`, which
/// is how the replication client reports errors of the server.
fn sqlstate_in(text: &str) -> Option<&str> {
    let (_, code) = text.rsplit_once("(SQLSTATE ")?;
    let code = code.strip_suffix(')')?;
    (code.len() == 5).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> ConnectionError {
        ConnectionError::Stream(PgWireError::Server(text.to_owned()))
    }

    #[test]
    fn the_sqlstate_is_read_from_the_end_of_the_text() {
        let cases = [
            ("terminating connection (SQLSTATE 57P01)", Some("57P01")),
            ("odd (SQLSTATE 00000) text (SQLSTATE 42704)", Some("42704")),
            ("no code at all", None),
            ("(SQLSTATE 4270)", None),
        ];
        for (text, code) in cases {
            assert_eq!(server(text).sqlstate(), code, "{text}");
        }
    }

    #[test]
    fn causes_follow_the_error_once() {
        let refused = std::io::Error::other("connection refused");
        let error = ConnectionError::from(PgWireError::from(refused));
        assert_eq!(
            error.with_causes(),
            "The replication connection failed: io error: connection refused"
        );
        let error = ConnectionError::from(AssembleError::NestedBegin);
        assert_eq!(error.with_causes(), "A transaction began inside another");
    }

    #[test]
    fn only_errors_that_a_new_slot_fixes_need_one() {
        let cases = [
            (
                "publication \"p\" does not exist (SQLSTATE 42704)",
                true,
                true,
            ),
            (
                "replication slot \"s\" does not exist (SQLSTATE 42704)",
                false,
                false,
            ),
            (
                "requested WAL segment has been removed (SQLSTATE 58P01)",
                true,
                true,
            ),
            ("terminating connection (SQLSTATE 57P01)", true, false),
            (
                "publication \"supabase_realtime_messages_publication\" does not exist (SQLSTATE 42704)",
                true,
                false,
            ),
            (
                "replication slot \"s\" is active for PID 1 (SQLSTATE 55006)",
                false,
                false,
            ),
        ];
        for (text, is_streaming, expected) in cases {
            assert_eq!(
                server(text).needs_new_slot(is_streaming),
                expected,
                "{text}"
            );
        }
        let held = ConnectionError::WalHeld {
            held_bytes: 2,
            limit_bytes: 1,
        };
        assert!(held.needs_new_slot(true));
    }
}
