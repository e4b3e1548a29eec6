//! Memory of chunks, which goes back to the system when a burst is over.
//!
//! What an allocator gets back from the midst of its heap it keeps, most often for good: twenty
//! readers that fell 4 MiB behind once would cost the process 80 MiB for ever. So the chunks of a
//! long backlog are mappings of their own.

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

/// `MAPPED_LEN` bytes of their own, counted while they exist.
#[derive(Debug)]
struct Mapping(MmapMut);

/// Mappings of a shard that hold nothing: a few for its next reader that blinks, and those that go
/// back to the system, one in each turn. To unmap one interrupts every core that runs this process,
/// and a thousand readers that are closed together leave sixteen thousand.
#[derive(Debug, Default)]
pub struct Spares(Vec<Mapping>);

/// A buffer of this size is a mapping: some pages, whatever size they have.
pub(super) const MAPPED_LEN: usize = 64 * 1024;
/// A megabyte of them is kept.
const SPARES_MAX: usize = 16;
/// So many of the others go back in each turn. With nothing else to do there are tens of thousands
/// of turns a second.
const TRIMMED_PER_TURN: usize = 1;
/// Of all brokers of the process. Linux gives a process 65,530 (`vm.max_map_count`); with none left
/// it can start no thread, and neither can it unmap one from the midst of others.
const MAPPINGS_MAX: usize = 16 * 1024;
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

impl Buffer {
    /// An empty one for `capacity` bytes.
    pub(super) fn new(capacity: usize, spares: &mut Spares) -> Result<Self, Refused> {
        let mapped = match capacity {
            MAPPED_LEN => spares
                .0
                .pop()
                .map_or_else(Mapping::new, |spare| Ok(Some(spare)))?,
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
    /// One more; `None` if there are as many as there may be.
    fn new() -> Result<Option<Self>, Refused> {
        // Relaxed: a number that stands for itself.
        if MAPPINGS.fetch_add(1, Ordering::Relaxed) < MAPPINGS_MAX
            && let Ok(bytes) = MmapMut::map_anon(MAPPED_LEN)
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
            self.0.push(mapped);
        }
    }

    /// Bytes that are on their way back to the system.
    pub const fn surplus(&self) -> usize {
        self.0.len().saturating_sub(SPARES_MAX) * MAPPED_LEN
    }

    /// Gives some of the surplus back, and so much that it takes `room` bytes at most.
    pub fn trim(&mut self, room: usize) {
        if self.surplus() > 0 {
            let rest = self.0.len() - TRIMMED_PER_TURN;
            self.truncate(rest.min(SPARES_MAX + room / MAPPED_LEN));
        }
    }

    /// Gives `bytes` of the surplus back, or all of it; returns how much that was.
    pub fn release(&mut self, bytes: usize) -> usize {
        let before = self.0.len();
        self.truncate(before.saturating_sub(bytes.div_ceil(MAPPED_LEN)));
        (before - self.0.len()) * MAPPED_LEN
    }

    fn truncate(&mut self, count: usize) {
        self.0.truncate(count.max(SPARES_MAX));
        if self.0.len() <= SPARES_MAX {
            self.0.shrink_to(SPARES_MAX);
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
        for capacity in [300, 4096, MAPPED_LEN, MAPPED_LEN] {
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

    fn spares(count: usize) -> Spares {
        let mut spares = Spares::default();
        for _ in 0..count {
            spares.keep(buffer(MAPPED_LEN, &mut Spares::default()));
            spares.keep(buffer(4096, &mut Spares::default()));
        }
        assert_eq!(spares.0.len(), count);
        spares
    }

    #[test]
    fn a_few_are_kept_and_the_rest_goes_back_some_in_each_turn() {
        let mut spares = spares(SPARES_MAX + 2 * TRIMMED_PER_TURN + 1);
        for left in [TRIMMED_PER_TURN + 1, 1, 0, 0] {
            spares.trim(usize::MAX);
            assert_eq!(spares.surplus(), left * MAPPED_LEN);
        }
        assert_eq!(spares.0.len(), SPARES_MAX);
        assert_eq!(spares.0.capacity(), SPARES_MAX, "nor of what held them");
        drop(buffer(MAPPED_LEN, &mut spares));
        assert_eq!(spares.0.len(), SPARES_MAX - 1);
    }

    #[test]
    fn what_has_no_room_goes_back_at_once() {
        let mut tight = spares(SPARES_MAX + 9 * TRIMMED_PER_TURN);
        tight.trim(3 * MAPPED_LEN + 1);
        assert_eq!(tight.surplus(), 3 * MAPPED_LEN);
        tight.trim(0);
        assert_eq!(tight.surplus(), 0);
        let mut asked = spares(SPARES_MAX + 10);
        assert_eq!(asked.release(2 * MAPPED_LEN + 1), 3 * MAPPED_LEN);
        assert_eq!(asked.release(usize::MAX), 7 * MAPPED_LEN);
        assert_eq!(asked.release(1), 0, "what is kept is no surplus");
    }

    #[test]
    fn beyond_as_many_mappings_as_there_may_be_the_heap_serves() {
        let mut spares = Spares::default();
        let is_mapped = |buffer: &Buffer| matches!(buffer.memory, Memory::Mapped(_));
        // Other tests of this process may have some too.
        let all: Vec<_> = (0..MAPPINGS_MAX + 10)
            .map(|_| buffer(MAPPED_LEN, &mut spares))
            .collect();
        assert!(is_mapped(&all[0]) && !is_mapped(&all[MAPPINGS_MAX]));
        assert_eq!(all[MAPPINGS_MAX].capacity(), MAPPED_LEN);
        drop(all);
        assert!(is_mapped(&buffer(MAPPED_LEN, &mut spares)));
    }
}
