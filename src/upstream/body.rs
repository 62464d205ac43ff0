//! The bodies of forwarded requests and responses, which pass through frame by frame.
//!
//! Nothing is collected: a frame is read only when the receiver has taken the previous one.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use prometheus_client::metrics::counter::Counter;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::in_flight::InFlight;
use crate::observability::excerpt::Excerpt;

/// How long the server waits in total for a client to send a body. Every [`MIN_BYTES_PER_SECOND`]
/// bytes that arrive add a second.
const BODY_WAIT: Duration = Duration::from_secs(20);

/// The minimum average speed at which a client must send a body while the server waits for it.
/// Without a minimum, a client could occupy a service with one byte from time to time. The slowest
/// mobile networks are ten times faster than this minimum.
const MIN_BYTES_PER_SECOND: u64 = 500;

/// Minimum time between two checks of a client's speed.
const SPEED_CHECK: Duration = Duration::from_secs(1);

type BoxError = Box<dyn Error + Send + Sync>;

/// Why a body was cut off.
#[derive(Debug, Error)]
enum Cut {
    #[error("the request body exceeds the limit")]
    TooLarge,
    #[error("no bytes were transferred for too long")]
    Stalled,
    #[error("the server is stopping")]
    Stopping,
}

/// How fast a client sends a request body. Times are in milliseconds, and points in time are
/// measured from the beginning of the request. Time in which the service does not accept bytes does
/// not count.
struct ClientSpeed {
    bytes: AtomicU64,
    /// How long the server has waited for the client, without the current wait.
    waited: AtomicU64,
    /// When the current wait began, or [`NOT_WAITING`].
    waits_since: AtomicU64,
}

/// The value of [`ClientSpeed::waits_since`] while the server does not wait for the client.
const NOT_WAITING: u64 = u64::MAX;

impl Default for ClientSpeed {
    fn default() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            waits_since: AtomicU64::new(NOT_WAITING),
        }
    }
}

impl ClientSpeed {
    /// Records that the server waits for more bytes of the client. A wait that has already begun
    /// continues.
    fn begin_wait(&self, now: u64) {
        let _ = self.waits_since.compare_exchange(
            NOT_WAITING,
            now,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Records that the client has sent these bytes or the end of the body.
    fn receive(&self, bytes: u64, now: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let since = self.waits_since.swap(NOT_WAITING, Ordering::Relaxed);
        if since != NOT_WAITING {
            self.waited
                .fetch_add(now.saturating_sub(since), Ordering::Relaxed);
        }
    }

    /// Returns how much longer the server may wait, or `None` if it has waited too long.
    fn time_left(&self, now: u64) -> Option<Duration> {
        let current = match self.waits_since.load(Ordering::Relaxed) {
            NOT_WAITING => 0,
            since => now.saturating_sub(since),
        };
        let waited = Duration::from_millis(self.waited.load(Ordering::Relaxed) + current);
        let bytes = self.bytes.load(Ordering::Relaxed);
        let allowed = BODY_WAIT + Duration::from_secs(bytes / MIN_BYTES_PER_SECOND);
        allowed.checked_sub(waited)
    }
}

/// When bytes of a request or its response were last transferred. The two bodies share this value,
/// so that one direction may pause while the other is active. Also contains the state of the
/// request body.
pub(super) struct Activity {
    started: Instant,
    /// Milliseconds from `started` to the last transfer.
    last: AtomicU64,
    is_uploading: AtomicBool,
    client: ClientSpeed,
    upload_ended: Notify,
    is_too_large: AtomicBool,
    is_unreadable: AtomicBool,
}

impl Activity {
    pub(super) fn new(is_uploading: bool) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            last: AtomicU64::new(0),
            is_uploading: AtomicBool::new(is_uploading),
            client: ClientSpeed::default(),
            upload_ended: Notify::new(),
            is_too_large: AtomicBool::new(false),
            is_unreadable: AtomicBool::new(false),
        })
    }

    pub(super) fn touch(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    /// Returns the milliseconds since `started`.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns when the speed of the client must be checked again, or `None` if the client sends
    /// the request body too slowly.
    pub(super) fn next_speed_check(&self) -> Option<Instant> {
        let left = self.client.time_left(self.now())?;
        Some(Instant::now() + left.max(SPEED_CHECK))
    }

    /// Returns the time `pause` after the last transfer.
    pub(super) fn last_plus(&self, pause: Duration) -> Instant {
        self.started + Duration::from_millis(self.last.load(Ordering::Relaxed)) + pause
    }

    /// Returns when waiting for the head of the response ends: `head` after the request was sent,
    /// or `stall` after the last transfer of a body that is still being sent.
    pub(super) fn head_deadline(&self, head: Duration, stall: Duration) -> Instant {
        let is_uploading = self.is_uploading.load(Ordering::Relaxed);
        self.last_plus(if is_uploading { stall } else { head })
    }

    /// Waits for the end of the request body, which moves [`Self::head_deadline`] to an earlier
    /// time. At most one task may wait.
    pub(super) async fn upload_ended(&self) {
        self.upload_ended.notified().await;
    }

    /// Returns whether the request body was cut off because of its size.
    pub(super) fn is_too_large(&self) -> bool {
        self.is_too_large.load(Ordering::Relaxed)
    }

    /// Returns whether the request body was cut off because the client did not send it as HTTP
    /// requires.
    pub(super) fn is_unreadable(&self) -> bool {
        self.is_unreadable.load(Ordering::Relaxed)
    }

    fn end_upload(&self) {
        if self.is_uploading.swap(false, Ordering::Relaxed) {
            self.client.receive(0, self.now());
            self.touch();
            self.upload_ended.notify_one();
        }
    }
}

