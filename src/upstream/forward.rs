//! Forwards one request, and returns the response.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::time::sleep_until;

use super::body::{Activity, Download, Patience, Upload};
use super::connect::{Connector, TlsError, tls};
use super::cors;
use super::error::Refusal;
use super::failure::Failure;
use super::headers::{self, PublicAddress, SB_FORWARDED_FOR};
use super::in_flight::InFlight;
use super::keys::{Keys, without_key};
use super::route::{self, Ambiguous, Route, Service};
use super::sandbox;
use super::target::{Clients, Target, Targets, uses_tls};
use super::upgrade;
use crate::auth::Verifier;
use crate::config::Config;
use crate::error_code::ErrorCode;
use crate::http::ApiError;
use crate::http::anonymous_limiter::AnonymousLimiter;
use crate::http::middleware::{RequestId, RoutePattern};
use crate::http::peer::TrustedProxies;
use crate::observability::metrics::UpstreamMetrics;
use crate::shutdown::Tasks;

/// The schema in which PostgREST finds the function that answers GraphQL.
const GRAPHQL_SCHEMA: &str = "graphql_public";
const CONTENT_PROFILE: HeaderName = HeaderName::from_static("content-profile");

/// Forwards requests that match no route of this server. Clones are cheap.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    targets: Targets,
    keys: Keys,
    /// Whether an API key may be a token that is verified with a published key set.
    has_published_keys: bool,
    proxies: TrustedProxies,
    public_address: Option<PublicAddress>,
    stall: Duration,
    max_body_bytes: Option<u64>,
    forwards_cookies: bool,
    anonymous_limiter: AnonymousLimiter,
    /// The tasks that copy the sockets of functions. They end before the connections to the
    /// services.
    front: Tasks,
}

impl Gateway {
    /// Builds the gateway. Sockets of functions run in `front`, whose tasks end with the listener.
    /// Connections to the services run in `tasks`, which end later, because requests in progress
    /// need them.
    ///
    /// # Errors
    /// [`TlsError`] if the configured certificate authorities cannot be read, or if a service is
    /// reached with TLS and no authority is known.
    pub fn new(
        config: &Config,
        verifier: Verifier,
        anonymous_limiter: AnonymousLimiter,
        metrics: &UpstreamMetrics,
        front: &Tasks,
        tasks: &Tasks,
    ) -> Result<Self, TlsError> {
        let upstream = &config.upstream;
        let tls = tls(upstream.tls_ca.as_deref(), uses_tls(upstream))?;
        let connector = Connector::new(tls, upstream.connect);
        let clients = Clients::new(|idle| connector.client(idle, tasks.clone()));
        Ok(Self(Arc::new(Inner {
            targets: Targets::new(upstream, &clients, metrics),
            has_published_keys: !verifier.feeds().is_empty(),
            keys: Keys::new(&config.auth, upstream, verifier),
            proxies: TrustedProxies::new(&config.server.trusted_proxies),
            public_address: upstream.public_url.as_ref().and_then(PublicAddress::of_url),
            stall: upstream.stall,
            max_body_bytes: upstream.max_body_bytes,
            forwards_cookies: upstream.forward_cookies,
            anonymous_limiter,
            front: front.clone(),
        })))
    }

    /// Answers a request that matches no route of this server.
    pub async fn handle(&self, request: Request) -> Response {
        let uri = request.uri().clone();
        let route = match route::find(uri.path()) {
            Ok(Some(route)) => route,
            Ok(None) => {
                let limited = self.0.anonymous_limiter.admit(&request).err();
                return limited
                    .unwrap_or_else(|| ApiError::new(ErrorCode::NotFound))
                    .into_response();
            }
            Err(Ambiguous(service)) => {
                let limited = self.0.admit(&request).err();
                return limited.unwrap_or(Refusal::Path).into_response(service);
            }
        };
        let service = route.service;
        let preflight = cors::is_preflight(request.method(), request.headers())
            .then(|| cors::allow(request.headers()));
        let mut response = match (self.0.forward(request, &uri, &route).await, preflight) {
            // A page cannot read the response of a failed preflight. So the preflight succeeds, and
            // the request that follows it shows the error.
            (Ok(response), Some(allowed)) if response.status().is_server_error() => allowed,
            (Err(refusal), Some(allowed)) if refusal.code() != ErrorCode::RateLimited => allowed,
            (Ok(response), _) => response,
            (Err(refusal), _) => {
                if let Some(target) = self.0.targets.get(service) {
                    target.metrics.failed(refusal.code().as_str());
                }
                refusal.into_response(service)
            }
        };
        response
            .extensions_mut()
            .insert(RoutePattern(service.pattern()));
        response
    }
}

