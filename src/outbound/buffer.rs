//! Memory of chunks, which goes back to the system when a burst is over.
//!
//! What an allocator gets back from the midst of its heap it keeps, most often for good: twenty
//! readers that fell 4 MiB behind once would cost the process 80 MiB for ever. So all chunks of a
//! backlog but its first small ones are mappings of their own.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::MmapMut;

use crate::outbound::Refused;

/// Bytes in a piece of memory that does not grow, filled from its front.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Memory,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Heap(Vec<u8>),
    Mapped(Mapping),
}

/// Pages of their own, counted while they exist.
#[derive(Debug)]
struct Mapping(MmapMut);

/// Mappings of a shard that hold nothing: a few for its next reader that blinks, and those that go
/// back to the system, one in each turn. To unmap one interrupts every core that runs this process,
/// and a thousand readers that are closed together leave sixteen thousand.
#[derive(Debug, Default)]
pub struct Spares {
    mappings: Vec<Mapping>,
    bytes: usize,
}

/// A buffer of this size or more is a mapping: some pages.
const MAPPED_LEN_MIN: usize = 16 * 1024;
/// What is kept of spare mappings.
const SPARE_BYTES_MAX: usize = 256 * 1024;
/// Among so many of those that came last one of the right size is looked for.
const LOOKED_AT_MAX: usize = 16;
/// Of all brokers of the process. Linux gives a process 65,530 (`vm.max_map_count`); with none left
/// it can start no thread, and neither can it unmap one from the midst of others.
const MAPPINGS_MAX: usize = 16 * 1024;
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

impl Buffer {
    /// An empty one for `capacity` bytes.
    pub(super) fn new(capacity: usize, spares: &mut Spares) -> Result<Self, Refused> {
        let mapped = match capacity {
            MAPPED_LEN_MIN.. => match spares.take(capacity) {
                Some(spare) => Some(spare),
                None => Mapping::new(capacity)?,
            },
            _ => None,
        };
        let memory = match mapped {
            Some(mapped) => Memory::Mapped(mapped),
            None => {
                let mut bytes = Vec::new();
                let reserved = bytes.try_reserve_exact(capacity);
                reserved.map_err(|_| Refused::NoMemory)?;
                Memory::Heap(bytes)
            }
        };
        Ok(Self { memory, len: 0 })
    }

    pub(super) fn capacity(&self) -> usize {
        match &self.memory {
            Memory::Heap(bytes) => bytes.capacity(),
            Memory::Mapped(bytes) => bytes.len(),
        }
    }

    /// How many bytes still fit behind those that are there.
    pub(super) fn room(&self) -> usize {
        self.capacity() - self.len
    }

    /// Adds `bytes`, for which there is room.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.room());
        match &mut self.memory {
            Memory::Heap(all) => all.extend_from_slice(bytes),
            Memory::Mapped(all) => all[self.len..][..bytes.len()].copy_from_slice(bytes),
        }
        self.len += bytes.len();
    }
}

