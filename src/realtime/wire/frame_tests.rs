//! Tests of frames against the rules of RFC 6455, with input split at any byte.

use proptest::prelude::*;

use super::*;

const MASK: [u8; 4] = [0x11, 0x22, 0x83, 0x44];

/// Returns a client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..65536 => {
            out.push(0xfe);
            out.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            out.push(0xff);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    out
}

/// Reads `bytes` in pieces of `step` bytes. Returns the `Debug` text of each message, and the
/// result.
fn read(bytes: &[u8], step: usize, limit: usize) -> (Vec<String>, Result<(), FrameError>) {
    let mut reader = FrameReader::default();
    let mut found = Vec::new();
    for piece in bytes.chunks(step.max(1)) {
        let mut piece = piece.to_vec();
        let result = reader.read(&mut piece, limit, |received| {
            found.push(format!("{received:?}"));
            ControlFlow::Continue(limit)
        });
        if result.is_err() {
            return (found, result);
        }
    }
    (found, Ok(()))
}

#[test]
fn messages_fragments_and_control_frames_are_read() {
    let mut bytes = frame(0x81, b"whole");
    bytes.extend(frame(0x01, b"in "));
    bytes.extend(frame(0x89, b"ping between"));
    bytes.extend(frame(0x00, b"three "));
    bytes.extend(frame(0x80, b"parts"));
    bytes.extend(frame(0x82, b"\xff\x00"));
    bytes.extend(frame(0x8a, b""));
    bytes.extend(frame(0x88, b"\x03\xe8bye"));
    let expected = [
        "Text(\"whole\")",
        "Ping([112, 105, 110, 103, 32, 98, 101, 116, 119, 101, 101, 110])",
        "Text(\"in three parts\")",
        "Binary([255, 0])",
        "Pong",
        "Close(Some(1000))",
    ];
    for step in 1..bytes.len() {
        let (found, result) = read(&bytes, step, 1000);
        assert_eq!(result, Ok(()), "in pieces of {step}");
        assert_eq!(found, expected, "in pieces of {step}");
    }
}

#[test]
fn a_reader_owns_no_memory_between_messages() {
    let mut reader = FrameReader::default();
    let bytes = frame(0x81, b"hello");
    let (mut first, mut second) = (bytes[..3].to_vec(), bytes[3..].to_vec());
    let mut count = 0;
    for piece in [&mut first, &mut second] {
        reader
            .read(piece, 1000, |_| {
                count += 1;
                ControlFlow::Continue(1000)
            })
            .unwrap();
    }
    assert_eq!(count, 1);
    assert_eq!(reader.partial.capacity(), 0);
    assert!(reader.message.is_none());
}

#[test]
fn invalid_frames_are_refused() {
    let unmasked = vec![0x81, 0x01, b'x'];
    let cases = [
        (unmasked, FrameError::Protocol),
        (frame(0xc1, b"compressed"), FrameError::Protocol),
        (frame(0x83, b"reserved"), FrameError::Protocol),
        (frame(0x80, b"continues nothing"), FrameError::Protocol),
        (
            [frame(0x01, b"a"), frame(0x81, b"b")].concat(),
            FrameError::Protocol,
        ),
        (frame(0x09, b"fragmented ping"), FrameError::Protocol),
        (frame(0x89, &[0; 126]), FrameError::Protocol),
        (frame(0x88, b"\x03"), FrameError::Protocol),
        (frame(0x88, &[0; 126]), FrameError::Protocol),
        (frame(0x08, b"\x03\xe8"), FrameError::Protocol),
        (frame(0x88, b"\x03\xe8\xff"), FrameError::NotUtf8),
        (frame(0x81, b"\xff\xfe"), FrameError::NotUtf8),
        (
            [frame(0x01, b"\xc3"), frame(0x80, b"\x28")].concat(),
            FrameError::NotUtf8,
        ),
        (frame(0x81, &[b'x'; 1001]), FrameError::TooBig),
        (
            frame(0x81, &[b'x'; 70_000])[..14].to_vec(),
            FrameError::TooBig,
        ),
        (
            [frame(0x01, &[b'x'; 600]), frame(0x80, &[b'x'; 600])].concat(),
            FrameError::TooBig,
        ),
    ];
    for (bytes, error) in cases {
        let (found, result) = read(&bytes, bytes.len(), 1000);
        assert_eq!(result, Err(error), "{bytes:?}");
        assert!(found.is_empty(), "{found:?}");
    }
    assert_eq!(FrameError::TooBig.close_code(), 1009);
}

