//! The time limit for answers of the server.

use std::time::Duration;

use super::session_error::SessionError;

/// Time limit for statements that need not wait for anything. A slower server counts as gone, and
/// everything reconnects, which loses nothing.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs `work` with the limit [`ANSWER_TIMEOUT`]. `what` completes the text "no answer while".
pub(super) async fn with_timeout<T, E: Into<SessionError>>(
    what: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, SessionError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(SessionError::Timeout(ANSWER_TIMEOUT.as_secs(), what)),
    }
}
