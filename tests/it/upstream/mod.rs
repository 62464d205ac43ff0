//! Forwarding to the other services of Supabase, over real connections. The services are replaced
//! by a server that records every byte.

mod addresses;
mod cors;
mod failures;
mod forwarding;
mod keys;
mod pages;
mod paths;
mod recorder;
mod streams;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use rapport::auth::Verifier;
use rapport::http::anonymous_limiter::AnonymousLimiter;
use rapport::http::finish_with;
use rapport::http::heads::{HEAD_DEADLINE, Heads};
use rapport::http::serve::serve;
use rapport::observability::metrics::Metrics;
use rapport::shutdown::Tasks;
use rapport::upstream::{Gateway, fetch_key_sets};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::config::config;
use crate::support::eventually::eventually;

/// Time limit for each step.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that only forwards.
struct Forwarder {
    address: SocketAddr,
    metrics: Metrics,
    tasks: Tasks,
    /// The tasks of the listener and of the functions' sockets, which end before the other tasks.
    front: Tasks,
}

impl Forwarder {
    /// Starts a server with additional settings (`RAPPORT_<SECTION>_<KEY>`).
    async fn start(settings: &[(&str, &str)]) -> Self {
        let config = config("postgres://nobody@localhost/none", settings);
        let (tasks, metrics) = (Tasks::new(), Metrics::new());
        let front = tasks.child();
        let verifier = Verifier::from_config(&config.auth).unwrap();
        fetch_key_sets(&config, &verifier, &metrics.auth, &tasks).unwrap();
        let gateway = Gateway::new(
            &config,
            verifier,
            AnonymousLimiter::default(),
            &metrics.upstream,
            &front,
            &tasks,
        )
        .unwrap();
        let forward = async move |request: Request| gateway.handle(request).await;
        let router = finish_with(Router::new(), forward, metrics.http.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Heads::new(
            HEAD_DEADLINE,
            config.server.all_heads_max_bytes,
            &metrics.http,
        );
        tasks.spawn(
            "test server",
            serve(listener, router, heads, front.token().clone()),
        );
        Self {
            address,
            metrics,
            tasks,
            front,
        }
    }

    /// Starts a server whose project is at `address`.
    async fn before(address: SocketAddr, settings: &[(&str, &str)]) -> Self {
        let url = format!("http://{address}");
        Self::start(&[&[("SUPABASE_URL", &*url)], settings].concat()).await
    }

    /// Opens a connection.
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a request and returns the response. The connection is closed afterwards.
    async fn send(&self, request: &str) -> Answer {
        let mut stream = self.connect().await;
        let (line, rest) = request.split_once("\r\n").unwrap();
        let request = format!("{line}\r\nconnection: close\r\n{rest}");
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(&mut stream).await
    }

    /// Sends a `GET` request without other headers.
    async fn get(&self, path: &str) -> Answer {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nhost: rapport.example\r\n\r\n"
        ))
        .await
    }

    /// Returns the value of the metric with this name and labels, as they are exported.
    fn metric(&self, name: &str) -> Option<f64> {
        let text = self.metrics.encode().unwrap();
        let line = text.lines().find(|line| line.starts_with(name))?;
        line[name.len()..].trim().parse().ok()
    }

    /// Waits until no request to this service is in progress.
    async fn idle(&self, service: &str) {
        let name = format!("rapport_upstream_in_flight{{service=\"{service}\"}}");
        eventually("no request is in progress", async || {
            (self.metric(&name) == Some(0.0)).then_some(())
        })
        .await;
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// A response as received.
#[derive(Debug)]
struct Answer {
    head: String,
    body: Vec<u8>,
    /// Whether the body was complete.
    is_whole: bool,
}

impl Answer {
    /// Reads a response until the connection is closed.
    async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut bytes))
            .await
            .expect("the connection is closed");
        let end = recorder::head_end(&bytes).unwrap_or(bytes.len());
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let rest = &bytes[end..];
        let lower = head.to_ascii_lowercase();
        let (body, is_whole) = if lower.contains("transfer-encoding: chunked") {
            recorder::unchunk(rest).map_or((rest.to_vec(), false), |(body, _)| (body, true))
        } else {
            let length =
                recorder::header(&head, "content-length").map_or(0, |value| value.parse().unwrap());
            (rest.to_vec(), rest.len() >= length)
        };
        Self {
            head,
            body,
            is_whole: is_whole && ended.is_ok(),
        }
    }

    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        recorder::header(&self.head, name)
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap().to_owned()
    }
}
