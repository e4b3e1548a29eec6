//! What one session is owed: pieces of this turn, and the backlog that its socket refused.
//!
//! Pieces are indices into the arena and live one turn. What outlives the turn is copied here,
//! bounded and counted, always as plaintext frames.

use std::collections::VecDeque;

use crate::arena::{Arena, Piece};
use crate::packet::{FRAME_LEN_MAX, Frame};

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
        u64::from(self.piece_frames) + self.backlog.as_ref().map_or(0, |backlog| backlog.frames)
    }

    /// Bytes of memory that the backlog takes.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog
            .as_ref()
            .map_or(0, |backlog| backlog.allocated())
    }

    /// The socket took `taken` bytes of the backlog; returns how many frames that completed.
    pub fn advance(&mut self, taken: usize) -> u64 {
        let Some(backlog) = self.backlog.as_mut() else {
            return 0;
        };
        let frames = backlog.advance(taken);
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
        bytes_max: usize,
    ) -> Kept {
        let head = self.head;
        let frames = self.take_pieces();
        let mut backlog = self.backlog.take().unwrap_or_default();
        let owed_before = backlog.frames;
        let (mut written, mut left) = (0, taken);
        let mut kept = Ok(());
        for piece in pieces.iter(head) {
            let bytes = arena.bytes(piece);
            let skip = left.min(bytes.len());
            left -= skip;
            let (whole_len, whole) = whole_frames(bytes, skip);
            written += whole;
            if kept.is_ok() {
                let (begun, rest) = split_begun(&bytes[whole_len..], skip - whole_len);
                kept = backlog.push_begun(begun, bytes_max);
                kept = kept.and_then(|()| backlog.push(rest, bytes_max));
            }
        }
        let dropped = frames - written - (backlog.frames - owed_before);
        self.backlog = Some(backlog);
        Kept {
            written,
            dropped,
            refused: kept.err(),
        }
    }
}

/// What became of the frames that a socket did not take all of. What is neither written nor dropped
/// lies in the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Frames whose last byte the kernel took.
    pub written: u64,
    /// Frames that found no room; 0 unless `refused` says why.
    pub dropped: u64,
    /// Set if the session must be closed.
    pub refused: Option<Refused>,
}

/// Of bytes that begin with a frame: what is left of that frame behind its first `skip` bytes, and
/// what follows it. With nothing skipped, no frame has begun.
fn split_begun(bytes: &[u8], skip: usize) -> (&[u8], &[u8]) {
    match Frame::split_first(bytes) {
        Some((frame, rest)) if skip > 0 => (&frame.bytes()[skip..], rest),
        _ => (&[], bytes),
    }
}

/// What a socket refused: frames in chunks, the oldest first.
///
/// Invariant: every chunk holds whole frames, but the first may begin with the last `begun` bytes
/// of a frame whose beginning was written. `frames` counts that one too, and `len` is the sum of
/// what lies in the chunks.
#[derive(Debug, Default)]
pub struct Backlog {
    chunks: VecDeque<Chunk>,
    len: usize,
    frames: u64,
    begun: usize,
    allocated: usize,
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    /// How much of it the socket has taken.
    taken: usize,
}

const CHUNK_LEN_MIN: usize = 4 * 1024;
const CHUNK_LEN_MAX: usize = 64 * 1024;

impl Backlog {
    /// Whether the socket has taken everything.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many frames lie in it, one that has begun included.
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Bytes of memory: chunks as they were allocated, and what holds them.
    pub fn allocated(&self) -> usize {
        self.allocated + self.chunks.capacity() * size_of::<Chunk>() + size_of::<Self>()
    }

