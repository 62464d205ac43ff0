//! Thousands of WebSocket clients on one thread: one epoll set, one read buffer, no task per
//! socket.
//!
//! The [`Handler`] decides what clients send and how they process messages. Received bytes are
//! copied only if a frame arrives in parts, so that a client costs less than any server it
//! measures.

pub(crate) mod frame;
pub(crate) mod marker;
pub(crate) mod phoenix;

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use memchr::memmem;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// Buffer size of one read: more than the kernel buffers for one socket by default.
const READ_BYTES: usize = 1 << 20;

/// Index of a socket.
pub(crate) type SocketId = usize;

/// Handles the events of all sockets, and decides what they send.
pub(crate) trait Handler {
    /// Called when the server has accepted the upgrade.
    fn opened(&mut self, sockets: &mut Sockets, id: SocketId);
    /// Called when a text or binary frame has arrived.
    fn message(&mut self, sockets: &mut Sockets, id: SocketId, opcode: u8, payload: &[u8]);
    /// Called when a socket was closed other than through [`Sockets::close`].
    fn closed(&mut self, id: SocketId, reason: &str);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The server has not yet responded to the upgrade request.
    Upgrading,
    Open,
    Closed,
}

struct Socket {
    /// Dropped on closing, which releases its descriptor immediately.
    stream: Option<TcpStream>,
    state: State,
    /// The start of an incomplete frame.
    unread: Vec<u8>,
    unsent: Vec<u8>,
}

impl Socket {
    fn none() -> Self {
        Self {
            stream: None,
            state: State::Closed,
            unread: Vec::new(),
            unsent: Vec::new(),
        }
    }
}

/// All sockets to one server.
pub(crate) struct Sockets {
    poll: Poll,
    events: Events,
    all: Vec<Socket>,
    buffer: Vec<u8>,
    server: SocketAddr,
    /// Total number of bytes received.
    pub(crate) bytes: u64,
    /// Total number of reads performed.
    pub(crate) reads: u64,
}

impl Sockets {
    /// Prepares for sockets to `server` without opening any.
    pub(crate) fn to(server: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            all: Vec::new(),
            buffer: vec![0; READ_BYTES],
            server,
            bytes: 0,
            reads: 0,
        })
    }

    /// Starts to open a socket with this path and query.
    pub(crate) fn open(&mut self, path: &str) -> io::Result<SocketId> {
        let id = self.all.len();
        self.open_at(id, path)?;
        Ok(id)
    }

    /// Starts to open a socket at this index, which must be unused or closed.
    pub(crate) fn open_at(&mut self, id: SocketId, path: &str) -> io::Result<()> {
        if id >= self.all.len() {
            self.all.resize_with(id + 1, Socket::none);
        }
        let mut stream = TcpStream::connect(self.server)?;
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(id), interest)?;
        self.all[id] = Socket {
            stream: Some(stream),
            state: State::Upgrading,
            unread: Vec::new(),
            unsent: frame::upgrade_request(&self.server.to_string(), path),
        };
        Ok(())
    }

    /// Closes a socket without a close frame, like a client that loses its network.
    pub(crate) fn close(&mut self, id: SocketId) {
        let socket = std::mem::replace(&mut self.all[id], Socket::none());
        if let Some(mut stream) = socket.stream {
            // Closing a descriptor also removes it from the epoll set.
            let _ = self.poll.registry().deregister(&mut stream);
        }
    }

    /// Sends one text frame.
    pub(crate) fn send_text(&mut self, id: SocketId, text: &str, handler: &mut impl Handler) {
        self.queue(id, frame::TEXT, text.as_bytes());
        self.flush(id, handler);
    }

    /// Queues one frame. [`Sockets::flush`] sends all queued frames with one write.
    pub(crate) fn queue(&mut self, id: SocketId, opcode: u8, payload: &[u8]) {
        if self.all[id].state != State::Closed {
            frame::push_masked(&mut self.all[id].unsent, opcode, payload);
        }
    }

    /// Writes queued bytes until the kernel accepts no more.
    pub(crate) fn flush(&mut self, id: SocketId, handler: &mut impl Handler) {
        let socket = &mut self.all[id];
        let Some(stream) = &mut socket.stream else {
            return;
        };
        while !socket.unsent.is_empty() {
            match stream.write(&socket.unsent) {
                Ok(written) => drop(socket.unsent.drain(..written)),
                // The socket is not connected yet, or the peer does not read. An event signals when
                // to continue.
                Err(error) if would_block(&error) => return,
                Err(error) => return self.lose(id, &error.to_string(), handler),
            }
        }
    }

    /// Waits for events for at most `timeout`, then handles all of them.
    pub(crate) fn turn(&mut self, timeout: Duration, handler: &mut impl Handler) -> io::Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            other => other,
        };
        for event in &events {
            let Token(id) = event.token();
            if event.is_writable() {
                self.flush(id, handler);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(id, handler);
            }
        }
        self.events = events;
        polled
    }

    fn lose(&mut self, id: SocketId, reason: &str, handler: &mut impl Handler) {
        self.close(id);
        handler.closed(id, reason);
    }

    fn read(&mut self, id: SocketId, handler: &mut impl Handler) {
        // Taken out of `self` so that the handler can write to sockets while it reads a payload in
        // the buffer.
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let socket = &mut self.all[id];
            let Some(stream) = &mut socket.stream else {
                break;
            };
            let held = socket.unread.len();
            if buffer.len() < held + READ_BYTES / 2 {
                buffer.resize(held + READ_BYTES, 0);
            }
            let room = buffer.len() - held;
            match stream.read(&mut buffer[held..]) {
                Ok(0) => {
                    self.lose(id, "closed by the server", handler);
                    break;
                }
                Ok(got) => {
                    buffer[..held].copy_from_slice(&socket.unread);
                    self.reads += 1;
                    self.bytes += got as u64;
                    let have = &buffer[..held + got];
                    let used = self.consume(id, have, handler);
                    let unread = &mut self.all[id].unread;
                    unread.clear();
                    unread.extend_from_slice(&have[used..]);
                    // A short read from a stream socket means that the kernel has no more data.
                    if got < room {
                        break;
                    }
                }
                Err(error) if would_block(&error) => break,
                Err(error) => {
                    self.lose(id, &error.to_string(), handler);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Passes the complete frames in `have` to the handler and returns the number of bytes
    /// consumed.
    fn consume(&mut self, id: SocketId, have: &[u8], handler: &mut impl Handler) -> usize {
        let mut at = 0;
        if self.all[id].state == State::Upgrading {
            let Some(end) = memmem::find(have, b"\r\n\r\n") else {
                return 0;
            };
            if !have.starts_with(b"HTTP/1.1 101") {
                let head = String::from_utf8_lossy(&have[..end]).into_owned();
                self.lose(id, head.lines().next().unwrap_or_default(), handler);
                return have.len();
            }
            at = end + 4;
            self.all[id].state = State::Open;
            handler.opened(self, id);
        }
        while let Some(extent) = frame::measure(&have[at..]) {
            let payload = &have[at + extent.payload..at + extent.end];
            at += extent.end;
            match extent.opcode {
                frame::TEXT | frame::BINARY => handler.message(self, id, extent.opcode, payload),
                frame::PING => {
                    self.queue(id, frame::PONG, payload);
                    self.flush(id, handler);
                }
                frame::CLOSE => self.lose(id, &frame::close_reason(payload), handler),
                _ => {}
            }
            if self.all[id].state == State::Closed {
                return have.len();
            }
        }
        at
    }
}

/// Returns whether the call should be repeated after the next event.
fn would_block(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}
