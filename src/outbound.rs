//! What one session is owed: pieces of this turn, and the backlog that its socket refused.
//!
//! Pieces are indices into the arena and live one turn. What outlives the turn is copied here,
//! bounded and counted, always as plaintext frames.

use crate::arena::{Arena, Piece};
use crate::label::labels;
use crate::packet::Frame;

mod backlog;
mod buffer;
mod latest;

pub use backlog::Backlog;
pub use buffer::Spares;

labels! {
    /// What becomes of a subscriber that does not keep up, once its backlog has reached its bound.
    /// Frames go whole or not at all, and one whose first byte was written is always completed.
    pub enum SlowConsumer {
        /// It is closed: a gap would be worse than connecting again.
        Disconnect = "disconnect",
        /// The newest frames are dropped: the beginning is kept.
        DropNewest = "drop_newest",
        /// The oldest frames are dropped: live data of few topics.
        DropOldest = "drop_oldest",
        /// Of each topic only the newest frame is kept: state, such as prices. Too many topics for
        /// the bound close the session.
        Conflate = "conflate",
        /// Whoever publishes to it is not read until it has caught up: nothing is lost, and one
        /// slow reader holds its publishers. Closed after `pause_max`, or at twice its bound.
        Pause = "pause",
    }
}

/// How much one session may be owed, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Bytes of memory, overhead included.
    pub bytes_max: usize,
    /// What happens.
    pub policy: SlowConsumer,
}

/// The pieces of every session of a reactor, as lists in one vector.
#[derive(Debug, Default)]
pub struct Pieces {
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    piece: Piece,
    next: u32,
}

const NONE: u32 = u32::MAX;

impl Pieces {
    /// How many pieces there are, over all sessions.
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no session has a piece.
    pub const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Voids all lists; no session may hold one any more.
    pub fn clear(&mut self) {
        // The memory stays: a turn like the last one allocates nothing. `pieces_per_turn` bounds
        // it.
        self.nodes.clear();
    }

    fn iter(&self, head: u32) -> impl Iterator<Item = Piece> + '_ {
        let mut at = head;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.next;
            Some(node.piece)
        })
    }
}

/// There is no memory for what is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// Why bytes were not taken into a backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The bound is reached.
    Full,
    /// There is no memory.
    NoMemory,
}

/// Bytes owed to one session, oldest first: the backlog, then this turn's pieces.
///
/// Invariant: no two neighbouring pieces touch (`push` merges them), and `piece_frames` is the
/// number of frames in the pieces.
#[derive(Debug)]
pub struct Outbound {
    head: u32,
    tail: u32,
    piece_frames: u32,
    /// It stands on the shard's dirty list.
    pub(crate) dirty: bool,
    /// Its socket was full, and has not said since that it takes bytes again.
    pub(crate) blocked: bool,
    /// Its socket takes nothing any more. The session ends when its input has been read: what the
    /// peer sent before it went shall not be lost.
    pub(crate) broken: bool,
    /// Whoever publishes to it is held.
    pub(crate) pausing: bool,
    pub(crate) backlog: Option<Box<Backlog>>,
}

impl Default for Outbound {
    fn default() -> Self {
        let (head, tail) = (NONE, NONE);
        Self {
            head,
            tail,
            piece_frames: 0,
            dirty: false,
            blocked: false,
            broken: false,
            pausing: false,
            backlog: None,
        }
    }
}

impl Outbound {
    /// Adds a piece of `frames` frames.
    #[inline]
    pub fn push(&mut self, pieces: &mut Pieces, piece: Piece, frames: u32) -> Result<(), NoMemory> {
        if let Some(last) = pieces.nodes.get_mut(self.tail as usize)
            && let Some(joined) = last.piece.joined(piece)
        {
            last.piece = joined;
            self.piece_frames += frames;
            return Ok(());
        }
        pieces.nodes.try_reserve(1).map_err(|_| NoMemory)?;
        let node = u32::try_from(pieces.nodes.len()).map_err(|_| NoMemory)?;
        pieces.nodes.push(Node { piece, next: NONE });
        match pieces.nodes.get_mut(self.tail as usize) {
            Some(last) => last.next = node,
            None => self.head = node,
        }
        self.tail = node;
        self.piece_frames += frames;
        Ok(())
    }

