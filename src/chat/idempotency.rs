//! `Idempotency-Key`: a repeated write has no further effect (chat API 2.2).
//!
//! A key is claimed before the statements of a write and stored after them, in the same transaction
//! and round trip. So a write never succeeds without its key, a key is never stored without its
//! write, and any end of the transaction releases the key. Responses are not stored: a retry
//! reads the current state of the resource.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{FromRef, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::admission::{Allowance, Debt};
use super::rate_limits::Class;
use crate::db::{Db, DbError, Query};
use crate::error_code::ErrorCode;
use crate::http::input::{BODY_DEADLINE, body};
use crate::http::{ApiError, Caller, Identity};

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Marks a response to a retry.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Maximum length of a key, in characters.
const MAX_KEY: usize = 255;

const CLAIM: &str = "select chat.claim_idempotency_key($1::text, $2::bytea)";

const STORE: &str = "select chat.keep_idempotency_key($1::text, $2::bytea)";

const RECALL: &str = "select chat.recall_idempotency_key($1::text)";

/// Runs after the claim of a key, if the caller has no token left for the write. For a retry
/// the claim fails, so this is not reached.
const REFUSE_NEW: &str = "select chat.refuse('rate_limited')";

/// The key of a request, and the hash of the request.
struct Claim {
    key: String,
    hash: [u8; 32],
    /// Set if the request turned out to be a retry.
    is_replay: AtomicBool,
}

/// Middleware that reads the key of a write, for use by [`Writer`]. It buffers the body for the
/// hash, so it only does this for known callers.
pub(super) async fn read_key(request: Request, next: Next) -> Response {
    let identity = request.extensions().get::<Identity>();
    let has_caller = identity.is_some_and(|identity| identity.0.is_ok());
    if request.method().is_safe() || !has_caller {
        return next.run(request).await;
    }
    let key = match key(request.headers()) {
        Ok(Some(key)) => key,
        Ok(None) => return next.run(request).await,
        Err(error) => return error.into_response(),
    };
    let (mut parts, stream) = request.into_parts();
    let buffered = Request::from_parts(parts.clone(), stream);
    let bytes = match body(buffered, &(), BODY_DEADLINE).await {
        Ok(bytes) => bytes,
        Err(error) => return ApiError::from(error).into_response(),
    };
    let claim = Arc::new(Claim {
        key,
        hash: hash(&parts, &bytes),
        is_replay: AtomicBool::new(false),
    });
    parts.extensions.insert(Arc::clone(&claim));
    let mut response = next
        .run(Request::from_parts(parts, Body::from(bytes)))
        .await;
    if claim.is_replay.load(Ordering::Relaxed) {
        let replayed = HeaderValue::from_static("true");
        response.headers_mut().insert(REPLAYED, replayed);
    }
    response
}

/// Whether a response answers a retry.
pub(super) fn is_replay(response: &Response) -> bool {
    response.headers().contains_key(REPLAYED)
}

/// The key in the headers. In the IETF's draft an empty key counts as absent. Here it is an error,
/// because its sender expects to be protected.
fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(value), more) = (values.next(), values.next()) else {
        return Ok(None);
    };
    let is_printable = |key: &&str| key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    match value.to_str().ok().filter(is_printable) {
        Some(key) if more.is_none() && (1..=MAX_KEY).contains(&key.len()) => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(ApiError::invalid(format!(
            "Idempotency-Key must be a single text of 1 to {MAX_KEY} printable ASCII characters"
        ))),
    }
}

/// Distinguishes a retry from another request with the same key. Neither a method nor a URI
/// contains a line feed.
fn hash(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(format!("{}\n{}\n", parts.method, parts.uri));
    hash.update(body);
    hash.finalize().into()
}

