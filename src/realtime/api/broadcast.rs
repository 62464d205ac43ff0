//! The two routes that broadcast over HTTP (protocol 1.5).

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::super::channel::authorize::CheckKind;
use super::super::hub::TopicKey;
use super::super::messages::store::{StoreOrder, StorePayload};
use super::super::protocol::{Broadcast, Persist, PersistError, UserPayload};
use super::super::service::Realtime;
use super::access;
use super::bodies::{self, ReceivedBody};
use super::refusal::{Refusal, refused_list};
use super::request::{self, BatchMessage, PayloadKind};
use crate::auth::Claims;
use crate::config::RealtimeConfig;
use crate::observability::metrics::DropReason;

/// The header that lists the messages of a batch that were not sent. As in Supabase Realtime, the
/// status is still 202, because the other messages were sent.
const REFUSED: HeaderName = HeaderName::from_static("x-broadcast-refused");

/// The query parameters.
#[derive(Default)]
struct Parameters {
    apikey: Option<String>,
    is_private: bool,
    persist: Option<String>,
    persist_ttl: Option<String>,
}

impl Parameters {
    /// Reads the parameters of a URI. If a parameter appears twice, the last one wins. Unknown
    /// parameters are ignored.
    fn from_uri(uri: &Uri) -> Self {
        let mut parameters = Self::default();
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri);
        for (name, value) in pairs.map(|Query(pairs)| pairs).unwrap_or_default() {
            match &*name {
                "apikey" => parameters.apikey = Some(value),
                "private" => parameters.is_private = value == "true",
                "persist" => parameters.persist = Some(value),
                "persist[ttl]" => parameters.persist_ttl = Some(value),
                _ => {}
            }
        }
        parameters
    }

    /// Returns how to store the message, or `None` if it is not stored. Only messages to private
    /// topics can be stored.
    fn persist(&self, config: &RealtimeConfig) -> Result<Option<Persist>, PersistError> {
        let persist = Persist::from_query(
            self.persist.as_deref(),
            self.persist_ttl.as_deref(),
            config.max_message_ttl_seconds(),
        )?;
        if persist.is_some() && !self.is_private {
            return Err(PersistError::Public);
        }
        Ok(persist)
    }
}

/// A request with a known caller and a complete body.
struct Admitted {
    claims: Arc<Claims>,
    headers: HeaderMap,
    parameters: Parameters,
    body: ReceivedBody,
}

/// Identifies the caller, then reads the body.
async fn admit(realtime: &Realtime, request: Request) -> Result<Admitted, Refusal> {
    let parameters = Parameters::from_uri(request.uri());
    let headers = request.headers().clone();
    let verifier = &realtime.shared.verifier;
    let parameter = parameters.apikey.as_deref();
    let claims = access::caller_with_keys(verifier, &headers, parameter).await?;
    let body = bodies::receive(realtime, request).await?;
    // Receiving the body may have taken long, so the rate is checked again.
    if realtime.shared.hub.rates().events.is_over() {
        return Err(Refusal::OverRate);
    }
    Ok(Admitted {
        claims,
        headers,
        parameters,
        body,
    })
}

/// Handles `POST …/api/broadcast`: sends several messages, each as a text broadcast.
pub(super) async fn broadcast_batch(
    State(realtime): State<Realtime>,
    request: Request,
) -> Response {
    match batch(&realtime, request).await {
        Ok(refused) => {
            let mut response = StatusCode::ACCEPTED.into_response();
            let list = refused_list(&refused).and_then(|list| HeaderValue::try_from(list).ok());
            if let Some(list) = list {
                response.headers_mut().insert(REFUSED, list);
            }
            response
        }
        Err(refusal) => refusal.respond(realtime.shared.hub.metrics()),
    }
}

/// Sends the permitted messages. Returns the positions of all other messages, each with a reason.
async fn batch(
    realtime: &Realtime,
    request: Request,
) -> Result<Vec<(usize, &'static str)>, Refusal> {
    let admitted = admit(realtime, request).await?;
    let max_payload = realtime.shared.config.max_broadcast_bytes;
    let messages = request::batch(&admitted.body.bytes, max_payload)?;
    let events = &realtime.shared.hub.rates().events;
    if events.average() + messages.len() as u64 > events.limit() {
        return Err(Refusal::BatchOverRate);
    }
    let refusals = refusals(realtime, &admitted, &messages).await;
    // The code below does not await, so the messages of a batch are sent together and in order.
    let hub = &realtime.shared.hub;
    let mut deliveries = hub.deliveries();
    let mut refused = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let refusal = refusals.get(&*message.topic);
        if let Some(reason) = refusal.filter(|_| message.is_private) {
            hub.metrics().dropped(DropReason::Forbidden);
            refused.push((at, *reason));
            continue;
        }
        let key = TopicKey::new(&message.topic, message.is_private);
        let broadcast = Broadcast::Text {
            payload: &message.payload,
        };
        deliveries
            .broadcast(&key, &broadcast, None)
            .map_err(Refusal::NotEncodable)?;
    }
    Ok(refused)
}

