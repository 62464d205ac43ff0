//! Thousands of WebSocket clients on one thread: one epoll set, one read buffer, no task per socket.
//!
//! What the clients say and what they make of an answer is the [`Handler`]'s. Received bytes are
//! copied only where a frame is cut in two, so that a client costs less than any server it measures.

pub(crate) mod frame;
pub(crate) mod marker;
pub(crate) mod phoenix;

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use memchr::memmem;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// Room for one read: more than the kernel holds for one socket by default.
const READ_BYTES: usize = 1 << 20;

/// Place of a socket among all.
pub(crate) type SocketId = usize;

/// What is done with what happens on the sockets.
pub(crate) trait Handler {
    /// The server has accepted the upgrade.
    fn opened(&mut self, sockets: &mut Sockets, id: SocketId);
    /// A text or binary frame has come.
    fn message(&mut self, sockets: &mut Sockets, id: SocketId, opcode: u8, payload: &[u8]);
    /// The socket is gone, and not by [`Sockets::close`].
    fn closed(&mut self, id: SocketId, reason: &str);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The request is not answered yet.
    Upgrading,
    Open,
    Closed,
}

struct Socket {
    /// Dropped on closing, so that its descriptor is free at once.
    stream: Option<TcpStream>,
    state: State,
    /// The beginning of a frame whose end has not come yet.
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
    /// Bytes and reads since the beginning.
    pub(crate) bytes: u64,
    pub(crate) reads: u64,
}

impl Sockets {
    /// No socket yet.
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

    /// Begins to open a socket for this path and query.
    pub(crate) fn open(&mut self, path: &str) -> io::Result<SocketId> {
        let id = self.all.len();
        self.open_at(id, path)?;
        Ok(id)
    }

    /// Begins to open a socket in this place, where none has been, or one that is closed.
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

    /// Closes a socket without a word, as a client that loses its network.
    pub(crate) fn close(&mut self, id: SocketId) {
        let socket = std::mem::replace(&mut self.all[id], Socket::none());
        if let Some(mut stream) = socket.stream {
            // A descriptor leaves the epoll set when it is closed in any case.
            let _ = self.poll.registry().deregister(&mut stream);
        }
    }

    /// Sends one text frame.
    pub(crate) fn send_text(&mut self, id: SocketId, text: &str, handler: &mut impl Handler) {
        self.queue(id, frame::TEXT, text.as_bytes());
        self.flush(id, handler);
    }

    /// Puts one frame behind those that wait; [`Sockets::flush`] sends all with one write.
    pub(crate) fn queue(&mut self, id: SocketId, opcode: u8, payload: &[u8]) {
        if self.all[id].state != State::Closed {
            frame::push_masked(&mut self.all[id].unsent, opcode, payload);
        }
    }

    /// Writes what waits, as far as the kernel takes it.
    pub(crate) fn flush(&mut self, id: SocketId, handler: &mut impl Handler) {
        let socket = &mut self.all[id];
        let Some(stream) = &mut socket.stream else {
            return;
        };
        while !socket.unsent.is_empty() {
            match stream.write(&socket.unsent) {
                Ok(written) => drop(socket.unsent.drain(..written)),
                // Not connected yet, or the peer does not read: an event will say when.
                Err(error) if is_later(&error) => return,
                Err(error) => return self.lose(id, &error.to_string(), handler),
            }
        }
    }

    /// Waits at most `timeout` for the kernel, then handles everything that it has.
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
        // Taken out, so that the handler may write to sockets while it looks at a payload in it.
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
                    // A short read of a stream socket means that nothing is left.
                    if got < room {
                        break;
                    }
                }
                Err(error) if is_later(&error) => break,
                Err(error) => {
                    self.lose(id, &error.to_string(), handler);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Hands on the whole frames of `have` and returns how many bytes they took.
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

/// Whether a call is to be made again when an event says so.
fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}
