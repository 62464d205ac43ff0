//! Clients of the REST routes: a few connections on one thread, each with one request at a time.
//!
//! They support only the parts of HTTP/1.1 that the routes use: keep-alive and `content-length`. A
//! client library would use as much CPU time as the measured server.

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

/// The base path of the chat's routes.
const BASE: &str = rapport::chat::BASE_PATH;

/// Timeout: longer than any response takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request.
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// Path below the base path, with the query.
    pub(crate) path: String,
    pub(crate) token: String,
    /// The JSON body, if any.
    pub(crate) body: Option<String>,
}

/// A response.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

/// Sends requests over this many connections for this duration. Returns the response times in
/// microseconds. `next` creates the next request. Each response must have the expected status.
pub(crate) fn ask(
    server: SocketAddr,
    connections: usize,
    duration: Duration,
    next: impl Fn() -> Request,
    expected: u16,
) -> Result<Histogram<u64>, Failure> {
    let took = RefCell::new(microseconds()?);
    let client = || async {
        let mut connection = Connection::open(server).await?;
        let begun = Instant::now();
        while begun.elapsed() < duration {
            let request = next();
            let sent = Instant::now();
            let answer = connection.ask(&request).await?;
            if answer.status != expected {
                let text = String::from_utf8_lossy(answer.body);
                return Err(format!("{} {}: {text}", request.method, request.path).into());
            }
            took.borrow_mut()
                .saturating_record(sent.elapsed().as_micros() as u64);
        }
        Ok::<_, Failure>(())
    };
    current_thread()?.block_on(try_join_all((0..connections).map(|_| client())))?;
    Ok(took.into_inner())
}

/// A persistent connection.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(server: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// Sends a request and waits for the complete response.
    pub(crate) async fn ask(&mut self, request: &Request) -> Result<Answer<'_>, Failure> {
        let body = request.body.as_deref().unwrap_or_default();
        let head = format!(
            "{} {BASE}{} HTTP/1.1\r\nhost: rapport\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            request.method,
            request.path,
            request.token,
            body.len(),
        );
        tokio::time::timeout(PATIENCE, self.exchange(&head)).await?
    }

    async fn exchange(&mut self, request: &str) -> Result<Answer<'_>, Failure> {
        self.stream.write_all(request.as_bytes()).await?;
        self.received.clear();
        let head = loop {
            self.read().await?;
            if let Some(head) = Head::read(&self.received)? {
                break head;
            }
        };
        while self.received.len() < head.bytes + head.body_bytes {
            self.read().await?;
        }
        Ok(Answer {
            status: head.status,
            body: &self.received[head.bytes..],
        })
    }

    async fn read(&mut self) -> Result<(), Failure> {
        if self.stream.read_buf(&mut self.received).await? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(())
    }
}

/// The relevant parts of a response head.
struct Head {
    status: u16,
    /// Length of the head, including the empty line.
    bytes: usize,
    body_bytes: usize,
}

impl Head {
    /// Parses the head once it is complete.
    fn read(received: &[u8]) -> Result<Option<Self>, Failure> {
        let Some(end) = memchr::memmem::find(received, b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&received[..end])?;
        let status = head.split(' ').nth(1).ok_or("not an answer")?.parse()?;
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let body_bytes = match length {
            Some((_, length)) => length.trim().parse()?,
            // No content (RFC 9110, section 15.3.5).
            None if status == 204 => 0,
            None => return Err("a response without content-length".into()),
        };
        Ok(Some(Self {
            status,
            bytes: end + 4,
            body_bytes,
        }))
    }
}
