//! Did everything arrive, once and in order? One [`Sequence`] per subscriber, publisher and topic.

/// Gaps that are remembered per sequence, to tell a late message from a repeated one. A run with
/// more is invalid many times over.
const GAPS_MAX: usize = 256;

/// What went wrong, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Never arrived.
    pub lost: u64,
    /// Arrived again.
    pub duplicate: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// Not of this run, or not for this subscriber.
    pub foreign: u64,
}

impl Faults {
    /// Whether there were any.
    #[cfg(test)]
    pub const fn any(&self) -> bool {
        self.lost > 0 || self.duplicate > 0 || self.reordered > 0 || self.foreign > 0
    }

    /// Adds those of another sequence.
    pub const fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.duplicate += other.duplicate;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
    }
}

/// Follows one publisher's messages on one topic at one subscriber.
///
/// Invariant: everything before `next` has arrived or lies in one of the `gaps`, which are
/// ascending, not empty and do not overlap.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    next: u32,
    gaps: Vec<(u32, u32)>,
    faults: Faults,
}

impl Sequence {
    /// The number that is expected next.
    pub const fn next(&self) -> u32 {
        self.next
    }

    /// Takes `count` messages that were seen to be the expected ones.
    pub const fn advance(&mut self, count: u32) {
        self.next = self.next.wrapping_add(count);
    }

    /// Takes one message, whatever its number.
    pub fn take(&mut self, number: u32) {
        // Numbers wrap in long runs: what is less than half the circle ahead is ahead.
        let ahead = number.wrapping_sub(self.next);
        if ahead == 0 {
            self.advance(1);
        } else if ahead < 1 << 31 {
            self.faults.lost += u64::from(ahead);
            if self.gaps.len() < GAPS_MAX {
                self.gaps.push((self.next, number));
            }
            self.next = number.wrapping_add(1);
        } else if self.fill_gap(number) {
            self.faults.lost -= 1;
            self.faults.reordered += 1;
        } else {
            self.faults.duplicate += 1;
        }
    }

    /// The verdict, once the publisher has sent `sent` messages and nothing more can arrive.
    pub fn finish(&self, sent: u32) -> Faults {
        let mut faults = self.faults;
        let missing = sent.wrapping_sub(self.next);
        if missing < 1 << 31 {
            faults.lost += u64::from(missing);
        } else {
            // A number that was never sent.
            faults.foreign += 1;
        }
        faults
    }

    /// Whether `number` was missing until now.
    fn fill_gap(&mut self, number: u32) -> bool {
        let holds =
            |&(start, end): &(u32, u32)| number.wrapping_sub(start) < end.wrapping_sub(start);
        let Some(index) = self.gaps.iter().position(holds) else {
            return false;
        };
        let (start, end) = self.gaps.remove(index);
        let behind = number.wrapping_add(1);
        let rest = [(start, number), (behind, end)];
        let rest = rest.into_iter().filter(|(start, end)| start != end);
        self.gaps.splice(index..index, rest);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(arrived: &[u32], sent: u32) -> Faults {
        let mut sequence = Sequence::default();
        arrived.iter().for_each(|&number| sequence.take(number));
        sequence.finish(sent)
    }

    #[test]
    fn all_in_order_is_no_fault() {
        assert!(!faults(&[0, 1, 2, 3], 4).any());
        assert!(!faults(&[], 0).any());
    }

    #[test]
    fn a_lost_message_is_found_in_the_middle_and_at_the_end() {
        let lost = |lost| Faults {
            lost,
            ..Faults::default()
        };
        assert_eq!(faults(&[0, 1, 3], 4), lost(1));
        assert_eq!(faults(&[0, 1], 4), lost(2));
        assert_eq!(faults(&[], 4), lost(4));
        assert_eq!(faults(&[2, 5], 9), lost(2 + 2 + 3));
    }

    #[test]
    fn a_repeated_message_is_found_at_once_and_later() {
        let duplicate = |duplicate| Faults {
            duplicate,
            ..Faults::default()
        };
        assert_eq!(faults(&[0, 0, 1, 2], 3), duplicate(1));
        assert_eq!(faults(&[0, 1, 2, 0, 1], 3), duplicate(2));
    }

    #[test]
    fn a_late_message_is_reordered_and_not_lost() {
        let reordered = |reordered| Faults {
            reordered,
            ..Faults::default()
        };
        assert_eq!(faults(&[1, 0, 2], 3), reordered(1));
        assert_eq!(faults(&[4, 2, 0, 1, 3], 5), reordered(4));
    }

    #[test]
    fn a_late_message_that_comes_twice_is_both() {
        let both = Faults {
            reordered: 1,
            duplicate: 1,
            ..Faults::default()
        };
        assert_eq!(faults(&[1, 0, 0, 2], 3), both);
    }

    #[test]
    fn a_number_that_was_never_sent_is_foreign() {
        assert_eq!(faults(&[0, 1, 2], 2).foreign, 1);
    }

    #[test]
    fn numbers_wrap_in_long_runs() {
        let mut sequence = Sequence {
            next: u32::MAX - 1,
            ..Sequence::default()
        };
        for number in [u32::MAX - 1, u32::MAX, 0, 2, 1] {
            sequence.take(number);
        }
        let reordered = Faults {
            reordered: 1,
            ..Faults::default()
        };
        assert_eq!(sequence.finish(3), reordered);
    }
}
