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
    use loom::sync::atomic;

    use super::Ordering;

    /// loom does not keep a swap next to the store that it read: a plain store may come between
    /// the two, and the next swap read what the first one left, although it has seen the store.
    /// No machine does that. A store is therefore a swap here too, which has one order with the
    /// others, and Release, so that it learns nothing from them.
    #[derive(Debug)]
    pub(crate) struct AtomicBool(atomic::AtomicBool);

    impl AtomicBool {
        pub(crate) fn new(value: bool) -> Self {
            Self(atomic::AtomicBool::new(value))
        }

        pub(crate) fn store(&self, value: bool, _: Ordering) {
            self.0.swap(value, Ordering::Release);
        }

        pub(crate) fn swap(&self, value: bool, ordering: Ordering) -> bool {
            self.0.swap(value, ordering)
        }
    }
}
