//! The queue of a socket, over streams that take as much as the test says.

use bytes::Bytes;

use super::*;

const LIMITS: QueueLimits = QueueLimits {
    frames: 4,
    bytes: 100,
};

fn frame(text: &'static str) -> Frame {
    Frame::text(|_| {}, Bytes::from_static(text.as_bytes()), b"")
}

fn outbound() -> Arc<Outbound> {
    Arc::new(Outbound::new(None, LIMITS))
}

/// Everything that waits, taken `step` bytes at a time, as the texts of the frames.
fn drained(outbound: &Outbound, step: usize) -> Vec<String> {
    let mut bytes = Vec::new();
    while !outbound.is_empty() {
        outbound
            .drain(|slices| {
                let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                let count = all.len().min(step);
                bytes.extend_from_slice(&all[..count]);
                Ok(count)
            })
            .unwrap();
    }
    let mut texts = Vec::new();
    let mut rest = bytes.as_slice();
    while let [kind, length, tail @ ..] = rest {
        let (payload, after) = tail.split_at(usize::from(*length));
        let prefix = if *kind == 0x88 { "close " } else { "" };
        let payload = if *kind == 0x88 {
            &payload[2..]
        } else {
            payload
        };
        texts.push(format!("{prefix}{}", String::from_utf8_lossy(payload)));
        rest = after;
    }
    texts
}

#[test]
fn frames_leave_whole_and_in_order_however_little_is_taken() {
    for step in 1..20 {
        let outbound = outbound();
        let mut fanout = Fanout::default();
        for text in ["one", "two", "three"] {
            fanout.send(&outbound, frame(text));
        }
        drop(fanout);
        assert!(outbound.is_blocked(), "only the socket's task writes here");
        assert_eq!(drained(&outbound, step), ["one", "two", "three"]);
        assert!(!outbound.is_blocked());
    }
}

#[test]
fn an_empty_queue_owns_nothing() {
    let outbound = Arc::new(Outbound::new(
        None,
        QueueLimits {
            frames: 1_000,
            bytes: 1_000_000,
        },
    ));
    let mut fanout = Fanout::default();
    for _ in 0..500 {
        fanout.send(&outbound, frame("x"));
    }
    drop(fanout);
    drained(&outbound, 10_000);
    assert_eq!(outbound.lock().frames.capacity(), 0);
}

#[test]
fn a_full_queue_closes_the_socket_and_keeps_what_was_begun() {
    let outbound = outbound();
    let mut fanout = Fanout::default();
    for text in ["one", "two", "three", "four"] {
        assert_eq!(
            fanout.send(&outbound, frame(text)) == Queued::ToFlush,
            text == "one"
        );
    }
    // Three bytes of the first frame are on the wire.
    let mut begun = Vec::new();
    let result = outbound.drain(|slices| {
        if begun.is_empty() {
            begun = slices[0][..3.min(slices[0].len())].to_vec();
            return Ok(begun.len());
        }
        Err(ErrorKind::WouldBlock.into())
    });
    assert!(result.is_ok());
    assert_eq!(fanout.send(&outbound, frame("five")), Queued::Overflowed);
    assert_eq!(fanout.send(&outbound, frame("six")), Queued::Refused);
    assert_eq!(outbound.closing(), Some(CloseReason::SlowConsumer));
    let mut rest = Vec::new();
    outbound
        .drain(|slices| {
            rest.extend(slices.iter().flat_map(|slice| slice.to_vec()));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        })
        .unwrap();
    let whole = [begun, rest].concat();
    assert_eq!(&whole[..5], b"\x81\x03one");
    assert_eq!(
        &whole[5..6],
        b"\x88",
        "then the close frame and nothing else"
    );
    assert_eq!(&whole[7..9], 1013_u16.to_be_bytes());
}

#[test]
fn bytes_are_bounded_but_one_large_frame_may_pass() {
    let outbound = outbound();
    let large = Frame::text(|_| {}, Bytes::from(vec![b'x'; 500]), b"");
    let mut fanout = Fanout::default();
    assert_eq!(fanout.send(&outbound, large), Queued::ToFlush);
    assert_eq!(
        fanout.send(&outbound, frame("one more")),
        Queued::Overflowed
    );
}

#[test]
fn deliveries_wait_for_the_reply_and_stop_with_the_channel() {
    let outbound = outbound();
    let gate = Gate::default();
    let mut fanout = Fanout::default();
    fanout.deliver(&outbound, &gate, frame("change 1"));
    fanout.deliver(&outbound, &gate, frame("change 2"));
    fanout.send(&outbound, frame("reply"));
    outbound.open(&gate);
    fanout.deliver(&outbound, &gate, frame("change 3"));
    outbound.shut(&gate);
    assert_eq!(
        fanout.deliver(&outbound, &gate, frame("late")),
        Queued::Refused
    );
    outbound.open(&gate);
    assert_eq!(
        fanout.deliver(&outbound, &gate, frame("later")),
        Queued::Refused
    );
    drop(fanout);
    assert_eq!(
        drained(&outbound, 1_000),
        ["reply", "change 1", "change 2", "change 3"]
    );
}

#[test]
fn what_channels_hold_is_bounded_together_with_what_waits() {
    let outbound = outbound();
    let gates: [Gate; 3] = Default::default();
    let mut fanout = Fanout::default();
    let large = || Frame::text(|_| {}, Bytes::from(vec![b'x'; 30]), b"");
    for gate in &gates[..2] {
        assert_eq!(fanout.deliver(&outbound, gate, large()), Queued::Waits);
    }
    // What a channel held is gone with it, and what it was let out counts where it waits.
    outbound.shut(&gates[0]);
    outbound.open(&gates[1]);
    assert_eq!(fanout.deliver(&outbound, &gates[2], large()), Queued::Waits);
    assert_eq!(fanout.send(&outbound, frame("reply")), Queued::Waits);
    assert_eq!(
        fanout.deliver(&outbound, &gates[2], large()),
        Queued::Overflowed
    );
    assert_eq!(outbound.closing(), Some(CloseReason::SlowConsumer));
}

#[test]
fn closing_lets_what_waits_out_first_and_only_once() {
    let outbound = outbound();
    let mut fanout = Fanout::default();
    fanout.send(&outbound, frame("one"));
    outbound.close(CloseReason::Restarting);
    outbound.close(CloseReason::Idle);
    assert_eq!(fanout.send(&outbound, frame("two")), Queued::Refused);
    drop(fanout);
    assert_eq!(
        drained(&outbound, 1_000),
        ["one", "close Server is restarting"]
    );
}
