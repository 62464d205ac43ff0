//! The payloads of `phx_join` and `access_token` (protocol 3.1, 3.6).
//!
//! Parsing is as lenient as in Supabase Realtime: unreadable values count as absent. There are two
//! exceptions: a join with invalid `replay` options is refused, and a join whose payload is not
//! valid JSON throughout is dropped.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::message::MalformedMessage;

/// The payload of a join.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinPayload {
    /// The token to use instead of the connection's token. `None` if the client sent no token, or
    /// an opaque API key (`sb_…`): the connection's token then remains in use.
    pub access_token: Option<String>,
    /// The requested configuration. `None` for the older form of a join, which has no `config`.
    pub config: Option<JoinConfig>,
}

/// The `config` of a join.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinConfig {
    /// The options for broadcasts.
    pub broadcast: BroadcastConfig,
    /// The options for presence.
    pub presence: PresenceConfig,
    /// The requested row changes, in the order of the request.
    pub postgres_changes: Vec<BindingParams>,
    /// Options for the row changes.
    pub postgres_changes_options: PostgresChangesOptions,
    /// Whether the channel is private, so that policies decide who may join.
    pub private: bool,
}

/// The object `config.broadcast`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BroadcastConfig {
    /// Whether to acknowledge every broadcast.
    pub ack: bool,
    /// Whether to send the client its own broadcasts.
    pub echo: bool,
    /// Whether to notify the client when broadcasts from the database are live.
    pub replication_ready: bool,
    /// The option to replay stored messages.
    pub replay: ReplayConfig,
}

/// The option `config.broadcast.replay` (protocol 4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplayConfig {
    /// The option is absent.
    #[default]
    Absent,
    /// The option is present but not an object. A private channel ignores it. A public channel
    /// refuses every `replay` option.
    NotAnObject,
    /// `since` is missing, or `since` or `limit` is not an integer.
    Invalid,
    /// The option is valid.
    Since {
        /// Start of the replay, in milliseconds since 1970.
        since_ms: i64,
        /// Maximum number of messages. If `None`, the server chooses it.
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

/// The object `config.presence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceConfig {
    /// Whether the client uses presence. Defaults to `true`, because official clients before 2.12
    /// do not send the option and would otherwise not see any joins.
    pub enabled: bool,
    /// The key under which the channel appears in the presence. If `None`, the server chooses one.
    pub key: Option<String>,
}

/// The object `config.postgres_changes_options`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostgresChangesOptions {
    /// Whether to delay the reply until changes are live.
    pub wait: bool,
    /// Maximum delay, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether to write 64-bit integers and numerics as strings.
    pub bigint_as_string: bool,
}

/// One element of `config.postgres_changes`.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingParams {
    /// The parameters, parsed.
    pub params: Value,
    /// The parameters as the client wrote them. They are echoed in this form, and clients compare
    /// them.
    text: String,
}

impl JoinPayload {
    /// Reads a join's payload.
    ///
    /// # Errors
    /// Fails if the payload is not valid JSON throughout, for instance if a number is too large for
    /// a 64-bit float, or if a string contains half of a surrogate pair. Such a message is dropped
    /// (protocol 2.3). If it were treated as an empty payload, it would join a different channel
    /// than the client intended.
    pub fn parse(payload: &RawValue) -> Result<Self, MalformedMessage> {
        let value = serde_json::from_str(payload.get()).map_err(|_| MalformedMessage)?;
        let Value::Object(object) = value else {
            return Ok(Self::default());
        };
        let raw: RawJoin<'_> = serde_json::from_str(payload.get()).unwrap_or_default();
        // `user_token` is the older name. It wins if both are present.
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

/// The elements of `config.postgres_changes`, as the client wrote them.
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

    /// Creates parameters that no client wrote, for a join without `config`.
    pub fn derived(params: Value) -> Self {
        let text = params.to_string();
        Self { params, text }
    }

    /// Appends the parameters as the client wrote them, with the binding's `id` (protocol 3.3).
    pub fn push_echo(&self, id: u32, out: &mut String) {
        use std::fmt::Write as _;
        let mut text = self.text.trim_end();
        let rewritten;
        if let Some(object) = self.params.as_object().filter(|it| it.contains_key("id")) {
            // The client's own `id` would duplicate the id of the binding.
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
    /// No action is needed: the value is absent, is not a string, or is an opaque API key.
    Ignored,
    /// A token to verify.
    Token(String),
}

impl AccessToken {
    /// Reads the payload of `access_token`.
    pub fn parse(payload: &RawValue) -> Self {
        /// The value is parsed only if it is a string, because a large object would be parsed in
        /// vain.
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

/// Returns whether the token is an API key of the newer kind, which does not identify a user.
fn is_opaque_key(token: &str) -> bool {
    crate::auth::is_opaque_key(token)
}

/// Reads a boolean. Some clients send it as a string.
fn boolean(value: Option<&Value>) -> Option<bool> {
    match value? {
        Value::Bool(value) => Some(*value),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Returns whether a value counts as true in Elixir, the language of Supabase Realtime: every value
/// except `null` and `false` does.
fn is_truthy(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

/// Returns a presence key as text. Clients may send any JSON value as the key. `null` and the empty
/// string count as absent.
fn presence_key(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(key) if key.is_empty() => None,
        Value::String(key) => Some(key.clone()),
        other => Some(other.to_string()),
    }
}