    /// This turn's pieces, oldest first.
    pub fn pieces<'a>(&self, pieces: &'a Pieces) -> impl Iterator<Item = Piece> + 'a {
        pieces.iter(self.head)
    }

    /// Forgets this turn's pieces and returns how many frames they had.
    pub fn take_pieces(&mut self) -> u64 {
        (self.head, self.tail) = (NONE, NONE);
        u64::from(std::mem::take(&mut self.piece_frames))
    }

    /// Whether this turn brought anything.
    pub const fn has_pieces(&self) -> bool {
        self.head != NONE
    }

    /// Frames that are neither written nor dropped.
    pub fn owed(&self) -> u64 {
        u64::from(self.piece_frames) + self.backlog.as_ref().map_or(0, |backlog| backlog.frames())
    }

    /// Bytes of memory that the backlog takes.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog
            .as_ref()
            .map_or(0, |backlog| backlog.allocated())
    }

    /// The socket took `taken` bytes of the backlog; returns how many frames that completed.
    pub fn advance(&mut self, taken: usize, spares: &mut Spares) -> u64 {
        let Some(backlog) = self.backlog.as_mut() else {
            return 0;
        };
        let frames = backlog.advance(taken, spares);
        if backlog.is_empty() {
            self.backlog = None;
        }
        frames
    }

    /// Copies what the socket did not take of this turn's pieces: everything behind the first
    /// `taken` bytes. The pieces are forgotten.
    pub fn keep_rest(
        &mut self,
        pieces: &Pieces,
        arena: &Arena,
        taken: usize,
        bound: Bound,
        spares: &mut Spares,
    ) -> Kept {
        let head = self.head;
        let frames = self.take_pieces();
        let mut backlog = self.backlog.take().unwrap_or_default();
        let owed_before = backlog.frames();
        let (mut kept, mut left) = (Kept::default(), taken);
        for piece in pieces.iter(head) {
            let bytes = arena.bytes(piece);
            let skip = left.min(bytes.len());
            left -= skip;
            let (whole_len, whole) = whole_frames(bytes, skip);
            kept.written += whole;
            if kept.refused.is_none() {
                let (begun, rest) = split_begun(&bytes[whole_len..], skip - whole_len);
                kept.refused = backlog.push_begun(begun, bound.bytes_max, spares).err();
                if kept.refused.is_none() {
                    kept.push(&mut backlog, rest, bound, spares);
                }
            }
        }
        let gone = kept.written + kept.displaced + kept.conflated;
        kept.dropped = frames + owed_before - gone - backlog.frames();
        if !backlog.is_empty() {
            self.backlog = Some(backlog);
        }
        kept
    }

    /// Adds whole frames, `count` of them, to the backlog. This turn has brought no pieces.
    pub fn keep(&mut self, frames: &[u8], count: u64, bound: Bound, spares: &mut Spares) -> Kept {
        debug_assert!(!self.has_pieces(), "they would come behind");
        let mut backlog = self.backlog.take().unwrap_or_default();
        let owed_before = backlog.frames();
        let mut kept = Kept::default();
        kept.push(&mut backlog, frames, bound, spares);
        let gone = kept.displaced + kept.conflated;
        kept.dropped = count + owed_before - gone - backlog.frames();
        if !backlog.is_empty() {
            self.backlog = Some(backlog);
        }
        kept
    }
}

