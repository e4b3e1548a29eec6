//! The other shards: who there wants a topic, what goes to them, and what comes from them.

use std::sync::Arc;

use crate::arena::{Arena, Piece};
use crate::deadline::Timestamp;
use crate::handler::SessionHandler;
use crate::mesh::{Batch, Mesh, Position, Record, Word};
use crate::outbound::whole_frames;
use crate::packet::Frame;
use crate::register::Register;
use crate::register::directory::{Directory, Interest, Wanted};
use crate::register::wildcard::Wildcards;
use crate::session::SessionKey;
use crate::shard::Shard;
use crate::shard::budget::Budget;
use crate::shard::parse::Origin;

/// A shard's view of its peers.
#[derive(Debug)]
pub(super) struct Remote {
    id: u8,
    directory: Arc<Directory>,
    pub(super) mesh: Mesh,
    /// How far the last batch of this turn was delivered, if not to its end.
    unfinished: Option<Position>,
    /// By the hash's high bits.
    known: Box<[Known]>,
}

/// A topic without local subscribers, and who wants it elsewhere. A hit compares the whole topic,
/// never the hash alone.
#[derive(Clone, Debug)]
struct Known {
    len: u8,
    topic: [u8; KNOWN_LEN_MAX],
    wanted: Wanted,
}

/// Topics that are remembered: 320 KiB, taken at the start and overwritten, so that traffic over
/// many topics does not make the process grow.
const KNOWN_COUNT: usize = 4096;
/// Longer topics are rare, and looked up each time: remembering them too would take 1.1 MiB.
const KNOWN_LEN_MAX: usize = 63;

impl Known {
    /// What the directory takes for outdated, whatever the topic.
    const fn nothing() -> Self {
        Self {
            len: 0,
            topic: [0; KNOWN_LEN_MAX],
            wanted: Wanted::Nobody { births: u64::MAX },
        }
    }
}

impl Remote {
    pub(super) fn new(id: u8, directory: Arc<Directory>, mesh: Mesh) -> Self {
        Self {
            id,
            directory,
            mesh,
            unfinished: None,
            known: vec![Known::nothing(); KNOWN_COUNT].into(),
        }
    }

    /// The other shards that want `topic`, a bit each. `local`: what the register holds of it.
    #[inline]
    pub(super) fn wanted_by(&mut self, hash: u64, topic: &[u8], local: Option<&Interest>) -> u64 {
        let own = 1 << self.id;
        let shards = match local.and_then(Interest::shards) {
            Some(shards) => shards,
            None => self.recall(hash, topic),
        };
        (shards | self.directory.filtering()) & !own
    }

    /// All other shards of so many, a bit each.
    pub(super) const fn others(&self, count: u64) -> u64 {
        (u64::MAX >> (64 - count)) & !(1 << self.id)
    }

    /// Whether this shard has a filter has changed.
    pub(super) fn set_filtering(&self, has_filters: bool) {
        self.directory.set_filtering(self.id, has_filters);
    }

    fn recall(&mut self, hash: u64, topic: &[u8]) -> u64 {
        if topic.len() > KNOWN_LEN_MAX {
            return self.look_up(hash, topic).1;
        }
        let [.., high, higher] = hash.to_le_bytes();
        let slot = usize::from(u16::from_le_bytes([high, higher])) % KNOWN_COUNT;
        let known = &self.known[slot];
        let remembered = &known.topic[..usize::from(known.len)];
        if remembered == topic
            && let Some(shards) = self.directory.recall(hash, &known.wanted)
        {
            return shards;
        }
        let (wanted, shards) = self.look_up(hash, topic);
        let known = &mut self.known[slot];
        known.wanted = wanted;
        known.len = u8::try_from(topic.len()).expect("at most 63");
        known.topic[..topic.len()].copy_from_slice(topic);
        shards
    }

    /// A topic has its first subscriber here: from now on every shard knows.
    pub(super) fn join(&self, topic: &[u8]) -> Interest {
        self.directory.join(self.id, topic)
    }

    /// A topic has lost its last subscriber here.
    pub(super) fn leave(&self, topic: &Interest) {
        self.directory.leave(self.id, topic.topic());
    }

    /// The turn has ended: gives its batches back to those who fill them again, and keeps what the
    /// next turn goes on with.
    pub(super) fn give_back(&mut self, batches: impl Iterator<Item = (usize, Batch)>) {
        let mut batches = batches.peekable();
        while let Some((from, batch)) = batches.next() {
            match self.unfinished.take_if(|_| batches.peek().is_none()) {
                Some(position) => self.mesh.put_back(from, batch, position),
                None => self.mesh.give_back(from, batch),
            }
        }
    }

