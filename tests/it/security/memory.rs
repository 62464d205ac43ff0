//! The total memory that sockets hold is bounded. Sockets that hold little stay open.

use std::time::Duration;

use futures_util::future::select_all;
use rapport::observability::metrics::{CloseLabel, Held, HeldLabels, Limit};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::realtime::{Server, config, plain_join};
use crate::support::eventually::eventually;
use crate::support::socket::{PhoenixSocket, Version};
use crate::support::token::anon_key;

/// Number of hostile sockets in a test. The benchmark `hostile` uses a thousand.
const HOSTILE: usize = 30;

/// Bytes that each hostile socket sends. The total is far above [`BUDGET`].
const PORTION: usize = 150_000;

/// The limit for all sockets together in these tests.
const BUDGET: usize = 1_000_000;

impl Server {
    fn held(&self, held: Held) -> usize {
        let labels = HeldLabels { held };
        let bytes = self.metrics.held.get_or_create(&labels).get();
        usize::try_from(bytes).unwrap()
    }

    fn closed_for_memory(&self) -> u64 {
        self.metrics.closed(CloseLabel::Memory).get()
    }

    /// Connects two honest clients to one channel.
    async fn couple(&self) -> [PhoenixSocket; 2] {
        let mut couple = [
            self.client(Version::Two).await,
            self.client(Version::Two).await,
        ];
        for client in &mut couple {
            client.join("1", "realtime:couple", plain_join()).await;
            client.expect_reply("1", "ok").await;
        }
        couple
    }
}

/// Sends a message from the first client. The second client receives exactly that message.
async fn talk([first, second]: &mut [PhoenixSocket; 2], number: usize) {
    let payload = json!({"type": "broadcast", "event": "e", "payload": {"number": number}});
    first
        .push(json!("1"), "2", "realtime:couple", "broadcast", payload)
        .await;
    let heard = second.expect("realtime:couple", "broadcast").await;
    assert_eq!(heard.payload["payload"]["number"], number);
    first.expect_quiet().await;
}

/// Returns the head of a client's frame, masked with zeros.
fn head(first: u8, length: usize) -> Vec<u8> {
    let mut head = vec![first, 0xff];
    head.extend((length as u64).to_be_bytes());
    head.extend([0; 4]);
    head
}

fn text_frame(text: &str) -> Vec<u8> {
    [&head(0x81, text.len()), text.as_bytes()].concat()
}

