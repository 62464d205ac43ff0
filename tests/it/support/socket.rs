//! A strict Phoenix client for both protocol versions.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message, handshake};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Maximum time to wait for a message. A passing test never waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

/// Both versions, for tests that run with each.
pub(crate) const VERSIONS: [Version; 2] = [Version::One, Version::Two];

impl Version {
    pub(crate) fn vsn(self) -> &'static str {
        match self {
            Self::One => "1.0.0",
            Self::Two => "2.0.0",
        }
    }

    /// Returns the text of a push.
    pub(crate) fn push(
        self,
        join_ref: &Value,
        reference: &str,
        topic: &str,
        event: &str,
        payload: &Value,
    ) -> String {
        match self {
            Self::One => json!({
                "topic": topic, "event": event, "payload": payload,
                "ref": reference, "join_ref": join_ref,
            }),
            Self::Two => json!([join_ref, reference, topic, event, payload]),
        }
        .to_string()
    }
}

/// A message from the server. `join_ref` is null if the version does not have it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Received {
    pub(crate) join_ref: Value,
    pub(crate) reference: Value,
    pub(crate) topic: String,
    pub(crate) event: String,
    pub(crate) payload: Value,
}

/// A connected client.
pub(crate) struct PhoenixSocket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    version: Version,
}

/// Returns the socket's URL.
pub(crate) fn url(address: SocketAddr, key: &str, vsn: Option<&str>) -> String {
    let vsn = vsn.map_or(String::new(), |vsn| format!("&vsn={vsn}"));
    format!("ws://{address}/realtime/v1/websocket?apikey={key}{vsn}")
}

impl PhoenixSocket {
    /// Connects with an API key.
    pub(crate) async fn connect(address: SocketAddr, key: &str, version: Version) -> Self {
        let url = url(address, key, Some(version.vsn()));
        Self::over(url.into_client_request().unwrap(), version).await
    }

    /// Connects with a receive buffer of this size in bytes, so that the server soon notices a
    /// client that does not read.
    pub(crate) async fn with_receive_buffer(
        address: SocketAddr,
        key: &str,
        version: Version,
        bytes: u32,
    ) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // The size must be set before connecting, because the announced window depends on it.
        socket.set_recv_buffer_size(bytes).unwrap();
        let stream = MaybeTlsStream::Plain(socket.connect(address).await.unwrap());
        let url = url(address, key, Some(version.vsn()));
        let (stream, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        Self { stream, version }
    }

