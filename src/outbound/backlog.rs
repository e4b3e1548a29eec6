//! What a socket refused: whole frames in chunks, bounded in memory, the oldest first.

use std::collections::VecDeque;

use crate::outbound::buffer::{Buffer, Spares};
use crate::outbound::latest::Latest;
use crate::outbound::{Refused, whole_frames};
use crate::packet::{FRAME_LEN_MAX, Frame};

/// Frames that wait for a socket.
///
/// Invariant: every chunk holds whole frames, but the first may begin with the last `begun` bytes
/// of a frame whose beginning was written. `frames` counts that one too, and `len` is the sum of
/// what lies in the chunks. What is in `latest` comes behind all chunks.
#[derive(Debug, Default)]
pub struct Backlog {
    chunks: VecDeque<Chunk>,
    len: usize,
    frames: u64,
    begun: usize,
    allocated: usize,
    /// The second generation of a session that is to get the newest of each topic alone.
    latest: Option<Box<Latest>>,
}

#[derive(Debug)]
struct Chunk {
    bytes: Buffer,
    /// How much of it the socket has taken.
    taken: usize,
}

/// Frames for which there was no room, and why.
#[derive(Debug)]
pub(super) struct Left<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) why: Refused,
}

const CHUNK_LEN_MIN: usize = 4 * 1024;
const CHUNK_LEN_MAX: usize = 64 * 1024;
/// No chunk is a larger part of the bound, so that displacing the oldest one leaves most of what
/// the session is owed.
const CHUNKS_MIN: usize = 8;

impl Backlog {
    /// Whether the socket has taken everything.
    pub fn is_empty(&self) -> bool {
        self.len == 0 && self.latest.is_none()
    }

    /// How many frames lie in it, one that has begun included.
    pub fn frames(&self) -> u64 {
        self.frames + self.latest.as_ref().map_or(0, |latest| latest.frames())
    }

    /// Bytes of memory: chunks as they were allocated, and what holds them.
    pub fn allocated(&self) -> usize {
        let latest = self.latest.as_ref().map_or(0, |latest| latest.allocated());
        self.chunk_bytes() + latest
    }

    fn chunk_bytes(&self) -> usize {
        self.allocated + self.chunks.capacity() * size_of::<Chunk>() + size_of::<Self>()
    }

