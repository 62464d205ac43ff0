//! Clients of the REST routes: a few connections on one thread, each with one request at a time.
//!
//! Only as much of HTTP/1.1 as the routes answer with: keep-alive and `content-length`. A client library would
//! cost as much as the server it measures.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Failure;
use crate::crowd::window::microseconds;
use crate::database::current_thread;

/// Where the chat's routes are.
const BASE: &str = rapport::chat::BASE_PATH;

/// Longer than any answer takes; what takes longer is a fault.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request.
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// Behind the base path, with the query.
    pub(crate) path: String,
    pub(crate) token: String,
    /// JSON, where there is one.
    pub(crate) body: Option<String>,
    /// The status of a good answer.
    pub(crate) expected: u16,
}

/// Has `connections` clients ask one thing after the other for this long, and says how long each answer took in
/// microseconds. `next` makes the next request.
pub(crate) fn ask(
    server: SocketAddr,
    connections: usize,
    duration: Duration,
    next: impl Fn() -> Request,
) -> Result<Histogram<u64>, Failure> {
    let took = RefCell::new(microseconds()?);
    let client = || async {
        let mut connection = Connection::open(server).await?;
        let begun = Instant::now();
        while begun.elapsed() < duration {
            let request = next();
            let sent = Instant::now();
            tokio::time::timeout(PATIENCE, connection.ask(&request)).await??;
            took.borrow_mut()
                .saturating_record(sent.elapsed().as_micros() as u64);
        }
        Ok::<_, Failure>(())
    };
    current_thread()?.block_on(try_join_all((0..connections).map(|_| client())))?;
    Ok(took.into_inner())
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    async fn open(server: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// Waits for the whole answer, which must be a good one.
    async fn ask(&mut self, request: &Request) -> Result<(), Failure> {
        let body = request.body.as_deref().unwrap_or_default();
        let head = format!(
            "{} {BASE}{} HTTP/1.1\r\nhost: rapport\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            request.method,
            request.path,
            request.token,
            body.len(),
        );
        self.stream.write_all(head.as_bytes()).await?;
        self.received.clear();
        let length = loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("the server closed the connection".into());
            }
            if let Some(length) = answer_length(&self.received)? {
                break length;
            }
        };
        while self.received.len() < length.head + length.body {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("the server closed the connection".into());
            }
        }
        let status = std::str::from_utf8(&self.received[9..12])?.parse::<u16>()?;
        if status != request.expected {
            let text = String::from_utf8_lossy(&self.received);
            return Err(format!("{} {}: {text}", request.method, request.path).into());
        }
        Ok(())
    }
}

struct Length {
    head: usize,
    body: usize,
}

/// How long the answer is, as soon as its head is here.
fn answer_length(received: &[u8]) -> Result<Option<Length>, Failure> {
    let Some(end) = memchr::memmem::find(received, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&received[..end])?;
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .ok_or("an answer without content-length")?;
    Ok(Some(Length {
        head: end + 4,
        body: length.1.trim().parse()?,
    }))
}
