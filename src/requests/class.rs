//! Classes of requests. The requests of a user that have the same class share a rate limit.

use std::fmt::Debug;
use std::hash::Hash;

use axum::http::Method;

use super::rates::Rates;

/// The classes of a feature: an enum, so that every class has rates and a label.
pub trait Class: Copy + Debug + Eq + Hash + Send + Sync + 'static {
    /// The settings that contain the rates.
    type Settings: Send + Sync + 'static;

    /// The class of reads. A request that turns out to change nothing costs a token of it.
    const READ: Self;

    /// The class of writes without a class of their own.
    const WRITE: Self;

    /// The label of the class in the metrics.
    fn label(self) -> &'static str;

    /// The rates of the class under these settings.
    fn rates(self, settings: &Self::Settings) -> Rates;

    /// Which requests of the class are carried out without a token of it.
    fn exemption(self) -> Exemption;
}

/// Which requests do not cost a token of their class, because they change nothing.
///
/// Only the handler can recognize them. So a request that may be exempt is admitted without a
/// token, and [`Writer`](super::Writer) refuses it if it is not. Handlers of classes with an
/// exemption must write only through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exemption {
    /// None.
    Never,
    /// Retries, recognized by their `Idempotency-Key`.
    Key,
    /// Also retries that the handler recognizes by an id in the request and answers with 200.
    KeyOrId,
    /// Also requests for a resource that already exists, which the handler answers with 200. They
    /// cost a token of [`Class::READ`].
    Existing,
}

/// The class of a request that has no route. `OPTIONS` only asks what is allowed and is not
/// limited.
pub(super) fn of_unmatched<C: Class>(method: &Method) -> Option<C> {
    match *method {
        Method::OPTIONS => None,
        Method::GET | Method::HEAD => Some(C::READ),
        _ => Some(C::WRITE),
    }
}