    /// Asks the directory until what it says is still true.
    fn look_up(&self, hash: u64, topic: &[u8]) -> (Wanted, u64) {
        loop {
            let wanted = self.directory.look_up(hash, topic);
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
        self.register = Register::with_hasher(directory.hasher());
        self.remote = Some(Remote::new(self.id, directory, mesh));
        self
    }

    /// What was read in this turn has had its share; what peers have handed over has one of its
    /// own, so that no publisher here, however greedy, can keep an inbox full. If the turn
    /// `is_spent`, everything is flushed first.
    pub fn begin_delivering(&mut self) {
        self.budget = Budget::of(&self.limits);
    }

    /// Gives the next batch of a peer to those who want it here, as far as the turn allows; returns
    /// its length. `None` if nothing waits, or the turn `is_spent`.
    pub fn deliver(&mut self, arena: &mut Arena) -> Option<usize> {
        if self.is_spent() {
            return None;
        }
        let (from, batch, mut position) = self.remote.as_mut()?.mesh.take()?;
        let piece = arena.adopt(from, batch);
        let bytes = arena.bytes(piece);
        while let Some(record) = Record::read(bytes, position.record) {
            if self.is_spent() {
                if let Some(remote) = &mut self.remote {
                    remote.unfinished = Some(position);
                }
                break;
            }
            if let Some(word) = record.word() {
                self.take_word(from, word);
                position.record = record.frames.end;
                continue;
            }
            let start = record.frames.start + position.skip;
            let end = start + self.deliver_run(from, piece, bytes, &record, start);
            position = match end < record.frames.end {
                true => Position {
                    skip: end - record.frames.start,
                    ..position
                },
                false => Position {
                    record: end,
                    skip: 0,
                },
            };
        }
        Some(bytes.len())
    }

    fn take_word(&mut self, from: usize, word: Word) {
        match (word, &mut self.remote) {
            (Word::Asks(key), Some(remote)) => remote.mesh.answer(from, key),
            (Word::Answers(key), _) => {
                // A session that waits for values is not read, so it has no ping under way.
                if !self.replay_passed(from, key) {
                    self.barrier_passed(from, key);
                }
            }
            (Word::Asks(_), None) => {}
        }
    }

    /// Gives a record's frames from `start` on to those who want them: as many as the turn has
    /// deliveries left for, and at least one. Returns how many bytes were dealt with.
    fn deliver_run(
        &mut self,
        from: usize,
        piece: Piece,
        bytes: &[u8],
        record: &Record,
        start: usize,
    ) -> usize {
        let rest = &bytes[start..record.frames.end];
        let first = Frame::split_first(rest).map(|(frame, _)| frame);
        let topic = first.and_then(|frame| frame.publish_parts().ok());
        let (Some((topic, _)), Some(first)) = (topic, first) else {
            return rest.len();
        };
        let audience = self.audience(record.hash, topic);
        if audience.sessions == 0 {
            return rest.len();
        }
        let len_max = self
            .budget
            .run_len_max(audience.sessions)
            .max(first.bytes().len());
        let (len, frames) = match start == record.frames.start && rest.len() <= len_max {
            true => (rest.len(), u64::from(record.frame_count)),
            false => whole_frames(rest, len_max),
        };
        let frames = u32::try_from(frames).expect("a batch is short");
        let origin = Origin::Shard {
            from: u8::try_from(from).expect("at most 64 shards"),
            topic_hash: record.hash,
        };
        if let Some(number) = record.number
            && !self.replays.is_empty()
        {
            let listeners = self.gather(audience);
            self.left_out = self.left_out(&listeners, number, record.hash, topic);
            self.listeners = listeners;
        }
        self.fan_out(audience, origin, piece.part(start, start + len), frames);
        self.left_out.clear();
        len
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
            if !session.is_stopped() {
                self.read_again(now, key);
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

    /// Whether nothing waits in an inbox, nor the rest of a batch for the next turn.
    pub fn is_delivered(&self) -> bool {
        self.remote
            .as_ref()
            .is_none_or(|remote| remote.unfinished.is_none() && remote.mesh.is_delivered())
    }

    /// Ends every subscription of a session; topics without another subscriber here leave the
    /// directory.
    pub(super) fn unsubscribe_all(&mut self, key: SessionKey) {
        let remote = self.remote.as_ref();
        self.register.remove_session_with(key, |topic| {
            remote.iter().for_each(|remote| remote.leave(topic));
        });
        if !self.wildcards.is_empty() {
            self.change_filters(|wildcards| wildcards.remove_session(key));
        }
        self.replays.forget(key);
    }

    /// Changes the filters here; the other shards know whether there are any.
    pub(super) fn change_filters<T>(&mut self, change: impl FnOnce(&mut Wildcards) -> T) -> T {
        let was_empty = self.wildcards.is_empty();
        let changed = change(&mut self.wildcards);
        let is_empty = self.wildcards.is_empty();
        if is_empty != was_empty
            && let Some(remote) = &self.remote
        {
            remote.set_filtering(!is_empty);
        }
        changed
    }
}
