//! Tests of the members of a topic, and of which members receive a broadcast.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::super::permissions::Permissions;
use super::super::protocol::{Broadcast, Serializer, UserPayload};
use super::super::wire::outbound::Outbound;
use super::*;
use crate::observability::metrics::RealtimeMetrics;
use crate::visibility::ChannelId;

/// A member and its queue.
struct Client {
    channel: ChannelId,
    outbound: Arc<Outbound>,
}

fn join(hub: &Hub, name: &str, is_private: bool, serializer: Serializer) -> Client {
    let client = Client {
        channel: hub.next_channel(),
        outbound: Arc::new(Outbound::new(None, hub.sockets())),
    };
    let spec = MemberSpec {
        topic: TopicKey::new(name, is_private),
        join_ref: None,
        is_legacy: false,
        read: Permissions::ALL,
        awaits_state: false,
        is_replaying: false,
        user_id: None,
    };
    hub.attach(client.channel, spec, serializer, &client.outbound);
    hub.open(client.channel);
    client
}

impl Client {
    /// Returns the payloads of the received broadcasts, one character each.
    fn received(&self) -> String {
        let mut bytes = Vec::new();
        while !self.outbound.is_empty() {
            self.outbound
                .drain(|slices| {
                    let all = slices
                        .iter()
                        .flat_map(|slice| slice.to_vec())
                        .collect::<Vec<_>>();
                    bytes.extend_from_slice(&all);
                    if all.is_empty() {
                        return Err(ErrorKind::WouldBlock.into());
                    }
                    Ok(all.len())
                })
                .unwrap();
        }
        let mut payloads = String::new();
        let mut rest = bytes.as_slice();
        while let [_, length, tail @ ..] = rest {
            let (frame, after) = tail.split_at(usize::from(*length));
            payloads.push(char::from(frame[frame.len() - 1]));
            rest = after;
        }
        payloads
    }
}

/// Broadcasts one byte.
fn send(hub: &Hub, name: &str, is_private: bool, byte: u8, except: Option<ChannelId>) -> usize {
    let broadcast = Broadcast::User {
        event: "e",
        metadata: "",
        payload: UserPayload::Binary(&[byte]),
    };
    hub.deliveries()
        .broadcast(&TopicKey::new(name, is_private), &broadcast, except)
        .unwrap()
}

#[test]
fn public_and_private_topics_with_the_same_name_are_separate() {
    let hub = Hub::new(RealtimeMetrics::default());
    let public = join(&hub, "a", false, Serializer::V2);
    let private = join(&hub, "a", true, Serializer::V2);
    assert_eq!(send(&hub, "a", false, b'1', None), 1);
    assert_eq!(send(&hub, "a", true, b'2', None), 1);
    assert_eq!(send(&hub, "b", true, b'3', None), 0, "no members");
    assert_eq!(
        (&*public.received(), &*private.received()),
        ("1", "2"),
        "each topic receives only its own broadcast"
    );
}

#[test]
fn a_binary_broadcast_skips_its_sender_members_without_permission_and_version_1() {
    let hub = Hub::new(RealtimeMetrics::default());
    let sender = join(&hub, "a", false, Serializer::V2);
    let other = join(&hub, "a", false, Serializer::V2);
    let old = join(&hub, "a", false, Serializer::V1);
    send(&hub, "a", false, b'1', Some(sender.channel));
    hub.set_read_permissions(other.channel, Permissions::default());
    send(&hub, "a", false, b'2', None);
    hub.set_read_permissions(other.channel, Permissions::ALL);
    send(&hub, "a", false, b'3', None);
    assert_eq!(sender.received(), "23");
    assert_eq!(other.received(), "13");
    assert_eq!(old.received(), "", "no binary frame for version 1");
}

/// Sends a row of one byte. Its id is derived from the byte.
fn send_row(hub: &Hub, byte: u8) {
    let broadcast = Broadcast::User {
        event: "e",
        metadata: "",
        payload: UserPayload::Binary(&[byte]),
    };
    let id = Uuid::from_u128(u128::from(byte));
    hub.deliveries()
        .row(&TopicKey::new("a", true), &broadcast, id, None)
        .unwrap();
}

