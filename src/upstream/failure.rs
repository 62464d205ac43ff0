//! Why a request that was sent has no response, and whether it may be sent again.

use std::error::Error;
use std::io;

use hyper_util::client::legacy::Error as ClientError;

/// Why an attempt has no response.
pub(super) enum Failure {
    /// The service did not respond in time.
    Late,
    /// The client sends the request body too slowly.
    SlowClient,
    /// The connection ended before the head of the response was complete.
    NoResponse(String),
    /// Anything else.
    Other(String),
}

impl Failure {
    pub(super) fn of(error: ClientError) -> Self {
        let text = causes(&error);
        // After a failure to connect, a second attempt would fail as well.
        let is_lost = !error.is_connect() && chain(&error).any(is_lost_connection);
        if is_lost {
            Self::NoResponse(text)
        } else {
            Self::Other(text)
        }
    }
}

/// Returns whether the error means that the connection ended. This happens if the service closes an
/// idle connection just when it is used again.
fn is_lost_connection(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error.is_incomplete_message() || error.is_canceled();
    }
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
        )
    })
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Returns the texts of an error and its causes, for the log.
fn causes(error: &(dyn Error + 'static)) -> String {
    let texts: Vec<String> = chain(error).map(ToString::to_string).collect();
    texts.join(": ")
}
