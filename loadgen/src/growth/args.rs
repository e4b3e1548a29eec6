//! The command line of `growth`: what grows, how far.

use std::time::Duration;

use clap::{Args, ValueEnum};
use humantime::parse_duration;

use super::axis::Axis;
use crate::args::{OutputFormat, PinArgs};
use crate::target::Target;
use crate::workload::Workload;

/// Options of `growth`.
#[derive(Args, Clone, Debug)]
pub struct GrowthArgs {
    /// hvlp://host:port, unix:/path, nats://, redis:// or mqtt://host:port
    #[arg(default_value_t)]
    pub target: Target,
    /// The broker's process, whose CPU time is counted
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: i32,
    /// What grows, one at a time
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values_t = Axis::ALL)]
    pub axes: Vec<Axis>,
    /// Topics registered beside `spread`, its own 100 included
    #[arg(long, value_name = "SIZES", value_delimiter = ',',
          default_values_t = [1_000, 10_000, 100_000, 1_000_000])]
    pub topics: Vec<usize>,
    /// Subscribers of `fanout`
    #[arg(long, value_name = "SIZES", value_delimiter = ',',
          default_values_t = [10, 100, 1_000, 10_000])]
    pub subscribers: Vec<usize>,
    /// Idle connections beside `fanout`, each with a topic of its own
    #[arg(long, value_name = "SIZES", value_delimiter = ',', default_values_t = [0, 10_000])]
    pub connections: Vec<usize>,
    /// How often each size has its turn; figures are medians
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Load before each measurement, thrown away
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// How long each measurement takes
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long the last deliveries may take
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    pub drain: Duration,
    #[command(flatten)]
    pub pins: PinArgs,
    #[command(flatten)]
    pub output: OutputFormat,
}

impl GrowthArgs {
    /// The sizes of `axis`, ascending.
    pub fn sizes(&self, axis: Axis) -> Vec<usize> {
        let mut sizes = match axis {
            Axis::Topics => self.topics.clone(),
            Axis::Subscribers => self.subscribers.clone(),
            Axis::Connections => self.connections.clone(),
        };
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// Refuses what cannot be run.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        if self.target == Target::Relay {
            return Err("a relay keeps no topics: measure a broker".into());
        }
        let least = [
            (Axis::Topics, Workload::Spread.plan().topics),
            (Axis::Subscribers, 1),
        ];
        for (axis, least) in least {
            if self.axes.contains(&axis) && self.sizes(axis)[0] < least {
                return Err(format!("--{axis} must be at least {least}"));
            }
        }
        Ok(())
    }
}

/// As on the command line.
impl std::fmt::Display for Axis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value().expect("no axis is hidden");
        f.write_str(value.get_name())
    }
}
