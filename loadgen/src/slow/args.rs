//! The command line of `slow`.

use std::time::Duration;

use clap::Args;
use humantime::parse_duration;

use crate::args::{AdminArgs, OutputFormat};
use crate::target::Target;
use crate::workload::{Plan, Workload};

/// Options of `slow`.
///
/// Stalled subscribers have a small receive buffer, subscribe to the healthy ones' topic and never
/// read. What the target makes of them is its own business and is reported; they are read to their
/// end after the measurement. Closed and kept ones are no fault, a healthy one that loses is.
#[derive(Args, Clone, Debug)]
pub struct SlowArgs {
    /// hvlp://host:port, unix:/path, nats://, redis:// or mqtt://host:port
    #[arg(default_value_t)]
    pub target: Target,
    /// Subscribers that read, each delivery checked
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub healthy: u32,
    /// Subscribers that do not, in the second phase
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub stalled: u32,
    /// Messages a second, on a fixed schedule
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: u64,
    /// Bytes of data in each message, at least 18
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub payload: usize,
    /// Load before each of both measurements, thrown away
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// How long each measurement takes; a broker may wait 10 s before it calls somebody stalled
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long the last deliveries may take
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub drain: Duration,
    /// The broker's process: its memory
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,
    /// CPU of this generator, which keeps it busy [default: the last one it may use]
    #[arg(long, value_name = "CPU")]
    pub pin_generator: Option<usize>,
    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(flatten)]
    pub output: OutputFormat,
}

impl SlowArgs {
    /// Who publishes what to whom, the stalled ones aside.
    ///
    /// # Errors
    /// A sentence for the user: the options cannot be run.
    pub fn plan(&self) -> Result<Plan, String> {
        if self.target == Target::Relay {
            return Err("a relay waits for its slowest subscriber: measure a broker".into());
        }
        if self.payload < 18 {
            return Err("--payload must be 18 or more, for sequence and time stamp".into());
        }
        self.admin.check(&self.target)?;
        let plan = Plan {
            subscribers: self.healthy as usize,
            payload_len: self.payload,
            ..Workload::Fanout.plan()
        };
        plan.check()?;
        Ok(plan)
    }
}
