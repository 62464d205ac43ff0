//! The payloads of `phx_join` and `access_token` (3.1, 3.6).
//!
//! Lenient, as the original is: what cannot be read counts as absent, and a join is never refused
//! for the shape of its payload.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::message::MalformedMessage;

/// A join's payload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinPayload {
    /// The token to use instead of the connection's. Already `None` for an opaque API key
    /// (`sb_…`), which means the connection's.
    pub access_token: Option<String>,
    /// What is asked for; `None` is a join from before there was a `config`.
    pub config: Option<JoinConfig>,
}

/// The `config` of a join.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinConfig {
    /// How broadcasts are to be handled.
    pub broadcast: BroadcastConfig,
    /// How presence is to be handled.
    pub presence: PresenceConfig,
    /// The changes that are wanted, in the order of the request.
    pub postgres_changes: Vec<BindingParams>,
    /// How they are wanted.
    pub postgres_changes_options: PostgresChangesOptions,
    /// Whether policies decide who may take part.
    pub private: bool,
}

/// `config.broadcast`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BroadcastConfig {
    /// Every broadcast is answered.
    pub ack: bool,
    /// Own broadcasts come back.
    pub echo: bool,
    /// The client wants to hear when broadcasts from the database are live.
    pub replication_ready: bool,
    /// Whether stored messages are wanted.
    pub replay: ReplayConfig,
}

/// `config.broadcast.replay` (4.7)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplayConfig {
    /// It is not there.
    #[default]
    Absent,
    /// It is there and no object: ignored, but for a public channel.
    NotAnObject,
    /// `since` is missing, or one of the two is not an integer.
    Invalid,
    /// It is good.
    Since {
        /// Milliseconds since 1970.
        since_ms: i64,
        /// How many at most; `None` leaves it to the server.
        limit: Option<i64>,
    },
}

impl ReplayConfig {
    fn read(value: &Value) -> Self {
        let Value::Object(object) = value else {
            return Self::NotAnObject;
        };
        let limit = match object.get("limit") {
            None | Some(Value::Null) => Some(None),
            Some(limit) => limit.as_i64().map(Some),
        };
        match (object.get("since").and_then(Value::as_i64), limit) {
            (Some(since_ms), Some(limit)) => Self::Since { since_ms, limit },
            _ => Self::Invalid,
        }
    }
}

/// `config.presence`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceConfig {
    /// Presence is wanted. Absent counts as yes: clients before 2.12 do not send it and never
    /// see anybody join without it.
    pub enabled: bool,
    /// The key to be listed under; `None` asks the server for one.
    pub key: Option<String>,
}

/// `config.postgres_changes_options`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostgresChangesOptions {
    /// The reply is to wait until changes are live.
    pub wait: bool,
    /// How long it may wait, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// 64-bit integers and numerics are to be written as strings.
    pub bigint_as_string: bool,
}

/// One element of `config.postgres_changes`.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingParams {
    /// The parameters.
    pub params: Value,
    /// The same as the client wrote them: they are echoed, and clients compare.
    text: String,
}

impl JoinPayload {
    /// Reads a join's payload.
    ///
    /// # Errors
    /// When it is JSON only by its shape: a number beyond every range, half of a surrogate pair.
    /// Such a message is dropped (2.3); read as if it had asked for nothing, it would join another
    /// channel than the one that was meant.
    pub fn parse(payload: &RawValue) -> Result<Self, MalformedMessage> {
        let value = serde_json::from_str(payload.get()).map_err(|_| MalformedMessage)?;
        let Value::Object(object) = value else {
            return Ok(Self::default());
        };
        let raw: RawJoin<'_> = serde_json::from_str(payload.get()).unwrap_or_default();
        // `user_token` is the older name and wins where both are given.
        let token = match (object.get("user_token"), object.get("access_token")) {
            (Some(Value::String(token)), _) | (_, Some(Value::String(token))) => Some(token),
            _ => None,
        };
        Ok(Self {
            access_token: token.filter(|token| !is_opaque_key(token)).cloned(),
            config: object
                .get("config")
                .map(|config| JoinConfig::read(config, raw.bindings())),
        })
    }
}

/// The elements of `config.postgres_changes` as the client wrote them.
#[derive(Default, serde::Deserialize)]
struct RawJoin<'a> {
    #[serde(borrow, default)]
    config: Option<RawConfig<'a>>,
}

#[derive(Default, serde::Deserialize)]
struct RawConfig<'a> {
    #[serde(borrow, default)]
    postgres_changes: Option<Vec<&'a RawValue>>,
}

