//! The ratios that the project wants to keep, and whether a comparison met them. Pure arithmetic.

use super::args::Scenario;
use super::contestant::Standing;
use crate::run::Outcome;
use crate::target::Dialect;

/// What the goals compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// More is better; less is better in all others.
    DeliveriesPerS,
    /// CPU time of the target.
    CpuPerDelivery,
    /// Half of the deliveries took no longer.
    P50,
    /// All but a hundredth.
    P99,
    /// All but a thousandth.
    P999,
}

impl Figure {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeliveriesPerS => "deliveries/s",
            Self::CpuPerDelivery => "CPU per delivery",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
        }
    }

    /// With its unit, for the head of a column.
    pub const fn title(self) -> &'static str {
        match self {
            Self::DeliveriesPerS => "deliveries/s",
            Self::CpuPerDelivery => "µs CPU per delivery",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::P999 => "p99.9 µs",
        }
    }

    /// Of one run, if it was measured: deliveries per second, microseconds.
    pub fn of(self, run: &Outcome) -> Option<f64> {
        let quantile = |quantile| {
            let corrected = &run.latency.as_ref()?.corrected;
            Some(corrected.value_at_quantile(quantile) as f64 / 1e3)
        };
        match self {
            Self::DeliveriesPerS => Some(run.deliveries_per_s()),
            Self::CpuPerDelivery => run.cpu_us_per_delivery(),
            Self::P50 => quantile(0.5),
            Self::P99 => quantile(0.99),
            Self::P999 => quantile(0.999),
        }
    }
}

/// Whom the measured broker is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Whichever of the other protocols' servers has the best figure.
    BestRival,
    /// One of them.
    Rival(Dialect),
    /// The physical limit.
    Relay,
    /// Our broker over TCP, with one reactor that sleeps when it has nothing to do.
    Own,
}

/// How large a ratio should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Or more.
    AtLeast(f64),
    /// Or less.
    AtMost(f64),
}

impl Bound {
    fn admits(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }

    /// `>= 10`.
    pub fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
        }
    }
}

/// One target figure.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// In which workload.
    pub scenario: Scenario,
    /// Of what.
    pub figure: Figure,
    /// Of whom.
    pub of: Standing,
    /// Against whom.
    pub against: Against,
    /// How much.
    pub bound: Bound,
}

const fn goal(scenario: Scenario, figure: Figure, against: Against, bound: Bound) -> Goal {
    Goal {
        scenario,
        figure,
        of: Standing::Own,
        against,
        bound,
    }
}

impl Goal {
    const fn of(self, of: Standing) -> Self {
        Self { of, ..self }
    }
}

/// All of them.
pub const GOALS: [Goal; 28] = {
    use Against::{BestRival, Own, Relay, Rival};
    use Bound::{AtLeast, AtMost};
    use Figure::{CpuPerDelivery as Cpu, DeliveriesPerS as Rate, P50, P99};
    use Scenario::{Fanout, LatencyFanout, LatencyOne, Mesh, One, Pairs, Spread, Wide};
    use Standing::{BusyPoll, TwoReactors, Unix};
    const NATS: Against = Rival(Dialect::Nats);
    [
        goal(Fanout, Rate, BestRival, AtLeast(10.0)),
        goal(Fanout, Rate, Relay, AtLeast(0.95)),
        goal(Fanout, Cpu, Relay, AtMost(1.15)),
        goal(One, Rate, BestRival, AtLeast(5.0)),
        goal(One, Rate, Relay, AtLeast(0.9)),
        goal(One, Cpu, Relay, AtMost(1.25)),
        goal(Wide, Rate, BestRival, AtLeast(12.0)),
        goal(Wide, Rate, Relay, AtLeast(0.95)),
        goal(Wide, Cpu, Relay, AtMost(1.15)),
        goal(Spread, Rate, BestRival, AtLeast(3.0)),
        goal(Spread, Cpu, NATS, AtMost(0.4)),
        goal(Mesh, Rate, BestRival, AtLeast(3.0)),
        goal(Mesh, Cpu, NATS, AtMost(0.4)),
        goal(Pairs, Rate, BestRival, AtLeast(6.0)),
        goal(Pairs, Cpu, NATS, AtMost(0.15)),
        goal(LatencyOne, P50, BestRival, AtMost(1.05)),
        goal(LatencyOne, P99, BestRival, AtMost(1.05)),
        goal(LatencyOne, P50, Relay, AtMost(1.05)),
        goal(LatencyFanout, P50, BestRival, AtMost(0.95)),
        goal(LatencyFanout, P99, BestRival, AtMost(1.0)),
        goal(LatencyFanout, P50, Relay, AtMost(1.05)),
        goal(LatencyFanout, Cpu, Relay, AtMost(1.1)),
        goal(Fanout, Rate, Own, AtLeast(1.0)).of(Unix),
        goal(LatencyOne, P50, Own, AtMost(1.0)).of(Unix),
        goal(Fanout, Cpu, Own, AtMost(1.2)).of(TwoReactors),
        goal(Mesh, Cpu, Own, AtMost(1.2)).of(TwoReactors),
        goal(Pairs, Cpu, Own, AtMost(1.2)).of(TwoReactors),
        goal(LatencyOne, P50, BestRival, AtMost(0.35)).of(BusyPoll),
    ]
};

/// One figure of one contestant in all its runs, in the order of the rounds.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// What the contestant is to the goals.
    pub standing: Standing,
    /// One per round; empty if one of its runs has no result.
    pub values: Vec<f64>,
}

/// How a goal came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Who was held against somebody.
    pub subject: String,
    /// Whom it was held against in the end.
    pub opponent: String,
    /// Ours over theirs: of each round, and then the median.
    pub ratio: f64,
    /// Whether the ratio is within the bound.
    pub met: bool,
}

