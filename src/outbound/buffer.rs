//! Memory of chunks, which goes back to the system when a burst is over.
//!
//! What an allocator gets back from the midst of its heap it keeps, most often for good: twenty
//! readers that fell 4 MiB behind once would cost the process 80 MiB for ever. So chunks are
//! mappings of their own.

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

/// A few mappings of a shard, by size, kept for its next reader that blinks: to unmap one
/// interrupts every core that runs this process.
#[derive(Debug, Default)]
pub struct Spares([Vec<MmapMut>; SIZES]);

/// The least and the most that a mapping has; sizes between are powers of two.
pub(super) const MAPPED_LEN_MIN: usize = 4 * 1024;
pub(super) const MAPPED_LEN_MAX: usize = MAPPED_LEN_MIN << (SIZES - 1);
const SIZES: usize = 5;
/// Of each size: less than a megabyte in all.
const SPARES_MAX: usize = 8;

impl Buffer {
    /// An empty one for at least `wanted` bytes if `most` allows, and never for more than that.
    pub(super) fn new(wanted: usize, most: usize, spares: &mut Spares) -> Result<Self, Refused> {
        let memory = match size(wanted, most) {
            Some(size) => Memory::Mapped(spares.take(size)?),
            None => {
                let mut bytes = Vec::new();
                let reserved = bytes.try_reserve_exact(most);
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

/// Which mapping: the least that has `wanted` bytes, or the largest that has no more than `most`.
fn size(wanted: usize, most: usize) -> Option<usize> {
    let wanted = wanted.div_ceil(MAPPED_LEN_MIN).next_power_of_two();
    let most = (most / MAPPED_LEN_MIN).checked_ilog2()?;
    Some(wanted.ilog2().min(most) as usize).map(|size| size.min(SIZES - 1))
}

impl Spares {
    fn take(&mut self, size: usize) -> Result<MmapMut, Refused> {
        let spare = self.0[size].pop();
        let mapped = spare.map_or_else(|| MmapMut::map_anon(MAPPED_LEN_MIN << size), Ok);
        mapped.map_err(|_| Refused::NoMemory)
    }

    /// Keeps the memory of a buffer, or gives it back.
    pub(super) fn keep(&mut self, buffer: Buffer) {
        let Memory::Mapped(bytes) = buffer.memory else {
            return;
        };
        let size = (bytes.len() / MAPPED_LEN_MIN).ilog2() as usize;
        let spares = &mut self.0[size];
        if spares.len() < SPARES_MAX {
            spares.push(bytes);
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
    fn a_buffer_has_what_is_wanted_and_never_more_than_it_may() {
        let capacity = |wanted, most| {
            let buffer = Buffer::new(wanted, most, &mut Spares::default());
            buffer.unwrap().capacity()
        };
        for (wanted, most, expected) in [
            (1, 1 << 20, 4096),
            (4097, 1 << 20, 8192),
            (20_000, 1 << 20, 32_768),
            (1 << 20, 1 << 20, MAPPED_LEN_MAX),
            (20_000, 30_000, 16_384),
            (20_000, 4096, 4096),
            (20_000, 4095, 4095),
            (20, 300, 300),
        ] {
            assert_eq!(capacity(wanted, most), expected, "{wanted} of {most}");
        }
    }

    #[test]
    fn what_is_put_in_is_there_whatever_holds_it() {
        let mut spares = Spares::default();
        for most in [300, 4096, 8192, MAPPED_LEN_MAX, MAPPED_LEN_MAX] {
            let mut buffer = Buffer::new(most, most, &mut spares).unwrap();
            assert_eq!((buffer.capacity(), buffer.room()), (most, most));
            assert!(buffer.is_empty(), "a spare one too");
            let bytes: Vec<_> = (0..most)
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

    #[test]
    fn a_few_of_each_size_are_kept_and_the_rest_goes_back() {
        let mut spares = Spares::default();
        let buffer = |len: usize, spares: &mut Spares| Buffer::new(len, len, spares).unwrap();
        for _ in 0..2 * SPARES_MAX {
            for size in 0..SIZES {
                spares.keep(buffer(MAPPED_LEN_MIN << size, &mut Spares::default()));
            }
            spares.keep(buffer(300, &mut Spares::default()));
        }
        let kept = |spares: &Spares| spares.0.each_ref().map(Vec::len);
        assert_eq!(kept(&spares), [SPARES_MAX; SIZES]);
        drop(buffer(8192, &mut spares));
        assert_eq!(kept(&spares), [8, 7, 8, 8, 8]);
    }
}