impl Mapping {
    /// One more of so many bytes; `None` if there are as many as there may be.
    fn new(len: usize) -> Result<Option<Self>, Refused> {
        // Relaxed: a number that stands for itself.
        if MAPPINGS.fetch_add(1, Ordering::Relaxed) < MAPPINGS_MAX
            && let Ok(bytes) = MmapMut::map_anon(len)
        {
            return Ok(Some(Self(bytes)));
        }
        let others = MAPPINGS.fetch_sub(1, Ordering::Relaxed) - 1;
        match others < MAPPINGS_MAX {
            true => Err(Refused::NoMemory),
            false => Ok(None),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        MAPPINGS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Mapping {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Spares {
    /// Takes the memory of a buffer, for the next one or to give it back.
    pub(super) fn keep(&mut self, buffer: Buffer) {
        if let Memory::Mapped(mapped) = buffer.memory {
            self.bytes += mapped.len();
            self.mappings.push(mapped);
        }
    }

    fn take(&mut self, len: usize) -> Option<Mapping> {
        let first = self.mappings.len().saturating_sub(LOOKED_AT_MAX);
        let last = &self.mappings[first..];
        let at = last.iter().rposition(|mapped| mapped.len() == len)?;
        self.bytes -= len;
        Some(self.mappings.swap_remove(first + at))
    }

    /// Bytes that are on their way back to the system.
    pub const fn surplus(&self) -> usize {
        self.bytes.saturating_sub(SPARE_BYTES_MAX)
    }

    /// At the end of a turn: gives one of the surplus back, and more until that is `room` bytes at
    /// most. With nothing else to do there are tens of thousands of turns a second.
    pub fn trim(&mut self, room: usize) {
        if self.surplus() > 0 {
            self.shrink(room.min(self.surplus() - 1));
        }
    }

    /// Gives `bytes` of the surplus back, or all of it; returns how much that was.
    pub fn release(&mut self, bytes: usize) -> usize {
        let before = self.bytes;
        self.shrink(self.surplus().saturating_sub(bytes));
        before - self.bytes
    }

    /// Gives mappings back until the surplus is so small.
    fn shrink(&mut self, surplus: usize) {
        while self.surplus() > surplus
            && let Some(mapped) = self.mappings.pop()
        {
            self.bytes -= mapped.len();
        }
        if self.surplus() == 0 {
            self.mappings.shrink_to(SPARE_BYTES_MAX / MAPPED_LEN_MIN);
        }
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        let memory = Memory::Heap(bytes);
        Self { memory, len }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Mapped(bytes) => &bytes[..self.len],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(capacity: usize, spares: &mut Spares) -> Buffer {
        Buffer::new(capacity, spares).unwrap()
    }

    #[test]
    fn what_is_put_in_is_there_whatever_holds_it() {
        let mut spares = Spares::default();
        for capacity in [300, 4096, MAPPED_LEN_MIN, LEN, LEN] {
            let mut buffer = buffer(capacity, &mut spares);
            assert_eq!((buffer.capacity(), buffer.room()), (capacity, capacity));
            assert!(buffer.is_empty(), "a spare one too");
            let bytes: Vec<_> = (0..capacity)
                .map(|at| u8::try_from(at % 251).unwrap())
                .collect();
            let (head, tail) = bytes.split_at(100);
            buffer.extend(head);
            assert_eq!(&*buffer, head);
            buffer.extend(tail);
            assert!(*buffer == bytes[..] && buffer.room() == 0);
            spares.keep(buffer);
        }
    }

    const LEN: usize = 64 * 1024;
    const KEPT: usize = SPARE_BYTES_MAX / LEN;

    fn spares(count: usize) -> Spares {
        let mut spares = Spares::default();
        for _ in 0..count {
            spares.keep(buffer(LEN, &mut Spares::default()));
            spares.keep(buffer(4096, &mut Spares::default()));
        }
        assert_eq!((spares.mappings.len(), spares.bytes), (count, count * LEN));
        spares
    }

    #[test]
    fn a_few_are_kept_and_the_rest_goes_back_one_in_each_turn() {
        let mut spares = spares(KEPT + 3);
        for left in [2, 1, 0, 0] {
            spares.trim(usize::MAX);
            assert_eq!(spares.surplus(), left * LEN);
        }
        let bound = SPARE_BYTES_MAX / MAPPED_LEN_MIN;
        assert!(spares.mappings.capacity() <= bound, "nor what held them");
        drop(buffer(LEN, &mut spares));
        assert_eq!(spares.bytes, SPARE_BYTES_MAX - LEN);
    }

    #[test]
    fn what_has_no_room_goes_back_at_once() {
        let mut tight = spares(KEPT + 9);
        tight.trim(3 * LEN + 1);
        assert_eq!(tight.surplus(), 3 * LEN);
        tight.trim(0);
        assert_eq!(tight.surplus(), 0);
        let mut asked = spares(KEPT + 10);
        assert_eq!(asked.release(2 * LEN + 1), 3 * LEN);
        assert_eq!(asked.release(usize::MAX), 7 * LEN);
        assert_eq!(asked.release(1), 0, "what is kept is no surplus");
    }

    #[test]
    fn a_spare_serves_a_buffer_of_its_own_size_alone() {
        let mut spares = spares(2);
        drop(buffer(LEN / 2, &mut spares));
        assert_eq!(spares.bytes, 2 * LEN);
        spares.keep(buffer(LEN / 2, &mut Spares::default()));
        assert_eq!(spares.bytes, 2 * LEN + LEN / 2);
        drop(buffer(LEN, &mut spares));
        assert_eq!(spares.bytes, LEN + LEN / 2);
    }

    #[test]
    fn beyond_as_many_mappings_as_there_may_be_the_heap_serves() {
        let mut spares = Spares::default();
        let is_mapped = |buffer: &Buffer| matches!(buffer.memory, Memory::Mapped(_));
        // Other tests of this process may have some too.
        let all: Vec<_> = (0..MAPPINGS_MAX + 10)
            .map(|_| buffer(MAPPED_LEN_MIN, &mut spares))
            .collect();
        assert!(is_mapped(&all[0]) && !is_mapped(&all[MAPPINGS_MAX]));
        assert_eq!(all[MAPPINGS_MAX].capacity(), MAPPED_LEN_MIN);
        drop(all);
        assert!(is_mapped(&buffer(MAPPED_LEN_MIN, &mut spares)));
    }
}
