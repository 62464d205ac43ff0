//! Classes of requests. The requests of a user that have the same class share a rate limit.

use std::fmt::Debug;
use std::hash::Hash;

use axum::http::Method;

use super::rates::Rates;

/// The classes of a feature. Implemented by an enum, so that the compiler requires rates and a
/// label for every class.
pub trait Class: Copy + Debug + Eq + Hash + Send + Sync + 'static {
    /// The settings that contain the rates.
    type Settings: Send + Sync + 'static;

    /// The class of reads. A request that turns out to change nothing costs a token of this class
    /// instead of its own, as [`Exemption`] describes.
    const READ: Self;

    /// The class of writes without a class of their own.
    const WRITE: Self;

    /// Returns the label of the class in the metrics.
    fn label(self) -> &'static str;

    /// Returns the rates of the class under these settings.
    fn rates(self, settings: &Self::Settings) -> Rates;

    /// Returns which requests of the class are carried out without a token of the class.
    fn exemption(self) -> Exemption;
}

/// Which requests cost no token of their class, because they change nothing.
///
/// Only the handler can recognize such requests. Therefore, if no token is left, a request that may
/// be exempt is still admitted, and [`Writer`](super::Writer) refuses its write unless it turns out
/// to be exempt. If a token was taken for a request that turns out to be exempt, it is exchanged
/// for a token of [`Class::READ`], if one is left. Handlers of classes with an exemption must write
/// only through a `Writer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exemption {
    /// No requests.
    Never,
    /// Retries, recognized by their `Idempotency-Key`.
    Key,
    /// Also retries that the handler recognizes by an id in the request. It responds to them with
    /// 200.
    KeyOrId,
    /// Also requests for a resource that already exists. The handler responds to them with 200. If
    /// no token of their class was left, they cost a token of [`Class::READ`], and retries cost
    /// none.
    Existing,
}

/// Returns the class of a request that has no route. `OPTIONS` requests only ask what is allowed
/// and are not limited.
pub(super) fn of_unmatched<C: Class>(method: &Method) -> Option<C> {
    match *method {
        Method::OPTIONS => None,
        Method::GET | Method::HEAD => Some(C::READ),
        _ => Some(C::WRITE),
    }
}
