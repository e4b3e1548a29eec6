//! Histograms of how long deliveries took, from the intended and from the actual send time.

use hdrhistogram::{Counter, Histogram};

use crate::stamp::Stamp;

/// One minute: a later delivery is recorded as this.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// What the generator's lag may always be: a turn of its own loop (poll, read, check, write), in
/// which the next message may come due, takes a few microseconds. A target that polls answers in
/// little more; a tenth of that would ask of the generator what no turn can keep.
const LAG_FLOOR_NS: u64 = 5_000;

/// Percentiles that are reported, with their quantiles; the last is the maximum.
pub const RANKS: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

/// The values of all [`RANKS`].
pub fn ranked<C: Counter>(histogram: &Histogram<C>) -> [u64; RANKS.len()] {
    RANKS.map(|(_, quantile)| histogram.value_at_quantile(quantile))
}

/// So many subscribers can have histograms of their own with three digits; of 10,000 they would
/// take a gigabyte.
const FEW: usize = 64;

/// What an open loop measures of the messages that were due in one interval.
#[derive(Clone, Debug)]
pub struct Latency {
    from_ns: u64,
    until_ns: u64,
    /// Receive time less intended time.
    pub corrected: Histogram<u64>,
    /// Receive time less first send attempt; empty where the stamp has no room for it.
    pub uncorrected: Histogram<u64>,
    /// First send attempt less intended time.
    pub attempt_lag: Histogram<u64>,
    /// Receive time less intended time of each subscriber.
    pub subscribers: Vec<Histogram<u32>>,
}

impl Latency {
    /// Measures what is due in `[from_ns, until_ns)`.
    pub fn new(from_ns: u64, until_ns: u64, subscribers: usize) -> Self {
        let digits = if subscribers <= FEW { 3 } else { 2 };
        Self {
            from_ns,
            until_ns,
            corrected: histogram(3),
            uncorrected: histogram(3),
            attempt_lag: histogram(3),
            subscribers: vec![histogram(digits); subscribers],
        }
    }

    /// One message was handed to a socket for the first time.
    pub fn attempted(&mut self, intended_ns: u64, lag_ns: u64) {
        if self.is_measured(intended_ns) {
            self.attempt_lag.saturating_record(lag_ns);
        }
    }

    /// One message arrived.
    pub fn delivered(&mut self, subscriber: usize, stamp: &Stamp, now_ns: u64) {
        if !self.is_measured(stamp.intended_ns) {
            return;
        }
        let corrected_ns = now_ns.saturating_sub(stamp.intended_ns);
        self.corrected.saturating_record(corrected_ns);
        self.subscribers[subscriber].saturating_record(corrected_ns);
        if let Some(lag_ns) = stamp.lag_ns {
            self.uncorrected
                .saturating_record(corrected_ns.saturating_sub(lag_ns.into()));
        }
    }

    /// p99 of the generator's own lag.
    pub fn lag_p99_ns(&self) -> u64 {
        self.attempt_lag.value_at_quantile(0.99)
    }

    /// What that may be at most: a tenth of the latency's p50, so that the lag is no part of the
    /// figure to speak of, but never less than [`LAG_FLOOR_NS`]. It cannot move the p50, for it is
    /// only one message in a hundred that waits as long.
    pub fn lag_p99_max_ns(&self) -> u64 {
        LAG_FLOOR_NS.max(self.corrected.value_at_quantile(0.5) / 10)
    }

    /// p50 and p99 of the subscriber with the highest p99, and of the median one.
    pub fn worst_and_median_subscriber(&self) -> Option<[(u64, u64); 2]> {
        let ranks = |of: &Histogram<u32>| (of.value_at_quantile(0.99), of.value_at_quantile(0.5));
        let mut ranked: Vec<_> = self.subscribers.iter().map(ranks).collect();
        ranked.sort_unstable();
        let worst = ranked.last()?;
        let median = ranked.get(ranked.len() / 2)?;
        Some([worst, median].map(|&(p99, p50)| (p50, p99)))
    }

    const fn is_measured(&self, intended_ns: u64) -> bool {
        self.from_ns <= intended_ns && intended_ns < self.until_ns
    }
}

fn histogram<C: Counter>(digits: u8) -> Histogram<C> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, digits).expect("these bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(intended_ns: u64, lag_ns: Option<u32>) -> Stamp {
        Stamp {
            intended_ns,
            lag_ns,
            sequence: 0,
            publisher: 0,
        }
    }

    #[test]
    fn only_messages_that_were_due_in_the_interval_count() {
        let mut latency = Latency::new(1_000, 2_000, 1);
        for intended_ns in [999, 1_000, 1_999, 2_000] {
            latency.delivered(0, &stamp(intended_ns, Some(0)), 3_000);
            latency.attempted(intended_ns, 5);
        }
        assert_eq!((latency.corrected.len(), latency.attempt_lag.len()), (2, 2));
    }

    #[test]
    fn a_late_sender_is_seen_in_the_corrected_latency_alone() {
        let mut latency = Latency::new(0, 1, 1);
        latency.delivered(0, &stamp(0, Some(400)), 500);
        assert_eq!(
            (latency.corrected.max(), latency.uncorrected.max()),
            (500, 100)
        );
        latency.delivered(0, &stamp(0, None), 500);
        assert_eq!((latency.corrected.len(), latency.uncorrected.len()), (2, 1));
    }

    #[test]
    fn the_generator_may_be_late_by_a_tenth_of_the_p50_or_by_a_turn_of_its_own() {
        for (latency_ns, allowed_ns) in [(12_000, 5_000), (50_000, 5_000), (200_000, 20_000)] {
            let mut latency = Latency::new(0, 1, 1);
            latency.delivered(0, &stamp(0, Some(0)), latency_ns);
            let error = latency.lag_p99_max_ns().abs_diff(allowed_ns);
            assert!(error <= allowed_ns / 500, "{latency_ns}: {error}");
        }
    }

    #[test]
    fn the_worst_subscriber_is_the_one_with_the_longest_tail() {
        let mut latency = Latency::new(0, 1, 3);
        for (subscriber, now_ns) in [(0, 10), (1, 90), (2, 20)] {
            latency.delivered(subscriber, &stamp(0, None), now_ns);
        }
        assert_eq!(
            latency.worst_and_median_subscriber(),
            Some([(90, 90), (20, 20)])
        );
    }
}
