//! Who is where, and what is queued for them.

use std::collections::HashMap;

use super::connection::Connection;
use crate::client::frame;

#[derive(Default)]
struct Room {
    members: Vec<usize>,
    /// Whole frames, as they go to every member.
    queued: Vec<u8>,
    /// Who sent what is queued, and must not have it back.
    sender: Option<usize>,
}

/// All rooms, by topic.
#[derive(Default)]
pub(super) struct Rooms {
    all: Vec<Room>,
    names: HashMap<String, usize>,
    /// Rooms with something queued.
    dirty: Vec<usize>,
}

impl Rooms {
    /// Makes `member` one of the room of this name.
    pub(super) fn enter(&mut self, name: &str, member: usize) -> usize {
        let id = *self.names.entry(name.to_owned()).or_insert_with(|| {
            self.all.push(Room::default());
            self.all.len() - 1
        });
        self.all[id].members.push(member);
        id
    }

    /// Forgets a member that is gone.
    pub(super) fn leave(&mut self, member: usize, room: Option<usize>) {
        if let Some(room) = room {
            self.all[room].members.retain(|other| *other != member);
        }
    }

    /// Queues one binary frame for everybody in the room but its sender.
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

    /// Writes what is queued: one write for each member.
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
