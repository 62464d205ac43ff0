//! Requests one published key set over HTTP.

use std::error::Error;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{ACCEPT, CACHE_CONTROL, ETAG, IF_NONE_MATCH, USER_AGENT};
use axum::http::uri::Scheme;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use serde::Deserialize;
use thiserror::Error;
use tokio::time::timeout;

use super::connect::Connector;
use crate::auth::{KeyError, KeySet};
use crate::config::KeySource;

/// How long a response may take, from the connection to the end of the body.
const DEADLINE: Duration = Duration::from_secs(5);

/// Maximum size of a key set or a discovery document, in bytes. A key takes less than 2 KiB, even
/// with its certificates.
const MAX_BYTES: usize = 64 * 1024;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Some issuers refuse requests without this header.
const AGENT: HeaderValue = HeaderValue::from_static(concat!(
    env!("CARGO_PKG_NAME"),
    "/",
    env!("CARGO_PKG_VERSION")
));

/// Why a key set could not be fetched. The text is only logged.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    #[error("no complete response within {} s", DEADLINE.as_secs())]
    Late,
    #[error("{0}")]
    Connection(String),
    /// The status is not 200. A redirect is an error as well, because it may lead to an attacker's
    /// server.
    #[error("status {0}")]
    Status(StatusCode),
    #[error("the response is larger than {MAX_BYTES} bytes, or broke off")]
    Body,
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("the discovery document {0}")]
    Discovery(&'static str),
}

/// A response to a request for a key set.
pub(super) struct Fetched {
    /// The set. `None` if it has not changed.
    pub(super) keys: Option<KeySet>,
    /// How long the issuer allows caches to keep the set.
    pub(super) max_age: Option<Duration>,
}

/// Fetches the key set of one issuer. In tests, an implementation returns planned responses.
pub(super) trait Fetch: Send {
    /// Fetches the set. The result contains no set if it has not changed since the last call.
    fn fetch(&mut self) -> impl Future<Output = Result<Fetched, FetchError>> + Send;

    /// Makes the next call fetch the set even if it has not changed.
    fn forget(&mut self);
}

/// Fetches the set of one issuer over HTTP.
pub(super) struct HttpFetch {
    client: Client<Connector, Body>,
    location: KeySource,
    /// The accepted values of `issuer` in the discovery document.
    issuers: Vec<String>,
    /// The URL of the set, once a discovery document has named it.
    discovered: Option<Uri>,
    /// The `ETag` of the last set.
    tag: Option<HeaderValue>,
}

/// The part of a discovery document that is used (`OpenID` Connect Discovery 1.0, section 3).
#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

impl HttpFetch {
    pub(super) fn new(
        client: Client<Connector, Body>,
        location: KeySource,
        issuers: &[String],
    ) -> Self {
        Self {
            client,
            location,
            issuers: issuers.to_vec(),
            discovered: None,
            tag: None,
        }
    }

    async fn try_fetch(&mut self) -> Result<Fetched, FetchError> {
        let url = self.url().await?;
        let (status, headers, body) = self.get(&url, self.tag.clone()).await?;
        let max_age = max_age(&headers);
        if status == StatusCode::NOT_MODIFIED && self.tag.is_some() {
            return Ok(Fetched {
                keys: None,
                max_age,
            });
        }
        if status != StatusCode::OK {
            return Err(FetchError::Status(status));
        }
        let (keys, unusable) = KeySet::published(&String::from_utf8_lossy(&body))?;
        if unusable > 0 {
            tracing::warn!(
                %url,
                unusable,
                "the key set contains keys that are not used: symmetric ones, too short ones, or of \
                 another type"
            );
        }
        self.tag = headers.get(ETAG).cloned();
        Ok(Fetched {
            keys: Some(keys),
            max_age,
        })
    }

    /// Returns the URL of the set.
    async fn url(&mut self) -> Result<Uri, FetchError> {
        let document = match (&self.location, &self.discovered) {
            (KeySource::Text(_), _) => return Err(FetchError::Discovery("is not used")),
            (KeySource::Url(url), _) | (KeySource::Discovery(_), Some(url)) => {
                return Ok(url.clone());
            }
            (KeySource::Discovery(document), None) => document.clone(),
        };
        let (status, _, body) = self.get(&document, None).await?;
        if status != StatusCode::OK {
            return Err(FetchError::Status(status));
        }
        let url = self.read_document(&document, &body)?;
        self.discovered = Some(url.clone());
        Ok(url)
    }

    fn read_document(&self, address: &Uri, body: &[u8]) -> Result<Uri, FetchError> {
        let document: Document = serde_json::from_slice(body)
            .map_err(|_| FetchError::Discovery("has no `issuer` and `jwks_uri`"))?;
        // A document of another issuer would name the keys of that issuer (section 4.3).
        if !self.issuers.contains(&document.issuer) {
            return Err(FetchError::Discovery("is that of another issuer"));
        }
        let url: Uri = document
            .jwks_uri
            .parse()
            .map_err(|_| FetchError::Discovery("has an invalid `jwks_uri`"))?;
        let is_protected = url.scheme() == Some(&Scheme::HTTPS)
            || address.scheme() == Some(&Scheme::HTTP) && url.scheme() == Some(&Scheme::HTTP);
        is_protected
            .then_some(url)
            .ok_or(FetchError::Discovery("has a `jwks_uri` without https"))
    }

    async fn get(
        &self,
        url: &Uri,
        tag: Option<HeaderValue>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), FetchError> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.insert(ACCEPT, JSON);
        headers.insert(USER_AGENT, AGENT);
        headers.extend(tag.map(|tag| (IF_NONE_MATCH, tag)));
        let response = self.client.request(request).await.map_err(|error| {
            let source = error.source().map(ToString::to_string);
            FetchError::Connection(source.unwrap_or_else(|| error.to_string()))
        })?;
        let (parts, body) = response.into_parts();
        let body = to_bytes(Body::new(body), MAX_BYTES)
            .await
            .map_err(|_| FetchError::Body)?;
        Ok((parts.status, parts.headers, body))
    }
}

impl Fetch for HttpFetch {
    async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        let result = timeout(DEADLINE, self.try_fetch()).await;
        let fetched = result.unwrap_or(Err(FetchError::Late));
        if fetched.is_err() {
            // The issuer may have moved its set.
            self.discovered = None;
        }
        fetched
    }

    fn forget(&mut self) {
        self.tag = None;
    }
}

/// Returns the `max-age` of a response (RFC 9111, section 5.2.2.1).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|directive| directive.trim().split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("max-age"))
        .and_then(|(_, seconds)| seconds.trim_matches('"').parse().ok())
        .map(Duration::from_secs)
}
