//! The command line of `soak`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use humantime::parse_duration;

use super::MOST;
use crate::args::OutputFormat;

/// How long the mixed load goes on unless told otherwise.
const MINUTES: u64 = 5;
/// And with all figures: an hour of held sessions, and what comes before.
const MINUTES_OF_FIGURES: u64 = 65;

/// Options of `soak`.
///
/// Mixed load: a broker is started on free loopback ports and a unix socket, a listener for each
/// policy for slow consumers. It gets fan-out and pairs, sessions and topics that come and go,
/// resets, bad bytes, and on each listener stalled and slow readers beside healthy ones, beside a
/// canary. In the middle it is killed and started again.
///
/// The other parts, each of which is run if it is asked for, have brokers of their own, with the
/// default settings, and a canary. Within each life of a broker the ledgers of all clients are
/// reconciled with its counters, and after everybody has left, nothing may be left of them.
///
/// Exit code 3 if something was lost, is left or broke; 4 if everything is accounted for, but
/// something was late or large.
#[derive(Args, Clone, Debug)]
pub struct SoakArgs {
    /// How long the mixed load goes on in all [default: 5, or none if only parts below are wanted]
    #[arg(long, value_name = "N", value_parser = minutes)]
    pub minutes: Option<Duration>,
    /// What the faults are drawn from
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Idle sessions with a topic each, held for the second life of the mixed load, which then has
    /// nearly all of the time
    #[arg(long, value_name = "SESSIONS", value_parser = clap::value_parser!(u64).range(1..=MOST))]
    pub hold: Option<u64>,
    /// Subscribes and is reset, so many times
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u64).range(1..))]
    pub resets: Option<u64>,
    /// Connections a second that are closed at once
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub flood: Option<u64>,
    /// For how long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub flood_time: Duration,
    /// Stalled readers beside as many healthy ones, under each policy
    #[arg(long, value_name = "READERS", value_parser = clap::value_parser!(u64).range(1..=MOST / 2))]
    pub stalled: Option<u64>,
    /// All of them at full size: --minutes 65 --hold 15000 --resets 100000 --flood 5000 --stalled
    /// 1000; the sessions are held for an hour
    #[arg(long)]
    pub figures: bool,
    /// The broker's program [default: hvlp-broker beside this one]
    #[arg(long, value_name = "FILE")]
    pub broker: Option<PathBuf>,
    /// What its reactors wait with, as its own option [default: its own]
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<String>,
    #[command(flatten)]
    pub output: OutputFormat,
}

/// What is to be run; what is not, is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Programme {
    /// How long the mixed load goes on.
    pub mixed: Option<Duration>,
    /// Sessions that are held beside it.
    pub hold: Option<usize>,
    /// Sessions that are reset.
    pub resets: Option<u64>,
    /// Connections a second.
    pub flood: Option<u64>,
    /// Stalled readers, and healthy ones.
    pub stalled: Option<usize>,
}

impl SoakArgs {
    /// What was asked for.
    pub fn programme(&self) -> Programme {
        let wanted = |own: Option<u64>, full| own.or_else(|| self.figures.then_some(full));
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let hold = wanted(self.hold, 15_000).map(size);
        let resets = wanted(self.resets, 100_000);
        let flood = wanted(self.flood, 5_000);
        let stalled = wanted(self.stalled, 1_000).map(size);
        let alone = resets.is_none() && flood.is_none() && stalled.is_none();
        let default = match self.figures {
            true => Some(Duration::from_mins(MINUTES_OF_FIGURES)),
            false => (hold.is_some() || alone).then_some(Duration::from_mins(MINUTES)),
        };
        Programme {
            mixed: self.minutes.or(default),
            hold,
            resets,
            flood,
            stalled,
        }
    }
}

/// Minutes, of which a part is enough for a trial: 0.05 is three seconds.
fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "write a number of minutes")?;
    match (0.05..=100_000.0).contains(&minutes) {
        true => Ok(Duration::from_secs_f64(minutes * 60.0)),
        false => Err("from 0.05 to 100000 minutes".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        soak: SoakArgs,
    }

    fn programme(arguments: &str) -> Programme {
        let arguments = std::iter::once("soak").chain(arguments.split_whitespace());
        Cli::try_parse_from(arguments).unwrap().soak.programme()
    }

    #[test]
    fn mixed_load_is_run_unless_only_other_parts_are_asked_for() {
        let minutes = |count| Some(Duration::from_mins(count));
        for (arguments, mixed) in [
            ("", minutes(5)),
            ("--minutes 2", minutes(2)),
            ("--hold 7", minutes(5)),
            ("--flood 7", None),
            ("--flood 7 --minutes 2", minutes(2)),
            ("--figures", minutes(65)),
            ("--figures --minutes 2", minutes(2)),
        ] {
            assert_eq!(programme(arguments).mixed, mixed, "{arguments}");
        }
    }

    #[test]
    fn all_figures_have_their_full_size_unless_another_is_given() {
        let expected = Programme {
            mixed: Some(Duration::from_secs(120)),
            hold: Some(15_000),
            resets: Some(100_000),
            flood: Some(5_000),
            stalled: Some(10),
        };
        let asked = programme("--figures --stalled 10 --minutes 2");
        assert_eq!(asked, expected);
    }
}