impl<'a> RawJoin<'a> {
    fn bindings(self) -> Vec<&'a RawValue> {
        self.config
            .and_then(|config| config.postgres_changes)
            .unwrap_or_default()
    }
}

impl JoinConfig {
    fn read(config: &Value, bindings: Vec<&RawValue>) -> Self {
        let part = |key: &str| config.get(key).and_then(Value::as_object);
        let flag = |object: Option<&Map<String, Value>>, key: &str| {
            object.and_then(|object| boolean(object.get(key)))
        };
        let broadcast = part("broadcast");
        let presence = part("presence");
        let options = part("postgres_changes_options");
        Self {
            broadcast: BroadcastConfig {
                ack: flag(broadcast, "ack").unwrap_or(false),
                echo: flag(broadcast, "self").unwrap_or(false),
                replication_ready: broadcast
                    .and_then(|object| object.get("replication_ready"))
                    .is_some_and(is_truthy),
                replay: broadcast
                    .and_then(|object| object.get("replay"))
                    .map_or(ReplayConfig::Absent, ReplayConfig::read),
            },
            presence: PresenceConfig {
                enabled: flag(presence, "enabled").unwrap_or(true),
                key: presence
                    .and_then(|object| object.get("key"))
                    .and_then(presence_key),
            },
            postgres_changes: bindings
                .into_iter()
                .filter_map(BindingParams::read)
                .collect(),
            postgres_changes_options: PostgresChangesOptions {
                wait: flag(options, "wait").unwrap_or(false),
                timeout_ms: options
                    .and_then(|object| object.get("timeout"))
                    .and_then(Value::as_u64),
                bigint_as_string: options
                    .and_then(|object| object.get("bigint"))
                    .and_then(Value::as_str)
                    == Some("string"),
            },
            private: boolean(config.get("private")).unwrap_or(false),
        }
    }
}

impl BindingParams {
    fn read(raw: &RawValue) -> Option<Self> {
        let params: Value = serde_json::from_str(raw.get()).ok()?;
        params.is_object().then(|| Self {
            params,
            text: raw.get().to_owned(),
        })
    }

    /// Parameters that no client wrote: those of a join without `config`.
    pub fn derived(params: Value) -> Self {
        let text = params.to_string();
        Self { params, text }
    }

    /// Appends the parameters as the client wrote them, with the `id` it is to know them by (3.3).
    pub fn push_echo(&self, id: u32, out: &mut String) {
        use std::fmt::Write as _;
        let mut text = self.text.trim_end();
        let rewritten;
        if let Some(object) = self.params.as_object().filter(|it| it.contains_key("id")) {
            // The client's own `id` would stand beside ours.
            let mut object = object.clone();
            object.remove("id");
            rewritten = Value::Object(object).to_string();
            text = &rewritten;
        }
        let body = text.strip_suffix('}').unwrap_or(text);
        let comma = if body.trim_end().ends_with('{') {
            ""
        } else {
            ","
        };
        // Writing into a string cannot fail.
        let _ = write!(out, "{body}{comma}\"id\":{id}}}");
    }
}

/// The payload of `access_token`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessToken {
    /// Nothing to do: `null`, not a text, or an opaque API key, which means the connection's token.
    Ignored,
    /// A token, to be verified.
    Token(String),
}

impl AccessToken {
    /// Reads the payload.
    pub fn parse(payload: &RawValue) -> Self {
        /// What is no text is not read at all: it could be large.
        #[derive(serde::Deserialize)]
        struct Payload<'a> {
            #[serde(borrow)]
            access_token: &'a RawValue,
        }
        serde_json::from_str::<Payload<'_>>(payload.get())
            .ok()
            .filter(|payload| payload.access_token.get().starts_with('"'))
            .and_then(|payload| serde_json::from_str(payload.access_token.get()).ok())
            .filter(|token: &String| !is_opaque_key(token))
            .map_or(Self::Ignored, Self::Token)
    }
}

/// An API key of the newer kind, which says nothing about a person.
fn is_opaque_key(token: &str) -> bool {
    crate::auth::is_opaque_key(token)
}

/// A boolean, also as the string that some clients send.
fn boolean(value: Option<&Value>) -> Option<bool> {
    match value? {
        Value::Bool(value) => Some(*value),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Elixir's idea of truth: everything but `null` and `false`.
fn is_truthy(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

/// A presence key may be any JSON value and is used as a text.
fn presence_key(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(key) if key.is_empty() => None,
        Value::String(key) => Some(key.clone()),
        other => Some(other.to_string()),
    }
}
