//! What a soak came to, as text and as JSON: what was lost or is left, and every figure with what
//! is wanted of it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::figure::{Figure, Stake, Standing, write_table};
use super::slope::Slope;
use super::work::Work;
use crate::args::Format;
use crate::conservation::Conservation;
use crate::latency::{RANKS, ranked};
use crate::report::print_as;

/// What the canary's messages may take, in milliseconds from when they were due.
const CANARY_P99_MAX_MS: f64 = 20.0;
const CANARY_MAX_MS: f64 = 100.0;
/// Of fewer messages the hundredth part is not even one.
const CANARY_COUNT_MIN: u64 = 100;
/// How soon a broker serves again that was killed.
const SERVING_MAX_MS: f64 = 1_000.0;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that was wanted.
    Good,
    /// Everything is accounted for, but something was late or large.
    Missed,
    /// There is no result, or it is that something was lost, is left, or broke.
    Invalid,
}

/// One look at the broker.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the soak began.
    pub elapsed: Duration,
    /// Its memory.
    pub resident_bytes: u64,
    /// Its open descriptors.
    pub descriptors: usize,
    /// Its sessions.
    pub sessions: u64,
}

/// One life of a broker, from alone to alone.
#[derive(Debug)]
pub struct Life {
    /// Which.
    pub name: String,
    /// What all parts did.
    pub work: Work,
    /// The broker meanwhile.
    pub samples: Vec<Sample>,
    /// Both sides of the account.
    pub conservation: Conservation,
    /// The broker's own word.
    pub is_conserved: bool,
    /// Sessions that ended since it started, by reason.
    pub closed: BTreeMap<String, u64>,
    /// SUBSCRIBE packets that took effect since it started.
    pub subscribed: u64,
    /// What was left when everybody had gone, in words.
    pub left: Vec<String>,
    /// Descriptors before anybody came, and when everybody had gone.
    pub descriptors: [usize; 2],
    /// Panics that it spoke of.
    pub panics: u64,
    /// Its memory when everybody had gone.
    pub rested_bytes: u64,
    /// The most that it ever had.
    pub resident_peak: u64,
    /// What it says that this may be.
    pub memory_max: Option<u64>,
    /// What else was measured.
    pub more: Vec<Figure>,
}

/// What happened around the kill.
#[derive(Debug)]
pub struct Kill {
    /// Until the new process listened.
    pub listening: Duration,
    /// Until a message came through again.
    pub serving: Option<Duration>,
    /// What the flows and the canary saw.
    pub work: Work,
}

/// All of it.
#[derive(Debug)]
pub struct Verdict {
    /// What the faults were drawn from.
    pub seed: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Somebody wanted it to end early.
    pub interrupted: bool,
    /// In turn; those of the mixed load first.
    pub lives: Vec<Life>,
    /// Between the first two.
    pub kill: Option<Kill>,
}

impl Life {
    /// Messages that one side knows of and the other does not, and what flows found wrong.
    fn unexplained(&self) -> u64 {
        let faults = self.work.faults;
        let found = faults.lost + faults.duplicate + faults.reordered + faults.foreign;
        self.conservation.unexplained() + found + u64::from(!self.is_conserved)
    }

    /// How its memory grew.
    pub fn slope(&self) -> Option<Slope> {
        let samples = self.samples.iter();
        let samples: Vec<_> = samples
            .map(|sample| (sample.elapsed, sample.resident_bytes))
            .collect();
        Slope::of(&samples)
    }

    /// Milliseconds at every rank.
    fn canary(&self) -> Option<[f64; RANKS.len()]> {
        let canary = self.work.canary.as_ref()?;
        let heard = !canary.is_empty();
        heard.then(|| ranked(canary).map(|ns| ns as f64 / 1e6))
    }

