//! Time as the core sees it, and sessions waiting for a deadline.
//!
//! The core has no clock: whoever drives it passes the time in, so a test can let a minute pass in
//! one call. All waits of one kind are equally long, hence a queue in order of arming is a queue in
//! order of expiry: arming, disarming and expiring cost O(1).

use std::ops::Add;
use std::time::Duration;

use crate::pages::Pages;
use crate::session::ListenerId;

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

/// Sessions, by slot, that wait for the same kind of thing. Each listener has a length of time of
/// its own and hence a list of its own, the session that expires first in front.
///
/// Invariant: the deadlines along a list never decrease, and a slot is in at most one list.
#[derive(Debug)]
pub(crate) struct DeadlineQueue {
    links: Pages<Link>,
    lists: Box<[List]>,
}

#[derive(Debug)]
struct List {
    head: u32,
    tail: u32,
    wait: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    due: Timestamp,
    /// Slots, or the end of the list, which says which list it is.
    previous: u32,
    next: u32,
}

/// `previous` of a slot that is in no list.
const UNLINKED: u32 = u32::MAX;
/// The end of list k is this and k; slots are below.
const END: u32 = UNLINKED - (1 << 16);

impl Default for Link {
    fn default() -> Self {
        Self {
            due: Timestamp(0),
            previous: UNLINKED,
            next: END,
        }
    }
}

impl DeadlineQueue {
    /// `waits`: of each listener.
    pub(crate) fn new(waits: impl IntoIterator<Item = Duration>) -> Self {
        let list = |(end, wait)| List {
            head: end,
            tail: end,
            wait,
        };
        Self {
            links: Pages::default(),
            lists: (END..UNLINKED).zip(waits).map(list).collect(),
        }
    }

    /// Starts the wait of `slot` at `now`; a wait that runs already goes on unchanged.
    pub(crate) fn arm(&mut self, slot: u32, listener: ListenerId, now: Timestamp) {
        let list = &self.lists[listener.index()];
        let (due, previous) = (now + list.wait, list.tail);
        debug_assert!(previous >= END || self.links.reach(previous as usize).due <= due);
        let link = self.links.reach(slot as usize);
        if link.previous != UNLINKED {
            return;
        }
        let next = end_of(listener);
        *link = Link {
            due,
            previous,
            next,
        };
        self.join(previous, slot);
        self.lists[listener.index()].tail = slot;
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
        self.join(previous, next);
        match next.checked_sub(END) {
            Some(list) => self.lists[list as usize].tail = previous,
            None => self.links.reach(next as usize).previous = previous,
        }
    }

    /// Makes `next` what follows `previous`.
    fn join(&mut self, previous: u32, next: u32) {
        match previous.checked_sub(END) {
            Some(list) => self.lists[list as usize].head = next,
            None => self.links.reach(previous as usize).next = next,
        }
    }

    /// Starts the wait of `slot` anew.
    pub(crate) fn rearm(&mut self, slot: u32, listener: ListenerId, now: Timestamp) {
        self.disarm(slot);
        self.arm(slot, listener, now);
    }

    /// When the first wait ends.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        self.lists.iter().filter_map(|list| self.due(list)).min()
    }

    /// Takes a slot whose wait is over, of each list the first one first.
    pub(crate) fn pop_expired(&mut self, now: Timestamp) -> Option<u32> {
        let mut lists = self.lists.iter();
        let expired = lists.find(|list| self.due(list).is_some_and(|due| due <= now))?;
        let slot = expired.head;
        self.disarm(slot);
        Some(slot)
    }

    fn due(&self, list: &List) -> Option<Timestamp> {
        // An end is an index that no table reaches.
        self.links.get(list.head as usize).map(|link| link.due)
    }
}

fn end_of(listener: ListenerId) -> u32 {
    END + u32::try_from(listener.index()).expect("listeners are numbered in 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from(Duration::from_secs(seconds))
    }

    #[test]
    fn waits_expire_in_order_and_not_before_they_are_due() {
        let mut queue = DeadlineQueue::new([Duration::from_secs(10)]);
        queue.arm(3, ListenerId::COMMON, at(0));
        queue.arm(1, ListenerId::COMMON, at(1));
        queue.arm(7, ListenerId::COMMON, at(2));
        queue.arm(3, ListenerId::COMMON, at(2));
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
        let mut queue = DeadlineQueue::new([Duration::from_secs(1)]);
        for slot in 0..4 {
            queue.arm(slot, ListenerId::COMMON, at(0));
        }
        queue.disarm(1);
        queue.disarm(1);
        queue.rearm(0, ListenerId::COMMON, at(5));
        queue.disarm(99);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop_expired(at(6))).collect();
        assert_eq!(order, [2, 3, 0]);
    }

    #[test]
    fn each_listener_has_a_wait_of_its_own() {
        let (common, other) = (ListenerId::COMMON, ListenerId::of(0));
        let mut queue = DeadlineQueue::new([10, 1].map(Duration::from_secs));
        queue.arm(0, common, at(0));
        queue.arm(1, other, at(0));
        queue.arm(2, other, at(3));
        queue.arm(3, common, at(3));
        queue.disarm(0);
        assert_eq!(queue.first(), Some(at(1)));
        queue.rearm(1, other, at(4));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop_expired(at(5))).collect();
        assert_eq!((order, queue.first()), (vec![2, 1], Some(at(13))));
        assert_eq!(queue.pop_expired(at(13)), Some(3));
        assert_eq!(queue.first(), None);
    }
}
