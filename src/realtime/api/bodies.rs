//! Receives request bodies, within a memory limit for all of them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use futures_util::TryStreamExt as _;

use super::super::service::Realtime;
use super::refusal::Refusal;
use crate::http::budget::Share;
use crate::http::input::body;

/// Maximum time for a body to arrive. At 140 kB/s, the largest body takes this long.
const BODY_DEADLINE: Duration = Duration::from_secs(60);

/// A received body. It counts towards the budget until it is dropped.
pub(super) struct ReceivedBody {
    pub(super) bytes: Bytes,
    _share: Arc<Share>,
}

/// Reads the whole body of a request.
pub(super) async fn receive(
    realtime: &Realtime,
    request: Request,
) -> Result<ReceivedBody, Refusal> {
    let client = realtime
        .proxies
        .client(request.extensions(), request.headers());
    let share = Arc::new(realtime.bodies.share(client));
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
        Ok(bytes) => Ok(ReceivedBody {
            bytes,
            _share: share,
        }),
        Err(_) if is_refused.load(Ordering::Relaxed) => Err(Refusal::TooManyBodies),
        Err(error) => Err(error.into()),
    }
}
