//! Bodies of requests to broadcast that arrive, and the memory that all of them may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use futures_util::TryStreamExt as _;

use super::super::Realtime;
use super::answer::Refusal;
use crate::http::budget::Share;
use crate::http::input::body;

/// How long a body may take to arrive. The largest one needs it at 140 kB/s.
const BODY_DEADLINE: Duration = Duration::from_secs(60);

/// Bytes that a body may have however many others arrive: a message of a chat fits.
pub(in super::super) const MODEST_BODY_BYTES: usize = 16 * 1024;

/// A body, which counts among all others as long as it is there.
pub(super) struct Arrived {
    pub(super) bytes: Bytes,
    _share: Arc<Share>,
}

/// The whole body of a request.
pub(super) async fn receive(realtime: &Realtime, request: Request) -> Result<Arrived, Refusal> {
    let share = Arc::new(realtime.bodies.share());
    let is_refused = Arc::new(AtomicBool::new(false));
    let request = request.map(|body| {
        let (share, is_refused) = (Arc::clone(&share), Arc::clone(&is_refused));
        let counted = body
            .into_data_stream()
            .map_err(axum::BoxError::from)
            .and_then(move |chunk| {
                let taken = share.take(chunk.len());
                is_refused.fetch_or(taken.is_err(), Ordering::Relaxed);
                std::future::ready(taken.map(|()| chunk).map_err(axum::BoxError::from))
            });
        Body::from_stream(counted)
    });
    match body(request, &(), BODY_DEADLINE).await {
        Ok(bytes) => Ok(Arrived {
            bytes,
            _share: share,
        }),
        Err(_) if is_refused.load(Ordering::Relaxed) => Err(Refusal::TooManyBodies),
        Err(error) => Err(error.into()),
    }
}
