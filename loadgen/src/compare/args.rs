//! The command line of `compare`: who takes part, in what, for how long.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use humantime::parse_duration;

use crate::args::{OutputFormat, PinArgs, Settings};
use crate::machine::Watched;
use crate::target::{Dialect, Target};
use crate::workload::Workload;

/// Options of `compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// Targets as everywhere, each with its server's process if its CPU time is wanted:
    /// nats://127.0.0.1:4222=1234. The ratios are those of the first HVLP target
    #[arg(value_name = "TARGET[=PID]", required = true)]
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

/// A target that takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contestant {
    /// Where it is.
    pub target: Target,
    /// Its process, whose CPU time is counted.
    pub pid: Option<i32>,
}

impl FromStr for Contestant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text
            .rsplit_once('=')
            .map(|(target, pid)| (target, pid.parse::<i32>()));
        let (target, pid) = match split {
            Some((target, Ok(pid))) if pid > 0 => (target, Some(pid)),
            _ => (text, None),
        };
        let target = target.parse()?;
        if target == Target::Relay && pid.is_some() {
            return Err("a relay is a thread of this process: write it without a pid".into());
        }
        Ok(Self { target, pid })
    }
}

impl Contestant {
    /// Whose CPU time is its own.
    pub fn watched(&self) -> Option<Watched> {
        self.pid.map(Watched::Process)
    }

    /// Its dialect; `None` for the relay, which has none.
    pub const fn dialect(&self) -> Option<Dialect> {
        match &self.target {
            Target::Broker(endpoint) => Some(endpoint.dialect),
            Target::Relay => None,
        }
    }
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
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
    fn a_contestant_is_a_target_with_or_without_its_process() {
        let parsed = |text: &str| {
            let contestant: Contestant = text.parse().unwrap();
            (contestant.to_string(), contestant.pid)
        };
        assert_eq!(parsed("relay"), ("relay".into(), None));
        assert_eq!(parsed("nats://h:1=23"), ("nats://h:1".into(), Some(23)));
        assert_eq!(parsed("unix:/a=b"), ("unix:/a=b".into(), None));
        assert!("relay=1".parse::<Contestant>().is_err());
        assert!("kafka://h=1".parse::<Contestant>().is_err());
    }

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
}
