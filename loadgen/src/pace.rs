//! The schedule of an open loop: tick `i` is due at `start + i / rate` and never moved.

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;

/// Which tick is due, by a clock that is passed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacer {
    start_ns: u64,
    rate: u64,
    next: u64,
}

impl Pacer {
    /// Ticks per second, from `start_ns` on.
    ///
    /// # Panics
    /// The rate is 0.
    pub const fn new(start_ns: u64, rate: u64) -> Self {
        assert!(rate > 0, "a rate is at least 1");
        Self {
            start_ns,
            rate,
            next: 0,
        }
    }

    /// When tick `tick` is due. Whole seconds apart from the rest: nothing adds up to a drift.
    pub const fn due_ns(&self, tick: u64) -> u64 {
        let (seconds, rest) = (tick / self.rate, tick % self.rate);
        self.start_ns + seconds * SECOND_NS + rest * SECOND_NS / self.rate
    }

    /// From one tick to the next.
    pub const fn interval_ns(&self) -> u64 {
        SECOND_NS / self.rate
    }

    /// The number of the next tick.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// When the next tick is due.
    pub const fn next_due_ns(&self) -> u64 {
        self.due_ns(self.next)
    }

    /// Takes the next tick, and says when it was due.
    pub const fn take(&mut self) -> u64 {
        let due_ns = self.next_due_ns();
        self.next += 1;
        due_ns
    }

    /// How many ticks are due in `[from_ns, until_ns)`.
    pub const fn count_between(&self, from_ns: u64, until_ns: u64) -> u64 {
        self.count_before(until_ns)
            .saturating_sub(self.count_before(from_ns))
    }

    /// How many ticks are due before `time_ns`: the smallest `tick` with `due_ns(tick) >= time_ns`.
    const fn count_before(&self, time_ns: u64) -> u64 {
        let since_ns = time_ns.saturating_sub(self.start_ns);
        let (seconds, rest_ns) = (since_ns / SECOND_NS, since_ns % SECOND_NS);
        // The first tick of that second with rest * SECOND_NS / rate >= rest_ns.
        let rest = (rest_ns as u128 * self.rate as u128).div_ceil(SECOND_NS as u128);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most the rate, which is a u64"
        )]
        let rest = rest as u64;
        seconds * self.rate + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_due_at_fixed_times_whatever_the_rate() {
        for (rate, tick, due_ns) in [
            (1, 5, 5 * SECOND_NS),
            (3, 1, 333_333_333),
            (3, 3, SECOND_NS),
            (10_000, 36_000_000_000, 3_600_000 * SECOND_NS),
            (7_000_000_000, 7, 1),
        ] {
            assert_eq!(Pacer::new(100, rate).due_ns(tick), 100 + due_ns, "{rate}");
        }
    }

    #[test]
    fn a_late_caller_gets_every_tick_with_its_own_time() {
        let mut pacer = Pacer::new(1_000, 1_000_000);
        assert_eq!((pacer.next(), pacer.next_due_ns()), (0, 1_000));
        assert_eq!((pacer.take(), pacer.next_due_ns()), (1_000, 2_000));
        // A stall of three periods moves nothing.
        let mut late = Vec::new();
        while pacer.next_due_ns() <= 4_200 {
            late.push((pacer.next(), pacer.take()));
        }
        assert_eq!(late, [(1, 2_000), (2, 3_000), (3, 4_000)]);
    }

    #[test]
    fn the_ticks_of_an_interval_are_those_that_are_due_in_it() {
        for rate in [1, 3, 999, 10_000, 1_234_567] {
            let pacer = Pacer::new(17, rate);
            for (from_ns, until_ns) in [
                (0, 17),
                (17, 18),
                (17, SECOND_NS + 17),
                (5_000, 3_333_350),
                (12_345, 99_999_999),
            ] {
                let due = |tick: &u64| (from_ns..until_ns).contains(&pacer.due_ns(*tick));
                let counted = (0..2_000_000).filter(due).count() as u64;
                assert_eq!(
                    pacer.count_between(from_ns, until_ns),
                    counted,
                    "{rate} {from_ns}"
                );
            }
        }
    }
}
