//! The stand-in for rtrb's ring, which is trusted: the same orderings, and nothing stronger.
//!
//! As there, each end publishes its own position with Release, keeps the other's as it last saw
//! it, and reads it again, with Acquire, only when the ring seems full or empty. A lock instead
//! would order more than rtrb does and hide what the code around it forgets.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use crate::sync::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct RingBuffer<T> {
    /// Popped and pushed so far.
    head: AtomicUsize,
    tail: AtomicUsize,
    /// A lock of std's, which no checker sees: only one end has a slot at a time.
    slots: Vec<Mutex<Option<T>>>,
}

#[derive(Debug)]
pub(crate) struct Producer<T> {
    ring: Arc<RingBuffer<T>>,
    tail: usize,
    seen_head: Cell<usize>,
}

#[derive(Debug)]
pub(crate) struct Consumer<T> {
    ring: Arc<RingBuffer<T>>,
    head: usize,
    seen_tail: Cell<usize>,
}

#[derive(Debug)]
pub(crate) enum PushError<T> {
    Full(T),
}

#[derive(Debug)]
pub(crate) struct PopError;

impl<T> RingBuffer<T> {
    #[expect(clippy::new_ret_no_self, reason = "as rtrb has it")]
    pub(crate) fn new(capacity: usize) -> (Producer<T>, Consumer<T>) {
        // Where the spill is modelled, a second batch is to be one too many.
        let capacity = if cfg!(feature = "loom") { 1 } else { capacity };
        let ring = Arc::new(Self {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            slots: (0..capacity).map(|_| Mutex::new(None)).collect(),
        });
        let producer = Producer {
            ring: Arc::clone(&ring),
            tail: 0,
            seen_head: Cell::new(0),
        };
        let consumer = Consumer {
            ring,
            head: 0,
            seen_tail: Cell::new(0),
        };
        (producer, consumer)
    }

    /// Puts `value` into the slot of `position`, and returns what was there.
    fn replace(&self, position: usize, value: Option<T>) -> Option<T> {
        let slot = self.slots[position % self.slots.len()].lock();
        std::mem::replace(&mut slot.unwrap_or_else(PoisonError::into_inner), value)
    }
}

impl<T> Producer<T> {
    pub(crate) fn push(&mut self, value: T) -> Result<(), PushError<T>> {
        if self.is_full() {
            return Err(PushError::Full(value));
        }
        let before = self.ring.replace(self.tail, Some(value));
        assert!(before.is_none(), "a full slot was overwritten");
        self.tail += 1;
        self.ring.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    pub(crate) fn is_full(&self) -> bool {
        let is_full = || self.tail - self.seen_head.get() == self.ring.slots.len();
        if is_full() {
            self.seen_head.set(self.ring.head.load(Ordering::Acquire));
        }
        is_full()
    }
}

impl<T> Consumer<T> {
    pub(crate) fn pop(&mut self) -> Result<T, PopError> {
        if self.is_empty() {
            return Err(PopError);
        }
        let value = self.ring.replace(self.head, None);
        self.head += 1;
        self.ring.head.store(self.head, Ordering::Release);
        Ok(value.expect("the slot behind the tail is full"))
    }

    pub(crate) fn is_empty(&self) -> bool {
        let is_empty = || self.seen_tail.get() == self.head;
        if is_empty() {
            self.seen_tail.set(self.ring.tail.load(Ordering::Acquire));
        }
        is_empty()
    }
}