#[test]
fn only_valid_close_codes_are_accepted() {
    let taken = |code: &u16| {
        let bytes = frame(0x88, &[&code.to_be_bytes()[..], b"why"].concat());
        match read(&bytes, bytes.len(), 1000) {
            (found, Ok(())) => found == [format!("Close(Some({code}))")],
            (_, error) => {
                assert_eq!(error, Err(FrameError::Protocol), "{code}");
                false
            }
        }
    };
    let expected = (1000..=1003).chain(1007..=1014).chain(3000..=4999);
    assert!((0..=u16::MAX).filter(taken).eq(expected));
}

#[test]
fn nothing_is_read_after_a_close_frame() {
    let mut bytes = [frame(0x88, b"\x03\xe8"), frame(0x81, b"late")].concat();
    let mut found = Vec::new();
    let result = FrameReader::default().read(&mut bytes, 1000, |received| {
        found.push(format!("{received:?}"));
        ControlFlow::Break(())
    });
    assert_eq!(
        (result, found),
        (Ok(()), vec!["Close(Some(1000))".to_owned()])
    );
}

#[test]
fn the_handler_sets_the_limit_for_the_next_message() {
    let bytes = [frame(0x81, b"join"), frame(0x81, &[b'x'; 500])].concat();
    for (next, expected) in [(499, Err(FrameError::TooBig)), (500, Ok(()))] {
        let result =
            FrameReader::default().read(&mut bytes.clone(), 10, |_| ControlFlow::Continue(next));
        assert_eq!(result, expected, "{next}");
    }
}

#[test]
fn an_unfinished_message_keeps_its_number_until_it_is_finished() {
    let mut reader = FrameReader::default();
    let mut unfinished = |bytes: &[u8]| {
        reader
            .read(&mut bytes.to_vec(), 1000, |_| ControlFlow::Continue(1000))
            .unwrap();
        reader.unfinished()
    };
    let (text, ping) = (frame(0x81, b"text"), frame(0x89, b"ping"));
    assert_eq!(unfinished(&text), None);
    let begun = unfinished(&text[..3]);
    assert!(begun.is_some());
    assert_eq!(unfinished(&text[3..5]), begun);
    let next = unfinished(&[&text[5..], &text[..1]].concat());
    assert!(next.is_some() && next != begun, "another frame");
    assert_eq!(unfinished(&text[1..]), None);
    // Further fragments and control frames do not change which message is unfinished.
    let message = unfinished(&frame(0x01, b"in "));
    for bytes in [&ping[..], &frame(0x00, b"three "), &ping[..1]] {
        assert!(message.is_some());
        assert_eq!(unfinished(bytes), message);
    }
    assert_eq!(
        unfinished(&[&ping[1..], &frame(0x80, b"parts")].concat()),
        None
    );
}

#[test]
fn no_large_buffer_is_kept_for_a_small_frame() {
    let mut reader = FrameReader::default();
    let large = frame(0x82, &[b'x'; 100_000]);
    for mut piece in [
        large[..50_000].to_vec(),
        [&large[50_000..], &frame(0x82, b"small")[..3]].concat(),
    ] {
        reader
            .read(&mut piece, 200_000, |_| ControlFlow::Continue(200_000))
            .unwrap();
    }
    assert!((3..100).contains(&reader.held_bytes()));
}

#[test]
fn a_code_point_may_be_split_between_fragments() {
    let bytes = [frame(0x01, b"\xc3"), frame(0x80, b"\xa4")].concat();
    assert_eq!(read(&bytes, 7, 100).0, ["Text(\"ä\")"]);
}

#[test]
fn headers_are_correct_for_every_length() {
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let body = Body::from(vec![b'x'; length]);
        let frame = Frame::text(|_| {}, body, b"");
        let bytes = frame.parts().concat();
        assert_eq!(bytes.len(), frame.wire_len());
        let mut cursor = Cursor::new(&bytes);
        let (header, parsed) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        assert_eq!(parsed, length as u64);
        assert_eq!(header.opcode, OpCode::Data(Data::Text));
        assert!(header.is_final && header.mask.is_none());
        assert_eq!(cursor.position(), (bytes.len() - length) as u64);
    }
}

#[test]
fn a_close_reason_is_cut_at_a_character() {
    let frame = Frame::close(1013, &"ä".repeat(100));
    let bytes = frame.parts().concat();
    assert_eq!(&bytes[..4], &[0x88, 124, 0x03, 0xf5]);
    assert!(std::str::from_utf8(&bytes[4..]).is_ok());
}

proptest! {
    #[test]
    fn reading_never_panics_and_is_independent_of_chunk_sizes(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1_usize..40,
    ) {
        let whole = read(&bytes, bytes.len(), 200);
        let pieces = read(&bytes, step, 200);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn payloads_survive_a_round_trip(payload in proptest::collection::vec(any::<u8>(), 0..300), step in 1_usize..40) {
        let (found, result) = read(&frame(0x82, &payload), step, 1000);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(found, vec![format!("Binary({payload:?})")]);
    }
}
