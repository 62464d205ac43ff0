//! WebSocket frames (RFC 6455) without a socket: prepared frames to send, and a reader of received
//! bytes.
//!
//! A server does not mask its frames, so the same bytes can be sent to every receiver.

use std::borrow::Cow;
use std::io::Cursor;
use std::ops::ControlFlow;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::body::Body;

/// The maximum length of the header of an unmasked frame.
const MAX_HEADER_BYTES: usize = 10;

/// The maximum length of the payload of a control frame (RFC 6455, 5.5).
const MAX_CONTROL_BYTES: usize = 125;

/// A whole frame, ready to be written. It consists of its own head, a body that other frames may
/// share, and a constant tail. A frame made by [`Frame::shared`] has only a body, which may contain
/// several whole frames.
#[derive(Debug)]
pub struct Frame {
    head: Vec<u8>,
    /// The position in `head` where the frame header begins. The header's length is known only
    /// after the rest has been written.
    start: u8,
    body: Body,
    tail: &'static [u8],
}

impl Frame {
    /// Memory of a queued frame in addition to its contents. It covers the slot in a queue, a spare
    /// slot that a growing queue allocates, and the allocator's overhead for the head.
    pub const OVERHEAD_BYTES: usize = 2 * size_of::<Self>() + 16;

    /// Creates a text frame that contains what `write_head` appends, followed by `body` and `tail`.
    pub fn text(write_head: impl FnOnce(&mut Vec<u8>), body: Body, tail: &'static [u8]) -> Self {
        Self::build(OpCode::Data(Data::Text), write_head, body, tail)
    }

    /// Creates the reply to a ping.
    pub fn pong(payload: &[u8]) -> Self {
        let payload = &payload[..payload.len().min(MAX_CONTROL_BYTES)];
        Self::build(
            OpCode::Control(Control::Pong),
            |out| out.extend_from_slice(payload),
            Body::default(),
            b"",
        )
    }

    /// Creates a close frame. The reason is cut to the maximum length of a control frame.
    pub fn close(code: u16, reason: &str) -> Self {
        let mut end = reason.len().min(MAX_CONTROL_BYTES - 2);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self::build(
            OpCode::Control(Control::Close),
            |out| {
                out.extend_from_slice(&code.to_be_bytes());
                out.extend_from_slice(&reason.as_bytes()[..end]);
            },
            Body::default(),
            b"",
        )
    }

    /// Creates a close frame without a code, which replies to a close frame without a code.
    pub fn close_without_code() -> Self {
        Self::build(
            OpCode::Control(Control::Close),
            |_| {},
            Body::default(),
            b"",
        )
    }

    /// Wraps one or more whole frames that [`push_frame`] has written, so that many queues can
    /// share their bytes.
    pub fn shared(frames: Body) -> Self {
        Self {
            head: Vec::new(),
            start: 0,
            body: frames,
            tail: b"",
        }
    }

    fn build(
        opcode: OpCode,
        write_head: impl FnOnce(&mut Vec<u8>),
        body: Body,
        tail: &'static [u8],
    ) -> Self {
        let mut head = Vec::with_capacity(128);
        head.resize(MAX_HEADER_BYTES, 0);
        write_head(&mut head);
        let payload = head.len() - MAX_HEADER_BYTES + body.len() + tail.len();
        let (header, length) = header(opcode, payload);
        let start = MAX_HEADER_BYTES - length;
        head[start..MAX_HEADER_BYTES].copy_from_slice(&header[..length]);
        Self {
            head,
            start: u8::try_from(start).unwrap_or_default(),
            body,
            tail,
        }
    }

    /// Returns the bytes of the frame, in three parts.
    pub fn parts(&self) -> [&[u8]; 3] {
        [&self.head[usize::from(self.start)..], &self.body, self.tail]
    }

    /// Returns the body, which may be shared with other frames.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Returns the memory of the queued frame without its body, in bytes.
    pub fn own_bytes(&self) -> usize {
        Self::OVERHEAD_BYTES + self.head.capacity()
    }

    /// Returns the length on the wire, in bytes.
    pub fn wire_len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }
}

