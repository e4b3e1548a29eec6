//! The stand-in for the broker's `src/sync.rs`: the same names, under the eyes of a checker.

#[cfg(feature = "loom")]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(feature = "loom")]
pub(crate) use flag::AtomicBool;

pub(crate) use crate::ring::{Consumer, Producer, PushError, RingBuffer};

/// A flag that loom can follow.
#[cfg(feature = "loom")]
mod flag {
    use std::sync::atomic;

    use super::Ordering;

    /// A flag whose accesses have one order, that of the run, and order nothing else: what code
    /// around it relies on are its fences.
    ///
    /// loom's own does not keep a swap next to the store that it read: a plain store may come
    /// between the two, and the next swap read what the first one left, although its thread has
    /// seen the store. No machine does that. Making the store a swap as well hides a missing
    /// fence, because a swap also reads.
    #[derive(Debug)]
    pub(crate) struct AtomicBool {
        value: atomic::AtomicBool,
        /// Stored to at each access, so that loom tries every order of them.
        accesses: loom::sync::atomic::AtomicBool,
    }

    impl AtomicBool {
        pub(crate) fn new(value: bool) -> Self {
            Self {
                value: atomic::AtomicBool::new(value),
                accesses: loom::sync::atomic::AtomicBool::new(false),
            }
        }

        pub(crate) fn store(&self, value: bool, ordering: Ordering) {
            self.swap(value, ordering);
        }

        pub(crate) fn swap(&self, value: bool, _: Ordering) -> bool {
            self.accesses.store(true, Ordering::Relaxed);
            // Relaxed: loom runs one thread at a time, and changes it before a store of its own.
            self.value.swap(value, Ordering::Relaxed)
        }
    }
}
