//! The time limit for responses of the database server.

use std::time::Duration;

use super::connection_error::ConnectionError;

/// Time limit for statements that do not have to wait for anything. If the server is slower, it
/// counts as gone and the stream reconnects, which loses no changes.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs `work` with the limit [`ANSWER_TIMEOUT`]. `what` completes the error text "No response
/// within 10 s while".
pub(super) async fn with_timeout<T, E: Into<ConnectionError>>(
    what: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, ConnectionError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(ConnectionError::Timeout(ANSWER_TIMEOUT.as_secs(), what)),
    }
}
