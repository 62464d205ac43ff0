//! Opens sockets, from a separate thread, that make a server hold as much memory as possible.

use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::Failure;
use crate::client::frame::{TEXT, push_masked, upgrade_request};
use crate::client::phoenix;

/// The kinds of hostile sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A frame of almost the maximum size whose last bytes never arrive.
    Frames,
    /// A message of almost the maximum size in fragments, of which the last one never arrives.
    Fragments,
    /// Broadcasts to the sender itself that are never read.
    Queues,
    /// Channels with the longest allowed topics.
    Channels,
    /// Request heads that never end.
    Heads,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [
        Self::Frames,
        Self::Fragments,
        Self::Queues,
        Self::Channels,
        Self::Heads,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Fragments => "fragments",
            Self::Queues => "queues",
            Self::Channels => "channels",
            Self::Heads => "heads",
        }
    }

    /// Returns what a socket of this kind sends first. Afterwards, it sends only a single byte now
    /// and then.
    fn script(self, host: &str, key: &str) -> Vec<u8> {
        const FRAME: usize = 4_900_000;
        let mut out = Vec::new();
        if self == Self::Heads {
            out.extend(format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Long: ").bytes());
            out.extend([b'x'; 60_000]);
            return out;
        }
        out.extend(upgrade_request(host, &phoenix::path(key)));
        let payload =
            json!({"config": {"broadcast": {"self": true}, "presence": {"enabled": false}}});
        let topic = format!("realtime:{}", fastrand::u64(..));
        let mut say = |event: &str, topic: &str, payload: &Value| {
            let text = json!(["1", "2", topic, event, payload]).to_string();
            push_masked(&mut out, TEXT, text.as_bytes());
        };
        say("phx_join", &topic, &payload);
        match self {
            Self::Frames => {
                let mut frame = Vec::new();
                push_masked(&mut frame, TEXT, &vec![b'x'; FRAME]);
                frame.truncate(FRAME);
                out.extend(frame);
            }
            Self::Fragments => {
                let mut fragment = Vec::new();
                push_masked(&mut fragment, TEXT, &[b'x'; 49_000]);
                // The first fragment is sent without FIN. The others are continuations.
                fragment[0] = TEXT;
                for _ in 0..FRAME / 49_000 {
                    out.extend(&fragment);
                    fragment[0] = 0;
                }
            }
            Self::Queues => {
                let text = "x".repeat(300_000);
                let broadcast = json!({"type": "broadcast", "event": "e", "payload": {"x": text}});
                for _ in 0..60 {
                    say("broadcast", &topic, &broadcast);
                }
            }
            Self::Channels => {
                for number in 0..190 {
                    let long = format!("{topic}{number}{}", "\u{1}".repeat(40_000));
                    say("phx_join", &long, &payload);
                }
            }
            Self::Heads => {}
        }
        out
    }
}

/// Bytes per second that all sockets of one kind send together. The rate leaves CPU time for other
/// processes.
const BYTES_PER_SECOND: usize = 60_000_000;
const TICK: Duration = Duration::from_millis(10);

/// Maximum number of sockets per tick that have sent all their data and send one more byte. This
/// shows whether the server has closed them.
const SILENT_PER_TICK: usize = 5;

struct Hostile {
    stream: std::net::TcpStream,
    sent: usize,
}

/// All sockets of one kind.
pub(super) struct Attack {
    kind: Kind,
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

impl Attack {
    pub(super) fn start(
        kind: Kind,
        count: usize,
        server: SocketAddr,
        key: &str,
    ) -> Result<Self, Failure> {
        let script = kind.script(&server.to_string(), key);
        let (stop, opened) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let bytes = Arc::new(AtomicU64::new(0));
        let shared = (Arc::clone(&stop), Arc::clone(&opened), Arc::clone(&bytes));
        let thread = std::thread::Builder::new()
            .name("hostile".to_owned())
            .spawn(move || run(&script, count, server, &shared))?;
        Ok(Self {
            kind,
            stop,
            opened,
            bytes,
            thread,
        })
    }

    /// Stops all sockets and returns what they did.
    pub(super) fn stop(self) -> Value {
        self.stop.store(true, Ordering::Relaxed);
        let error = match self.thread.join() {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the thread panicked".to_owned()),
        };
        json!({
            "kind": self.kind.as_str(), "opened": self.opened.load(Ordering::Relaxed),
            "sent_mib": self.bytes.load(Ordering::Relaxed) >> 20, "error": error,
        })
    }
}

fn run(
    script: &[u8],
    count: usize,
    server: SocketAddr,
    (stop, opened, bytes): &(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>),
) -> io::Result<()> {
    let mut sockets: Vec<Hostile> = Vec::new();
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        let (mut left, mut silent) = (BYTES_PER_SECOND / 100, SILENT_PER_TICK);
        for _ in 0..count {
            if left == 0 || silent == 0 {
                break;
            }
            at = (at + 1) % count;
            if sockets.len() <= at {
                at = sockets.len();
                sockets.push(open(server)?);
                opened.fetch_add(1, Ordering::Relaxed);
            }
            let socket = &mut sockets[at];
            let rest = &script[socket.sent.min(script.len())..];
            let some = match rest {
                [] => &b"x"[..],
                rest => &rest[..rest.len().min(left).min(128 * 1024)],
            };
            match socket.stream.write(some) {
                Ok(written) => {
                    silent -= usize::from(rest.is_empty());
                    left = left.saturating_sub(written);
                    socket.sent += written;
                    bytes.fetch_add(written as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The server closed the socket, so another one is opened.
                Err(_) => {
                    *socket = open(server)?;
                    opened.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// Opens a connection with a small receive buffer.
fn open(server: SocketAddr) -> io::Result<Hostile> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(4_096)?;
    socket.connect(&server.into())?;
    socket.set_nonblocking(true)?;
    let stream = std::net::TcpStream::from(OwnedFd::from(socket));
    Ok(Hostile { stream, sent: 0 })
}
