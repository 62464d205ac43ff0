//! One client of the yardstick.

use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;
use tungstenite::handshake::derive_accept_key;

use super::message;
use super::room::Rooms;
use crate::client::frame;

/// A socket and its unfinished input and output.
pub(super) struct Connection {
    stream: TcpStream,
    is_upgraded: bool,
    /// The room that the client has joined.
    pub(super) room: Option<usize>,
    unread: Vec<u8>,
    unsent: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            is_upgraded: false,
            room: None,
            unread: Vec::new(),
            unsent: Vec::new(),
        }
    }

    /// Writes the bytes, and buffers those that the kernel does not accept. The next read detects a
    /// dead peer.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let mut done = 0;
        if self.unsent.is_empty() {
            match self.stream.write(bytes) {
                Ok(written) => done = written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        self.unsent.extend_from_slice(&bytes[done..]);
    }

    /// Writes the buffered bytes.
    pub(super) fn flush(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        if !unsent.is_empty() {
            self.write(&unsent);
        }
    }

    /// Reads and handles the available data. Returns false if the client is gone.
    pub(super) fn read(&mut self, id: usize, rooms: &mut Rooms, buffer: &mut [u8]) -> bool {
        loop {
            let got = match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(got) => got,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            };
            self.unread.extend_from_slice(&buffer[..got]);
            if self.is_upgraded || self.upgrade() {
                self.handle_frames(id, rooms);
            }
            if got < buffer.len() {
                return true;
            }
        }
    }

    /// Accepts the upgrade once its request is complete.
    fn upgrade(&mut self) -> bool {
        let request = String::from_utf8_lossy(&self.unread);
        let Some(end) = request.find("\r\n\r\n") else {
            return false;
        };
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
            .unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        );
        self.write(answer.as_bytes());
        self.unread.drain(..end + 4);
        self.is_upgraded = true;
        true
    }

    fn handle_frames(&mut self, id: usize, rooms: &mut Rooms) {
        let mut unread = std::mem::take(&mut self.unread);
        let mut at = 0;
        while let Some(extent) = frame::measure(&unread[at..]) {
            let payload = &mut unread[at + extent.payload..at + extent.end];
            at += extent.end;
            let mask = extent.mask.unwrap_or_default();
            payload
                .iter_mut()
                .zip(mask.iter().cycle())
                .for_each(|(byte, mask)| *byte ^= mask);
            match extent.opcode {
                frame::BINARY => drop(message::forward(payload, id, rooms)),
                frame::TEXT => {
                    if let Some((reply, room)) = message::answer(payload, id, rooms) {
                        self.write(&reply);
                        self.room = room.or(self.room);
                    }
                }
                _ => {}
            }
        }
        // A connection without pending data keeps no buffer.
        if at < unread.len() {
            unread.drain(..at);
            self.unread = unread;
        }
    }
}
