//! The few protocol messages that the yardstick handles.

use serde_json::value::RawValue;

use super::room::Rooms;
use crate::client::frame;

/// `[join_ref, ref, topic, event, payload]`
type Message<'a> = (
    Option<&'a str>,
    Option<&'a str>,
    &'a str,
    &'a str,
    &'a RawValue,
);

/// Returns the reply to a text frame, and the room if the frame is a join. Everything succeeds.
pub(super) fn answer(
    text: &[u8],
    id: usize,
    rooms: &mut Rooms,
) -> Option<(Vec<u8>, Option<usize>)> {
    let (join_ref, reference, topic, event, _) = serde_json::from_slice::<Message>(text).ok()?;
    let room = (event == "phx_join").then(|| rooms.enter(topic, id));
    let (join_ref, reference) = (join_ref.unwrap_or_default(), reference.unwrap_or_default());
    let reply = format!(
        r#"["{join_ref}","{reference}","{topic}","phx_reply",{{"status":"ok","response":{{"postgres_changes":[]}}}}]"#
    );
    let mut framed = Vec::with_capacity(reply.len() + 4);
    frame::push_unmasked(&mut framed, frame::TEXT, reply.as_bytes());
    Some((framed, room))
}

/// Queues a push of kind 3 (protocol 2.4) for the other members, as a broadcast of kind 4 without
/// metadata.
pub(super) fn forward(push: &[u8], id: usize, rooms: &mut Rooms) -> Option<()> {
    let &[
        3,
        join_ref,
        reference,
        topic,
        event,
        metadata,
        encoding,
        ref rest @ ..,
    ] = push
    else {
        return None;
    };
    let names = rest.get(usize::from(join_ref) + usize::from(reference)..)?;
    let (name, after) = names.split_at_checked(topic.into())?;
    let (event_name, after) = after.split_at_checked(event.into())?;
    let payload = after.get(metadata.into()..)?;
    let mut out = Vec::with_capacity(5 + names.len());
    out.extend_from_slice(&[4, topic, event, 0, encoding]);
    for part in [name, event_name, payload] {
        out.extend_from_slice(part);
    }
    rooms.queue(std::str::from_utf8(name).ok()?, &out, id);
    Some(())
}
