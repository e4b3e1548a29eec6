//! The command line, and what it means for a run.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use humantime::parse_duration;
use hvlp::address::Address;

use crate::admin::Admin;
use crate::compare::CompareArgs;
use crate::fairness::FairnessArgs;
use crate::growth::GrowthArgs;
use crate::slow::SlowArgs;
use crate::soak::SoakArgs;
use crate::target::Target;
use crate::workload::{Plan, Workload};

/// Load generator for HVLP brokers: throughput and latency of fan-out, every delivery checked.
///
/// Prints its figures on standard output and everything else on standard error. Exit codes: 0 a
/// valid run, 1 failed, 2 wrong usage, 3 the run is INVALID (a message was lost, repeated or
/// reordered, or the generator itself was too slow).
#[derive(Debug, Parser)]
#[command(name = "hvlp-loadgen", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `fanout` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of `fanout`.
    #[command(flatten)]
    pub fanout: LoadArgs,
}

/// The workloads, and the relay.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// 1 publisher, 1 topic, 100 subscribers (the default)
    Fanout(LoadArgs),
    /// 1 publisher, 1 subscriber
    One(LoadArgs),
    /// 1 publisher, 1 topic, 1000 subscribers, 16 bytes
    Wide(LoadArgs),
    /// 1 publisher, 100 topics in turn, 1 subscriber each
    Spread(LoadArgs),
    /// 1 publisher, 100 topics in turn, 10 subscribers each
    Mesh(LoadArgs),
    /// 100 publishers, each with a topic and a subscriber of its own
    Pairs(LoadArgs),
    /// Memory per connection, each subscribed to a topic of its own, of a freshly started broker
    Idle(IdleArgs),
    /// Several targets in turn under the same conditions, and their ratios
    Compare(CompareArgs),
    /// CPU per delivery as registered topics, subscribers or idle connections grow
    Growth(GrowthArgs),
    /// Latency of a canary alone, beside a publisher at line rate and beside a large fan-out
    Fairness(FairnessArgs),
    /// Healthy subscribers alone and beside stalled ones: latency, losses, what became of those
    Slow(SlowArgs),
    /// Mixed load, faults and a kill -9 against brokers of its own, and the figures they must hold
    Soak(SoakArgs),
    /// Run the relay, the physical limit, as a process of its own
    Relay(RelayArgs),
}

/// Options of every workload with load.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// hvlp://host:port, unix:/path, hvlp+ack:// (sessions that want answers), nats://, redis:// or
    /// mqtt://host:port, or relay (the physical limit, started for the run)
    #[arg(default_value_t)]
    pub target: Target,

    /// Open loop: so many messages a second on a fixed schedule, measuring latency
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub rate: Option<u64>,
    /// Closed loop: as fast as the target takes it (the default without --rate)
    #[arg(long, conflicts_with = "rate")]
    pub max: bool,
    /// Closed loop: deliveries that each publisher may have outstanding
    #[arg(long, value_name = "N", conflicts_with = "rate")]
    pub window: Option<u64>,
    /// Connections that publish
    #[arg(long, value_name = "N")]
    pub publishers: Option<usize>,
    /// Topics in all
    #[arg(long, value_name = "N")]
    pub topics: Option<usize>,
    /// Connections that subscribe
    #[arg(long, value_name = "N")]
    pub subscribers: Option<usize>,
    /// Bytes of data in each message; below 18 without publisher and uncorrected latency, below 8
    /// neither checked nor timed
    #[arg(long, value_name = "BYTES")]
    pub payload: Option<usize>,

    /// Load before the measurement, thrown away
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Measure so many messages instead
    #[arg(long, value_name = "N", conflicts_with = "duration",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// How long the last deliveries may take
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub drain: Duration,
    /// Repeat, and print the median run with the least and the greatest
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Alternate with runs of the relay, and print the ratios
    #[arg(long)]
    pub with_relay: bool,

    /// The broker's process: its CPU time per delivery and its memory
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,
    #[command(flatten)]
    pub pins: PinArgs,
    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Whose counters are reconciled with ours.
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// The HVLP broker's admin endpoint, http://host:port: reconcile its counters with what was
    /// published and received; nobody else may be connected
    #[arg(long, value_name = "URL")]
    pub admin: Option<Admin>,
}