/// The body of a request.
pub(super) struct Upload {
    inner: Body,
    activity: Arc<Activity>,
    bytes: Counter,
    /// Bytes that may still follow, if they are limited.
    left: Option<u64>,
}

impl Upload {
    pub(super) fn new(
        inner: Body,
        activity: Arc<Activity>,
        bytes: Counter,
        max_bytes: Option<u64>,
    ) -> Self {
        Self {
            inner,
            activity,
            bytes,
            left: max_bytes,
        }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            self.activity.client.begin_wait(self.activity.now());
            return Poll::Pending;
        };
        let Some(frame) = frame else {
            self.activity.end_upload();
            return Poll::Ready(None);
        };
        let frame = frame.inspect_err(|_| {
            self.activity.is_unreadable.store(true, Ordering::Relaxed);
        })?;
        if let Some(data) = frame.data_ref() {
            let length = data.len() as u64;
            self.bytes.inc_by(length);
            self.activity.touch();
            self.activity.client.receive(length, self.activity.now());
            if let Some(left) = self.left {
                let Some(left) = left.checked_sub(length) else {
                    self.activity.is_too_large.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(Cut::TooLarge.into())));
                };
                self.left = Some(left);
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Upload {
    /// The HTTP library may not ask for the end of the body, but drops the body once it is sent.
    fn drop(&mut self) {
        self.activity.end_upload();
    }
}

/// How long a response may pause.
pub(super) enum Patience {
    /// The transfer may pause for this time. The timer is created at the first pause.
    Until(Duration, Option<Pin<Box<Sleep>>>),
    /// For a response that never ends by itself, such as an event stream. It may pause for any
    /// time. When the server stops, it is cut off.
    UntilStop(Pin<Box<WaitForCancellationFutureOwned>>),
}

/// The body of a response. The request is in progress until this is dropped.
pub(super) struct Download {
    inner: Incoming,
    activity: Arc<Activity>,
    bytes: Counter,
    /// Counts bodies that were cut off.
    cut: Counter,
    patience: Patience,
    _in_flight: InFlight,
}

impl Download {
    pub(super) fn new(
        inner: Incoming,
        activity: Arc<Activity>,
        (bytes, cut): (Counter, Counter),
        patience: Patience,
        in_flight: InFlight,
    ) -> Self {
        activity.touch();
        Self {
            inner,
            activity,
            bytes,
            cut,
            patience,
            _in_flight: in_flight,
        }
    }

    /// Returns why the response is cut off, once it has paused for too long or the server stops.
    fn poll_impatient(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        match &mut self.patience {
            Patience::UntilStop(stopped) => stopped.as_mut().poll(cx).map(|()| Cut::Stopping),
            Patience::Until(pause, timer) => loop {
                let deadline = self.activity.last_plus(*pause);
                if deadline <= Instant::now() {
                    return Poll::Ready(Cut::Stalled);
                }
                // The timer is reset only when it fires, and not for each frame.
                let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                ready!(timer.as_mut().poll(cx));
                timer.as_mut().reset(deadline);
            },
        }
    }

    fn cut_off(&self, error: BoxError) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.cut.inc();
        tracing::warn!(error = %Excerpt(&error), "response of a service was cut off");
        Poll::Ready(Some(Err(error)))
    }
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = BoxError;

    /// An error ends the client's connection without the end of the body, so that a body that was
    /// cut off never looks complete.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes.inc_by(data.len() as u64);
                    self.activity.touch();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => self.cut_off(error.into()),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let cut = ready!(self.poll_impatient(cx));
                self.cut_off(cut.into())
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    // The size hint stays unknown. The headers already declare the length, and an empty body of a
    // response to HEAD must not become `Content-Length: 0`.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_that_a_client_takes_counts() {
        let client = ClientSpeed::default();
        let wait = u64::try_from(BODY_WAIT.as_millis()).unwrap();
        // The service does not accept bytes, so the server does not wait for the client.
        let start = 10 * wait;
        assert_eq!(client.time_left(start), Some(BODY_WAIT));
        client.begin_wait(start);
        client.begin_wait(start + 5);
        assert_eq!(client.time_left(start + wait), Some(Duration::ZERO));
        // One byte from time to time does not help.
        client.receive(1, start + wait);
        client.begin_wait(start + wait);
        assert_eq!(client.time_left(start + wait + 1), None);
        // Bytes that arrive fast enough do.
        client.receive(3 * MIN_BYTES_PER_SECOND, start + wait);
        client.begin_wait(start + 2 * wait);
        let left = client.time_left(start + 2 * wait + 1_000);
        assert_eq!(left, Some(Duration::from_secs(2)));
        client.receive(0, start + 2 * wait + 1_000);
        assert_eq!(client.time_left(start + 9 * wait), left);
    }
}
