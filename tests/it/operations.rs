//! Operation of the server: readiness, metrics, the log, and shutdown.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rapport::app::App;
use rapport::shutdown::Tasks;
use reqwest::StatusCode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use uuid::Uuid;

use crate::support::chaos::ChaosProxy;
use crate::support::config::config;
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::process::{Process, free_port};
use crate::support::socket::{PhoenixSocket, Version, refused_handshake, url};
use crate::support::token::{JWT_SECRET, anon_key, mint_with, user_token};

/// Time limit for each step.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the server in this process with this database and these settings.
async fn start(database_url: &str, settings: &[(&str, &str)]) -> App {
    App::start(&config(database_url, settings), &Tasks::new())
        .await
        .unwrap()
}

async fn get(address: SocketAddr, path: &str) -> (StatusCode, String) {
    let answer = reqwest::get(format!("http://{address}{path}"))
        .await
        .unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// Returns the metrics of a server whose token is `scrape`.
async fn metrics(address: SocketAddr) -> String {
    let request = reqwest::Client::new().get(format!("http://{address}/metrics"));
    let answer = request.bearer_auth("scrape").send().await.unwrap();
    answer.text().await.unwrap()
}

async fn ready(address: SocketAddr) -> (StatusCode, Value) {
    let (status, body) = get(address, "/ready").await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn readiness_reports_the_database_and_the_slot() {
    let database = TestDatabase::new().await;
    let (proxy, through) = ChaosProxy::before(database.url()).await;
    let app = start(&through, &[]).await;
    let address = app.local_address();
    timeout(PATIENCE, app.readiness().wait_until_ready())
        .await
        .unwrap();
    let report = eventually("the slot was checked", async || {
        let (status, report) = ready(address).await;
        assert_eq!(status, StatusCode::OK, "{report}");
        report["replication_slot"].is_object().then_some(report)
    })
    .await;
    assert_eq!(report["status"], "ready");
    assert_eq!(report["draining"], false);
    let slot = &report["replication_slot"];
    assert_eq!(slot["state"], "active");
    assert!(
        slot["lag_bytes"].is_u64() && slot["wal_held_bytes"].is_u64(),
        "{slot}"
    );
    assert!(
        slot["lag_seconds"].is_null() || slot["lag_seconds"].is_f64(),
        "{slot}"
    );

    proxy.refuse(true);
    proxy.cut();
    let report = eventually("both parts are reported as unavailable", async || {
        let (status, report) = ready(address).await;
        let is_away = report["database_reachable"] == false && report["replication"] != "streaming";
        is_away.then_some((status, report))
    })
    .await;
    assert_eq!(report.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(report.1["status"], "not_ready");
    assert_eq!(report.1["replication_slot"], Value::Null);
    assert_eq!(get(address, "/health").await.0, StatusCode::OK);

    proxy.refuse(false);
    timeout(PATIENCE, app.readiness().wait_until_ready())
        .await
        .unwrap();
    assert!(app.stop().await);
}

#[tokio::test]
async fn metrics_can_have_a_separate_listener() {
    let database = TestDatabase::new().await;
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let app = start(
        database.url(),
        &[
            ("RAPPORT_SERVER_METRICS_LISTEN", &own.to_string()),
            ("RAPPORT_SERVER_METRICS_TOKEN", "scrape"),
        ],
    )
    .await;
    timeout(PATIENCE, app.readiness().wait_until_ready())
        .await
        .unwrap();
    assert_eq!(
        get(app.local_address(), "/metrics").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(get(own, "/ready").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(own, "/metrics").await.0, StatusCode::UNAUTHORIZED);
    let text = metrics(own).await;
    for line in [
        "rapport_ready 1",
        "rapport_streaming 1",
        "rapport_draining 0",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(app.stop().await);
}

#[tokio::test]
async fn a_shutdown_refuses_new_sockets_and_spreads_out_closes() {
    const SOCKETS: usize = 40;
    let database = TestDatabase::new().await;
    let app = start(database.url(), &[]).await;
    let address = app.local_address();
    timeout(PATIENCE, app.readiness().wait_until_ready())
        .await
        .unwrap();
    let mut clients = Vec::new();
    for _ in 0..SOCKETS {
        let mut client = PhoenixSocket::connect(address, &anon_key(), Version::Two).await;
        client
            .join(
                "1",
                "realtime:room",
                json!({"config": {"presence": {"enabled": false}}}),
            )
            .await;
        client.expect_reply("1", "ok").await;
        clients.push(client);
    }
    let readiness = app.readiness().clone();
    let stop = Tasks::new().spawn("stop", app.stop());
    eventually("the shutdown has begun", async || {
        readiness.report().draining.then_some(())
    })
    .await;

    // Sends a request while sockets are still being closed.
    let (status, report) = ready(address).await;
    assert_eq!(
        (status, &report["draining"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!(true))
    );
    let refused = refused_handshake(&url(address, &anon_key(), Some("2.0.0"))).await;
    assert_eq!(refused.0, 503, "{refused:?}");
    assert_eq!(
        refused.2,
        r#"{"error":"Realtime is restarting, please standby"}"#
    );

    let begin = Instant::now();
    let ends = clients
        .into_iter()
        .map(|client| async move { read_until_restart(client).await });
    let ends = futures_util::future::join_all(ends).await;
    let refusals = ends.iter().filter(|end| end.is_join_refused).count();
    assert!(refusals > 0, "at least one join was refused");
    let times: Vec<_> = ends
        .iter()
        .map(|end| end.at.saturating_duration_since(begin))
        .collect();
    let spread = *times.iter().max().unwrap() - *times.iter().min().unwrap();
    assert!(
        spread > Duration::from_millis(100),
        "all sockets closed within {spread:?}"
    );
    assert!(
        timeout(PATIENCE, stop).await.unwrap().unwrap(),
        "all sockets were closed properly"
    );
}

struct EndOfSocket {
    is_join_refused: bool,
    at: Instant,
}

/// Joins another channel and reads up to the close frame, which must be the one for a restart.
async fn read_until_restart(mut client: PhoenixSocket) -> EndOfSocket {
    let mut is_join_refused = false;
    // The socket may already be closed. In that case, only the close frame is left to read.
    client.try_join("9", "realtime:other").await;
    loop {
        match client.event().await {
            Ok(message) => {
                assert_eq!(message.payload["status"], "error", "{message:?}");
                assert_eq!(
                    message.payload["response"]["reason"],
                    "RealtimeRestarting: Realtime is restarting, please standby"
                );
                is_join_refused = true;
            }
            Err((code, reason)) => {
                assert_eq!((code, &*reason), (1012, "Server is restarting"));
                return EndOfSocket {
                    is_join_refused,
                    at: Instant::now(),
                };
            }
        }
    }
}

#[tokio::test]
async fn a_shutdown_ends_at_its_deadline() {
    let database = TestDatabase::new().await;
    let server = Process::start(
        database.url(),
        &[("RAPPORT_SERVER_SHUTDOWN_DEADLINE_MS", "8000")],
    )
    .await;
    // This client neither reads nor closes its side.
    let stuck = PhoenixSocket::connect(server.address, &anon_key(), Version::Two).await;
    let (status, took, log) = server.stop().await;
    assert!(
        status.success(),
        "a stuck socket is disconnected and the exit is clean: {status}\n{log}"
    );
    assert!(took < Duration::from_secs(8), "{took:?}");
    drop(stuck);

    let server = Process::start(
        database.url(),
        &[("RAPPORT_SERVER_SHUTDOWN_DEADLINE_MS", "1000")],
    )
    .await;
    let mut request = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/supabase/user-chat/messages HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 9\r\n\r\n{{",
        user_token(Uuid::from_u128(0xa)),
    );
    request.write_all(head.as_bytes()).await.unwrap();
    // Once a later request has a response, the head of the first request has arrived.
    assert_eq!(get(server.address, "/health").await.0, StatusCode::OK);
    let (status, took, log) = server.stop().await;
    assert_eq!(status.code(), Some(1), "a request was aborted\n{log}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn no_secret_reaches_the_log_at_any_level() {
    let database = TestDatabase::new().await;
    let server = Process::start(
        database.url(),
        &[
            ("RAPPORT_LOG_LEVEL", "trace"),
            ("RAPPORT_SERVER_METRICS_TOKEN", "metrics-token-to-hide"),
            ("RAPPORT_AUTH_SERVICE_ROLE_KEY", "service-key-to-hide"),
        ],
    )
    .await;
    let address = server.address;
    let person = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_000a);
    let good = user_token(person);
    let expired = mint_with(
        &json!({"sub": person, "role": "authenticated", "exp": 1}),
        JWT_SECRET,
    );
    let forged = mint_with(
        &json!({"sub": person, "role": "authenticated", "exp": 9_999_999_999_u64}),
        "another secret",
    );
    let tokens = [&*good, &*expired, &*forged, "no-token-at-all"];

    let client = reqwest::Client::new();
    let conversations = format!("http://{address}/api/supabase/user-chat/conversations");
    let cookie = format!("sb-project-auth-token={good}");
    for token in tokens {
        for request in [
            client.get(&conversations).bearer_auth(token),
            client.get(&conversations).header("apikey", token),
            client
                .get(&conversations)
                .header("cookie", format!("sb-project-auth-token={token}")),
            client
                .get(format!("http://{address}/metrics"))
                .bearer_auth(token),
            client
                .post(format!("http://{address}/api/supabase/user-chat/messages"))
                .bearer_auth(token)
                .json(&json!({"other_user_id": Uuid::nil(), "content": "body-to-hide"})),
        ] {
            request.send().await.unwrap();
        }
        let _ = try_open(&url(address, token, Some("2.0.0"))).await;
    }
    let mut socket = PhoenixSocket::connect(address, &good, Version::Two).await;
    for (number, token) in tokens.into_iter().enumerate() {
        let reference = number.to_string();
        let topic = format!("realtime:{number}");
        let config = json!({"private": number % 2 == 0, "postgres_changes": [
            {"event": "*", "schema": "public", "table": "user_messages", "user_token": token}]});
        socket
            .join(
                &reference,
                &topic,
                json!({"config": config, "access_token": token}),
            )
            .await;
        socket
            .push(
                json!(reference),
                "9",
                &topic,
                "access_token",
                json!({"access_token": token}),
            )
            .await;
        socket
            .push(
                json!(reference),
                "9",
                &topic,
                "broadcast",
                json!({"event": "body-to-hide"}),
            )
            .await;
    }
    socket.until_quiet().await;
    drop(socket);

    let (status, _, log) = server.stop().await;
    assert!(
        status.success(),
        "connections for private channels close in time"
    );
    assert!(
        log.contains("socket closed"),
        "the log contains lines\n{log}"
    );
    let password = database.url().parse::<tokio_postgres::Config>().unwrap();
    let password = String::from_utf8(password.get_password().unwrap().to_vec()).unwrap();
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let mut secrets: Vec<String> = tokens[..3].iter().map(|token| signature(token)).collect();
    secrets.extend(
        [
            "metrics-token-to-hide",
            "service-key-to-hide",
            "no-token-at-all",
            "body-to-hide",
            JWT_SECRET,
        ]
        .map(str::to_owned),
    );
    secrets.extend([password, cookie]);
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None, "a secret is in the log");
    }
}

/// Tries to open a socket. Returns whether it succeeded.
async fn try_open(url: &str) -> bool {
    tokio_tungstenite::connect_async(url).await.is_ok()
}

#[tokio::test]
async fn a_thousand_stuck_readers_cost_little_memory_and_delay_no_others() {
    const READERS: usize = 1_000;
    const PAYLOAD: usize = 8_192;
    let files = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: files.maximum,
        ..files
    };
    setrlimit(Resource::Nofile, raised).unwrap();

    let database = TestDatabase::new().await;
    let server = Process::start(
        database.url(),
        &[
            ("RAPPORT_SERVER_METRICS_TOKEN", "scrape"),
            ("RAPPORT_REALTIME_MAX_FRAME_BYTES", "65536"),
            ("RAPPORT_REALTIME_MAX_BROADCAST_BYTES", "16384"),
            ("RAPPORT_REALTIME_QUEUE_MAX_BYTES", "65536"),
            ("RAPPORT_REALTIME_MAX_PRESENCE_STATE_BYTES", "16384"),
            // The test reads the log only at the end.
            ("RAPPORT_LOG_LEVEL", "warn"),
        ],
    )
    .await;
    let join = json!({"config": {"broadcast": {"self": true}, "presence": {"enabled": false}}});
    let key = anon_key();
    let mut stuck = Vec::with_capacity(READERS);
    for _ in 0..READERS {
        let mut client =
            PhoenixSocket::with_receive_buffer(server.address, &key, Version::Two, 2_048).await;
        client.join("1", "realtime:room", join.clone()).await;
        client.expect_reply("1", "ok").await;
        stuck.push(client);
    }
    let mut lively = PhoenixSocket::connect(server.address, &key, Version::Two).await;
    lively.join("1", "realtime:room", join).await;
    lively.expect_reply("1", "ok").await;

    let before = server.resident_kib();
    let mut most = before;
    let text = "x".repeat(PAYLOAD);
    let mut sent = 0_u64;
    while slow_consumers(server.address).await < READERS {
        for _ in 0..20 {
            sent += 1;
            let payload =
                json!({"type": "broadcast", "event": "e", "payload": {"n": sent, "text": text}});
            lively
                .push(
                    json!("1"),
                    &sent.to_string(),
                    "realtime:room",
                    "broadcast",
                    payload,
                )
                .await;
            let received = lively.expect("realtime:room", "broadcast").await;
            assert_eq!(
                received.payload["payload"]["n"], sent,
                "each message once, in order"
            );
        }
        most = most.max(server.resident_kib());
        assert!(sent < 20_000, "no slow reader was detected");
    }
    // If every queue had separate copies, the queues would need 64 MiB. The payloads are shared,
    // and the queues of closed sockets are freed.
    let grown = most.saturating_sub(before);
    assert!(
        grown < 24 * 1024,
        "{grown} KiB more than the {before} KiB before"
    );

    lively.heartbeat("still here").await;
    drop(stuck);
    let (status, _, log) = server.stop().await;
    assert!(status.success(), "{log}");
}

/// Returns the number of sockets that were closed because they did not read.
async fn slow_consumers(address: SocketAddr) -> usize {
    const NAME: &str = "rapport_realtime_sockets_closed_total{reason=\"slow_consumer\"} ";
    let text = metrics(address).await;
    let count = text.lines().find_map(|line| line.strip_prefix(NAME));
    count.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn sockets_count_for_the_client_given_by_a_trusted_proxy() {
    for (trusted, is_believed) in [("127.0.0.0/8", true), ("", false)] {
        let settings = [
            ("RAPPORT_SERVER_TRUSTED_PROXIES", trusted),
            ("RAPPORT_REALTIME_CONNECTION_BURST_PER_ADDRESS", "1"),
            ("RAPPORT_REALTIME_CONNECTIONS_PER_SECOND_PER_ADDRESS", "1"),
        ];
        let app = start("postgres://nobody@127.0.0.1:1/none", &settings).await;
        let url = url(app.local_address(), &anon_key(), Some("2.0.0"));
        let mut refused = 0;
        for client in 1..=10 {
            let mut request = url.as_str().into_client_request().unwrap();
            let forwarded = format!("192.0.2.{client}").parse().unwrap();
            request.headers_mut().insert("x-forwarded-for", forwarded);
            match tokio_tungstenite::connect_async(request).await {
                Ok(_) => {}
                Err(Error::Http(answer)) => {
                    assert_eq!(answer.status(), 429);
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(refused == 0, is_believed, "{refused}");
        app.stop().await;
    }
}
