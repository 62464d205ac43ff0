//! The checks before a connection becomes a socket, and the responses to refused handshakes
//! (protocol 1.3).
//!
//! Refusals are sent immediately. Abuse is prevented by limits and not by delays, because a proxy
//! or client would have to wait for a delayed refusal.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use tungstenite::handshake::derive_accept_key;

use super::super::channel::Holder;
use super::super::error::HandshakeRefusal;
use super::super::protocol::Serializer;
use super::super::service::Realtime;
use super::task;
use crate::auth::TokenError;
use crate::http::addresses::AddressShare;
use crate::http::middleware::RequestId;
use crate::limits::UnixMillis;

/// The parameters of the socket's URL. Other parameters are ignored. If a parameter appears twice,
/// the last one wins, because the configured URL of an endpoint may contain one, and the client
/// appends its own.
#[derive(Debug, Default)]
struct Parameters {
    apikey: Option<String>,
    vsn: Option<String>,
}

impl Parameters {
    fn read(pairs: Vec<(String, String)>) -> Self {
        let mut parameters = Self::default();
        for (name, value) in pairs {
            match &*name {
                "apikey" => parameters.apikey = Some(value),
                "vsn" => parameters.vsn = Some(value),
                _ => {}
            }
        }
        parameters
    }
}

/// Handles a handshake on either path of the socket: checks the key and takes over the connection.
pub async fn upgrade(
    State(realtime): State<Realtime>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    mut request: Request<Body>,
) -> Response {
    let parameters = query
        .map(|Query(pairs)| Parameters::read(pairs))
        .unwrap_or_default();
    let mut result = handshake(&realtime, &parameters, &mut request);
    if matches!(
        result,
        Err(HandshakeRefusal::Token(TokenError::KeysUnavailable))
    ) && realtime.shared.verifier.await_keys().await
    {
        result = handshake(&realtime, &parameters, &mut request);
    }
    match result {
        Ok(handshake) => {
            let response = switching_protocols(&handshake.accept);
            let tasks = realtime.tasks.clone();
            tasks.spawn("handshake", async move {
                // An error means that the connection broke before the upgrade was complete.
                if let Ok(upgraded) = handshake.on_upgrade.await {
                    let Handshake {
                        serializer,
                        holder,
                        headers,
                        request_id,
                        address_share,
                        ..
                    } = handshake;
                    let socket = task::open(
                        &realtime,
                        serializer,
                        holder,
                        headers,
                        request_id,
                        address_share,
                        upgraded,
                    );
                    // The socket runs in a separate task, so that the memory of the handshake's
                    // task is freed. Otherwise every idle socket would keep it.
                    realtime.tasks.spawn("socket", socket);
                }
            });
            response
        }
        Err(refusal) => {
            let metrics = realtime.shared.hub.metrics();
            metrics.sockets_refused.inc();
            if let Some(limit) = refusal.limit() {
                metrics.limited(limit);
            }
            refusal_response(&refusal)
        }
    }
}

/// An accepted handshake.
struct Handshake {
    serializer: Serializer,
    holder: Holder,
    /// The value of `request.headers` in policies.
    headers: Arc<str>,
    /// The id of the request in the log.
    request_id: Box<str>,
    accept: String,
    /// The socket's share of [`Realtime::sockets_per_address`].
    address_share: AddressShare,
    on_upgrade: OnUpgrade,
}

/// Checks whether the server is stopping, then the client's address, and then everything else
/// (protocol 1.3).
fn handshake(
    realtime: &Realtime,
    parameters: &Parameters,
    request: &mut Request<Body>,
) -> Result<Handshake, HandshakeRefusal> {
    if realtime.shared.hub.is_stopping() {
        return Err(HandshakeRefusal::Restarting);
    }
    // The address is checked before anything that takes more work.
    let client = realtime
        .proxies
        .client(request.extensions(), request.headers());
    let admit = |client| realtime.admission.admit(client, UnixMillis::now());
    if client.is_some_and(|client| admit(client).is_err()) {
        return Err(HandshakeRefusal::TooManyFromAddress);
    }
    if request.method() != Method::GET {
        return Err(HandshakeRefusal::NotAnUpgrade);
    }
    let serializer =
        Serializer::negotiate(parameters.vsn.as_deref()).ok_or(HandshakeRefusal::Version)?;
    let headers = request.headers();
    // The header wins over the parameter, because a gateway puts the key into the header.
    let key = match headers.get("x-api-key") {
        Some(value) => value
            .to_str()
            .map_err(|_| HandshakeRefusal::Token(TokenError::Malformed))?,
        None => parameters
            .apikey
            .as_deref()
            .ok_or(HandshakeRefusal::Token(TokenError::Missing))?,
    };
    let shared = &realtime.shared;
    let claims = shared
        .verifier
        .verify_api_key(key)
        .map_err(HandshakeRefusal::Token)?;
    let mark = shared.marks.of(key);
    let hub = &shared.hub;
    if hub.socket_count() >= shared.config.max_sockets {
        return Err(HandshakeRefusal::TooManySockets);
    }
    if hub.user_count() >= shared.config.max_concurrent_users {
        return Err(HandshakeRefusal::TooManyUsers);
    }
    if hub.rates().joins.is_over() {
        return Err(HandshakeRefusal::TooManyJoins);
    }
    let address_share = realtime
        .sockets_per_address
        .take(client)
        .ok_or(HandshakeRefusal::TooManyFromAddress)?;
    let policy_headers = policy_headers(headers);
    let accept = websocket_accept(headers).ok_or(HandshakeRefusal::NotAnUpgrade)?;
    let request_id = request
        .extensions()
        .get::<RequestId>()
        .map_or_else(Box::default, |id| id.0.as_str().into());
    let on_upgrade = request
        .extensions_mut()
        .remove::<OnUpgrade>()
        .ok_or(HandshakeRefusal::NotAnUpgrade)?;
    Ok(Handshake {
        serializer,
        holder: Holder { claims, mark },
        headers: policy_headers,
        request_id,
        accept,
        address_share,
        on_upgrade,
    })
}

/// Returns the value for `Sec-WebSocket-Accept`, if the headers are those of a WebSocket handshake
/// (RFC 6455, 4.2.1).
fn websocket_accept(headers: &HeaderMap) -> Option<String> {
    let has_token = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    let is_version_13 = headers
        .get("sec-websocket-version")
        .is_some_and(|version| version == "13");
    let key = headers.get("sec-websocket-key")?;
    (has_token(CONNECTION, "upgrade") && has_token(UPGRADE, "websocket") && is_version_13)
        .then(|| derive_accept_key(key.as_bytes()))
}

/// Returns the `x-` headers as a JSON object that the policies of private channels can read
/// (protocol 4.3). The header with the key is omitted, because it is a secret.
fn policy_headers(headers: &HeaderMap) -> Arc<str> {
    let object: serde_json::Map<String, serde_json::Value> = headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-") && *name != "x-api-key")
        .map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), text.into())
        })
        .collect();
    serde_json::Value::Object(object).to_string().into()
}

fn switching_protocols(accept: &str) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

fn refusal_response(refusal: &HandshakeRefusal) -> Response {
    let (status, text) = refusal.response();
    match text {
        None => status.into_response(),
        Some(text) => {
            let body = serde_json::json!({ "error": text }).to_string();
            let kind = HeaderValue::from_static("application/json; charset=utf-8");
            (status, [(CONTENT_TYPE, kind)], body).into_response()
        }
    }
}
