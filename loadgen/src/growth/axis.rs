//! What grows, and how much a delivery costs at each size. Pure arithmetic.

use clap::ValueEnum;

use crate::compare::median;
use crate::run::Outcome;
use crate::workload::{Plan, Workload};

/// How much more a delivery may cost than what it is relative to.
pub const RATIO_MAX: f64 = 1.15;

/// Topics that one connection holds beside the load: fewer than a broker allows it.
const TOPICS_PER_CONNECTION: usize = 50_000;

/// What grows, everything else being equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Axis {
    /// Topics registered beside `spread`, relative to the fewest.
    Topics,
    /// Subscribers of `fanout`, relative to the relay with as many.
    Subscribers,
    /// Idle connections beside `fanout`, relative to the fewest.
    Connections,
}

impl Axis {
    /// In the order of the reports.
    pub const ALL: [Self; 3] = [Self::Topics, Self::Subscribers, Self::Connections];

    /// The load beside which it grows.
    pub const fn workload(self) -> Workload {
        match self {
            Self::Topics => Workload::Spread,
            Self::Subscribers | Self::Connections => Workload::Fanout,
        }
    }

    /// Whether the relay stands beside each size; otherwise the smallest does.
    pub const fn is_beside_relay(self) -> bool {
        matches!(self, Self::Subscribers)
    }

    /// The load at `size`.
    pub fn plan(self, size: usize) -> Plan {
        match self {
            Self::Subscribers => Plan::fanout_to(size),
            Self::Topics | Self::Connections => self.workload().plan(),
        }
    }

    /// What is held beside the load at `size`: topics, and how many a connection has of them.
    pub fn bystanders(self, size: usize) -> (usize, usize) {
        match self {
            Self::Topics => (size - self.workload().plan().topics, TOPICS_PER_CONNECTION),
            Self::Subscribers => (0, 1),
            Self::Connections => (size, 1),
        }
    }

    /// How many connections of ours that makes.
    pub fn connections(self, size: usize) -> usize {
        let plan = self.plan(size);
        let (topics, per_connection) = self.bystanders(size);
        plan.publishers + plan.subscribers + topics.div_ceil(per_connection)
    }
}

/// One size, with the runs of all rounds.
#[derive(Clone, Debug)]
pub struct Point {
    /// How many.
    pub size: usize,
    /// The target's runs.
    pub runs: Vec<Outcome>,
    /// The relay's, if it stands beside.
    pub relay_runs: Vec<Outcome>,
}

impl Point {
    /// Before its runs.
    pub const fn new(size: usize) -> Self {
        Self {
            size,
            runs: Vec::new(),
            relay_runs: Vec::new(),
        }
    }

    /// Why it has no result, each reason with its run.
    pub fn invalid_reasons(&self) -> Vec<String> {
        let named = |who: &'static str, runs: &[Outcome]| {
            let runs = runs.iter().enumerate();
            let reasons = runs.flat_map(|(index, run)| {
                let reasons = run.invalid.iter();
                reasons.map(move |reason| format!("{who} {}: {reason}", index + 1))
            });
            reasons.collect::<Vec<_>>()
        };
        [
            named("run", &self.runs),
            named("relay's run", &self.relay_runs),
        ]
        .concat()
    }

    /// CPU per delivery of each round.
    pub fn costs(&self) -> Vec<f64> {
        costs(&self.runs)
    }

    /// The relay's.
    pub fn relay_costs(&self) -> Vec<f64> {
        costs(&self.relay_runs)
    }

    /// What stands beside it in each round is the relay, or else `base`: the median of all rounds'
    /// own ratios. `None` without a result, or if the runs were too short for the clock of the CPU
    /// time, which advances with the scheduler's ticks.
    pub fn ratio(&self, base: &Self) -> Option<f64> {
        let beside = match self.relay_runs.is_empty() {
            true => base.costs(),
            false => self.relay_costs(),
        };
        let pairs = self.costs().into_iter().zip(beside);
        median(pairs.map(|(own, other)| own / other).collect()).filter(|ratio| ratio.is_finite())
    }
}

/// Of each run; none if one of them has no result.
fn costs(runs: &[Outcome]) -> Vec<f64> {
    let cost = |run: &Outcome| {
        let valid = run.invalid.is_empty();
        run.cpu_us_per_delivery().filter(|_| valid)
    };
    runs.iter()
        .map(cost)
        .collect::<Option<_>>()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::machine::CpuTime;
    use crate::run::Usage;

    fn run(cpu_us: u64) -> Outcome {
        let cpu = CpuTime {
            used: Duration::from_micros(cpu_us),
            waited: Duration::ZERO,
        };
        Outcome {
            delivered: 1,
            usage: Some(Usage {
                cpu,
                resident_bytes: None,
            }),
            invalid: Vec::new(),
            ..Outcome::failed(String::new())
        }
    }

    fn point(own: &[u64], relay: &[u64]) -> Point {
        let runs = |costs: &[u64]| costs.iter().map(|&cost| run(cost)).collect();
        Point {
            size: 1,
            runs: runs(own),
            relay_runs: runs(relay),
        }
    }

    #[test]
    fn a_size_is_held_against_the_smallest_or_against_the_relay_round_by_round() {
        let base = point(&[10, 20, 40], &[]);
        // The ratio of the medians would be 33 / 20.
        assert_eq!(point(&[11, 33, 44], &[]).ratio(&base), Some(1.1));
        assert_eq!(point(&[10, 30, 30], &[10, 20, 15]).ratio(&base), Some(1.5));
        assert_eq!(base.ratio(&base), Some(1.0));
    }

    #[test]
    fn a_size_with_an_invalid_run_has_no_ratio_and_says_why() {
        let base = point(&[10, 10], &[]);
        let mut lossy = point(&[10, 10], &[10, 10]);
        lossy.relay_runs[1].invalid.push("1 lost delivery".into());
        assert_eq!(lossy.ratio(&base), None);
        assert_eq!(lossy.invalid_reasons(), ["relay's run 2: 1 lost delivery"]);
    }

    #[test]
    fn the_registered_topics_are_those_of_the_load_and_of_the_bystanders() {
        let own = Workload::Spread.plan().topics;
        for size in [100, 1_000, 1_000_000] {
            let (topics, per_connection) = Axis::Topics.bystanders(size);
            assert_eq!(topics + own, size);
            let connections = topics.div_ceil(per_connection);
            assert_eq!(Axis::Topics.connections(size), 101 + connections);
        }
        assert_eq!(Axis::Connections.connections(10_000), 101 + 10_000);
    }
}