/// The kinds of data frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// Appends a whole frame to `out`. The frame's payload consists of `parts`.
pub fn push_frame(kind: FrameKind, parts: &[&[u8]], out: &mut Vec<u8>) {
    let payload = parts.iter().map(|part| part.len()).sum();
    let opcode = OpCode::Data(match kind {
        FrameKind::Text => Data::Text,
        FrameKind::Binary => Data::Binary,
    });
    let (header, length) = header(opcode, payload);
    out.reserve(length + payload);
    out.extend_from_slice(&header[..length]);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Returns the header of a final, unmasked frame, and the header's length.
fn header(opcode: OpCode, payload: usize) -> ([u8; MAX_HEADER_BYTES], usize) {
    let mut header = [0; MAX_HEADER_BYTES];
    header[0] = 0x80 | u8::from(opcode);
    let length = match (u8::try_from(payload), u16::try_from(payload)) {
        (Ok(short @ 0..=125), _) => {
            header[1] = short;
            2
        }
        (_, Ok(medium)) => {
            header[1] = 126;
            header[2..4].copy_from_slice(&medium.to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    };
    (header, length)
}

/// A received message or control frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A complete text message.
    Text(Cow<'a, str>),
    /// A complete binary message.
    Binary(Cow<'a, [u8]>),
    /// A ping, to which the server replies with the same payload.
    Ping(&'a [u8]),
    /// A pong, which shows that the peer is alive. It is unsolicited, because the server sends no
    /// pings.
    Pong,
    /// A request to close the socket. Contains the peer's code, if it sent one.
    Close(Option<u16>),
}

/// The reason why the bytes of a peer cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes violate the WebSocket protocol.
    #[error("Protocol error")]
    Protocol,
    /// A text message is not UTF-8.
    #[error("Text is not UTF-8")]
    NotUtf8,
    /// A message exceeds the limit.
    #[error("Message too big")]
    TooBig,
}

impl FrameError {
    /// Returns the close code (RFC 6455, 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::NotUtf8 => 1007,
            Self::TooBig => 1009,
        }
    }
}

/// Extracts messages from received bytes. It holds incomplete messages; between complete ones it
/// holds no memory.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// Bytes of an incomplete frame.
    partial: Vec<u8>,
    /// A message whose last fragment has not arrived.
    message: Option<Fragments>,
    /// Number of complete frames so far.
    frames: u64,
}

#[derive(Debug)]
struct Fragments {
    is_text: bool,
    data: Vec<u8>,
    /// The number of the message's first frame, counted as in [`FrameReader::frames`].
    first: u64,
}

impl FrameReader {
    /// Processes `received` bytes and passes every completed message to `handle`, in order. The
    /// first message may have up to `limit` bytes. Each call of `handle` either returns the limit
    /// for the next message, or breaks to stop reading. The bytes are unmasked in place.
    ///
    /// # Errors
    /// [`FrameError`] at the first fault. Messages before it have been passed to `handle`.
    pub fn read(
        &mut self,
        received: &mut [u8],
        limit: usize,
        mut handle: impl FnMut(Received<'_>) -> ControlFlow<(), usize>,
    ) -> Result<(), FrameError> {
        if self.partial.is_empty() {
            let used = self.read_frames(received, limit, &mut handle)?;
            self.partial.extend_from_slice(&received[used..]);
            return Ok(());
        }
        let mut gathered = std::mem::take(&mut self.partial);
        gathered.extend_from_slice(received);
        let used = self.read_frames(&mut gathered, limit, &mut handle)?;
        match used {
            0 => self.partial = gathered,
            // The remaining bytes are copied, because the complete frame may have used a much
            // larger buffer than the next one needs.
            used => self.partial.extend_from_slice(&gathered[used..]),
        }
        Ok(())
    }

    /// Returns the memory held for unfinished frames and messages, in bytes.
    pub fn held_bytes(&self) -> usize {
        let message = self.message.as_ref();
        self.partial.capacity() + message.map_or(0, |message| message.data.capacity())
    }

    /// Returns the number of the frame with which the oldest unfinished message or frame begins.
    /// While this value stays the same, the client has not finished it.
    pub fn unfinished(&self) -> Option<u64> {
        let message = self.message.as_ref().map(|message| message.first);
        message.or((!self.partial.is_empty()).then_some(self.frames))
    }

    /// Handles the complete frames at the start of the bytes. Returns their total length in bytes.
    fn read_frames(
        &mut self,
        bytes: &mut [u8],
        mut limit: usize,
        handle: &mut impl FnMut(Received<'_>) -> ControlFlow<(), usize>,
    ) -> Result<usize, FrameError> {
        let mut used = 0;
        while used < bytes.len() {
            let mut cursor = Cursor::new(&bytes[used..]);
            let Some((header, length)) =
                FrameHeader::parse(&mut cursor).map_err(|_| FrameError::Protocol)?
            else {
                break;
            };
            let header_bytes = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
            let length = usize::try_from(length).map_err(|_| FrameError::TooBig)?;
            let mask = self.check(&header, length, limit)?;
            let (start, end) = (used + header_bytes, used + header_bytes + length);
            let Some(payload) = bytes.get_mut(start..end) else {
                break;
            };
            unmask(payload, mask);
            used = end;
            let received = self.accept(&header, payload)?;
            self.frames += 1;
            if let Some(received) = received {
                match handle(received) {
                    ControlFlow::Continue(next) => limit = next,
                    ControlFlow::Break(()) => break,
                }
            }
        }
        Ok(used)
    }

    /// Makes the checks that do not need the payload, and returns the mask. Clients must mask their
    /// frames (RFC 6455, 5.1).
    fn check(
        &self,
        header: &FrameHeader,
        length: usize,
        limit: usize,
    ) -> Result<[u8; 4], FrameError> {
        let mask = header.mask.ok_or(FrameError::Protocol)?;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            // No extension was negotiated, so the reserved bits must be zero.
            return Err(FrameError::Protocol);
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final || length > MAX_CONTROL_BYTES => {
                return Err(FrameError::Protocol);
            }
            OpCode::Data(Data::Continue) if self.message.is_none() => {
                return Err(FrameError::Protocol);
            }
            OpCode::Data(Data::Text | Data::Binary) if self.message.is_some() => {
                return Err(FrameError::Protocol);
            }
            _ => {}
        }
        let gathered = match (&self.message, header.opcode) {
            (Some(message), OpCode::Data(_)) => message.data.len(),
            _ => 0,
        };
        if gathered.saturating_add(length) > limit.max(MAX_CONTROL_BYTES) {
            return Err(FrameError::TooBig);
        }
        Ok(mask)
    }

    /// Processes an unmasked frame. Returns the message that it completes, if any.
    fn accept<'a>(
        &mut self,
        header: &FrameHeader,
        payload: &'a [u8],
    ) -> Result<Option<Received<'a>>, FrameError> {
        Ok(match header.opcode {
            OpCode::Control(Control::Ping) => Some(Received::Ping(payload)),
            OpCode::Control(Control::Pong) => Some(Received::Pong),
            OpCode::Control(_) => Some(Received::Close(close_code(payload)?)),
            OpCode::Data(Data::Continue) => {
                let Some(mut message) = self.message.take() else {
                    return Err(FrameError::Protocol);
                };
                message.data.extend_from_slice(payload);
                if !header.is_final {
                    self.message = Some(message);
                    return Ok(None);
                }
                Some(if message.is_text {
                    let text = String::from_utf8(message.data).map_err(|_| FrameError::NotUtf8)?;
                    Received::Text(text.into())
                } else {
                    Received::Binary(message.data.into())
                })
            }
            OpCode::Data(kind) => {
                let is_text = kind == Data::Text;
                if !header.is_final {
                    self.message = Some(Fragments {
                        is_text,
                        data: payload.to_vec(),
                        first: self.frames,
                    });
                    return Ok(None);
                }
                Some(if is_text {
                    let text = std::str::from_utf8(payload).map_err(|_| FrameError::NotUtf8)?;
                    Received::Text(text.into())
                } else {
                    Received::Binary(payload.into())
                })
            }
        })
    }
}

/// Returns the code in the payload of a close frame. The payload is empty, or a code of two bytes
/// followed by a reason in UTF-8.
fn close_code(payload: &[u8]) -> Result<Option<u16>, FrameError> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(FrameError::Protocol);
            }
            std::str::from_utf8(reason).map_err(|_| FrameError::NotUtf8)?;
            Ok(Some(code))
        }
        _ => Err(FrameError::Protocol),
    }
}

/// Returns whether a close frame may contain this code (RFC 6455, 7.4). Codes below 1000 are not
/// used. Codes up to 2999 are defined by the protocol: 1004 is reserved; 1005, 1006 and 1015
/// represent closes without a code from the peer; those from 1016 are undefined. Codes from 3000 to
/// 3999 belong to libraries, and codes from 4000 to 4999 to applications.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let (words, rest) = payload.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
