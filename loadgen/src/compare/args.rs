//! The command line of `compare`: who takes part, in what, for how long.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use humantime::parse_duration;

use super::contestant::{Contestant, Standing};
use super::goals::GOALS;
use crate::args::{OutputFormat, PinArgs, Settings};
use crate::target::{Dialect, Target};
use crate::workload::Workload;

/// Options of `compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// Targets as everywhere, each with its server's process if its CPU time is wanted:
    /// nats://127.0.0.1:4222=1234. The ratios are those of the first HVLP target over TCP. What is
    /// held against that one takes part only where there is such a goal: HVLP over a unix socket,
    /// and what is named two-reactors or busy-poll, as in busy-poll=hvlp://127.0.0.1:7=1234. Any
    /// other name is only what reports call the target
    #[arg(value_name = "[NAME=]TARGET[=PID]", required = true)]
    pub contestants: Vec<Contestant>,
    /// Which workloads
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values_t = Scenario::ALL)]
    pub workloads: Vec<Scenario>,
    /// How often each target has its turn; figures are medians
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Load before each measurement, thrown away
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// How long each measurement takes
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long the last deliveries may take
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    pub drain: Duration,
    #[command(flatten)]
    pub pins: PinArgs,
    #[command(flatten)]
    pub output: OutputFormat,
    /// Write the JSON report into a file as well
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Write the report as one self-contained page with charts
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Text to be quoted in the reports: commands, versions, settings of the servers
    #[arg(long, value_name = "FILE")]
    pub about: Option<PathBuf>,
}

/// A workload as it is compared: with a schedule or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// 1 publisher, 1 topic, 100 subscribers.
    Fanout,
    /// 1 publisher, 1 subscriber.
    One,
    /// 1 topic, 1000 subscribers, 16 bytes.
    Wide,
    /// 1 publisher, 100 topics in turn, 1 subscriber each.
    Spread,
    /// 1 publisher, 100 topics in turn, 10 subscribers each.
    Mesh,
    /// 100 publishers, each with a topic and a subscriber of its own.
    Pairs,
    /// `one` at 10,000 messages a second.
    LatencyOne,
    /// `fanout` at 1,000 messages a second.
    LatencyFanout,
}

impl Scenario {
    /// In the order of the reports.
    pub const ALL: [Self; 8] = [
        Self::Fanout,
        Self::One,
        Self::Wide,
        Self::Spread,
        Self::Mesh,
        Self::Pairs,
        Self::LatencyOne,
        Self::LatencyFanout,
    ];

    /// Who publishes what to whom.
    pub const fn workload(self) -> Workload {
        match self {
            Self::Fanout | Self::LatencyFanout => Workload::Fanout,
            Self::One | Self::LatencyOne => Workload::One,
            Self::Wide => Workload::Wide,
            Self::Spread => Workload::Spread,
            Self::Mesh => Workload::Mesh,
            Self::Pairs => Workload::Pairs,
        }
    }

    /// Messages a second, or a closed loop.
    pub const fn rate(self) -> Option<u64> {
        match self {
            Self::LatencyOne => Some(10_000),
            Self::LatencyFanout => Some(1_000),
            _ => None,
        }
    }

    /// Whether `contestant` can take part: a relay copies everything to everyone.
    pub fn admits(self, contestant: &Contestant) -> bool {
        let plan = self.workload().plan();
        contestant.target != Target::Relay || plan.publishers == 1 && plan.topics == 1
    }

    /// Whether anything is asked of a contestant of this standing, if ours takes part as well.
    pub fn concerns(self, standing: Standing) -> bool {
        match standing {
            Standing::Own | Standing::Acked | Standing::Rival(_) | Standing::Relay => true,
            Standing::Unix | Standing::TwoReactors | Standing::BusyPoll => GOALS
                .iter()
                .any(|goal| goal.scenario == self && goal.of == standing),
        }
    }

    /// What a run of it does.
    pub fn settings(self, args: &CompareArgs, contestant: &Contestant) -> Settings {
        let mut plan = self.workload().plan();
        if contestant.dialect() == Some(Dialect::Mqtt) {
            plan.window /= MQTT_WINDOW_DIVISOR;
        }
        Settings {
            workload: self.workload(),
            plan,
            rate: self.rate(),
            warmup: args.warmup,
            duration: args.duration,
            count: None,
            drain: args.drain,
        }
    }
}

/// Mosquitto delivers packet by packet, a hundred times slower than the others: our window would
/// take it more than a minute and a gigabyte to empty, and serves it no better than this one.
const MQTT_WINDOW_DIVISOR: u64 = 50;

/// As on the command line.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no scenario is hidden");
        f.write_str(value.get_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_takes_part_where_there_is_one_publisher_and_one_topic() {
        let relay = "relay".parse().unwrap();
        let admitted = Scenario::ALL
            .into_iter()
            .filter(|scenario| scenario.admits(&relay));
        use Scenario::{Fanout, LatencyFanout, LatencyOne, One, Wide};
        assert_eq!(
            admitted.collect::<Vec<_>>(),
            [Fanout, One, Wide, LatencyOne, LatencyFanout]
        );
    }

    #[test]
    fn a_second_broker_of_ours_takes_part_only_where_something_is_asked_of_it() {
        let concerned = |standing| {
            let all = Scenario::ALL.into_iter();
            all.filter(|scenario| scenario.concerns(standing))
                .collect::<Vec<_>>()
        };
        use Scenario::{Fanout, LatencyOne, Mesh, Pairs};
        assert_eq!(concerned(Standing::Unix), [Fanout, LatencyOne]);
        assert_eq!(concerned(Standing::TwoReactors), [Fanout, Mesh, Pairs]);
        assert_eq!(concerned(Standing::BusyPoll), [LatencyOne]);
        assert_eq!(concerned(Standing::Own), Scenario::ALL);
    }
}