impl AdminArgs {
    /// Refuses targets that have none.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self, target: &Target) -> Result<(), String> {
        let is_ours = match target {
            Target::Broker(endpoint) => endpoint.dialect.is_ours(),
            Target::Relay => false,
        };
        if self.admin.is_some() && !is_ours {
            return Err("--admin reads the counters of an HVLP broker: name one as target".into());
        }
        Ok(())
    }
}

/// Which CPU does what.
#[derive(Args, Clone, Debug)]
pub struct PinArgs {
    /// CPU of this generator, which keeps it busy [default: the last one it may use]
    #[arg(long, value_name = "CPU")]
    pub pin_generator: Option<usize>,
    /// CPU of a relay that is started for the run [default: the broker's, if --pid is pinned to
    /// one, else another than the generator's]
    #[arg(long, value_name = "CPU")]
    pub pin_relay: Option<usize>,
}

/// Where the figures go.
#[derive(Args, Clone, Debug)]
pub struct OutputArgs {
    #[command(flatten)]
    pub format: OutputFormat,
    /// Write the corrected latency of the median run as HdrHistogram text (open loop)
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
}

/// How figures are printed, in either way of saying so.
#[derive(Args, Clone, Debug)]
pub struct OutputFormat {
    /// How they are printed
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// The same as -o json
    #[arg(long)]
    pub json: bool,
}

impl OutputFormat {
    /// The format that was asked for in either way.
    pub const fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

/// How figures are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One object, one line.
    Json,
}

/// Options of `idle`.
#[derive(Args, Clone, Debug)]
pub struct IdleArgs {
    /// hvlp://host:port, unix:/path, nats://, redis:// or mqtt://host:port
    #[arg(default_value_t)]
    pub target: Target,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub connections: usize,
    /// The broker's process, whose memory is read
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: i32,
    #[command(flatten)]
    pub output: OutputFormat,
}

/// Options of `relay`.
#[derive(Args, Clone, Debug)]
pub struct RelayArgs {
    /// Where it listens: host:port or unix:/path
    #[arg(short, long, value_name = "ADDR", default_value_t)]
    pub listen: Address,
    /// CPU that it runs on
    #[arg(long, value_name = "CPU")]
    pub pin_relay: Option<usize>,
}

/// What a run does; everything but the target.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name that it goes by.
    pub workload: Workload,
    /// Who publishes what to whom.
    pub plan: Plan,
    /// Messages a second, or a closed loop.
    pub rate: Option<u64>,
    /// Load that is thrown away.
    pub warmup: Duration,
    /// How long to measure.
    pub duration: Duration,
    /// Closed loop: how many messages to measure instead.
    pub count: Option<u64>,
    /// How long the last deliveries may take.
    pub drain: Duration,
}

impl LoadArgs {
    /// The workload with these options.
    ///
    /// # Errors
    /// A sentence for the user: they do not go together.
    pub fn settings(&self, workload: Workload) -> Result<Settings, String> {
        let mut plan = workload.plan();
        plan.publishers = self.publishers.unwrap_or(plan.publishers);
        plan.topics = self.topics.unwrap_or(plan.topics);
        plan.subscribers = self.subscribers.unwrap_or(plan.subscribers);
        plan.payload_len = self.payload.unwrap_or(plan.payload_len);
        plan.window = self.window.unwrap_or(plan.window);
        plan.check()?;
        self.admin.check(&self.target)?;
        let with_relay = self.with_relay || self.target == Target::Relay;
        if with_relay && (plan.publishers > 1 || plan.topics > 1) {
            return Err(format!(
                "a relay copies everything to everyone, so it can only stand beside a workload \
                 with 1 publisher and 1 topic, not {}, {}",
                plan.publishers, plan.topics
            ));
        }
        if self.with_relay && self.target == Target::Relay {
            return Err("--with-relay compares a broker with the relay: name a broker".into());
        }
        if self.output.hgrm.is_some() && self.rate.is_none() {
            return Err("--hgrm needs latencies, and they need a schedule: add --rate".into());
        }
        if self.rate.is_some() && plan.payload_len < 8 {
            return Err("latency needs a time stamp in each message: --payload 8 or more".into());
        }
        Ok(Settings {
            workload,
            plan,
            rate: self.rate,
            warmup: self.warmup,
            // An open loop sends so many messages in a known time.
            duration: match (self.count, self.rate) {
                (Some(count), Some(rate)) => Duration::from_secs_f64(count as f64 / rate as f64),
                _ => self.duration,
            },
            count: self.count.filter(|_| self.rate.is_none()),
            drain: self.drain,
        })
    }
}
