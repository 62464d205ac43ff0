//! Where each service is reached.

use std::time::Duration;

use axum::http::uri::{Authority, InvalidUriParts, Parts, PathAndQuery, Scheme};
use axum::http::{HeaderValue, Uri};

use super::connect::HttpClient;
use super::in_flight::InFlightLimit;
use super::route::{Route, Service};
use crate::config::UpstreamConfig;
use crate::observability::metrics::{ServiceMetrics, UpstreamMetrics};

/// How long an idle connection to a service is kept. Services on Node.js close it after five
/// seconds. If the service closes a connection first, a request that is sent on it at that moment
/// is lost.
const IDLE_SERVICE: Duration = Duration::from_secs(4);

/// How long an idle connection to the gateway of a project is kept. nginx, on which Kong is built,
/// closes it after 60 or 75 seconds.
const IDLE_GATEWAY: Duration = Duration::from_secs(50);

/// The server that receives the requests for a service.
pub(super) struct Target {
    scheme: Scheme,
    authority: Authority,
    base_path: String,
    /// The value of `Host`.
    pub(super) host: HeaderValue,
    /// Scheme and authority of the target. A `Location` that starts with them is converted.
    pub(super) origin: String,
    /// Whether this is the service itself and not the gateway of a project.
    pub(super) is_direct: bool,
    /// How long the service may take for the head of a response.
    pub(super) head: Duration,
    pub(super) client: HttpClient,
    pub(super) limit: InFlightLimit,
    pub(super) metrics: ServiceMetrics,
}

impl Target {
    /// Returns the path prefix that clients add to the paths of the target, or an empty string.
    pub(super) fn missing_prefix(&self, route: &Route<'_>) -> &'static str {
        if self.is_direct { route.prefix } else { "" }
    }

    /// Returns the URL of a request. `query` replaces the query of `received`.
    pub(super) fn uri(
        &self,
        route: &Route<'_>,
        received: &Uri,
        query: Option<&str>,
    ) -> Result<Uri, InvalidUriParts> {
        let path = if self.is_direct {
            &*route.own_path
        } else {
            received.path()
        };
        let base = &self.base_path;
        let written = match query {
            Some(query) => format!("{base}{path}?{query}"),
            None => format!("{base}{path}"),
        };
        let mut parts = Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = PathAndQuery::try_from(written).ok();
        Uri::from_parts(parts)
    }
}

/// The HTTP clients for services and for gateways of projects. The two keep idle connections for
/// different lengths of time.
pub(super) struct Clients {
    service: HttpClient,
    gateway: HttpClient,
}

impl Clients {
    pub(super) fn new(client: impl Fn(Duration) -> HttpClient) -> Self {
        Self {
            service: client(IDLE_SERVICE),
            gateway: client(IDLE_GATEWAY),
        }
    }
}

/// The server of each service, if it has one.
pub(super) struct Targets([Option<Target>; Service::ALL.len()]);

impl Targets {
    pub(super) fn new(
        config: &UpstreamConfig,
        clients: &Clients,
        metrics: &UpstreamMetrics,
    ) -> Self {
        Self(Service::ALL.map(|service| {
            let own_url = match service {
                Service::Auth => &config.auth_url,
                Service::Rest | Service::Graphql => &config.rest_url,
                Service::Storage => &config.storage_url,
                Service::Functions => &config.functions_url,
            };
            let url = own_url.as_ref().or(config.project_url.as_ref())?;
            let is_direct = own_url.is_some();
            let client = if is_direct {
                &clients.service
            } else {
                &clients.gateway
            };
            let (scheme, authority) = (url.scheme()?.clone(), url.authority()?.clone());
            let metrics = metrics.service(service.name());
            Some(Target {
                host: HeaderValue::from_str(authority.as_str()).ok()?,
                origin: format!("{scheme}://{authority}"),
                scheme,
                authority,
                base_path: url.path().trim_end_matches('/').to_owned(),
                is_direct,
                head: match service {
                    Service::Functions => config.functions_head,
                    _ => config.head,
                },
                client: client.clone(),
                limit: InFlightLimit::new(
                    config.max_in_flight,
                    config.max_in_flight_per_address,
                    metrics.in_flight.clone(),
                ),
                metrics,
            })
        }))
    }

    pub(super) fn get(&self, service: Service) -> Option<&Target> {
        self.0[service as usize].as_ref()
    }
}

/// Returns whether a service is reached with TLS.
pub(super) fn uses_tls(config: &UpstreamConfig) -> bool {
    [
        &config.project_url,
        &config.rest_url,
        &config.auth_url,
        &config.storage_url,
        &config.functions_url,
    ]
    .into_iter()
    .flatten()
    .any(|url| url.scheme() == Some(&Scheme::HTTPS))
}