/// Judges `goal` by the series of its figure; `None` if somebody who is needed has no result.
/// The first of a standing is the one that counts, but of rivals the best.
pub fn judge(goal: &Goal, field: &[Series]) -> Option<Verdict> {
    let first = |standing| field.iter().find(|series| series.standing == standing);
    let own = first(goal.of)?;
    let opposes = |series: &&Series| match goal.against {
        Against::BestRival => matches!(series.standing, Standing::Rival(_)),
        Against::Rival(rival) => series.standing == Standing::Rival(rival),
        Against::Relay => series.standing == Standing::Relay,
        Against::Own => first(Standing::Own).is_some_and(|ours| std::ptr::eq(ours, *series)),
    };
    let opponents = field.iter().filter(opposes);
    let mut ranked: Vec<_> = opponents
        .filter_map(|series| Some((median(series.values.clone())?, series)))
        .collect();
    ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let (_, opponent) = match goal.figure {
        Figure::DeliveriesPerS => ranked.last()?,
        _ => ranked.first()?,
    };
    let pairs = own.values.iter().zip(&opponent.values);
    let ratio = median(pairs.map(|(own, other)| own / other).collect())?;
    Some(Verdict {
        subject: own.name.clone(),
        opponent: opponent.name.clone(),
        ratio,
        met: goal.bound.admits(ratio),
    })
}

/// The value in the middle, or between the two that are.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    match values.len() % 2 {
        0 => Some(f64::midpoint(upper, values[values.len() / 2 - 1])),
        _ => Some(upper),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, standing: Standing, values: &[f64]) -> Series {
        Series {
            name: name.into(),
            standing,
            values: values.to_vec(),
        }
    }

    fn field(own: &[f64], nats: &[f64], redis: &[f64], relay: &[f64]) -> [Series; 4] {
        [
            series("nats", Standing::Rival(Dialect::Nats), nats),
            series("hvlp", Standing::Own, own),
            series("redis", Standing::Rival(Dialect::Redis), redis),
            series("relay", Standing::Relay, relay),
        ]
    }

    fn judged(goal: &Goal, field: &[Series]) -> Option<(String, f64, bool)> {
        judge(goal, field).map(|verdict| (verdict.opponent, verdict.ratio, verdict.met))
    }

    #[test]
    fn the_best_rival_has_the_most_deliveries_or_the_least_of_all_else() {
        let field = field(&[50.0], &[5.0], &[4.0], &[100.0]);
        let most = &GOALS[0];
        assert_eq!(judged(most, &field), Some(("nats".into(), 10.0, true)));
        let least = Goal {
            figure: Figure::P50,
            bound: Bound::AtMost(1.05),
            ..*most
        };
        assert_eq!(judged(&least, &field), Some(("redis".into(), 12.5, false)));
    }

    #[test]
    fn the_ratio_is_the_median_of_each_rounds_own() {
        // The ratio of the medians would be 30 / 3.
        let field = field(&[10.0, 30.0, 80.0], &[5.0, 3.0, 2.0], &[1.0; 3], &[20.0; 3]);
        assert_eq!(judged(&GOALS[0], &field), Some(("nats".into(), 10.0, true)));
        assert_eq!(judged(&GOALS[1], &field), Some(("relay".into(), 1.5, true)));
        let relay = &field[3..];
        assert_eq!(judged(&GOALS[1], relay), None, "nobody of ours");
    }

    #[test]
    fn a_second_broker_of_ours_is_held_against_the_first_over_tcp() {
        let field = [
            series("unix", Standing::Unix, &[60.0]),
            series("other", Standing::Rival(Dialect::Nats), &[10.0]),
            series("hvlp", Standing::Own, &[50.0]),
            series("again", Standing::Own, &[100.0]),
        ];
        let goal = GOALS
            .iter()
            .find(|goal| goal.of == Standing::Unix && goal.figure == Figure::DeliveriesPerS)
            .unwrap();
        let verdict = judge(goal, &field).unwrap();
        assert_eq!(
            (&verdict.subject[..], &verdict.opponent[..]),
            ("unix", "hvlp")
        );
        assert_eq!((verdict.ratio, verdict.met), (1.2, true));
        // Who comes first on the command line does not matter to ours.
        assert_eq!(
            judged(&GOALS[0], &field),
            Some(("other".into(), 5.0, false))
        );
        assert_eq!(judge(goal, &field[1..]), None, "nobody over a unix socket");
    }

    #[test]
    fn a_bound_holds_at_its_very_value() {
        for (bound, ratio, met) in [
            (Bound::AtLeast(3.0), 3.0, true),
            (Bound::AtLeast(3.0), 2.999, false),
            (Bound::AtMost(0.4), 0.4, true),
            (Bound::AtMost(0.4), 0.401, false),
        ] {
            assert_eq!(bound.admits(ratio), met, "{bound:?} {ratio}");
        }
    }

    #[test]
    fn who_has_no_result_is_nobodys_opponent_and_meets_nothing() {
        let without_nats = field(&[50.0], &[], &[4.0], &[]);
        let best = judged(&GOALS[0], &without_nats);
        assert_eq!(best, Some(("redis".into(), 12.5, true)));
        assert_eq!(judged(&GOALS[1], &without_nats), None);
        let own_failed = field(&[], &[5.0], &[4.0], &[9.0]);
        assert_eq!(judged(&GOALS[0], &own_failed), None);
        let against_nats = GOALS
            .iter()
            .find(|goal| goal.against == Against::Rival(Dialect::Nats));
        assert_eq!(judged(against_nats.unwrap(), &without_nats), None);
    }

    #[test]
    fn a_median_lies_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
