//! The time limit for answers of the server.

use std::time::Duration;

use super::session_error::SessionError;

/// How long the server may take to answer what needs no waiting. One this slow is taken for gone,
/// and everything is connected anew: nothing is lost by that.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// `work`, whose answer must come within [`ANSWER_TIMEOUT`]. `what` completes "no answer while".
pub(super) async fn answered<T, E: Into<SessionError>>(
    what: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, SessionError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(SessionError::Timeout(ANSWER_TIMEOUT.as_secs(), what)),
    }
}
