//! The members of rooms, and the frames queued for them.

use std::collections::HashMap;

use super::connection::Connection;
use crate::client::frame;

#[derive(Default)]
struct Room {
    members: Vec<usize>,
    /// Complete frames, as sent to every member.
    queued: Vec<u8>,
    /// The client that sent the last of the queued frames. They are not written to it.
    sender: Option<usize>,
}

/// All rooms, by topic.
#[derive(Default)]
pub(super) struct Rooms {
    all: Vec<Room>,
    names: HashMap<String, usize>,
    /// Rooms with queued frames.
    dirty: Vec<usize>,
}

impl Rooms {
    /// Adds a member to the room with this name. Returns the index of the room.
    pub(super) fn enter(&mut self, name: &str, member: usize) -> usize {
        let id = *self.names.entry(name.to_owned()).or_insert_with(|| {
            self.all.push(Room::default());
            self.all.len() - 1
        });
        self.all[id].members.push(member);
        id
    }

    /// Removes a disconnected member.
    pub(super) fn leave(&mut self, member: usize, room: Option<usize>) {
        if let Some(room) = room {
            self.all[room].members.retain(|other| *other != member);
        }
    }

    /// Queues one binary frame for all members of the room except its sender.
    pub(super) fn queue(&mut self, name: &str, payload: &[u8], sender: usize) {
        let Some(&id) = self.names.get(name) else {
            return;
        };
        let room = &mut self.all[id];
        if room.queued.is_empty() {
            self.dirty.push(id);
        }
        frame::push_unmasked(&mut room.queued, frame::BINARY, payload);
        room.sender = Some(sender);
    }

    /// Writes the queued frames: one write per member.
    pub(super) fn flush(&mut self, connections: &mut [Option<Connection>]) {
        for id in self.dirty.drain(..) {
            let room = &mut self.all[id];
            for &member in &room.members {
                if room.sender != Some(member)
                    && let Some(connection) = &mut connections[member]
                {
                    connection.write(&room.queued);
                }
            }
            room.queued.clear();
        }
    }
}
