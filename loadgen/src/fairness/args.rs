//! The command line of `fairness`.

use std::time::Duration;

use clap::Args;
use humantime::parse_duration;

use crate::args::OutputFormat;
use crate::target::Target;

/// Reactors that a broker may have.
const REACTORS_MAX: u64 = 63;

/// Options of `fairness`.
///
/// A broker places a connection on the reactor with the fewest, of equals on the first. So the
/// connections of a freshly started one go round, and there is a canary on each reactor. With
/// several reactors, as many connections as the load will need are opened on each and left idle;
/// those of the first reactor are closed again, so that all of the load lands there. The order is
/// all that tells: restart the broker before each run.
#[derive(Args, Clone, Debug)]
pub struct FairnessArgs {
    /// hvlp://host:port or unix:/path
    #[arg(default_value_t)]
    pub target: Target,
    /// Messages a second of each canary
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: u64,
    /// Subscribers of the fan-out; fewer, with a notice, if this process has no descriptors or the
    /// broker no sessions for them and for the idle connections
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub subscribers: u32,
    /// Reactors of the broker
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=REACTORS_MAX))]
    pub reactors: u64,
    /// Sessions that the broker has room for (its limits.sessions_max)
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    pub sessions: usize,
    /// Load before each measurement, thrown away
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// How long each measurement takes
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long the last deliveries may take
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    pub drain: Duration,
    /// The broker's process: which CPUs are its own
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,
    /// CPU of the canaries [default: the last one that this process may use]
    #[arg(long, value_name = "CPU")]
    pub pin_generator: Option<usize>,
    /// CPU of the load [default: one that is neither the canaries' nor the broker's; if there is
    /// none the canaries', which go before]
    #[arg(long, value_name = "CPU")]
    pub pin_load: Option<usize>,
    #[command(flatten)]
    pub output: OutputFormat,
}

impl FairnessArgs {
    /// Connections that the load may have on one reactor, if every other reactor has as many.
    fn room(&self, descriptors: usize) -> usize {
        let reactors = self.reactors();
        let all = self.sessions.min(descriptors);
        all.saturating_sub(CANARY_CONNECTIONS * reactors) / reactors
    }

    /// How many subscribers fit, as far as they were asked for.
    ///
    /// # Errors
    /// Not even one, in a sentence for the user.
    pub fn fitting_subscribers(&self, descriptors: usize) -> Result<usize, String> {
        let asked = self.subscribers as usize;
        match self.room(descriptors).saturating_sub(1 + CLOSING) {
            0 => Err(format!(
                "{} reactors leave no room for a fan-out: raise --sessions, with the broker's \
                 limits.sessions_max, or the limit of descriptors (ulimit -Hn)",
                self.reactors
            )),
            fitting => Ok(asked.min(fitting)),
        }
    }

    /// Idle connections for each reactor so that `subscribers` and their publisher come after them.
    pub fn ballast(&self, subscribers: usize) -> usize {
        match self.reactors {
            1 => 0,
            _ => subscribers + 1 + CLOSING,
        }
    }

    /// As an index.
    pub fn reactors(&self) -> usize {
        usize::try_from(self.reactors).expect("it is below 64")
    }
}

/// A publisher and a subscriber.
const CANARY_CONNECTIONS: usize = 2;
/// Those of the load before, which a broker may count for a moment more.
const CLOSING: usize = 2;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: FairnessArgs,
    }

    fn args(line: &[&str]) -> FairnessArgs {
        Line::parse_from([&["fairness"], line].concat()).args
    }

    #[test]
    fn subscribers_are_as_many_as_fit_beside_the_idle_connections_of_the_other_reactors() {
        for (line, descriptors, fitting) in [
            (&[][..], 20_000, 10_000),
            (&["--reactors", "2"], 20_000, 8_187),
            (&["--reactors", "2", "--sessions", "40000"], 20_000, 9_995),
            (&["--subscribers", "7", "--reactors", "4"], 1_000, 7),
        ] {
            let args = args(line);
            assert_eq!(
                args.fitting_subscribers(descriptors),
                Ok(fitting),
                "{line:?}"
            );
            let all = args.reactors() * (CANARY_CONNECTIONS + args.ballast(fitting));
            assert!(all <= args.sessions.min(descriptors), "{line:?}: {all}");
        }
        let refusal = args(&["--reactors", "63"]).fitting_subscribers(300);
        assert!(refusal.unwrap_err().contains("--sessions"));
    }
}