    fn figures(&self) -> Vec<Figure> {
        let [before, after] = self.descriptors;
        let io_errors = self.closed.get("io_error").copied().unwrap_or_default();
        let heard = self.work.canary.as_ref().map_or(0, Histogram::len);
        let canary = self.canary().filter(|_| heard >= CANARY_COUNT_MIN);
        let rank = |name| {
            let rank = RANKS.iter().position(|(rank, _)| *rank == name)?;
            Some(canary?[rank])
        };
        let mut figures = vec![
            Figure::none("unexplained difference", self.unexplained()),
            Figure {
                name: "left when all had gone",
                wanted: "nothing".into(),
                measured: match &self.left[..] {
                    [] => "nothing".into(),
                    left => left.join(", "),
                },
                standing: Standing::of(self.left.is_empty()),
                stake: Stake::Loss,
            },
            Figure {
                name: "descriptors at rest",
                wanted: before.to_string(),
                measured: after.to_string(),
                standing: Standing::of(after <= before),
                stake: Stake::Loss,
            },
            Figure::none("closed for io_error", io_errors),
            Figure::none("panics", self.panics),
            Figure::at_most("canary p99", CANARY_P99_MAX_MS, rank("p99"), "ms"),
            Figure::at_most("canary max", CANARY_MAX_MS, rank("max"), "ms"),
        ];
        figures.extend(self.more.iter().cloned());
        figures
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "  {}", self.name)?;
        writeln!(out, "    {}", self.conservation)?;
        writeln!(
            out,
            "    sessions {}, slow readers closed {}, deliveries to healthy ones beside them {}; \
             RSS at most {:.1} MiB",
            self.work.sessions,
            self.work.stalled_closed,
            self.work.healthy_received,
            mebibytes(self.resident_peak)
        )?;
        let closed = self.closed.iter().filter(|(_, count)| **count > 0);
        let closed: Vec<_> = closed
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        writeln!(out, "    sessions ended: {}", closed.join(", "))?;
        if let Some(canary) = self.canary() {
            let ranks = RANKS.iter().zip(canary);
            let ranks: Vec<_> = ranks
                .map(|((name, _), ms)| format!("{name} {ms:.2}"))
                .collect();
            writeln!(out, "    canary, ms: {}", ranks.join(", "))?;
        }
        Ok(())
    }

    fn object(&self) -> Value {
        let canary = self.work.canary.as_ref().map(|canary| {
            let ranks = RANKS.iter().zip(ranked(canary));
            let ranks = ranks.map(|((name, _), ns)| ((*name).to_owned(), ns.into()));
            let mut object: Map<String, Value> = ranks.collect();
            object.insert("count".into(), canary.len().into());
            object
        });
        json!({
            "name": self.name,
            "sessions": self.work.sessions,
            "stalled_closed": self.work.stalled_closed,
            "healthy_received": self.work.healthy_received,
            "lasted_s": self.work.lasted.map(|time| time.as_secs_f64()),
            "conservation": self.conservation.object(),
            "conserved": self.is_conserved,
            "unexplained": self.unexplained(),
            "left": self.left,
            "descriptors": self.descriptors,
            "panics": self.panics,
            "sessions_closed": self.closed,
            "subscribed": self.subscribed,
            "canary_ns": canary,
            "rss_slope_mib_per_hour": self.slope().map(|slope| slope.slope),
            "rss_rested_bytes": self.rested_bytes,
            "rss_max_bytes": self.resident_peak,
            "memory_max_bytes": self.memory_max,
            "samples": self.samples.iter().map(|sample| json!({
                "t": sample.elapsed.as_secs_f64(),
                "rss_bytes": sample.resident_bytes,
                "descriptors": sample.descriptors,
                "sessions": sample.sessions,
            })).collect::<Vec<_>>(),
            "failures": self.work.failures,
        })
    }
}

impl Kill {
    /// What was wrong with what had arrived before and after the kill.
    fn unexplained(&self) -> u64 {
        let faults = self.work.arrived_faults;
        faults.lost + faults.duplicate + faults.reordered + faults.foreign
    }

    /// Deliveries that had been sent and died with the broker.
    fn in_flight(&self) -> u64 {
        let (all, arrived) = (self.work.faults, self.work.arrived_faults);
        all.lost.saturating_sub(arrived.lost)
    }

