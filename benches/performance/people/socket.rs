//! The socket of one device. It uses the protocol of current clients and reads frame by frame.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::Failure;
use crate::client::phoenix::{self, HEARTBEAT, JoinConfig};

/// The channel for row changes.
const CHANGES: &str = "realtime:chat";

/// Tables that a chat subscribes to.
const TABLES: [&str; 3] = [
    "user_conversation_members",
    "conversation_receipts",
    "user_messages",
];

/// An event from the server.
#[derive(Debug)]
pub(super) enum News {
    /// A row change: `data` of `postgres_changes`.
    Change(Value),
    /// A broadcast from the server: event and payload.
    Event(String, Value),
    /// Row changes are live.
    Subscribed,
    Nothing,
}

/// An open socket.
pub(super) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    token: String,
}

impl Socket {
    /// Connects and subscribes to row changes. Returns once they are live.
    pub(super) async fn open(server: SocketAddr, token: &str) -> Result<Self, Failure> {
        let url = format!("ws://{server}{}", phoenix::path(token));
        let (stream, _) = tokio_tungstenite::connect_async(url).await?;
        let mut socket = Self {
            stream,
            token: token.to_owned(),
        };
        let config = JoinConfig {
            bindings: TABLES
                .iter()
                .map(|table| json!({"event": "*", "schema": "public", "table": table}))
                .collect(),
            ..JoinConfig::default()
        };
        socket.join(CHANGES, &config).await?;
        while !matches!(socket.news().await?, News::Subscribed) {}
        Ok(socket)
    }

    /// Joins a private topic.
    pub(super) async fn listen(&mut self, topic: &str) -> Result<(), Failure> {
        let config = JoinConfig {
            is_private: true,
            ..JoinConfig::default()
        };
        self.join(&format!("realtime:{topic}"), &config).await
    }

    pub(super) async fn heartbeat(&mut self) -> Result<(), Failure> {
        Ok(self.stream.send(Message::text(HEARTBEAT)).await?)
    }

    /// Returns the next event. Cancel-safe: dropping the future loses nothing.
    pub(super) async fn news(&mut self) -> Result<News, Failure> {
        let message = self.stream.next().await.ok_or("the socket ended")??;
        match message {
            Message::Text(text) => {
                let (event, mut payload) = match serde_json::from_str(&text)? {
                    Value::Array(parts) => {
                        let [_, _, _, event, payload] = <[Value; 5]>::try_from(parts)
                            .map_err(|parts| format!("not a message: {parts:?}"))?;
                        (event, payload)
                    }
                    other => return Err(format!("not a message: {other}").into()),
                };
                match event.as_str().unwrap_or_default() {
                    "postgres_changes" => Ok(News::Change(payload["data"].take())),
                    "broadcast" => Ok(News::Event(
                        payload["event"].as_str().unwrap_or_default().to_owned(),
                        payload["payload"].take(),
                    )),
                    "system"
                        if payload["extension"] == "postgres_changes"
                            && payload["status"] == "ok" =>
                    {
                        Ok(News::Subscribed)
                    }
                    "phx_reply" if payload["status"] == "ok" => Ok(News::Nothing),
                    "system" | "phx_reply" | "phx_error" | "phx_close" => {
                        Err(format!("the server sent {text}").into())
                    }
                    _ => Ok(News::Nothing),
                }
            }
            Message::Binary(frame) => {
                server_broadcast(&frame).ok_or_else(|| "a malformed frame".into())
            }
            Message::Close(close) => Err(format!("closed: {close:?}").into()),
            _ => Ok(News::Nothing),
        }
    }

    async fn join(&mut self, topic: &str, config: &JoinConfig) -> Result<(), Failure> {
        let text = phoenix::join(topic, &self.token, config);
        Ok(self.stream.send(Message::text(text)).await?)
    }
}

/// Parses a frame of kind 4 (protocol 2.4): the lengths of topic, event and metadata, the encoding,
/// these three texts, and the payload.
fn server_broadcast(frame: &[u8]) -> Option<News> {
    let [4, topic, event, metadata, _, rest @ ..] = frame else {
        return None;
    };
    let rest = rest.get(usize::from(*topic)..)?;
    let (event, rest) = rest.split_at_checked(usize::from(*event))?;
    let payload = rest.get(usize::from(*metadata)..)?;
    Some(News::Event(
        String::from_utf8(event.to_vec()).ok()?,
        serde_json::from_slice(payload).ok()?,
    ))
}
