//! The bytes of one turn: segments that every session of a reactor is read into.
//!
//! A receive is placed right behind the last whole frame of the one before, with the session's
//! remainder copied in front of it, so frames of different publishers become neighbours. Nothing in
//! here is counted or freed piece by piece: `end_turn` voids all of it at once.

use memmap2::MmapMut;

/// How long a segment is. Memory that no receive touches is never made resident.
const SEGMENT_LEN: usize = 512 * 1024;
/// A receive gets at least this much room, or a new segment.
const ROOM_LEN_MIN: usize = 64 * 1024;
/// Segments kept from one turn to the next; a turn's reads fit (`limits.read_per_turn`).
const SEGMENTS_KEPT_MAX: usize = 4;
/// When so many turns have not needed the last of them, it goes back to the system.
const TURNS_UNNEEDED_MAX: u32 = 64;

/// Segments below are the arena's own, those from here on are batches of other shards.
const BATCHES: u16 = 1 << 15;

/// A stretch of one arena segment. Valid until the turn that it was read in has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    segment: u16,
    start: u32,
    end: u32,
}

impl Piece {
    /// Its length in bytes.
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it has no bytes.
    pub const fn is_empty(self) -> bool {
        self.end == self.start
    }

    /// The part from `start` to `end`, both counted from this piece's beginning.
    ///
    /// # Panics
    /// If the part is not inside this piece.
    #[must_use]
    pub fn part(self, start: usize, end: usize) -> Self {
        assert!(
            start <= end && end <= self.len(),
            "a part lies inside its piece"
        );
        let offset = |at: usize| self.start + u32::try_from(at).expect("shorter than a segment");
        Self {
            segment: self.segment,
            start: offset(start),
            end: offset(end),
        }
    }

    /// The piece that is this one and `next`, if `next` begins where this one ends.
    pub(crate) fn joined(self, next: Self) -> Option<Self> {
        (self.segment == next.segment && self.end == next.start).then_some(Self {
            end: next.end,
            ..self
        })
    }
}

/// Segments of memory, filled one behind the other during a turn.
///
/// Invariant: `segments[..current]` are full, `segments[current]` is filled up to `filled`, and no
/// piece handed out in this turn is written to again.
#[derive(Debug)]
pub struct Arena {
    /// Mappings, for an allocator keeps what it is given back.
    segments: Vec<MmapMut>,
    /// How many turns have ended since the last one that needed all of them.
    turns_unneeded: u32,
    /// What other shards sent, read in place; `segment` of their pieces counts from `BATCHES`.
    batches: Vec<(usize, Vec<u8>)>,
    current: usize,
    filled: usize,
}

impl Default for Arena {
    fn default() -> Self {
        Self {
            segments: vec![new_segment().expect("memory for what a turn reads")],
            turns_unneeded: 0,
            batches: Vec::new(),
            current: 0,
            filled: 0,
        }
    }
}

impl Arena {
    /// An empty arena; memory is reserved, and becomes resident as it is used.
    ///
    /// # Panics
    /// If the process gets no memory at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is room for a head of `len` bytes and a receive behind it. If the process gets
    /// no memory for it, the next turn has that of this one: at its beginning there always is.
    pub fn make_room(&mut self, len: usize) -> bool {
        if self.is_full_for(len) && self.current + 1 == self.segments.len() {
            self.segments.extend(new_segment());
        }
        !self.is_full_for(len) || self.current + 1 < self.segments.len()
    }

    fn is_full_for(&self, len: usize) -> bool {
        SEGMENT_LEN - self.filled < len + ROOM_LEN_MIN
    }

    /// Copies `head` behind what is filled and returns the room behind it, for the socket to fill.
    /// At least 64 KiB, whatever the length of `head` (at most one receive).
    ///
    /// # Panics
    /// If there is none, which `make_room` would have said.
    pub fn reserve(&mut self, head: &[u8]) -> &mut [u8] {
        assert!(self.make_room(head.len()), "room was made before");
        if self.is_full_for(head.len()) {
            self.current += 1;
            self.filled = 0;
        }
        let free = &mut self.segments[self.current][self.filled..];
        let (front, room) = free.split_at_mut(head.len());
        front.copy_from_slice(head);
        room
    }

    /// Makes a piece of the next `len` bytes: head and received bytes of the `reserve` before it.
    ///
    /// # Panics
    /// If `len` is more than was reserved.
    pub fn commit(&mut self, len: usize) -> Piece {
        let start = self.filled;
        assert!(
            len <= SEGMENT_LEN - start,
            "no more is committed than was reserved"
        );
        self.filled += len;
        let offset = |at: usize| u32::try_from(at).expect("shorter than a segment");
        Piece {
            segment: u16::try_from(self.current).expect("a turn's reads are bounded"),
            start: offset(start),
            end: offset(self.filled),
        }
    }