    /// Connects from the loopback address `client`, so that the server counts the socket for a
    /// different client than the other sockets.
    pub(crate) async fn from_client(
        client: [u8; 4],
        address: SocketAddr,
        key: &str,
        version: Version,
    ) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((client, 0))).unwrap();
        let stream = MaybeTlsStream::Plain(socket.connect(address).await.unwrap());
        let url = url(address, key, Some(version.vsn()));
        let (stream, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        Self { stream, version }
    }

    /// Connects with a custom handshake request.
    pub(crate) async fn over(request: handshake::client::Request, version: Version) -> Self {
        let (stream, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        Self { stream, version }
    }

    /// Sends a push.
    pub(crate) async fn push(
        &mut self,
        join_ref: Value,
        reference: &str,
        topic: &str,
        event: &str,
        payload: Value,
    ) {
        let text = self
            .version
            .push(&join_ref, reference, topic, event, &payload);
        self.send(Message::text(text)).await;
    }

    /// Joins a topic, with `reference` as `ref` and as `join_ref`.
    pub(crate) async fn join(&mut self, reference: &str, topic: &str, payload: Value) {
        self.push(json!(reference), reference, topic, "phx_join", payload)
            .await;
    }

    /// Sends an arbitrary frame.
    pub(crate) async fn send(&mut self, message: Message) {
        self.stream.send(message).await.unwrap();
    }

    /// Receives the next protocol message. Any other frame, or a timeout, is a failure.
    pub(crate) async fn receive(&mut self) -> Received {
        match self.frame().await {
            Message::Text(text) => self.parse(&text),
            other => panic!("expected a message, got {other:?}"),
        }
    }

    /// Receives the next message, which must have this event and topic.
    pub(crate) async fn expect(&mut self, topic: &str, event: &str) -> Received {
        let message = self.receive().await;
        assert_eq!(
            (&*message.topic, &*message.event),
            (topic, event),
            "{message:?}"
        );
        message
    }

    /// Returns the response of the next message, which must be a reply to `reference` with this
    /// status.
    pub(crate) async fn expect_reply(&mut self, reference: &str, status: &str) -> Value {
        let message = self.receive().await;
        assert_eq!(message.event, "phx_reply", "{message:?}");
        assert_eq!(message.reference, json!(reference), "{message:?}");
        assert_eq!(message.payload["status"], status, "{message:?}");
        message.payload["response"].clone()
    }

    /// Returns status and text of the next message, which must be a `system` message.
    pub(crate) async fn expect_system(&mut self, topic: &str) -> (String, String) {
        let message = self.expect(topic, "system").await;
        let text = |key: &str| message.payload[key].as_str().unwrap().to_owned();
        assert_eq!(text("channel"), topic.strip_prefix("realtime:").unwrap());
        (text("status"), text("message"))
    }

    /// Joins a topic on a socket that may already be closed.
    pub(crate) async fn try_join(&mut self, reference: &str, topic: &str) {
        let text = json!([reference, reference, topic, "phx_join", {}]).to_string();
        let _ = self.stream.send(Message::text(text)).await;
    }

    /// Receives the next protocol message, or the code and reason of the close frame.
    pub(crate) async fn event(&mut self) -> Result<Received, (u16, String)> {
        match self.frame().await {
            Message::Text(text) => Ok(self.parse(&text)),
            Message::Close(Some(CloseFrame { code, reason })) => {
                Err((code.into(), reason.as_str().to_owned()))
            }
            other => panic!("expected a message or a close frame, got {other:?}"),
        }
    }

    /// Sends a heartbeat and reads messages until its reply arrives.
    pub(crate) async fn until_quiet(&mut self) {
        self.push(
            Value::Null,
            "until quiet",
            "phoenix",
            "heartbeat",
            json!({}),
        )
        .await;
        while self.receive().await.reference != "until quiet" {}
    }

    /// Returns code and reason of the next frame, which must be a close frame.
    pub(crate) async fn expect_close(&mut self) -> (u16, String) {
        match self.frame().await {
            Message::Close(Some(CloseFrame { code, reason })) => {
                (code.into(), reason.as_str().to_owned())
            }
            other => panic!("expected a close frame, got {other:?}"),
        }
    }

    /// Reads up to the close frame. Returns its code and reason.
    pub(crate) async fn read_until_close(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(Some(CloseFrame { code, reason })) = self.frame().await {
                return (code.into(), reason.as_str().to_owned());
            }
        }
    }

    /// Reads until the server ends the connection. Returns the code of its close frame, if any.
    pub(crate) async fn last_code(&mut self) -> Option<u16> {
        loop {
            match tokio::time::timeout(PATIENCE, self.stream.next()).await {
                Ok(Some(Ok(Message::Close(Some(frame))))) => return Some(frame.code.into()),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) => return None,
                Err(_) => panic!("the server does not end the connection"),
            }
        }
    }

    /// Checks that no message is pending, by sending a heartbeat whose reply must come next.
    pub(crate) async fn expect_quiet(&mut self) {
        self.heartbeat("quiet").await;
    }

    /// Sends a heartbeat, whose reply must come next.
    pub(crate) async fn heartbeat(&mut self, reference: &str) {
        self.push(Value::Null, reference, "phoenix", "heartbeat", json!({}))
            .await;
        assert_eq!(self.expect_reply(reference, "ok").await, json!({}));
    }

    /// Receives the next frame of any kind.
    pub(crate) async fn frame(&mut self) -> Message {
        tokio::time::timeout(PATIENCE, self.stream.next())
            .await
            .expect("a frame in time")
            .expect("an open socket")
            .unwrap()
    }

    /// Returns the underlying stream, for tests below the level of messages.
    pub(crate) fn tcp(&mut self) -> &mut TcpStream {
        match self.stream.get_mut() {
            MaybeTlsStream::Plain(stream) => stream,
            _ => panic!("not a plain stream"),
        }
    }

    fn parse(&self, text: &str) -> Received {
        let value: Value = serde_json::from_str(text).unwrap();
        let field = |value: &Value| value.as_str().unwrap().to_owned();
        match self.version {
            Version::One => {
                let object = value.as_object().unwrap();
                let keys: Vec<_> = object.keys().map(String::as_str).collect();
                assert_eq!(keys, ["event", "payload", "ref", "topic"], "{text}");
                Received {
                    join_ref: Value::Null,
                    reference: value["ref"].clone(),
                    topic: field(&value["topic"]),
                    event: field(&value["event"]),
                    payload: value["payload"].clone(),
                }
            }
            Version::Two => {
                let array = value.as_array().unwrap();
                assert_eq!(array.len(), 5, "{text}");
                Received {
                    join_ref: array[0].clone(),
                    reference: array[1].clone(),
                    topic: field(&array[2]),
                    event: field(&array[3]),
                    payload: array[4].clone(),
                }
            }
        }
    }
}

/// Returns status, content type and body of the response to a refused handshake.
pub(crate) async fn refused_handshake(url: &str) -> (u16, String, String) {
    match tokio_tungstenite::connect_async(url).await {
        Err(tungstenite::Error::Http(response)) => {
            let kind = response
                .headers()
                .get("content-type")
                .map_or(String::new(), |kind| kind.to_str().unwrap().to_owned());
            let body = response.body().clone().unwrap_or_default();
            (
                response.status().as_u16(),
                kind,
                String::from_utf8(body).unwrap(),
            )
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}
