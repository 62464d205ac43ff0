//! The two ways to broadcast over HTTP (protocol 1.5).

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::super::Realtime;
use super::super::channel::authorize::Question;
use super::super::hub::topic::TopicKey;
use super::super::messages::store::{StoreOrder, StorePayload};
use super::super::protocol::{Broadcast, Persist, PersistError, UserPayload};
use super::access;
use super::answer::{Refusal, refused_list};
use super::bodies::{self, Arrived};
use super::request::{self, BatchMessage, PayloadKind};
use crate::auth::Claims;
use crate::config::RealtimeConfig;
use crate::observability::metrics::DropReason;

/// Names the messages of a batch that were not sent. The answer is 202 all the same, as in the
/// original: the others were.
const REFUSED: HeaderName = HeaderName::from_static("x-broadcast-refused");

/// Parameters of the address.
#[derive(Default)]
struct Parameters {
    apikey: Option<String>,
    is_private: bool,
    persist: Option<String>,
    persist_ttl: Option<String>,
}

impl Parameters {
    /// Of two with one name the last counts. Others are ignored.
    fn of(uri: &Uri) -> Self {
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

    /// Whether the message is to be stored. Only the members of a private topic can be asked for.
    fn persist(&self, config: &RealtimeConfig) -> Result<Option<Persist>, PersistError> {
        let persist = Persist::of_query(
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

/// A request whose caller is known and whose body is there.
struct Admitted {
    claims: Arc<Claims>,
    headers: HeaderMap,
    parameters: Parameters,
    body: Arrived,
}

/// Lets a request in: who asks is known before anything of the body is read.
async fn admit(realtime: &Realtime, request: Request) -> Result<Admitted, Refusal> {
    let parameters = Parameters::of(request.uri());
    let headers = request.headers().clone();
    let verifier = &realtime.shared.verifier;
    let claims = access::caller(verifier, &headers, parameters.apikey.as_deref())
        .ok_or(Refusal::Unauthorized)?;
    let body = bodies::receive(realtime, request).await?;
    // Reading may have taken long.
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

/// `POST …/api/broadcast`: several messages, each a text broadcast.
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

/// Sends what may be sent; the positions of the others, each with a reason.
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
    // Nothing below waits: the messages of a batch leave together, in order.
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
            .map_err(Refusal::Inexpressible)?;
    }
    Ok(refused)
}

/// The private topics of a batch that this caller may not send to, each with the reason. Every
/// topic is asked about once, one after the other: a batch must not take every connection. When the
/// database cannot answer, the rest is not asked: it would wait as long for as little.
async fn refusals<'a>(
    realtime: &Realtime,
    admitted: &Admitted,
    messages: &'a [BatchMessage],
) -> HashMap<&'a str, &'static str> {
    let mut asked: HashMap<&str, Option<&'static str>> = HashMap::new();
    let mut outage = None;
    let headers = access::policy_headers(&admitted.headers).into();
    for message in messages.iter().filter(|message| message.is_private) {
        if asked.contains_key(&*message.topic) {
            continue;
        }
        let refusal = match outage {
            Some(reason) => Some(reason),
            None => match authorize(realtime, &message.topic, admitted, &headers).await {
                Ok(()) => None,
                Err(refusal) => {
                    let reason = refusal.short();
                    outage = (!refusal.is_of_policy()).then_some(reason);
                    Some(reason)
                }
            },
        };
        asked.insert(&message.topic, refusal);
    }
    asked
        .into_iter()
        .filter_map(|(topic, refusal)| Some((topic, refusal?)))
        .collect()
}

/// Whether the caller may send to a private topic.
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
        .ask(Question::Write, topic, &admitted.claims, headers)
        .await
        .map_err(Refusal::Unasked)?;
    if permissions.broadcast {
        Ok(())
    } else {
        Err(Refusal::Forbidden)
    }
}

/// `POST …/api/broadcast/{topic}/events/{event}`: one message, whose payload is the body.
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
        .map_err(Refusal::Inexpressible)?;
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
        .map_err(Refusal::Inexpressible)?;
    Ok(())
}