#[tokio::test]
async fn unfinished_frames_are_bounded_over_all_sockets() {
    let text = r#"[null,"1","phoenix","heartbeat",{}]"#;
    let whole = text_frame(text);
    // The unfinished input is either a frame, or a fragmented message without its last fragment.
    let (mut frame, mut message) = (head(0x81, 2 * PORTION), head(0x01, PORTION));
    frame.extend(vec![b'x'; PORTION]);
    message.extend(vec![b'x'; PORTION]);
    for begun in [frame, message] {
        let mut config = config();
        (config.max_frame_bytes, config.all_frames_max_bytes) = (400_000, BUDGET);
        config.max_frame_bytes_before_join = 400_000;
        let server = Server::start(config).await;
        let mut couple = server.couple().await;
        // An honest client has also sent only part of a frame.
        let mut slow = server.client(Version::Two).await;
        slow.tcp().write_all(&whole[..20]).await.unwrap();
        let mut hostile = Vec::new();
        for number in 0..HOSTILE {
            let mut socket = server.client(Version::Two).await;
            // The server may already have closed the socket.
            let _ = socket.tcp().write_all(&begun).await;
            hostile.push(socket);
            talk(&mut couple, number).await;
            assert!(server.held(Held::Frames) <= 2 * BUDGET);
        }
        let least = (HOSTILE * PORTION - BUDGET) / (2 * PORTION);
        eventually("the largest are closed", async || {
            let closed = usize::try_from(server.closed_for_memory()).unwrap();
            (closed >= least && server.held(Held::Frames) <= BUDGET).then_some(())
        })
        .await;
        assert_eq!(server.closed_for_memory(), server.limited(Limit::AllFrames));
        // All hostile sockets send the same number of bytes, so the largest at any time is the one
        // from which the server has read most. A socket with unread bytes is cut off without a
        // code.
        let ends = hostile
            .iter_mut()
            .map(|socket| Box::pin(socket.last_code()));
        let (code, _, _) = select_all(ends).await;
        assert!(matches!(code, Some(1009) | None), "{code:?}");
        slow.tcp().write_all(&whole[20..]).await.unwrap();
        assert_eq!(slow.expect_reply("1", "ok").await, json!({}));
        talk(&mut couple, HOSTILE).await;
        drop(hostile);
        eventually("nothing is held", async || {
            (server.held(Held::Frames) == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn small_frames_of_one_client_do_not_close_the_larger_one_of_another() {
    let mut config = config();
    config.all_frames_max_bytes = BUDGET;
    config.max_frame_bytes_before_join = 400_000;
    let server = Server::start(config).await;
    let held = async |least: usize| {
        eventually("bytes are held", async || {
            (server.held(Held::Frames) >= least).then_some(())
        })
        .await;
    };
    // The victim has sent most of a message. It takes less than half of the budget, even if its
    // buffer is twice as large.
    let padding = "x".repeat(PORTION);
    let text = format!(r#"[null,"1","phoenix","heartbeat",{{"a":"{padding}"}}]"#);
    let whole = text_frame(&text);
    let (key, client) = (anon_key(), [127, 0, 0, 2]);
    let mut victim = PhoenixSocket::from_client(client, server.address, &key, Version::Two).await;
    victim.tcp().write_all(&whole[..PORTION]).await.unwrap();
    held(PORTION / 2).await;
    // Each hostile frame is smaller, but all together exceed the budget.
    let mut begun = head(0x81, PORTION);
    begun.extend(vec![b'x'; PORTION / 4]);
    let mut hostile = Vec::new();
    for _ in 0..HOSTILE {
        let mut socket = server.client(Version::Two).await;
        socket.tcp().write_all(&begun).await.unwrap();
        hostile.push(socket);
    }
    eventually("hostile sockets are closed", async || {
        (server.closed_for_memory() >= 2 && server.held(Held::Frames) <= BUDGET).then_some(())
    })
    .await;
    victim.tcp().write_all(&whole[PORTION..]).await.unwrap();
    assert_eq!(victim.expect_reply("1", "ok").await, json!({}));
}

#[tokio::test]
async fn queues_of_clients_that_never_read_are_bounded_over_all_sockets() {
    let mut config = config();
    config.queue_max_bytes = BUDGET;
    config.all_queues_max_bytes = BUDGET;
    let server = Server::start(config).await;
    let mut couple = server.couple().await;
    let mut hostile = Vec::new();
    let mut join = plain_join();
    join["config"]["broadcast"] = json!({"self": true});
    for number in 0..HOSTILE {
        let mut socket =
            PhoenixSocket::with_receive_buffer(server.address, &anon_key(), Version::Two, 4_096)
                .await;
        let topic = format!("realtime:hostile {number}");
        socket.join("1", &topic, join.clone()).await;
        socket.expect_reply("1", "ok").await;
        hostile.push(socket);
    }
    // The kernels buffer megabytes for each socket before anything waits in a queue of the server.
    // No socket receives enough to fill its own queue.
    let payload = json!({"type": "broadcast", "event": "e", "payload": {"x": "y".repeat(50_000)}});
    let mut number = 0;
    while server.limited(Limit::AllQueues) < 5 {
        for (place, socket) in hostile.iter_mut().enumerate() {
            let topic = format!("realtime:hostile {place}");
            let text = json!(["1", "2", topic, "broadcast", payload]).to_string();
            let _ = socket.tcp().write_all(&text_frame(&text)).await;
        }
        number += 1;
        talk(&mut couple, number).await;
        assert!(server.held(Held::Queues) <= 2 * BUDGET);
    }
    assert_eq!(server.metrics.closed(CloseLabel::SlowConsumer).get(), 0);
    // A socket in the middle of a long frame is cut off without a code.
    let ends = hostile
        .iter_mut()
        .map(|socket| Box::pin(socket.last_code()));
    let (code, _, _) = select_all(ends).await;
    assert!(matches!(code, Some(1013) | None), "{code:?}");
    drop(hostile);
    talk(&mut couple, number + 1).await;
    eventually("nothing is held", async || {
        (server.held(Held::Queues) == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_closing_socket_is_counted_with_its_queue_until_it_ends() {
    let server = Server::start(config()).await;
    let mut hostile =
        PhoenixSocket::with_receive_buffer(server.address, &anon_key(), Version::Two, 4_096).await;
    let mut join = plain_join();
    join["config"]["broadcast"] = json!({"self": true});
    hostile.join("1", "realtime:hostile", join).await;
    hostile.expect_reply("1", "ok").await;
    let payload = json!({"type": "broadcast", "event": "e", "payload": {"x": "y".repeat(50_000)}});
    let text = json!(["1", "2", "realtime:hostile", "broadcast", payload]).to_string();
    while server.held(Held::Queues) < BUDGET {
        hostile.tcp().write_all(&text_frame(&text)).await.unwrap();
    }
    let close = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
    hostile.tcp().write_all(&close).await.unwrap();
    eventually("the socket has closed and its queue remains", async || {
        let is_closed = server.metrics.closed(CloseLabel::Client).get() == 1;
        (is_closed && server.metrics.sockets.get() == 1).then_some(())
    })
    .await;
    eventually("the socket and its queue are gone", async || {
        (server.metrics.sockets.get() == 0 && server.held(Held::Queues) == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_message_must_end_in_time_even_if_bytes_keep_arriving() {
    let mut config = config();
    config.frame_timeout = Duration::from_millis(300);
    let server = Server::start(config).await;
    let mut couple = server.couple().await;
    for (first, rest) in [
        (head(0x81, 100_000), vec![b'x']),
        (head(0x01, 0), head(0, 0)),
    ] {
        let mut hostile = server.client(Version::Two).await;
        hostile.tcp().write_all(&first).await.unwrap();
        // The test needs a timer, because it is about a client that sends a byte or a fragment from
        // time to time.
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        let code = loop {
            ticks.tick().await;
            talk(&mut couple, 1).await;
            if hostile.tcp().write_all(&rest).await.is_err() || server.limited(Limit::FrameTime) > 0
            {
                break hostile.expect_close().await.0;
            }
        };
        assert_eq!(code, 1008);
        let counter = server.limited(Limit::FrameTime);
        assert!(counter >= 1);
        server.metrics.limits_reached.clear();
    }
}

#[tokio::test]
async fn large_frames_are_refused_until_a_channel_is_joined() {
    let mut config = config();
    config.max_frame_bytes_before_join = 2_000;
    let server = Server::start(config).await;
    let long = json!([null, "1", "phoenix", "heartbeat", {"x": "y".repeat(2_000)}]).to_string();
    let mut hostile = server.client(Version::Two).await;
    hostile.tcp().write_all(&text_frame(&long)).await.unwrap();
    assert_eq!(hostile.expect_close().await.0, 1009);
    assert_eq!(server.limited(Limit::FrameBeforeJoin), 1);
    // Both frames are in one write, so that the server reads them together.
    let join = json!(["1", "1", "realtime:room", "phx_join", plain_join()]).to_string();
    let bytes = [text_frame(&join), text_frame(&long)].concat();
    let mut honest = server.client(Version::Two).await;
    honest.tcp().write_all(&bytes).await.unwrap();
    honest.expect_reply("1", "ok").await;
    honest.expect_reply("1", "ok").await;
}

/// Joins that make the server hold much memory for a channel: the topic and the payload.
fn large_joins() -> Vec<(String, Value)> {
    let long = "x".repeat(PORTION / 3);
    // The join has few bindings with long names, because the number of bindings per socket has a
    // limit of its own.
    let name = "t".repeat(1_000);
    let bindings: Vec<Value> = (0..50)
        .map(|number| json!({"event": "*", "schema": "public", "table": format!("{name}{number}")}))
        .collect();
    vec![
        (format!("realtime:{long}"), plain_join()),
        (
            "realtime:key".to_owned(),
            json!({"config": {"presence": {"enabled": true, "key": long}}}),
        ),
        (
            "realtime:bindings".to_owned(),
            json!({"config": {"presence": {"enabled": false}, "postgres_changes": bindings}}),
        ),
    ]
}

#[tokio::test]
async fn channels_are_bounded_over_all_sockets() {
    for (topic, payload) in large_joins() {
        let mut config = config();
        config.all_channels_max_bytes = BUDGET;
        let server = Server::start(config).await;
        let mut couple = server.couple().await;
        let mut number = 0;
        let mut hostile = server.client(Version::Two).await;
        let (code, _) = loop {
            number += 1;
            let topic = format!("{topic}{number}");
            hostile
                .join(&number.to_string(), &topic, payload.clone())
                .await;
            talk(&mut couple, number).await;
            if let Err(closed) = until_reply(&mut hostile, &number.to_string()).await {
                break closed;
            }
            assert!(number < 200, "{topic} never exceeds the limit");
        };
        assert_eq!(code, 1008, "{topic}");
        assert_eq!(server.limited(Limit::AllChannels), 1);
        eventually("the channels are gone", async || {
            (server.metrics.channels.get() == 2 && server.held(Held::Channels) < 10_000)
                .then_some(())
        })
        .await;
        talk(&mut couple, 0).await;
    }
}

#[tokio::test]
async fn tracked_presence_is_bounded_over_all_sockets() {
    let mut config = config();
    config.all_channels_max_bytes = BUDGET;
    let server = Server::start(config).await;
    let mut couple = server.couple().await;
    let mut hostile = server.client(Version::Two).await;
    let payload =
        json!({"type": "presence", "event": "track", "payload": {"x": "y".repeat(PORTION)}});
    let mut number = 0;
    let (code, _) = loop {
        number += 1;
        assert!(number < 50, "presence never exceeds the limit");
        let (join, track) = (format!("{number}"), format!("track {number}"));
        let topic = format!("realtime:{number}");
        hostile.join(&join, &topic, plain_join()).await;
        if let Err(closed) = until_reply(&mut hostile, &join).await {
            break closed;
        }
        hostile
            .push(json!(join), &track, &topic, "presence", payload.clone())
            .await;
        if let Err(closed) = until_reply(&mut hostile, &track).await {
            break closed;
        }
        talk(&mut couple, number).await;
    };
    assert_eq!(code, 1008);
    eventually("no presence is left", async || {
        (server.metrics.presences.get() == 0 && server.held(Held::Channels) < 10_000).then_some(())
    })
    .await;
    talk(&mut couple, 0).await;
}

/// Reads until the server replies to this push or closes the socket.
async fn until_reply(socket: &mut PhoenixSocket, reference: &str) -> Result<(), (u16, String)> {
    while socket.event().await?.reference != reference {}
    Ok(())
}