/// Returns the private topics of a batch to which this caller may not send, each with a reason.
/// Each topic is checked once. The checks run one after another, so that a batch does not use all
/// connections. After a failure of the database, the remaining topics are not checked, because
/// their checks would wait just as long and fail as well.
async fn refusals<'a>(
    realtime: &Realtime,
    admitted: &Admitted,
    messages: &'a [BatchMessage],
) -> HashMap<&'a str, &'static str> {
    let mut checked: HashMap<&str, Option<&'static str>> = HashMap::new();
    let mut outage = None;
    let headers = access::policy_headers(&admitted.headers).into();
    for message in messages.iter().filter(|message| message.is_private) {
        if checked.contains_key(&*message.topic) {
            continue;
        }
        let refusal = match outage {
            Some(reason) => Some(reason),
            None => match authorize(realtime, &message.topic, admitted, &headers).await {
                Ok(()) => None,
                Err(refusal) => {
                    let reason = refusal.reason();
                    outage = (!refusal.is_policy_decision()).then_some(reason);
                    Some(reason)
                }
            },
        };
        checked.insert(&message.topic, refusal);
    }
    checked
        .into_iter()
        .filter_map(|(topic, refusal)| Some((topic, refusal?)))
        .collect()
}

/// Checks whether the caller may send to a private topic.
async fn authorize(
    realtime: &Realtime,
    topic: &str,
    admitted: &Admitted,
    headers: &Arc<str>,
) -> Result<(), Refusal> {
    let Some(authorizer) = &realtime.workshop.authorizer else {
        return Err(Refusal::Forbidden);
    };
    let permissions = authorizer
        .check(CheckKind::Write, topic, &admitted.claims, headers)
        .await
        .map_err(Refusal::CheckFailed)?;
    if permissions.broadcast {
        Ok(())
    } else {
        Err(Refusal::Forbidden)
    }
}

/// Handles `POST …/api/broadcast/{topic}/events/{event}`: sends one message, whose payload is the
/// body.
pub(super) async fn broadcast_single(
    State(realtime): State<Realtime>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    let sent = match path {
        Ok(Path((topic, event))) => single(&realtime, &topic, &event, request).await,
        Err(_) => Err(Refusal::Address),
    };
    match sent {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(refusal) => refusal.respond(realtime.shared.hub.metrics()),
    }
}

async fn single(
    realtime: &Realtime,
    topic: &str,
    event: &str,
    request: Request,
) -> Result<(), Refusal> {
    let content_type = request.headers().get(CONTENT_TYPE);
    let kind = PayloadKind::of(content_type.map(HeaderValue::as_bytes));
    let admitted = admit(realtime, request).await?;
    let kind = kind.ok_or(Refusal::MediaType)?;
    let hub = &realtime.shared.hub;
    if admitted.body.bytes.len() > realtime.shared.config.max_broadcast_bytes {
        return Err(request::payload_too_large().into());
    }
    let text;
    let payload = match kind {
        PayloadKind::Binary => UserPayload::Binary(&admitted.body.bytes),
        PayloadKind::Json => {
            text = request::json_payload(&admitted.body.bytes)?;
            UserPayload::Json(&text)
        }
    };
    let persist = admitted.parameters.persist(&realtime.shared.config)?;
    let is_private = admitted.parameters.is_private;
    let key = TopicKey::new(topic, is_private);
    let broadcast = Broadcast::User {
        event,
        metadata: "",
        payload,
    };
    broadcast
        .check(key.topic())
        .map_err(Refusal::NotEncodable)?;
    let headers: Arc<str> = access::policy_headers(&admitted.headers).into();
    if is_private {
        authorize(realtime, topic, &admitted, &headers).await?;
    }
    if let Some(persist) = persist {
        let store = realtime.workshop.store.as_ref().ok_or(Refusal::Forbidden)?;
        let order = StoreOrder {
            topic: key,
            event: event.into(),
            payload: match payload {
                UserPayload::Json(text) => StorePayload::Json(text.into()),
                UserPayload::Binary(bytes) => StorePayload::Binary(bytes.into()),
            },
            persist,
            except: None,
            headers,
            claims: admitted.claims,
        };
        store.send(order).await?;
        return Ok(());
    }
    hub.deliveries()
        .broadcast(&key, &broadcast, None)
        .map_err(Refusal::NotEncodable)?;
    Ok(())
}