    /// What can be offered now, in stretches, oldest first.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().map(|chunk| &chunk.bytes[chunk.taken..])
    }

    /// The socket takes bytes again: if all before has gone, the newest of each topic are what it
    /// is offered next, and no longer replaced.
    pub(crate) fn freeze(&mut self) {
        if self.len > 0 {
            return;
        }
        let Some(latest) = self.latest.take() else {
            return;
        };
        let (bytes, frames) = latest.into_bytes();
        let bytes = Buffer::from(bytes);
        self.chunks.clear();
        self.allocated = bytes.capacity();
        self.len = bytes.len();
        self.frames = frames;
        self.chunks.push_back(Chunk { bytes, taken: 0 });
    }

    /// Adds the end of a frame whose beginning was written.
    pub(super) fn push_begun(
        &mut self,
        begun: &[u8],
        bytes_max: usize,
        spares: &mut Spares,
    ) -> Result<(), Refused> {
        if begun.is_empty() {
            return Ok(());
        }
        debug_assert!(self.is_empty(), "only the frame in front can have begun");
        self.grow(begun.len(), bytes_max, spares)?;
        self.append(begun);
        self.begun = begun.len();
        self.frames += 1;
        Ok(())
    }

    /// Adds whole frames, as many as there is room for.
    pub(super) fn push<'a>(
        &mut self,
        mut bytes: &'a [u8],
        bytes_max: usize,
        spares: &mut Spares,
    ) -> Result<(), Left<'a>> {
        while !bytes.is_empty() {
            let room = self.chunks.back().map_or(0, |last| last.bytes.room());
            let (fitting_len, frames) = whole_frames(bytes, room);
            if fitting_len == 0 {
                let wanted = bytes.len().max(self.len);
                self.grow(wanted, bytes_max, spares)
                    .map_err(|why| Left { bytes, why })?;
                continue;
            }
            let (fitting, rest) = bytes.split_at(fitting_len);
            self.append(fitting);
            self.frames += frames;
            bytes = rest;
        }
        Ok(())
    }

    /// As `push`, but the oldest frames make room; returns how many of them went. The one under way
    /// stays.
    pub(super) fn push_displacing(
        &mut self,
        mut bytes: &[u8],
        bytes_max: usize,
        spares: &mut Spares,
    ) -> (u64, Result<(), Refused>) {
        let mut displaced = 0;
        loop {
            let Err(left) = self.push(bytes, bytes_max, spares) else {
                return (displaced, Ok(()));
            };
            let gone = match left.why {
                Refused::Full => self.displace(spares),
                Refused::NoMemory => 0,
            };
            if gone == 0 {
                return (displaced, Err(left.why));
            }
            displaced += gone;
            bytes = left.bytes;
        }
    }

    /// Drops the oldest frames that have not begun, a chunk of them; returns how many.
    fn displace(&mut self, spares: &mut Spares) -> u64 {
        let behind = self.begun > 0;
        if behind && let Some(front) = self.chunks.front_mut() {
            let end = front.taken + self.begun;
            let (len, frames) = whole_frames(&front.bytes[end..], usize::MAX);
            if frames > 0 {
                // The frame under way moves into a chunk of its own size.
                let Ok(mut begun) = Buffer::new(self.begun, spares) else {
                    return 0;
                };
                begun.extend(&front.bytes[front.taken..end]);
                self.allocated += begun.capacity();
                self.allocated -= front.bytes.capacity();
                spares.keep(std::mem::replace(&mut front.bytes, begun));
                front.taken = 0;
                self.len -= len;
                self.frames -= frames;
                return frames;
            }
        }
        let Some(oldest) = self.chunks.remove(usize::from(behind)) else {
            return 0;
        };
        let (len, frames) = whole_frames(&oldest.bytes[oldest.taken..], usize::MAX);
        self.allocated -= oldest.bytes.capacity();
        spares.keep(oldest.bytes);
        self.len -= len;
        self.frames -= frames;
        frames
    }

    /// Adds whole frames, of which only the newest of each topic stays; returns how many were
    /// replaced. Each generation has half of the bound.
    pub(super) fn push_latest(
        &mut self,
        bytes: &[u8],
        bytes_max: usize,
    ) -> (u64, Result<(), Refused>) {
        let latest = self.latest.get_or_insert_default();
        let (mut replaced, mut rest) = (0, bytes);
        while let Some((frame, behind)) = Frame::split_first(rest) {
            match latest.push(frame.bytes(), bytes_max / 2) {
                Ok(is_newer) => replaced += u64::from(is_newer),
                Err(why) => return (replaced, Err(why)),
            }
            rest = behind;
        }
        if latest.frames() == 0 {
            self.latest = None;
        }
        (replaced, Ok(()))
    }

    fn append(&mut self, bytes: &[u8]) {
        let last = self.chunks.back_mut().expect("`grow` came before");
        last.bytes.extend(bytes);
        self.len += bytes.len();
    }

    /// Adds a chunk: the longer the backlog, the larger, and never past the bound.
    fn grow(
        &mut self,
        wanted: usize,
        bytes_max: usize,
        spares: &mut Spares,
    ) -> Result<(), Refused> {
        let doubled = match self.chunks.len() == self.chunks.capacity() {
            true => self.chunks.capacity().max(4) * size_of::<Chunk>(),
            false => 0,
        };
        let allowed = bytes_max.saturating_sub(self.chunk_bytes() + doubled);
        let most = CHUNK_LEN_MAX.min(bytes_max / CHUNKS_MIN).max(CHUNK_LEN_MIN);
        let len = wanted.clamp(CHUNK_LEN_MIN, most).min(allowed);
        if len < FRAME_LEN_MAX {
            return Err(Refused::Full);
        }
        self.chunks.try_reserve(1).map_err(|_| Refused::NoMemory)?;
        let bytes = Buffer::new(len, spares)?;
        self.allocated += bytes.capacity();
        self.chunks.push_back(Chunk { bytes, taken: 0 });
        Ok(())
    }

    /// The socket took `taken` bytes from the front; returns how many frames that completed.
    pub fn advance(&mut self, mut taken: usize, spares: &mut Spares) -> u64 {
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
                self.drop_front(spares);
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
            self.drop_front(spares);
        }
        before - self.frames
    }

    /// The rest of the frame whose beginning was written, if there is one.
    pub(crate) fn begun(&self) -> &[u8] {
        let front = self.chunks.front();
        front.map_or(&[], |chunk| &chunk.bytes[chunk.taken..][..self.begun])
    }

    /// Drops all but the frame under way; returns how many frames.
    pub(crate) fn discard_unbegun(&mut self, spares: &mut Spares) -> u64 {
        let before = self.frames();
        self.latest = None;
        while self.displace(spares) > 0 {}
        before - self.frames()
    }

    /// Drops all of it; returns how many frames.
    pub fn discard(self, spares: &mut Spares) -> u64 {
        let frames = self.frames();
        self.chunks
            .into_iter()
            .for_each(|chunk| spares.keep(chunk.bytes));
        frames
    }

    fn drop_front(&mut self, spares: &mut Spares) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.allocated -= chunk.bytes.capacity();
            spares.keep(chunk.bytes);
        }
    }
}