#[test]
fn a_replayed_row_is_not_delivered_again_as_a_live_row() {
    let hub = Hub::new(RealtimeMetrics::default());
    let plain = join(&hub, "a", true, Serializer::V2);
    let (channel, outbound) = (
        hub.next_channel(),
        Arc::new(Outbound::new(None, hub.sockets())),
    );
    let spec = MemberSpec {
        topic: TopicKey::new("a", true),
        join_ref: None,
        is_legacy: false,
        read: Permissions::default(),
        awaits_state: false,
        is_replaying: true,
        user_id: None,
    };
    hub.attach(channel, spec, Serializer::V2, &outbound);
    let client = Client { channel, outbound };
    // The client does not receive this row, because the client's permissions are not known yet.
    send_row(&hub, b'0');
    hub.set_read_permissions(channel, Permissions::ALL);
    // These rows arrive while the stored messages are being read.
    send_row(&hub, b'2');
    send_row(&hub, b'3');
    let messages: Vec<_> = [b'1', b'2', b'4']
        .map(|byte| ReplayedMessage {
            id: Uuid::from_u128(u128::from(byte)),
            event: "e".to_owned(),
            payload: ReplayedPayload::Binary(vec![byte]),
        })
        .into();
    hub.deliveries().replay(channel, &messages);
    hub.open(channel);
    for byte in *b"4564" {
        send_row(&hub, byte);
    }
    send(&hub, "a", true, b'x', None);
    // A row arrives only once. So only the first live row 4 counts as the replayed one and is
    // skipped; the second is delivered.
    assert_eq!(client.received(), "1243564x");
    assert_eq!(plain.received(), "0234564x");
}

#[test]
fn broadcasts_before_the_reply_to_a_join_are_delivered_after_it_in_order() {
    let hub = Hub::new(RealtimeMetrics::default());
    let client = join(&hub, "a", false, Serializer::V2);
    let (late, outbound) = (hub.next_channel(), Arc::clone(&client.outbound));
    let spec = MemberSpec {
        topic: TopicKey::new("b", false),
        join_ref: None,
        is_legacy: false,
        read: Permissions::ALL,
        awaits_state: false,
        is_replaying: false,
        user_id: None,
    };
    hub.attach(late, spec, Serializer::V2, &outbound);
    send(&hub, "b", false, b'1', None);
    send(&hub, "b", false, b'2', None);
    send(&hub, "a", false, b'r', None);
    hub.open(late);
    send(&hub, "b", false, b'3', None);
    assert_eq!(client.received(), "r123");
}

#[test]
fn broadcasts_of_one_deliveries_value_are_delivered_in_order() {
    let hub = Hub::new(RealtimeMetrics::default());
    let client = join(&hub, "a", false, Serializer::V2);
    let mut deliveries = hub.deliveries();
    let mut send = |name, byte: &[u8; 1]| {
        let broadcast = Broadcast::User {
            event: "e",
            metadata: "",
            payload: UserPayload::Binary(byte),
        };
        let key = TopicKey::new(name, false);
        deliveries.broadcast(&key, &broadcast, None).unwrap();
    };
    send("a", b"1");
    send("a", b"2");
    send("nobody", b"x");
    send("a", b"3");
    drop(deliveries);
    assert_eq!(client.received(), "123");
    assert_eq!(hub.metrics().frames_sent.get(), 3);
}

#[test]
fn a_topic_is_removed_with_its_last_member() {
    let hub = Hub::new(RealtimeMetrics::default());
    let key = TopicKey::new("a", false);
    let (first, second) = (
        join(&hub, "a", false, Serializer::V2),
        join(&hub, "a", false, Serializer::V2),
    );
    hub.detach(first.channel);
    hub.detach(first.channel);
    assert!(hub.topic(&key).is_some());
    hub.detach(second.channel);
    assert!(hub.topic(&key).is_none());
}

proptest! {
    /// With any sequence of joins, leaves and broadcasts, each broadcast is received by exactly the
    /// members at that time.
    #[test]
    fn the_list_of_members_is_exact(steps in proptest::collection::vec((0_u8..3, 0_usize..6), 0..60)) {
        let hub = Hub::new(RealtimeMetrics::default());
        let mut present: BTreeMap<usize, (Client, String)> = BTreeMap::new();
        for (step, who) in steps {
            match step {
                0 => {
                    if let Some((gone, expected)) = present.remove(&who) {
                        hub.detach(gone.channel);
                        prop_assert_eq!(gone.received(), expected);
                    }
                }
                1 => {
                    present
                        .entry(who)
                        .or_insert_with(|| (join(&hub, "a", false, Serializer::V2), String::new()));
                }
                _ => {
                    let byte = b'0' + u8::try_from(who).unwrap();
                    let count = send(&hub, "a", false, byte, None);
                    prop_assert_eq!(count, present.len());
                    for (_, expected) in present.values_mut() {
                        expected.push(char::from(byte));
                    }
                }
            }
        }
        for (client, expected) in present.values() {
            prop_assert_eq!(&client.received(), expected);
        }
    }
}
