//! Tests of the queue of a socket, whose stream accepts as many bytes as the test chooses.

use super::super::sockets::SocketId;
use super::*;
use crate::observability::metrics::RealtimeMetrics;

const LIMITS: QueueLimits = QueueLimits {
    frames: 4,
    bytes: 100,
};

fn frame(text: &'static str) -> Frame {
    Frame::text(|_| {}, Body::from(text.as_bytes().to_vec()), b"")
}

fn outbound() -> Arc<Outbound> {
    outbound_with(LIMITS)
}

fn outbound_with(limits: QueueLimits) -> Arc<Outbound> {
    let sockets = Sockets::unlimited(&RealtimeMetrics::default()).with_queue_limits(limits);
    Arc::new(Outbound::new(None, &Arc::new(sockets)))
}

/// Drains the queue in steps of `step` bytes, and returns the texts of the frames.
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
fn frames_are_written_whole_and_in_order_in_steps_of_any_size() {
    for step in 1..20 {
        let outbound = outbound();
        let mut fanout = Fanout::default();
        for text in ["one", "two", "three"] {
            fanout.send(&outbound, frame(text));
        }
        drop(fanout);
        assert!(outbound.is_blocked(), "only the socket's task writes");
        assert_eq!(drained(&outbound, step), ["one", "two", "three"]);
        assert!(!outbound.is_blocked());
    }
}

#[test]
fn an_empty_queue_owns_no_memory() {
    let outbound = outbound_with(QueueLimits {
        frames: 1_000,
        bytes: 1_000_000,
    });
    let mut fanout = Fanout::default();
    for _ in 0..500 {
        fanout.send(&outbound, frame("x"));
    }
    drop(fanout);
    drained(&outbound, 10_000);
    assert_eq!(outbound.lock().frames.capacity(), 0);
}

#[test]
fn a_full_queue_closes_the_socket_after_finishing_the_current_frame() {
    let outbound = outbound();
    let mut fanout = Fanout::default();
    for text in ["one", "two", "three", "four"] {
        assert_eq!(
            fanout.send(&outbound, frame(text)) == Queued::ToFlush,
            text == "one"
        );
    }
    // Three bytes of the first frame have been written.
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
    assert_eq!(&whole[5..6], b"\x88", "only the close frame follows");
    assert_eq!(&whole[7..9], 1013_u16.to_be_bytes());
}

#[test]
fn bytes_are_bounded_but_a_single_large_frame_fits() {
    let outbound = outbound();
    let large = Frame::text(|_| {}, Body::from(vec![b'x'; 500]), b"");
    let mut fanout = Fanout::default();
    assert_eq!(fanout.send(&outbound, large), Queued::ToFlush);
    assert_eq!(
        fanout.send(&outbound, frame("one more")),
        Queued::Overflowed
    );
}