/// What became of the frames that a socket did not take all of. What is not counted here lies in
/// the backlog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Frames whose last byte the kernel took.
    pub written: u64,
    /// New frames that found no room; 0 unless `refused` says why.
    pub dropped: u64,
    /// Old frames that made room.
    pub displaced: u64,
    /// Frames that a newer one of their topic replaced.
    pub conflated: u64,
    /// Why no more was taken.
    pub refused: Option<Refused>,
}

impl Kept {
    /// Adds whole frames to a backlog as its bound says.
    fn push(&mut self, backlog: &mut Backlog, frames: &[u8], bound: Bound, spares: &mut Spares) {
        let (gone, kept) = match bound.policy {
            SlowConsumer::Disconnect | SlowConsumer::DropNewest => {
                let kept = backlog.push(frames, bound.bytes_max, spares);
                (0, kept.map_err(|left| left.why))
            }
            SlowConsumer::Pause => {
                // What was read before its publishers were held comes on top.
                let kept = backlog.push(frames, bound.bytes_max.saturating_mul(2), spares);
                (0, kept.map_err(|left| left.why))
            }
            SlowConsumer::DropOldest => backlog.push_displacing(frames, bound.bytes_max, spares),
            SlowConsumer::Conflate => backlog.push_latest(frames, bound.bytes_max),
        };
        match bound.policy {
            SlowConsumer::Conflate => self.conflated += gone,
            _ => self.displaced += gone,
        }
        self.refused = kept.err();
    }
}

/// Of bytes that begin with a frame: what is left of that frame behind its first `skip` bytes, and
/// what follows it. With nothing skipped, no frame has begun.
fn split_begun(bytes: &[u8], skip: usize) -> (&[u8], &[u8]) {
    match Frame::split_first(bytes) {
        Some((frame, rest)) if skip > 0 => (&frame.bytes()[skip..], rest),
        _ => (&[], bytes),
    }
}

