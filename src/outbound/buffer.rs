//! Memory of chunks, which goes back to the system when a burst is over.
//!
//! What an allocator gets back from the midst of its heap it keeps, most often for good: twenty
//! readers that fell 4 MiB behind once would cost the process 80 MiB for ever. So larger chunks
//! are mappings of their own.

use std::ops::Deref;

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
    Mapped(MmapMut),
}

/// A few mappings of a shard, kept for its next reader that blinks: to unmap one interrupts every
/// core that runs this process.
#[derive(Debug, Default)]
pub struct Spares(Vec<MmapMut>);

/// From this size on a buffer is a mapping.
const MAPPED_LEN_MIN: usize = 16 * 1024;
/// The size of those that are kept: a chunk of a long backlog.
pub(super) const SPARE_LEN: usize = 64 * 1024;
/// A megabyte of them.
const SPARES_MAX: usize = 16;

impl Buffer {
    /// An empty one for `capacity` bytes.
    pub(super) fn with_capacity(capacity: usize, spares: &mut Spares) -> Result<Self, Refused> {
        let memory = if capacity < MAPPED_LEN_MIN {
            let mut bytes = Vec::new();
            let reserved = bytes.try_reserve_exact(capacity);
            reserved.map_err(|_| Refused::NoMemory)?;
            Memory::Heap(bytes)
        } else {
            let spare = spares.take(capacity);
            let mapped = spare.map_or_else(|| MmapMut::map_anon(capacity), Ok);
            Memory::Mapped(mapped.map_err(|_| Refused::NoMemory)?)
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

impl Spares {
    fn take(&mut self, capacity: usize) -> Option<MmapMut> {
        (capacity == SPARE_LEN).then(|| self.0.pop())?
    }

    /// Keeps the memory of a buffer, or gives it back.
    pub(super) fn keep(&mut self, buffer: Buffer) {
        if let Memory::Mapped(bytes) = buffer.memory
            && bytes.len() == SPARE_LEN
            && self.0.len() < SPARES_MAX
        {
            self.0.push(bytes);
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

    #[test]
    fn what_is_put_in_is_there_whatever_holds_it() {
        let mut spares = Spares::default();
        for capacity in [4096, MAPPED_LEN_MIN, SPARE_LEN, SPARE_LEN] {
            let mut buffer = Buffer::with_capacity(capacity, &mut spares).unwrap();
            assert_eq!((buffer.capacity(), buffer.room()), (capacity, capacity));
            assert!(buffer.is_empty(), "a spare one too");
            let bytes: Vec<_> = (0..capacity)
                .map(|at| u8::try_from(at % 251).unwrap())
                .collect();
            let (head, tail) = bytes.split_at(1000);
            buffer.extend(head);
            assert_eq!(&*buffer, head);
            buffer.extend(tail);
            assert!(*buffer == bytes[..] && buffer.room() == 0);
            spares.keep(buffer);
        }
    }

    #[test]
    fn a_few_are_kept_and_the_rest_goes_back() {
        let mut spares = Spares::default();
        let buffer = |len: usize| Buffer::with_capacity(len, &mut Spares::default()).unwrap();
        for _ in 0..2 * SPARES_MAX {
            spares.keep(buffer(SPARE_LEN));
            spares.keep(buffer(SPARE_LEN / 2));
            spares.keep(buffer(4096));
        }
        assert_eq!(spares.0.len(), SPARES_MAX);
        let again = Buffer::with_capacity(SPARE_LEN, &mut spares).unwrap();
        assert_eq!(
            (again.capacity(), spares.0.len()),
            (SPARE_LEN, SPARES_MAX - 1)
        );
        Buffer::with_capacity(SPARE_LEN / 2, &mut spares).unwrap();
        assert_eq!(spares.0.len(), SPARES_MAX - 1);
    }
}