#[test]
fn deliveries_start_after_the_join_reply_and_stop_when_the_channel_closes() {
    let outbound = outbound();
    let gate = Gate::default();
    let mut fanout = Fanout::default();
    fanout.deliver(&outbound, &gate, frame("change 1"));
    fanout.deliver(&outbound, &gate, frame("change 2"));
    fanout.send(&outbound, frame("reply"));
    outbound.open_gate(&gate);
    fanout.deliver(&outbound, &gate, frame("change 3"));
    outbound.close_gate(&gate);
    assert_eq!(
        fanout.deliver(&outbound, &gate, frame("late")),
        Queued::Refused
    );
    outbound.open_gate(&gate);
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
fn held_back_frames_share_the_limits_of_the_queue() {
    let outbound = outbound();
    let gates: [Gate; 3] = Default::default();
    let mut fanout = Fanout::default();
    let large = || Frame::text(|_| {}, Body::from(vec![b'x'; 30]), b"");
    for gate in &gates[..2] {
        assert_eq!(fanout.deliver(&outbound, gate, large()), Queued::Pending);
    }
    // Frames of a closed gate are dropped. Frames of an opened gate move to the queue and still
    // count.
    outbound.close_gate(&gates[0]);
    outbound.open_gate(&gates[1]);
    assert_eq!(
        fanout.deliver(&outbound, &gates[2], large()),
        Queued::Pending
    );
    assert_eq!(fanout.send(&outbound, frame("reply")), Queued::Pending);
    assert_eq!(
        fanout.deliver(&outbound, &gates[2], large()),
        Queued::Overflowed
    );
    assert_eq!(outbound.closing(), Some(CloseReason::SlowConsumer));
}

#[test]
fn closing_writes_queued_frames_first_and_happens_once() {
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

/// Opens `count` sockets with these memory limits. Only their own tasks write to them.
fn open_sockets(limits: impl Fn(Held) -> usize, count: u64) -> (Arc<Sockets>, Vec<Arc<Outbound>>) {
    open_sockets_of(limits, count, |_| None)
}

/// Like [`open_sockets`], with the addresses of the clients.
fn open_sockets_of(
    limits: impl Fn(Held) -> usize,
    count: u64,
    address: impl Fn(u64) -> Option<u16>,
) -> (Arc<Sockets>, Vec<Arc<Outbound>>) {
    let metrics = RealtimeMetrics::default();
    let wide = QueueLimits {
        frames: 1_000,
        bytes: 10_000_000,
    };
    let sockets = Arc::new(Sockets::with_limits(&metrics, limits).with_queue_limits(wide));
    let open = (0..count).map(|id| {
        let outbound = Outbound::new(None, &sockets).of_address(address(id));
        let outbound = Arc::new(outbound);
        sockets.insert(SocketId(id), &outbound);
        outbound
    });
    let open = open.collect();
    (sockets, open)
}

/// Drains the queue, and returns the length of its contents in bytes.
fn drain_all(outbound: &Outbound) -> usize {
    let mut count = 0;
    let take = |slices: &[IoSlice<'_>]| {
        let taken: usize = slices.iter().map(|slice| slice.len()).sum();
        count += taken;
        Ok(taken)
    };
    outbound.drain(take).unwrap();
    count
}

fn large(bytes: usize) -> Frame {
    Frame::shared(Body::from(vec![b'x'; bytes]))
}

#[test]
fn exceeding_the_queue_budget_closes_the_longest_queues_and_frees_them_immediately() {
    let (sockets, open) = open_sockets(|_| 1_000_000, 20);
    let mut fanout = Fanout::default();
    // Sockets with odd numbers receive ten times as many bytes.
    for step in 0..20 {
        for (outbound, weight) in open.iter().zip([1_000, 10_000].iter().cycle()) {
            fanout.send(outbound, large(*weight));
            fanout.flush();
            assert!(sockets.in_use(Held::Queues) <= 1_000_000, "step {step}");
        }
    }
    for (number, outbound) in open.iter().enumerate() {
        let expected = (number % 2 == 1).then_some(CloseReason::Memory(Held::Queues));
        if expected.is_none() || outbound.closing().is_some() {
            assert_eq!(outbound.closing(), expected, "{number}");
        }
    }
    let closed = open.iter().filter(|it| it.closing().is_some()).count();
    assert!((1..=10).contains(&closed), "{closed}");
    // No bytes are lost or counted twice.
    for outbound in &open {
        match (outbound.closing(), drain_all(outbound)) {
            (None, bytes) => assert!([20_000, 200_000].contains(&bytes), "{bytes}"),
            (Some(_), bytes) => assert!((4..130).contains(&bytes), "a close frame: {bytes}"),
        }
    }
    assert_eq!(sockets.in_use(Held::Queues), 0);
}

#[test]
fn many_small_sockets_of_one_client_do_not_close_the_larger_one_of_another() {
    for held in Held::ALL {
        let address = |id| Some(if id == 0 { 1 } else { 2 });
        let (sockets, open) = open_sockets_of(|_| 1_000_000, 100, address);
        let mut fanout = Fanout::default();
        let mut hold = |outbound: &Arc<Outbound>, bytes| match held {
            Held::Queues => {
                fanout.send(outbound, large(bytes));
                fanout.flush();
            }
            _ => outbound.set_held(held, bytes),
        };
        hold(&open[0], 300_000);
        for outbound in &open[1..] {
            hold(outbound, 20_000);
        }
        assert_eq!(open[0].closing(), None, "{held:?}");
        let closed = open.iter().filter(|it| it.closing().is_some()).count();
        assert!((60..80).contains(&closed), "{held:?}: {closed}");
        // If the other client holds the most, it is the one that loses its socket.
        hold(&open[0], 900_000);
        assert_eq!(
            open[0].closing(),
            Some(CloseReason::Memory(held)),
            "{held:?}"
        );
        drop(sockets);
    }
}

#[test]
fn a_body_queued_for_several_sockets_counts_once() {
    let (sockets, open) = open_sockets(|_| 200_000, 50);
    let shared = Body::from(vec![b'x'; 100_000]);
    let mut fanout = Fanout::default();
    for outbound in &open {
        fanout.send(outbound, Frame::shared(shared.clone()));
    }
    fanout.flush();
    let in_use = sockets.in_use(Held::Queues);
    assert!((100_000..120_000).contains(&in_use), "{in_use}");
    assert!(open.iter().all(|outbound| outbound.closing().is_none()));
    drop((fanout, open));
    for id in 0..50 {
        assert!(sockets.remove(SocketId(id)));
    }
    assert_eq!(sockets.in_use(Held::Queues), 0);
}

#[test]
fn frames_do_not_count_before_they_are_flushed() {
    let (sockets, open) = open_sockets(|_| 0, 1);
    let mut fanout = Fanout::default();
    for _ in 0..10 {
        fanout.send(&open[0], frame("soon written"));
        assert_eq!(sockets.in_use(Held::Queues), 0);
    }
    assert_eq!(open[0].closing(), None);
}

#[test]
fn held_back_frames_count_until_they_are_delivered_or_dropped() {
    let (sockets, open) = open_sockets(|_| 1_000_000, 1);
    let gates: [Gate; 2] = Default::default();
    let mut fanout = Fanout::default();
    for gate in &gates {
        fanout.deliver(&open[0], gate, large(1_000));
    }
    assert!(sockets.in_use(Held::Queues) >= 2_000);
    open[0].close_gate(&gates[0]);
    assert!((1_000..2_000).contains(&sockets.in_use(Held::Queues)));
    open[0].open_gate(&gates[1]);
    assert!((1_000..2_000).contains(&sockets.in_use(Held::Queues)));
    assert_eq!(drain_all(&open[0]), 1_000);
    assert_eq!(sockets.in_use(Held::Queues), 0);
}

#[test]
fn a_large_partly_written_frame_is_dropped_when_its_socket_is_evicted() {
    let (sockets, open) = open_sockets(|_| 1_000_000, 2);
    let mut fanout = Fanout::default();
    for (outbound, bytes) in [(&open[0], 900_000), (&open[1], 1_000)] {
        fanout.send(outbound, large(bytes));
        fanout.flush();
        let mut is_begun = false;
        let begin = |_: &[IoSlice<'_>]| match std::mem::replace(&mut is_begun, true) {
            false => Ok(10),
            true => Err(ErrorKind::WouldBlock.into()),
        };
        outbound.drain(begin).unwrap();
    }
    fanout.send(&open[1], large(200_000));
    fanout.flush();
    assert!(open[0].is_cut() && open[0].is_empty());
    assert_eq!(open[1].closing(), None);
    assert!(sockets.in_use(Held::Queues) < 250_000);
}

#[test]
fn the_queue_of_a_closing_socket_can_be_evicted() {
    let (sockets, open) = open_sockets(|_| 1_000_000, 2);
    let mut fanout = Fanout::default();
    fanout.send(&open[0], large(900_000));
    fanout.flush();
    open[0].close(CloseReason::Peer(Some(1000)));
    assert!(
        sockets.in_use(Held::Queues) >= 900_000,
        "queued frames are still written"
    );
    fanout.send(&open[1], large(200_000));
    fanout.flush();
    assert!(open[0].is_cut() && open[0].is_empty());
    assert_eq!(open[0].closing(), Some(CloseReason::Peer(Some(1000))));
    assert_eq!(open[1].closing(), None);
}

#[test]
fn memory_of_evicted_sockets_counts_until_their_tasks_release_it() {
    let (sockets, open) = open_sockets(|_| 1_000, 3);
    for held in [Held::Frames, Held::Channels] {
        open[0].set_held(held, 100);
        open[1].set_held(held, 600);
        assert!(!sockets.is_congested());
        open[2].set_held(held, 500);
        assert!(sockets.is_congested());
        let closing: Vec<_> = open.iter().map(|outbound| outbound.closing()).collect();
        if held == Held::Frames {
            assert_eq!(closing, [None, Some(CloseReason::Memory(held)), None]);
            assert_eq!(sockets.in_use(held), 1_200);
            open[1].release_all();
            assert_eq!(sockets.in_use(held), 600);
            assert!(!sockets.is_congested());
            for outbound in &open {
                outbound.release_all();
            }
            assert_eq!(sockets.in_use(held), 0);
        } else {
            // The largest socket is already closing and still holds its memory, so the next largest
            // one is closed.
            assert_eq!(closing[2], Some(CloseReason::Memory(held)));
        }
    }
}
