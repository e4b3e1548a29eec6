//! The other shards: who there wants a topic, what goes to them, and what comes from them.

use std::sync::Arc;

use crate::arena::Arena;
use crate::deadline::Timestamp;
use crate::handler::SessionHandler;
use crate::mesh::{Mesh, records};
use crate::packet::Frame;
use crate::register::directory::{Directory, Interest, Wanted};
use crate::session::SessionKey;
use crate::shard::Shard;

/// A shard's view of its peers.
#[derive(Debug)]
pub(super) struct Remote {
    id: u8,
    directory: Arc<Directory>,
    pub(super) mesh: Mesh,
    known: Vec<Known>,
}

/// A topic without local subscribers, and who wants it elsewhere. A hit compares the whole topic,
/// never the hash alone.
#[derive(Clone, Debug)]
struct Known {
    len: u8,
    topic: [u8; KNOWN_LEN_MAX],
    wanted: Wanted,
}

/// Topics that are remembered: 320 KiB, filled as they come, overwritten, never grown.
const KNOWN_COUNT: usize = 4096;
/// Longer topics are rare, and looked up each time: remembering them too would take 1.1 MiB.
const KNOWN_LEN_MAX: usize = 63;

impl Remote {
    pub(super) fn new(id: u8, directory: Arc<Directory>, mesh: Mesh) -> Self {
        Self {
            id,
            directory,
            mesh,
            known: Vec::new(),
        }
    }

    /// The other shards that want `topic`, a bit each. `local`: what the register holds of it.
    pub(super) fn wanted_by(&mut self, topic: &[u8], local: Option<&Arc<Interest>>) -> u64 {
        let own = 1 << self.id;
        match local.and_then(|interest| interest.shards()) {
            Some(shards) => shards & !own,
            None => self.recall(topic) & !own,
        }
    }

    fn recall(&mut self, topic: &[u8]) -> u64 {
        if topic.len() > KNOWN_LEN_MAX {
            return self.look_up(topic).1;
        }
        if self.known.is_empty() {
            let nothing = Wanted::Nobody { births: u64::MAX };
            let empty = Known {
                len: 0,
                topic: [0; KNOWN_LEN_MAX],
                wanted: nothing,
            };
            self.known = vec![empty; KNOWN_COUNT];
        }
        let hash = self.directory.hash(topic);
        let [.., high, higher] = hash.to_le_bytes();
        let slot = usize::from(u16::from_le_bytes([high, higher])) % KNOWN_COUNT;
        let known = &self.known[slot];
        let remembered = &known.topic[..usize::from(known.len)];
        if remembered == topic
            && let Some(shards) = self.directory.recall(hash, &known.wanted)
        {
            return shards;
        }
        let (wanted, shards) = self.look_up(topic);
        let known = &mut self.known[slot];
        known.wanted = wanted;
        known.len = u8::try_from(topic.len()).expect("at most 63");
        known.topic[..topic.len()].copy_from_slice(topic);
        shards
    }

    /// Asks the directory until what it says is still true.
    fn look_up(&self, topic: &[u8]) -> (Wanted, u64) {
        let hash = self.directory.hash(topic);
        loop {
            let wanted = self.directory.look_up(topic);
            if let Some(shards) = self.directory.recall(hash, &wanted) {
                return (wanted, shards);
            }
        }
    }
}

impl<H: SessionHandler> Shard<H> {
    /// Makes this shard one of several: `directory` is common to all, `mesh` is this one's end.
    #[must_use]
    pub fn with_peers(mut self, directory: Arc<Directory>, mesh: Mesh) -> Self {
        self.remote = Some(Remote::new(self.id, directory, mesh));
        self
    }

    /// Gives the next batch of a peer to those who want it here; returns its length, `None` if
    /// nothing waits. The caller flushes when the turn `has_pieces_enough`.
    pub fn deliver(&mut self, arena: &mut Arena) -> Option<usize> {
        let (from, batch) = self.remote.as_mut()?.mesh.take()?;
        let piece = arena.adopt(from, batch);
        let bytes = arena.bytes(piece);
        for (record, frames) in records(bytes) {
            let Some((frame, _)) = Frame::split_first(&bytes[record.clone()]) else {
                continue;
            };
            let Ok((topic, _)) = frame.publish_parts() else {
                continue;
            };
            let run = piece.part(record.start, record.end);
            self.fan_out(topic, None, run, frames);
        }
        Some(bytes.len())
    }

    /// Whether the turn has as many pieces as it may have: flush before more is delivered.
    pub const fn has_pieces_enough(&self) -> bool {
        self.pieces.len() >= self.limits.pieces_per_turn
    }

    /// Hands what was published for the peers over to them. Publishers for whom a ring is full are
    /// not read until it has room; those for whom it has are read again.
    pub fn hand_over(&mut self, now: Timestamp) {
        let Some(remote) = &mut self.remote else {
            return;
        };
        let change = remote.mesh.hand_over();
        for (to, key) in change.stopped {
            if let Some(session) = self.sessions.get_mut(key) {
                session.stopped_by |= 1 << to;
                // We do not read it, so it cannot be late with a frame.
                self.deadlines.frame.disarm(key.slot());
            }
        }
        for (to, key) in change.resumed {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            session.stopped_by &= !(1 << to);
            if session.stopped_by == 0 {
                if !session.remainder.is_empty() {
                    self.deadlines.frame.rearm(key.slot(), now);
                }
                self.resumed.push(key);
            }
        }
    }

    /// Whether so much waits for a peer that no session may be read.
    pub fn is_spilling(&self) -> bool {
        let spilt = self
            .remote
            .as_ref()
            .map_or(0, |remote| remote.mesh.spill_len());
        spilt > self.limits.mesh_spill_max
    }

    /// Whether the mesh gives a reason not to sleep.
    pub fn has_mesh_work(&self) -> bool {
        self.remote
            .as_ref()
            .is_some_and(|remote| remote.mesh.has_work())
    }

    /// Whether everything that was published here has reached the rings of those who want it.
    pub fn is_handed_over(&self) -> bool {
        self.remote
            .as_ref()
            .is_none_or(|remote| remote.mesh.is_handed_over())
    }

    /// Whether nothing waits in an inbox.
    pub fn is_delivered(&self) -> bool {
        self.remote
            .as_ref()
            .is_none_or(|remote| remote.mesh.is_delivered())
    }

    /// A topic has its first subscriber here: from now on every shard knows.
    pub(super) fn announce(&mut self, topic: &str) {
        if let Some(remote) = &self.remote {
            let interest = remote.directory.join(remote.id, topic.as_bytes());
            self.register.set_interest(topic, interest);
        }
    }

    /// A topic may have lost its last subscriber here.
    pub(super) fn withdraw(&self, topic: &str) {
        if let Some(remote) = &self.remote
            && self.register.subscribers(topic).is_empty()
        {
            remote.directory.leave(remote.id, topic.as_bytes());
        }
    }

    /// Ends every subscription of a session.
    pub(super) fn unsubscribe_all(&mut self, key: SessionKey) {
        if self.remote.is_some() {
            let topics: Vec<_> = self.register.topics(key).map(Box::<str>::from).collect();
            self.register.remove_session(key);
            for topic in topics {
                self.withdraw(&topic);
            }
        } else {
            self.register.remove_session(key);
        }
    }
}