/// A request that is ready to be sent.
struct Prepared {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// The client's connection, if the request asks for a WebSocket.
    client_socket: Option<OnUpgrade>,
}

impl Inner {
    async fn forward(
        &self,
        request: Request,
        uri: &Uri,
        route: &Route<'_>,
    ) -> Result<Response, Refusal> {
        self.admit(&request)?;
        let service = route.service;
        if !service.allows(request.method()) {
            return Err(Refusal::Method);
        }
        headers::check_framing(request.headers()).map_err(|_| Refusal::Framing)?;
        if service != Service::Functions && cors::is_preflight(request.method(), request.headers())
        {
            return Ok(cors::allow(request.headers()));
        }
        let target = self.targets.get(service).ok_or(Refusal::NotConfigured)?;
        let client = self.proxies.client(request.extensions(), request.headers());
        let (parts, body) = request.into_parts();
        if target.is_direct && self.has_published_keys {
            let (method, headers) = (&parts.method, &parts.headers);
            self.keys
                .await_unverified(route.key, method, headers, uri.query())
                .await;
        }
        let prepared = self.prepare(
            parts.method,
            parts.headers,
            parts.extensions,
            target,
            uri,
            route,
        )?;
        let in_flight = target.limit.start(client).ok_or(Refusal::Busy)?;
        let started = Instant::now();
        let response = self.send(target, prepared, body, route, in_flight).await?;
        target
            .metrics
            .answered(response.status().as_u16(), started.elapsed());
        Ok(response)
    }

    fn admit(&self, request: &Request) -> Result<(), Refusal> {
        self.anonymous_limiter
            .admit(request)
            .map_err(|error| Refusal::Limited {
                retry_after: error.retry_after(),
            })
    }

    fn prepare(
        &self,
        method: Method,
        mut headers: HeaderMap,
        mut extensions: Extensions,
        target: &Target,
        uri: &Uri,
        route: &Route<'_>,
    ) -> Result<Prepared, Refusal> {
        let service = route.service;
        let switches = service == Service::Functions
            && method == Method::GET
            && headers::is_websocket(&headers);
        let forwarded_for = self.proxies.forwarded_for(&extensions, &headers);
        let address = target.is_direct.then(|| {
            let of_request = || {
                let is_trusted = self.proxies.trusts_peer(&extensions);
                PublicAddress::of_request(&headers, is_trusted)
            };
            self.public_address.clone().or_else(of_request)
        });
        let of_application = headers::strip_request(&mut headers, self.forwards_cookies, switches);
        if let Some(address) = of_application
            && self.keys.is_server_side(&method, &headers, uri.query())
        {
            headers.insert(SB_FORWARDED_FOR, address);
        }
        let mut query = uri.query().map(str::to_owned);
        if let Some(address) = address {
            let given = self
                .keys
                .admit(route.key, &method, &headers, query.as_deref())?;
            self.keys
                .exchange(service, given.as_ref(), query.as_deref(), &mut headers);
            if given.is_some_and(|given| given.is_in_query) {
                query = query.as_deref().and_then(without_key);
            }
            headers::add_public_address(&mut headers, address, route.prefix);
            if service == Service::Graphql && !headers.contains_key(CONTENT_PROFILE) {
                headers.insert(CONTENT_PROFILE, HeaderValue::from_static(GRAPHQL_SCHEMA));
            }
        }
        let request_id = extensions
            .get::<RequestId>()
            .and_then(|id| HeaderValue::from_str(&id.0).ok());
        headers::complete_request(&mut headers, &target.host, forwarded_for, request_id);
        let uri = target
            .uri(route, uri, query.as_deref())
            .map_err(|_| Refusal::Path)?;
        Ok(Prepared {
            method,
            uri,
            headers,
            client_socket: extensions.remove::<OnUpgrade>().filter(|_| switches),
        })
    }

