//! Prints the messages that a user receives, until the connection ends.
//!
//! ```sh
//! scripts/dev --env-file /tmp/rapport.env      # in another terminal
//! (set -a; . /tmp/rapport.env; USER_TOKEN=$USER_TOKEN_BEN cargo run --example listen)
//! ```
//!
//! A client in a product also reconnects after an interruption, reads what it missed from
//! `GET /sync` (`docs/sync.md`), and sends each new access token on the channel before the old one
//! expires.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program of its own: it reads the environment and prints"
)]

use std::env;
use std::error::Error;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// The topic of the channel. The part after `realtime:` can be chosen freely.
const TOPIC: &str = "realtime:inbox";

/// The heartbeat interval of the official clients. The server closes a socket on which it receives
/// nothing for `realtime.idle_timeout_ms`, two minutes by default.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(25);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Tokens come from the environment, because other users of the machine can read arguments.
    let (api_url, anon_key) = (env::var("API_URL")?, env::var("ANON_KEY")?);
    let user_token = env::var("USER_TOKEN")?;

    // `http` becomes `ws`, and `https` becomes `wss`. An address with `wss` requires a TLS feature
    // of tokio-tungstenite. In version 1.0.0 of the protocol, every message is a JSON object with
    // named fields.
    let socket_url = api_url.replacen("http", "ws", 1)
        + &format!("/realtime/v1/websocket?apikey={anon_key}&vsn=1.0.0");
    let (mut socket, _) = connect_async(socket_url).await?;

    // The key identifies the project, and the access token identifies the user. The policies use
    // the token's claims to decide which rows this channel receives. No filter for the user's own
    // conversations is necessary.
    let join = json!({
        "topic": TOPIC,
        "event": "phx_join",
        "ref": "1",
        "join_ref": "1",
        "payload": {
            "access_token": user_token,
            "config": {
                "postgres_changes": [{ "event": "INSERT", "schema": "public", "table": "user_messages" }],
            },
        },
    });
    socket.send(Message::text(join.to_string())).await?;

    let mut heartbeat = interval(HEARTBEAT_INTERVAL);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let frame = tokio::select! {
            _ = heartbeat.tick() => {
                let beat = json!({ "topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "0" });
                socket.send(Message::text(beat.to_string())).await?;
                continue;
            }
            frame = socket.next() => frame.ok_or("the server closed the connection")??,
        };
        // Reading the socket also replies to pings. After a close frame, the stream ends.
        if let Message::Text(text) = frame {
            show(&serde_json::from_str(&text)?)?;
        }
    }
}

/// Prints the content of a message from the socket, or returns the reason why no more rows will
/// arrive.
fn show(message: &Value) -> Result<(), String> {
    let (event, payload) = (&message["event"], &message["payload"]);
    let field = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    match event.as_str() {
        // Every row that is committed after this message and that the policies permit is delivered.
        // The reply to the join may arrive earlier. The server also sends `system` messages about
        // other matters with the status `ok`.
        Some("system")
            if payload["extension"] == "postgres_changes" && payload["status"] == "ok" =>
        {
            println!("listening for messages");
        }
        // For example, the token expires soon, or delivery was interrupted. In the latter case, the
        // server resumes delivery by itself and then sends the message above again.
        Some("system") => eprintln!("{}", field(&payload["message"])),
        Some("postgres_changes") => {
            let row = &payload["data"]["record"];
            println!("{}: {}", field(&row["sender_id"]), field(&row["content"]));
        }
        Some("phx_reply") if payload["status"] == "error" => {
            return Err(format!("refused: {}", payload["response"]));
        }
        Some("phx_close" | "phx_error") => return Err("the server closed the channel".to_owned()),
        // Ignores replies to the join and to heartbeats, and presence messages.
        _ => {}
    }
    Ok(())
}
