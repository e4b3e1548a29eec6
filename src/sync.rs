//! What reactors share, by one name each: atomics, locks, and rings of batches.
//!
//! Code that another thread may run into imports these from here. The models of `models/` put
//! stand-ins into this place, and so run that very code in every order that its threads may take.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) use rtrb::{Consumer, Producer, PushError, RingBuffer};