/// The longest stretch of whole frames at the front of `bytes` that is at most `len_max` long, and
/// how many frames that are.
pub fn whole_frames(bytes: &[u8], len_max: usize) -> (usize, u64) {
    let (mut len, mut frames) = (0, 0);
    while let Some((frame, _)) = Frame::split_first(&bytes[len..]) {
        if len + frame.bytes().len() > len_max {
            break;
        }
        len += frame.bytes().len();
        frames += 1;
    }
    (len, frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::FrameBuf;

    /// Frames of all lengths between 4 and 257 bytes.
    fn frames(count: usize) -> Vec<u8> {
        let frame = |n: usize| FrameBuf::publish("t", &vec![7; n * 37 % 254]).unwrap();
        (0..count).flat_map(|n| frame(n).bytes().to_vec()).collect()
    }

    /// Offers everything to a socket that takes `step` bytes at a time.
    fn drain(outbound: &mut Outbound, step: usize) -> (Vec<u8>, u64) {
        let (mut bytes, mut written) = (Vec::new(), 0);
        let backlog = outbound.backlog.as_mut().unwrap();
        loop {
            let chunk = backlog.chunks().next().unwrap_or_default();
            let taken = chunk.len().min(step);
            if taken == 0 {
                break;
            }
            bytes.extend_from_slice(&chunk[..taken]);
            written += backlog.advance(taken, &mut Spares::default());
        }
        (bytes, written)
    }

    const fn bound(policy: SlowConsumer, bytes_max: usize) -> Bound {
        Bound { bytes_max, policy }
    }

    /// What is owed after a turn brought `bytes`, of which the socket took `taken`.
    fn keep(outbound: &mut Outbound, bytes: &[u8], taken: usize, bound: Bound) -> Kept {
        let (mut arena, mut pieces) = (Arena::new(), Pieces::default());
        let piece = arena.push(bytes);
        let frames = u32::try_from(whole_frames(bytes, usize::MAX).1).unwrap();
        outbound.push(&mut pieces, piece, frames).unwrap();
        outbound.keep_rest(&pieces, &arena, taken, bound, &mut Spares::default())
    }

    #[test]
    fn d11_after_a_short_write_at_any_offset_the_stream_goes_on_at_that_byte() {
        let bytes = frames(12);
        for taken in 0..bytes.len() {
            let mut outbound = Outbound::default();
            let bound = bound(SlowConsumer::Disconnect, 1 << 20);
            let kept = keep(&mut outbound, &bytes, taken, bound);
            let written = whole_frames(&bytes, taken).1;
            let expected = Kept {
                written,
                ..Kept::default()
            };
            assert_eq!(kept, expected, "a megabyte is enough");
            assert_eq!(outbound.owed(), 12 - written);
            let (rest, then) = drain(&mut outbound, 1 + taken % 300);
            assert_eq!(rest, bytes[taken..]);
            assert_eq!((written + then, outbound.owed()), (12, 0));
        }
    }

    #[test]
    fn pieces_that_touch_are_one_and_those_of_several_turns_queue_up_in_order() {
        let mut arena = Arena::new();
        let bytes = frames(400);
        let mut outbound = Outbound {
            blocked: true,
            ..Outbound::default()
        };
        for turn in 0..5 {
            let mut pieces = Pieces::default();
            let (a, b) = (arena.push(&bytes), arena.push(&bytes));
            outbound.push(&mut pieces, a, 400).unwrap();
            outbound.push(&mut pieces, b, 400).unwrap();
            assert_eq!(pieces.len(), 1);
            let bound = bound(SlowConsumer::Disconnect, 1 << 20);
            let kept = outbound.keep_rest(&pieces, &arena, 0, bound, &mut Spares::default());
            assert_eq!(kept, Kept::default());
            assert_eq!(outbound.owed(), 800 * (turn + 1));
            arena.end_turn();
        }
        let (all, written) = drain(&mut outbound, 4096);
        assert_eq!((all, written), (bytes.repeat(10), 4000));
    }

    #[test]
    fn the_bound_counts_memory_and_not_only_bytes_under_every_policy() {
        let bound_bytes = 64 * 1024;
        for policy in SlowConsumer::ALL {
            let mut outbound = Outbound::default();
            let bytes: Vec<u8> = (0..1200).flat_map(|n| message(&n.to_string(), n)).collect();
            let kept = keep(&mut outbound, &bytes, 0, bound(policy, bound_bytes));
            let times = if policy == SlowConsumer::Pause { 2 } else { 1 };
            assert!(outbound.backlog_bytes() <= times * bound_bytes, "{policy}");
            assert!(outbound.backlog_bytes() > bound_bytes / 4, "{policy}");
            let gone = kept.dropped + kept.displaced + kept.conflated;
            assert_eq!(gone + outbound.owed(), 1200, "{policy}");
            let full = policy != SlowConsumer::DropOldest;
            assert_eq!(kept.refused, full.then_some(Refused::Full), "{policy}");
        }
    }

    /// A PUBLISH of 200 bytes or so that says its number.
    fn message(topic: &str, number: u32) -> Vec<u8> {
        let data = format!("{number:0>180}");
        let frame = FrameBuf::publish(topic, data.as_bytes()).unwrap();
        frame.bytes().to_vec()
    }

    fn numbers(mut bytes: &[u8]) -> Vec<u32> {
        let mut numbers = Vec::new();
        while let Some((frame, rest)) = Frame::split_first(bytes) {
            let (_, tail) = frame.bytes().split_at(frame.bytes().len() - 180);
            numbers.push(str::from_utf8(tail).unwrap().parse().unwrap());
            bytes = rest;
        }
        numbers
    }

    #[test]
    fn i2_drop_newest_keeps_what_was_queued_and_goes_on_when_there_is_room_again() {
        let mut outbound = Outbound::default();
        let bound = bound(SlowConsumer::DropNewest, 64 * 1024);
        let turn = |numbers: std::ops::Range<u32>| -> Vec<u8> {
            numbers.flat_map(|n| message("t", n)).collect()
        };
        let first = keep(&mut outbound, &turn(0..500), 0, bound);
        let second = keep(&mut outbound, &turn(500..600), 0, bound);
        assert_eq!((first.refused, second.dropped), (Some(Refused::Full), 100));
        let kept = 500 - u32::try_from(first.dropped).unwrap();
        let (bytes, _) = drain(&mut outbound, 1000);
        outbound.advance(0, &mut Spares::default());
        outbound.backlog = None;
        keep(&mut outbound, &turn(600..610), 0, bound);
        let (later, _) = drain(&mut outbound, 1000);
        assert_eq!(numbers(&bytes), (0..kept).collect::<Vec<_>>());
        assert_eq!(numbers(&later), (600..610).collect::<Vec<_>>());
    }

    #[test]
    fn i3_drop_oldest_completes_the_frame_under_way_cut_at_any_byte() {
        let bound = bound(SlowConsumer::DropOldest, 64 * 1024);
        let bytes: Vec<u8> = (0..1000).flat_map(|n| message("t", n)).collect();
        let len = message("t", 0).len();
        for taken in 0..=2 * len {
            let mut outbound = Outbound::default();
            let first = keep(&mut outbound, &bytes[..3 * len], taken, bound);
            let second = keep(&mut outbound, &bytes[3 * len..], 0, bound);
            let (rest, written) = drain(&mut outbound, 777);
            let begun = (len - taken % len) % len;
            assert_eq!(rest[..begun], bytes[taken..taken + begun], "{taken}");
            let live = numbers(&rest[begun..]);
            assert!(live.windows(2).all(|pair| pair[0] < pair[1]), "{taken}");
            assert_eq!(live.last(), Some(&999), "the newest is always there");
            assert!(live.len() > 200, "{} of 64 KiB", live.len());
            let displaced = first.displaced + second.displaced;
            assert_eq!(first.written + written + displaced, 1000, "{taken}");
            assert_eq!((first.dropped, second.dropped), (0, 0));
        }
    }

    #[test]
    fn i4_conflate_keeps_the_newest_of_each_topic_and_freezes_what_it_offers() {
        let bound = bound(SlowConsumer::Conflate, 1 << 20);
        let topics: Vec<_> = (0..1000).map(|n| format!("topic{n}")).collect();
        let mut outbound = Outbound::default();
        let mut number = 0;
        let mut turn = |outbound: &mut Outbound| {
            let mut bytes = Vec::new();
            for topic in &topics {
                for topic in [topic, "busy"] {
                    number += 1;
                    bytes.extend(message(topic, number));
                }
            }
            keep(outbound, &bytes, 0, bound).conflated
        };
        let conflated = turn(&mut outbound) + turn(&mut outbound);
        assert_eq!((conflated, outbound.owed()), (4000 - 1001, 1001));
        // The socket takes a part of them: these are not replaced any more.
        outbound.backlog.as_mut().unwrap().freeze();
        let begun = outbound.backlog.as_ref().unwrap().chunks().next().unwrap()[..5000].to_vec();
        let written = outbound.advance(5000, &mut Spares::default());
        assert_eq!(turn(&mut outbound), 999);
        assert_eq!(outbound.owed(), 2002 - written);
        let (frozen, _) = drain(&mut outbound, usize::MAX);
        let frozen = numbers(&[begun, frozen].concat());
        outbound.backlog.as_mut().unwrap().freeze();
        let (newest, _) = drain(&mut outbound, usize::MAX);
        let newest = numbers(&newest);
        for (generation, first) in [(&frozen, 2001), (&newest, 4001)] {
            let quiet = (0..1000).map(|topic| first + 2 * topic);
            assert_eq!(*generation, quiet.chain([first + 1999]).collect::<Vec<_>>());
        }
    }
}