    /// What lies in it, in stretches of up to 64 KiB, oldest first.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().map(|chunk| &chunk.bytes[chunk.taken..])
    }

    /// Adds the end of a frame whose beginning was written.
    fn push_begun(&mut self, begun: &[u8], bytes_max: usize) -> Result<(), Refused> {
        if begun.is_empty() {
            return Ok(());
        }
        debug_assert!(self.is_empty(), "only the frame in front can have begun");
        self.grow(begun.len(), bytes_max)?;
        self.append(begun);
        self.begun = begun.len();
        self.frames += 1;
        Ok(())
    }

    /// Adds whole frames. What was added before a refusal stays: the caller closes the session.
    fn push(&mut self, mut bytes: &[u8], bytes_max: usize) -> Result<(), Refused> {
        while !bytes.is_empty() {
            let room = self
                .chunks
                .back()
                .map_or(0, |last| last.bytes.capacity() - last.bytes.len());
            let (fitting_len, frames) = whole_frames(bytes, room);
            if fitting_len == 0 {
                self.grow(bytes.len().max(self.len), bytes_max)?;
                continue;
            }
            let (fitting, rest) = bytes.split_at(fitting_len);
            self.append(fitting);
            self.frames += frames;
            bytes = rest;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) {
        let last = self.chunks.back_mut().expect("`grow` came before");
        debug_assert!(last.bytes.len() + bytes.len() <= last.bytes.capacity());
        last.bytes.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Adds a chunk: the longer the backlog, the larger, and never past the bound.
    fn grow(&mut self, wanted: usize, bytes_max: usize) -> Result<(), Refused> {
        self.chunks.try_reserve(1).map_err(|_| Refused::NoMemory)?;
        let allowed = bytes_max.saturating_sub(self.allocated());
        let len = wanted.clamp(CHUNK_LEN_MIN, CHUNK_LEN_MAX).min(allowed);
        if len < FRAME_LEN_MAX {
            return Err(Refused::Full);
        }
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|_| Refused::NoMemory)?;
        self.allocated += bytes.capacity();
        self.chunks.push_back(Chunk { bytes, taken: 0 });
        Ok(())
    }

    /// The socket took `taken` bytes from the front; returns how many frames that completed.
    pub fn advance(&mut self, mut taken: usize) -> u64 {
        debug_assert!(taken <= self.len);
        let before = self.frames;
        self.len -= taken;
        while taken > 0 {
            let Some(chunk) = self.chunks.front_mut() else {
                break;
            };
            let there = chunk.bytes.len() - chunk.taken;
            if self.begun > taken {
                self.begun -= taken;
                chunk.taken += taken;
                break;
            }
            if self.begun > 0 {
                chunk.taken += self.begun;
                taken -= self.begun;
                self.begun = 0;
                self.frames -= 1;
                continue;
            }
            let (whole, frames) = whole_frames(&chunk.bytes[chunk.taken..], taken);
            self.frames -= frames;
            chunk.taken += whole;
            taken -= whole;
            if whole == there {
                self.drop_front();
            } else if taken > 0 {
                let rest = &chunk.bytes[chunk.taken..];
                self.begun = Frame::split_first(rest).map_or(0, |(frame, _)| frame.bytes().len());
            }
        }
        while self
            .chunks
            .front()
            .is_some_and(|chunk| chunk.taken == chunk.bytes.len())
        {
            self.drop_front();
        }
        before - self.frames
    }

    fn drop_front(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.allocated -= chunk.bytes.capacity();
        }
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
        while !backlog.is_empty() {
            let chunk = backlog.chunks().next().unwrap();
            let taken = chunk.len().min(step);
            bytes.extend_from_slice(&chunk[..taken]);
            written += backlog.advance(taken);
        }
        (bytes, written)
    }

    #[test]
    fn d11_after_a_short_write_at_any_offset_the_stream_goes_on_at_that_byte() {
        let mut arena = Arena::new();
        let bytes = frames(12);
        for taken in 0..=bytes.len() {
            let piece = arena.push(&bytes);
            let (mut pieces, mut outbound) = (Pieces::default(), Outbound::default());
            outbound.push(&mut pieces, piece, 12).unwrap();
            let Kept {
                written,
                dropped: 0,
                refused: None,
            } = outbound.keep_rest(&pieces, &arena, taken, 1 << 20)
            else {
                panic!("a megabyte is enough");
            };
            assert_eq!(written, whole_frames(&bytes, taken).1);
            assert_eq!(outbound.owed(), 12 - written);
            let (rest, then) = drain(&mut outbound, 1 + taken % 300);
            assert_eq!(rest, bytes[taken..]);
            assert_eq!((written + then, outbound.owed()), (12, 0));
            arena.end_turn();
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
            let kept = outbound.keep_rest(&pieces, &arena, 0, 1 << 20);
            assert_eq!(
                kept,
                Kept {
                    written: 0,
                    dropped: 0,
                    refused: None
                }
            );
            assert_eq!(outbound.owed(), 800 * (turn + 1));
            arena.end_turn();
        }
        let (all, written) = drain(&mut outbound, 4096);
        assert_eq!((all, written), (bytes.repeat(10), 4000));
        assert_eq!(outbound.backlog.as_ref().unwrap().allocated, 0);
    }

    #[test]
    fn the_bound_counts_memory_and_not_only_bytes() {
        let mut arena = Arena::new();
        let piece = arena.push(&frames(1000));
        let (mut pieces, mut outbound) = (Pieces::default(), Outbound::default());
        outbound.push(&mut pieces, piece, 1000).unwrap();
        let bound = 64 * 1024;
        let kept = outbound.keep_rest(&pieces, &arena, 0, bound);
        assert_eq!(kept.refused, Some(Refused::Full));
        assert!(outbound.backlog_bytes() <= bound && outbound.backlog_bytes() > bound - 1024);
        assert_eq!(kept.dropped + outbound.owed(), 1000);
    }
}