    fn figures(&self) -> Vec<Figure> {
        let serving = self.serving.map(milliseconds);
        let mut serving = Figure::at_most("serving again", SERVING_MAX_MS, serving, "ms");
        if self.serving.is_none() {
            // It never did, which is more than late.
            serving.standing = Standing::Missed;
            serving.stake = Stake::Loss;
        }
        vec![
            Figure::none("unexplained difference", self.unexplained()),
            serving,
        ]
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let serving = self.serving.map(milliseconds);
        writeln!(
            out,
            "  kill -9: listening again after {:.1} ms, a message came through after {}; in flight \
             and lost {}",
            milliseconds(self.listening),
            serving.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms")),
            self.in_flight()
        )
    }

    fn object(&self) -> Value {
        json!({
            "listening_again_s": self.listening.as_secs_f64(),
            "serving_again_s": self.serving.map(|time| time.as_secs_f64()),
            "in_flight": self.in_flight(),
            "unexplained": self.unexplained(),
            "failures": self.work.failures,
        })
    }
}

impl Verdict {
    /// On nothing yet.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            elapsed: Duration::ZERO,
            interrupted: false,
            lives: Vec::new(),
            kill: None,
        }
    }

    /// What it comes to.
    pub fn outcome(&self) -> Outcome {
        match (&self.reasons()[..], &self.misses()[..]) {
            ([], []) => Outcome::Good,
            ([], _) => Outcome::Missed,
            _ => Outcome::Invalid,
        }
    }

    /// All figures, each with the part that it belongs to.
    fn figures(&self) -> Vec<(&str, Figure)> {
        let lives = self.lives.iter();
        let lives = lives.map(|life| (life.name.as_str(), life.figures()));
        let kill = self
            .kill
            .iter()
            .map(|kill| (AROUND_THE_KILL, kill.figures()));
        let figures = lives.chain(kill);
        let figures = figures.flat_map(|(part, figures)| {
            let figures = figures.into_iter();
            figures.map(move |figure| (part, figure))
        });
        figures.collect()
    }

    fn missed(&self, stake: Stake) -> Vec<String> {
        let figures = self.figures().into_iter();
        let missed = figures.filter(|(_, figure)| figure.is_missed(stake));
        missed
            .map(|(part, figure)| format!("{part}: {}", figure.sentence()))
            .collect()
    }

    /// What was late or large.
    fn misses(&self) -> Vec<String> {
        self.missed(Stake::Pace)
    }

    /// What was lost, is left, or broke.
    fn reasons(&self) -> Vec<String> {
        let mut reasons = self.missed(Stake::Loss);
        for life in &self.lives {
            let name = &life.name;
            if life.unexplained() > 0 {
                let (faults, conservation) = (life.work.faults, &life.conservation);
                reasons.push(format!("{name}: {faults:?}; {conservation}"));
            }
            let failures = life.work.failures.iter();
            reasons.extend(failures.map(|failure| format!("{name}: {failure}")));
        }
        if let Some(kill) = &self.kill {
            if kill.unexplained() > 0 {
                let faults = kill.work.arrived_faults;
                reasons.push(format!("{AROUND_THE_KILL}: {faults:?}"));
            }
            let failures = kill.work.failures.iter();
            reasons.extend(failures.map(|failure| format!("{AROUND_THE_KILL}: {failure}")));
        }
        if self.interrupted {
            reasons.push("interrupted".into());
        }
        reasons
    }

    fn io_errors(&self) -> u64 {
        let lives = self.lives.iter();
        let errors = lives.filter_map(|life| life.closed.get("io_error"));
        errors.sum()
    }

    /// Prints in the format that was asked for.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print(&self, format: Format) -> Result<()> {
        print_as(
            format,
            |out| self.write(out),
            || Ok(self.object().to_string()),
        )
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let seconds = self.elapsed.as_secs();
        writeln!(out, "soak of {seconds} s, seed {}", self.seed)?;
        match &self.reasons()[..] {
            [] => writeln!(out, "CLEAN: unexplained 0, nothing leaked")?,
            reasons => writeln!(out, "FAILED: {}", reasons.join("; "))?,
        }
        for miss in self.misses() {
            writeln!(out, "MISSED: {miss}")?;
        }
        for life in &self.lives {
            life.write(out)?;
        }
        if let Some(kill) = &self.kill {
            kill.write(out)?;
        }
        writeln!(out)?;
        write_table(out, &self.figures())
    }

    fn object(&self) -> Value {
        let figures = self.figures();
        json!({
            "schema": 2,
            "mode": "soak",
            "valid": self.reasons().is_empty(),
            "invalid_reasons": self.reasons(),
            "misses": self.misses(),
            "argv": std::env::args().collect::<Vec<_>>(),
            "seed": self.seed,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "lives": self.lives.iter().map(Life::object).collect::<Vec<_>>(),
            "kill": self.kill.as_ref().map(Kill::object),
            "io_errors": self.io_errors(),
            "figures": figures.iter().map(|(part, figure)| figure.object(part)).collect::<Vec<_>>(),
        })
    }
}

