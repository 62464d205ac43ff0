//! A server that records requests byte for byte and responds with given bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use rapport::shutdown::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::PATIENCE;

/// A response without a body.
pub(super) const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    /// The request line and headers, with the empty line.
    pub(super) head: String,
    /// The body without its transfer coding.
    pub(super) body: Vec<u8>,
    /// The number of the connection on which it arrived, from 0.
    pub(super) connection: usize,
}

impl Recorded {
    pub(super) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// Returns the header lines in alphabetical order.
    pub(super) fn headers(&self) -> Vec<&str> {
        let mut lines: Vec<&str> = self.head.lines().skip(1).collect();
        lines.retain(|line| !line.is_empty());
        lines.sort_unstable();
        lines
    }
}

/// A recording server.
pub(super) struct Recorder {
    pub(super) address: SocketAddr,
    received: mpsc::Receiver<Recorded>,
    tasks: Tasks,
}

impl Recorder {
    /// Starts a server that responds with these bytes.
    pub(super) async fn start(response: &str) -> Self {
        let response = response.to_owned();
        Self::responding(move |_| Some(response.clone().into_bytes())).await
    }

    /// Starts a server that responds with the bytes that `respond` returns. On `None`, it closes
    /// the connection.
    pub(super) async fn responding(
        respond: impl Fn(&Recorded) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = mpsc::channel(100);
        let (tasks, respond) = (Tasks::new(), Arc::new(respond));
        let accepting = tasks.clone();
        tasks.spawn("recorder", async move {
            for connection in 0.. {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = accepting.token().cancelled() => return,
                };
                let (stream, _) = accepted.unwrap();
                let (sender, respond) = (sender.clone(), Arc::clone(&respond));
                let stop = accepting.token().clone();
                accepting.spawn("recorded connection", async move {
                    tokio::select! {
                        () = serve(stream, connection, sender, &*respond) => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
        });
        Self {
            address,
            received,
            tasks,
        }
    }

    /// Returns the next request.
    pub(super) async fn next(&mut self) -> Recorded {
        timeout(PATIENCE, self.received.recv())
            .await
            .expect("a request arrives")
            .unwrap()
    }

    /// Returns a request that has already arrived.
    pub(super) fn arrived(&mut self) -> Option<Recorded> {
        self.received.try_recv().ok()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    sender: mpsc::Sender<Recorded>,
    respond: &(impl Fn(&Recorded) -> Option<Vec<u8>> + ?Sized),
) {
    let mut bytes = Vec::new();
    while let Some(recorded) = read(&mut stream, &mut bytes, connection).await {
        let response = respond(&recorded);
        sender.send(recorded).await.unwrap();
        let Some(response) = response else { return };
        if stream.write_all(&response).await.is_err() {
            return;
        }
    }
}

/// Reads one request. Bytes that follow it stay in `bytes`.
async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>, connection: usize) -> Option<Recorded> {
    loop {
        if let Some((recorded, length)) = parse(bytes, connection) {
            bytes.drain(..length);
            return Some(recorded);
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn parse(bytes: &[u8], connection: usize) -> Option<(Recorded, usize)> {
    let end = head_end(bytes)?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let rest = &bytes[end..];
    let (body, length) = if header(&head, "transfer-encoding").is_some() {
        unchunk(rest)?
    } else {
        let length = header(&head, "content-length").map_or(0, |value| value.parse().unwrap());
        (rest.get(..length)?.to_vec(), length)
    };
    let recorded = Recorded {
        head,
        body,
        connection,
    };
    Some((recorded, end + length))
}

/// Returns the length of a head with its empty line.
pub(super) fn head_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    end.map(|end| end + 4)
}

/// Returns the value of the first header with this name.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// Decodes a complete chunked body without trailers. Returns it and its encoded length.
pub(super) fn unchunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..]
            .windows(2)
            .position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        at += line + 2;
        body.extend(bytes.get(at..at + size)?);
        at += size + 2;
        if at > bytes.len() {
            return None;
        }
        if size == 0 {
            return Some((body, at));
        }
    }
}
