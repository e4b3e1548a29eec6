//! Time as the core sees it, and sessions waiting for a deadline.
//!
//! The core has no clock: whoever drives it passes the time in, so a test can let a minute pass in
//! one call. All waits of one kind are equally long, hence a queue in order of arming is a queue in
//! order of expiry: arming, disarming and expiring cost O(1).

use std::ops::Add;
use std::time::Duration;

use crate::pages::Pages;

/// A point in time: microseconds since the broker started, never going back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time that lies between the start and this point.
    pub const fn since_start(self) -> Duration {
        Duration::from_micros(self.0)
    }

    /// The time from `earlier` to this point; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for Timestamp {
    /// A point that far behind the start. Saturates after some 584,000 years.
    fn from(since_start: Duration) -> Self {
        Self(u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(Self::from(wait).0))
    }
}

/// Sessions, by slot, that wait for the same length of time, the one that expires first in front.
///
/// Invariant: the deadlines along the list never decrease, and a slot is in it at most once.
#[derive(Debug)]
pub(crate) struct DeadlineQueue {
    links: Pages<Link>,
    head: u32,
    tail: u32,
    wait: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    due: Timestamp,
    previous: u32,
    next: u32,
}

/// The end of a list, and `previous` of a slot that is in none.
const NONE: u32 = u32::MAX;
const UNLINKED: u32 = u32::MAX - 1;

impl Default for Link {
    fn default() -> Self {
        Self {
            due: Timestamp(0),
            previous: UNLINKED,
            next: NONE,
        }
    }
}

impl DeadlineQueue {
    pub(crate) fn new(wait: Duration) -> Self {
        Self {
            links: Pages::default(),
            head: NONE,
            tail: NONE,
            wait,
        }
    }

    /// Starts the wait of `slot` at `now`; a wait that runs already goes on unchanged.
    pub(crate) fn arm(&mut self, slot: u32, now: Timestamp) {
        let due = now + self.wait;
        let previous = self.tail;
        debug_assert!(previous == NONE || self.links.reach(previous as usize).due <= due);
        let link = self.links.reach(slot as usize);
        if link.previous != UNLINKED {
            return;
        }
        *link = Link {
            due,
            previous,
            next: NONE,
        };
        match previous {
            NONE => self.head = slot,
            tail => self.links.reach(tail as usize).next = slot,
        }
        self.tail = slot;
    }

    /// Ends the wait of `slot`, if it waits.
    pub(crate) fn disarm(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else {
            return;
        };
        if link.previous == UNLINKED {
            return;
        }
        let Link { previous, next, .. } = *link;
        link.previous = UNLINKED;
        match previous {
            NONE => self.head = next,
            previous => self.links.reach(previous as usize).next = next,
        }
        match next {
            NONE => self.tail = previous,
            next => self.links.reach(next as usize).previous = previous,
        }
    }

    /// Starts the wait of `slot` anew.
    pub(crate) fn rearm(&mut self, slot: u32, now: Timestamp) {
        self.disarm(slot);
        self.arm(slot, now);
    }

    /// When the first wait ends.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        // None is an index that no table reaches.
        self.links.get(self.head as usize).map(|link| link.due)
    }

    /// Takes the first slot whose wait is over.
    pub(crate) fn pop_expired(&mut self, now: Timestamp) -> Option<u32> {
        let slot = self.head;
        (self.first()? <= now).then(|| {
            self.disarm(slot);
            slot
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from(Duration::from_secs(seconds))
    }

    #[test]
    fn waits_expire_in_order_and_not_before_they_are_due() {
        let mut queue = DeadlineQueue::new(Duration::from_secs(10));
        queue.arm(3, at(0));
        queue.arm(1, at(1));
        queue.arm(7, at(2));
        queue.arm(3, at(2));
        assert_eq!(queue.first(), Some(at(10)));
        assert_eq!(queue.pop_expired(at(9)), None);
        assert_eq!(queue.pop_expired(at(11)), Some(3));
        assert_eq!(queue.pop_expired(at(11)), Some(1));
        assert_eq!(queue.pop_expired(at(11)), None);
        queue.disarm(7);
        assert_eq!(queue.first(), None);
    }

    #[test]
    fn a_wait_in_the_middle_can_end_and_start_anew() {
        let mut queue = DeadlineQueue::new(Duration::from_secs(1));
        for slot in 0..4 {
            queue.arm(slot, at(0));
        }
        queue.disarm(1);
        queue.disarm(1);
        queue.rearm(0, at(5));
        queue.disarm(99);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop_expired(at(6))).collect();
        assert_eq!(order, [2, 3, 0]);
    }
}