    async fn send(
        &self,
        target: &Target,
        mut prepared: Prepared,
        body: Body,
        route: &Route<'_>,
        in_flight: InFlight,
    ) -> Result<Response, Refusal> {
        let has_body = !body.is_end_stream();
        if has_body {
            match declared_length(&prepared.headers) {
                Some(length) if self.max_body_bytes.is_some_and(|max| length > max) => {
                    return Err(Refusal::TooLarge);
                }
                Some(_) => {}
                // Without `Content-Length` and `Transfer-Encoding`, the HTTP library would send no
                // body with some methods.
                None => {
                    let chunked = HeaderValue::from_static("chunked");
                    prepared.headers.insert(TRANSFER_ENCODING, chunked);
                }
            }
        }
        let activity = Activity::new(has_body);
        let uploaded = target.metrics.uploaded.clone();
        let upload = |body| {
            let (activity, bytes) = (Arc::clone(&activity), uploaded.clone());
            Upload::new(body, activity, bytes, self.max_body_bytes)
        };
        let retry = (!has_body && is_repeatable(&prepared.method)).then(|| {
            outgoing(
                prepared.method.clone(),
                prepared.uri.clone(),
                prepared.headers.clone(),
                upload(Body::empty()),
            )
        });
        let first = outgoing(
            prepared.method,
            prepared.uri,
            prepared.headers,
            upload(body),
        );
        let mut answered = self.attempt(target, first, &activity).await;
        if let (Err(Failure::NoResponse(_)), Some(retry)) = (&answered, retry) {
            target.metrics.retries.inc();
            answered = self.attempt(target, retry, &activity).await;
        }
        let answered = answered.map_err(|failure| match failure {
            _ if activity.is_too_large() => Refusal::TooLarge,
            _ if activity.is_unreadable() => Refusal::UnreadableBody,
            Failure::SlowClient => Refusal::SlowBody,
            Failure::Late => Refusal::Timeout,
            Failure::NoResponse(cause) | Failure::Other(cause) => Refusal::Unavailable(cause),
        })?;
        self.convert(
            target,
            answered,
            &activity,
            route,
            in_flight,
            prepared.client_socket,
        )
    }

    /// Sends a request and waits for the head of the response.
    async fn attempt(
        &self,
        target: &Target,
        request: hyper::Request<Upload>,
        activity: &Activity,
    ) -> Result<hyper::Response<Incoming>, Failure> {
        let mut answer = pin!(target.client.request(request));
        loop {
            let deadline = activity.head_deadline(target.head, self.stall);
            if deadline <= tokio::time::Instant::now() {
                return Err(Failure::Late);
            }
            let speed_check = activity.next_speed_check().ok_or(Failure::SlowClient)?;
            tokio::select! {
                answer = &mut answer => return answer.map_err(Failure::of),
                () = sleep_until(deadline.min(speed_check)) => {}
                () = activity.upload_ended() => {}
            }
        }
    }

    fn convert(
        &self,
        target: &Target,
        mut answered: hyper::Response<Incoming>,
        activity: &Arc<Activity>,
        route: &Route<'_>,
        in_flight: InFlight,
        client_socket: Option<OnUpgrade>,
    ) -> Result<Response, Refusal> {
        let switches = answered.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches && !headers::is_websocket(answered.headers()) {
            return Err(Refusal::Unavailable("unexpected protocol".to_owned()));
        }
        let prefix = target.missing_prefix(route);
        headers::convert_response(answered.headers_mut(), &target.origin, prefix, switches);
        if switches {
            let client_socket = client_socket
                .ok_or_else(|| Refusal::Unavailable("unexpected switch".to_owned()))?;
            let service_socket = hyper::upgrade::on(&mut answered);
            let stop = self.front.token().clone();
            self.front.spawn(
                "socket of a function",
                upgrade::run(client_socket, service_socket, in_flight, stop),
            );
            return Ok(answered.map(|_| Body::empty()));
        }
        sandbox::add(answered.headers_mut(), route.service);
        let is_event_stream = answered
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        let patience = if is_event_stream {
            Patience::UntilStop(Box::pin(self.front.token().clone().cancelled_owned()))
        } else {
            Patience::Until(self.stall, None)
        };
        let counters = (
            target.metrics.downloaded.clone(),
            target.metrics.cut.clone(),
        );
        Ok(answered.map(|body| {
            let activity = Arc::clone(activity);
            Body::new(Download::new(body, activity, counters, patience, in_flight))
        }))
    }
}

/// Returns whether a request with this method may be sent a second time (RFC 9110, section 9.2.2).
/// `PUT` and `DELETE` are idempotent as well, but only safe methods are repeated.
fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Builds a request without extensions, because they would affect how the HTTP library writes it.
fn outgoing(method: Method, uri: Uri, headers: HeaderMap, body: Upload) -> hyper::Request<Upload> {
    let mut request = hyper::Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}
