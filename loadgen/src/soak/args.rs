//! The command line of `soak`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::args::OutputFormat;

/// Options of `soak`.
///
/// A broker is started on free loopback ports and gets fan-out and pairs, sessions and topics that
/// come and go, resets, stalled readers and bad bytes, beside a canary. In the middle it is killed
/// and started again. Within each of its lives the ledgers of all clients are reconciled with its
/// counters, and after everybody has left, nothing may be left of them.
#[derive(Args, Clone, Debug)]
pub struct SoakArgs {
    /// How long in all
    #[arg(long, value_name = "N", default_value = "5", value_parser = minutes)]
    pub minutes: Duration,
    /// What the faults are drawn from
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// The broker's program [default: hvlp-broker beside this one]
    #[arg(long, value_name = "FILE")]
    pub broker: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputFormat,
}

/// Minutes, of which a part is enough for a trial: 0.05 is three seconds.
fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "write a number of minutes")?;
    match (0.05..=100_000.0).contains(&minutes) {
        true => Ok(Duration::from_secs_f64(minutes * 60.0)),
        false => Err("from 0.05 to 100000 minutes".into()),
    }
}