const AROUND_THE_KILL: &str = "kill -9";

/// `61 s, RSS 9.3 MiB, 180 descriptors, 120 sessions`.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} s, RSS {:.1} MiB, {} descriptors, {} sessions",
            self.elapsed.as_secs(),
            mebibytes(self.resident_bytes),
            self.descriptors,
            self.sessions
        )
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Counts;
    use crate::conservation::Ledger;

    /// A life in which nothing was lost, whose canary was as late as that.
    fn life(canary_ms: u64, count: u64) -> Life {
        let mut canary = Histogram::new(3).unwrap();
        canary.record_n(canary_ms * 1_000_000, count).unwrap();
        let counts = Counts::default();
        let work = Work {
            canary: Some(canary),
            ..Work::default()
        };
        Life {
            name: "life".into(),
            work,
            samples: Vec::new(),
            conservation: Conservation::between(&counts, &counts, Ledger::default()).unwrap(),
            is_conserved: true,
            closed: BTreeMap::new(),
            subscribed: 0,
            left: Vec::new(),
            descriptors: [20, 20],
            panics: 0,
            rested_bytes: 0,
            resident_peak: 0,
            memory_max: None,
            more: Vec::new(),
        }
    }

    fn outcome(life: Life) -> Outcome {
        let mut verdict = Verdict::new(1);
        verdict.lives.push(life);
        verdict.outcome()
    }

    fn killed(serving: Option<Duration>) -> Verdict {
        let mut verdict = Verdict::new(1);
        verdict.kill = Some(Kill {
            listening: Duration::ZERO,
            serving,
            work: Work::default(),
        });
        verdict
    }

    #[test]
    fn a_late_canary_is_a_miss_and_no_loss() {
        assert_eq!(outcome(life(19, 1_000)), Outcome::Good);
        assert_eq!(outcome(life(30, 1_000)), Outcome::Missed);
        assert_eq!(outcome(life(200, 99)), Outcome::Good, "too few to judge");
        let mut verdict = Verdict::new(1);
        verdict.lives.push(life(30, 1_000));
        assert_eq!(verdict.misses().len(), 1);
        assert!(verdict.misses()[0].starts_with("life: canary p99 3"));
        assert!(verdict.reasons().is_empty());
    }

    #[test]
    fn whatever_is_lost_left_or_broken_outweighs_what_is_late() {
        let broken: [fn(&mut Life); 7] = [
            |life| life.work.faults.lost = 1,
            |life| life.is_conserved = false,
            |life| life.left.push("1 topics".into()),
            |life| life.descriptors = [20, 21],
            |life| life.panics = 1,
            |life| life.closed = [("io_error".to_owned(), 1)].into(),
            |life| life.work.failures.push("churn: refused".into()),
        ];
        for (number, break_it) in broken.into_iter().enumerate() {
            let mut life = life(30, 1_000);
            break_it(&mut life);
            assert_eq!(outcome(life), Outcome::Invalid, "{number}");
        }
    }

    #[test]
    fn a_killed_broker_is_late_after_a_second_and_lost_if_it_never_serves() {
        let within = |ms| killed(Some(Duration::from_millis(ms))).outcome();
        assert_eq!(within(900), Outcome::Good);
        assert_eq!(within(1_100), Outcome::Missed);
        assert_eq!(killed(None).outcome(), Outcome::Invalid);
    }
}