    /// Copies `bytes` into the arena: a receive of bytes that are there already.
    pub fn push(&mut self, bytes: &[u8]) -> Piece {
        self.reserve(bytes);
        self.commit(bytes.len())
    }

    /// Gives back the last `len` bytes of `piece`, if nothing was committed behind it.
    pub(crate) fn give_back(&mut self, piece: Piece, len: usize) {
        if usize::from(piece.segment) == self.current && piece.end as usize == self.filled {
            self.filled -= len;
        }
    }

    /// Takes over a batch of peer `from` for the rest of the turn, and makes one piece of it.
    pub(crate) fn adopt(&mut self, from: usize, batch: Vec<u8>) -> Piece {
        let end = u32::try_from(batch.len()).expect("a batch is short");
        let index = u16::try_from(self.batches.len()).expect("a turn's batches are bounded");
        self.batches.push((from, batch));
        Piece {
            segment: BATCHES + index,
            start: 0,
            end,
        }
    }

    /// Whether batches of other shards lie in here.
    pub const fn has_batches(&self) -> bool {
        !self.batches.is_empty()
    }

    /// The batches of this turn and whose they are; their pieces are void.
    pub(crate) fn take_batches(&mut self) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
        self.batches.drain(..)
    }

    /// The bytes of a piece of this turn.
    pub fn bytes(&self, piece: Piece) -> &[u8] {
        let segment: &[u8] = match piece.segment.checked_sub(BATCHES) {
            Some(batch) => &self.batches[usize::from(batch)].1,
            None => &self.segments[usize::from(piece.segment)],
        };
        &segment[piece.start as usize..piece.end as usize]
    }

    /// Whether it has more than one segment, of which turns that do not need them give some back.
    pub(crate) const fn has_surplus(&self) -> bool {
        self.segments.len() > 1
    }

    /// Voids every piece; the memory is there for the next turn.
    pub fn end_turn(&mut self) {
        // A piece that outlives its turn shall show as wrong bytes in a test, not as an old frame.
        if cfg!(debug_assertions) {
            for segment in &mut self.segments[..self.current] {
                segment.fill(0xDB);
            }
            self.segments[self.current][..self.filled].fill(0xDB);
        }
        self.batches.clear();
        self.segments.truncate(SEGMENTS_KEPT_MAX);
        self.turns_unneeded = match self.current + 1 < self.segments.len() {
            true => self.turns_unneeded + 1,
            false => 0,
        };
        if self.turns_unneeded == TURNS_UNNEEDED_MAX {
            self.segments.pop();
            self.turns_unneeded = 0;
        }
        self.current = 0;
        self.filled = 0;
    }
}

fn new_segment() -> Option<MmapMut> {
    MmapMut::map_anon(SEGMENT_LEN).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_receives_make_one_piece_and_what_is_given_back_is_used_again() {
        let mut arena = Arena::new();
        let first = arena.push(b"frame|cut");
        arena.give_back(first, 3);
        let second = arena.push(b"cut off");
        let whole = first.part(0, 6).joined(second).expect("neighbours");
        assert_eq!(arena.bytes(whole), b"frame|cut off");
        assert_eq!(second.joined(first), None);
    }

    #[test]
    fn a_receive_always_has_room_and_pieces_stay_until_the_turn_ends() {
        let mut arena = Arena::new();
        let held = vec![7; 256 * 1024];
        let pieces: Vec<_> = (0..9).map(|_| arena.push(&held)).collect();
        assert!(arena.reserve(&held).len() >= ROOM_LEN_MIN);
        assert!(pieces.iter().all(|piece| arena.bytes(*piece) == held));
        arena.end_turn();
        assert!(arena.segments.len() <= SEGMENTS_KEPT_MAX);
        if cfg!(debug_assertions) {
            assert_ne!(arena.bytes(pieces[0]), held);
        }
    }

    #[test]
    fn what_a_burst_needed_goes_back_some_turns_later() {
        let mut arena = Arena::new();
        let mut turn = |segments: usize| {
            for _ in 0..segments {
                arena.push(&[7; SEGMENT_LEN - ROOM_LEN_MIN]);
            }
            arena.end_turn();
            arena.segments.len()
        };
        assert_eq!(turn(3), 3);
        for _ in 1..TURNS_UNNEEDED_MAX {
            assert_eq!(turn(1), 3);
        }
        assert_eq!(turn(3), 3, "they are needed after all");
        for _ in 1..TURNS_UNNEEDED_MAX {
            assert_eq!(turn(2), 3);
        }
        assert_eq!(turn(2), 2);
        let last = (0..1000).map(|_| turn(0)).last();
        assert_eq!(last, Some(1), "one always stays");
        assert!(!arena.has_surplus(), "and nobody wakes up for it");
    }
}