/// The database access of a handler that writes: in its caller's name, once per key.
///
/// Statements pass what a response needs besides its resource (whether it was created, its id) in
/// the setting `rapport.outcome`, which `chat.outcome()` reads.
pub(super) struct Writer {
    pub(super) caller: Caller,
    db: Db,
    allowance: Option<Allowance>,
    /// Tokens that could not be taken. They are required unless this is a retry.
    debts: Vec<Debt>,
    claim: Option<Arc<Claim>>,
}

impl Writer {
    /// Takes a token of an additional class that applies to the request. If there is none, the
    /// write is refused unless it is a retry.
    pub(super) fn take(&mut self, class: Class) {
        let taken = self
            .allowance
            .as_ref()
            .map(|allowance| allowance.take(class));
        self.debts.extend(taken.and_then(Result::err));
    }

    /// Puts back the token that [`Writer::take`] took, if the class did not apply after all.
    pub(super) fn refund(&self, class: Class) {
        if let Some(allowance) = &self.allowance
            && !self.debts.iter().any(|debt| debt.class == class)
        {
            allowance.refund(class);
        }
    }

    /// Makes changes whose response contains no data.
    pub(super) async fn change(&self, changes: &[Query<'_>]) -> Result<(), ApiError> {
        self.write(changes, None, &[]).await.map(drop)
    }

    /// Makes a change and returns its rows; no rows if it is a retry.
    pub(super) async fn change_returning(&self, change: Query<'_>) -> Result<Vec<Row>, ApiError> {
        self.write(&[change], None, &[]).await
    }

    /// Makes changes and returns the rows of `view` after them.
    pub(super) async fn change_then_read(
        &self,
        changes: &[Query<'_>],
        view: Query<'_>,
    ) -> Result<Vec<Row>, ApiError> {
        self.find_or_change(&[], changes, view).await
    }

    /// Like [`Writer::change_then_read`], for changes that may find an existing resource even
    /// without a key. For each class `refuse_new` has a statement that refuses changes which would
    /// cost a token of it.
    pub(super) async fn find_or_change(
        &self,
        refuse_new: &[(Class, Query<'_>)],
        changes: &[Query<'_>],
        view: Query<'_>,
    ) -> Result<Vec<Row>, ApiError> {
        let queries: Vec<_> = changes.iter().copied().chain([view]).collect();
        self.write(&queries, Some(view), refuse_new).await
    }

    /// Makes a change and returns its rows; those of `view` if it is a retry.
    pub(super) async fn change_or_read(
        &self,
        change: Query<'_>,
        view: Query<'_>,
    ) -> Result<Vec<Row>, ApiError> {
        self.write(&[change], Some(view), &[]).await
    }

    /// Returns the rows of `view` without a change. The request needs no key and counts as a read.
    pub(super) async fn read(&self, view: Query<'_>) -> Result<Vec<Row>, ApiError> {
        if let Some(allowance) = &self.allowance {
            allowance.count_as_read_request();
            if allowance.debt().is_some() {
                let taken = allowance.take(Class::Read);
                taken.map_err(|debt| allowance.refuse(debt))?;
            }
        }
        let claims = &self.caller.claims;
        Ok(self.db.query_as(claims, view.sql, view.parameters).await?)
    }

    /// Returns the rows of the last statement, or of `again` if the statements ran before. A write
    /// without the required token is refused in the same transaction, before its statements, unless
    /// it is a retry.
    async fn write(
        &self,
        queries: &[Query<'_>],
        again: Option<Query<'_>>,
        refuse_new: &[(Class, Query<'_>)],
    ) -> Result<Vec<Row>, ApiError> {
        let Some((allowance, debt)) = self.largest_debt() else {
            return self.run(queries, again).await;
        };
        let by_key = self.claim.is_some().then_some(Query {
            sql: REFUSE_NEW,
            parameters: &[],
        });
        let refuse = |class| {
            let of_class = refuse_new.iter().find(|(refused, _)| *refused == class);
            of_class.map(|(_, query)| *query).or(by_key)
        };
        let refusals = self.debts.iter().map(|debt| refuse(debt.class));
        let Some(mut flight) = refusals.collect::<Option<Vec<_>>>() else {
            return Err(allowance.refuse(debt));
        };
        // Checking for a retry costs a read token, so a flood of new keys costs as much as a
        // flood of reads.
        if allowance.take(Class::Read).is_err() {
            return Err(allowance.refuse(debt));
        }
        flight.extend_from_slice(queries);
        let rows = self.run(&flight, again).await;
        match rows {
            // An existing conversation costs this read token, because no other token was taken for
            // it.
            Ok(_)
                if allowance
                    .debt()
                    .is_none_or(|debt| debt.class != Class::Open)
                    || self.is_replay() =>
            {
                allowance.refund(Class::Read);
            }
            Err(error) if error.code() == ErrorCode::RateLimited => {
                return Err(allowance.refuse(debt));
            }
            Ok(_) | Err(_) => {}
        }
        rows
    }

    fn is_replay(&self) -> bool {
        let claim = self.claim.as_ref();
        claim.is_some_and(|claim| claim.is_replay.load(Ordering::Relaxed))
    }

    /// The missing token with the longest wait.
    fn largest_debt(&self) -> Option<(&Allowance, Debt)> {
        let debt = self
            .debts
            .iter()
            .max_by_key(|debt| debt.exceeded.retry_after);
        self.allowance.as_ref().zip(debt.copied())
    }

    async fn run(
        &self,
        queries: &[Query<'_>],
        again: Option<Query<'_>>,
    ) -> Result<Vec<Row>, ApiError> {
        let claims = &self.caller.claims;
        let Some(claim) = &self.claim else {
            let results = self.db.run_as(claims, queries).await?;
            return Ok(results.into_iter().last().unwrap_or_default());
        };
        let (key, hash) = (&claim.key, &claim.hash.as_slice());
        let parameters: &[&(dyn ToSql + Sync)] = &[key, hash];
        let [claim_key, store_key] = [CLAIM, STORE].map(|sql| Query { sql, parameters });
        let mut flight = vec![claim_key];
        flight.extend_from_slice(queries);
        flight.push(store_key);
        match self.db.run_as(claims, &flight).await {
            Ok(results) => Ok(results.into_iter().nth(queries.len()).unwrap_or_default()),
            Err(DbError::DoneBefore) => {
                claim.is_replay.store(true, Ordering::Relaxed);
                let Some(again) = again else {
                    return Ok(Vec::new());
                };
                let recall = Query {
                    sql: RECALL,
                    parameters: &[key],
                };
                let results = self.db.run_as(claims, &[recall, again]).await?;
                Ok(results.into_iter().last().unwrap_or_default())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl<S> FromRequestParts<S> for Writer
where
    S: Send + Sync,
    Caller: FromRequestParts<S, Rejection = ApiError>,
    Db: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let allowance = parts.extensions.get::<Allowance>().cloned();
        Ok(Self {
            caller: Caller::from_request_parts(parts, state).await?,
            db: Db::from_ref(state),
            debts: allowance.iter().filter_map(Allowance::debt).collect(),
            allowance,
            claim: parts.extensions.get::<Arc<Claim>>().cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_printable_and_short() {
        let longest = "k".repeat(MAX_KEY);
        let too_long = "k".repeat(MAX_KEY + 1);
        let cases: [(&[&str], Option<Option<&str>>); 8] = [
            (&[], Some(None)),
            (&["a"], Some(Some("a"))),
            (
                &["8e03978e-40d5 \"x\"~"],
                Some(Some("8e03978e-40d5 \"x\"~")),
            ),
            (&[&longest], Some(Some(&longest))),
            (&[""], None),
            (&[&too_long], None),
            (&["a\tb"], None),
            (&["a", "a"], None),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, HeaderValue::from_str(value).unwrap());
            }
            let read = key(&headers).ok();
            assert_eq!(read.as_ref().map(Option::as_deref), expected, "{values:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(b"\xe9").unwrap());
        assert!(key(&headers).is_err());
    }
}
