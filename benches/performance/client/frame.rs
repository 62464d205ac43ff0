//! The subset of RFC 6455 that a measuring client needs: the upgrade request, masked outgoing
//! frames, and incoming frames.

use std::fmt::Write as _;

/// Opcode of a text frame.
pub(crate) const TEXT: u8 = 1;
/// Opcode of a binary frame.
pub(crate) const BINARY: u8 = 2;
/// Opcode of a close frame.
pub(crate) const CLOSE: u8 = 8;
/// Opcode of a ping.
pub(crate) const PING: u8 = 9;
/// Opcode of a pong.
pub(crate) const PONG: u8 = 10;

/// Returns the request that opens a socket. The key is constant, because only an intermediate cache
/// could mistake one response for another, and there is none.
pub(crate) fn upgrade_request(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// Appends a complete masked frame, as clients send it (RFC 6455, section 5.3).
pub(crate) fn push_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    push_head(out, opcode, payload.len(), MASKED);
    let mask = fastrand::u32(..).to_ne_bytes();
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
}

/// Appends a complete unmasked frame, as servers send it.
pub(crate) fn push_unmasked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    push_head(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// The mask bit in the second byte.
const MASKED: u8 = 0x80;

fn push_head(out: &mut Vec<u8>, opcode: u8, length: usize, masked: u8) {
    out.push(0x80 | opcode);
    if let Ok(short) = u8::try_from(length)
        && short < 126
    {
        out.push(masked | short);
    } else if let Ok(middle) = u16::try_from(length) {
        out.push(masked | 126);
        out.extend_from_slice(&middle.to_be_bytes());
    } else {
        out.push(masked | 127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// The first frame in a buffer: its opcode, its mask, and the positions of its payload and end.
pub(crate) struct Extent {
    /// Opcode of the frame.
    pub(crate) opcode: u8,
    /// The mask, if the frame comes from a client.
    pub(crate) mask: Option<[u8; 4]>,
    /// Offset of the payload.
    pub(crate) payload: usize,
    /// Offset of the end of the frame.
    pub(crate) end: usize,
}

/// Locates the frame at the start of `buffer`. Returns `None` if the frame is incomplete.
#[inline]
pub(crate) fn measure(buffer: &[u8]) -> Option<Extent> {
    let &[first, second, ..] = buffer else {
        return None;
    };
    let (mut payload, length) = match second & 0x7f {
        126 => (
            4,
            u16::from_be_bytes(*buffer.get(2..)?.first_chunk()?).into(),
        ),
        127 => {
            let length = u64::from_be_bytes(*buffer.get(2..)?.first_chunk()?);
            (10, usize::try_from(length).ok()?)
        }
        short => (2, usize::from(short)),
    };
    let mask = if second & MASKED == 0 {
        None
    } else {
        payload += 4;
        Some(*buffer.get(payload - 4..)?.first_chunk()?)
    };
    let end = payload + length;
    (buffer.len() >= end).then_some(Extent {
        opcode: first & 0x0f,
        mask,
        payload,
        end,
    })
}

/// Returns the code and reason of a close frame as text (RFC 6455, section 5.5.1).
pub(crate) fn close_reason(payload: &[u8]) -> String {
    let mut text = String::from("closed with ");
    match payload.split_first_chunk::<2>() {
        Some((code, reason)) => {
            let reason = String::from_utf8_lossy(reason);
            // Writing to a String cannot fail.
            let _ = write!(text, "{} {reason}", u16::from_be_bytes(*code));
        }
        None => text.push_str("no code"),
    }
    text
}
