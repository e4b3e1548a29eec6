//! What a soak came to, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::work::Work;
use crate::args::Format;
use crate::conservation::Conservation;
use crate::report::print_as;

/// A slope over less is noise.
const SLOPE_TIME_MIN: Duration = Duration::from_secs(20);

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

/// One life of the broker, from alone to alone.
#[derive(Debug)]
pub struct Life {
    /// Which.
    pub name: &'static str,
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
    /// What was left when everybody had gone, in words.
    pub left: Vec<String>,
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
    /// Before and after the kill.
    pub lives: [Life; 2],
    /// Between them.
    pub kill: Kill,
}

impl Life {
    /// Messages that one side knows of and the other does not, and what flows found wrong.
    fn unexplained(&self) -> u64 {
        let faults = self.work.faults;
        let found = faults.lost + faults.duplicate + faults.reordered + faults.foreign;
        self.conservation.unexplained() + found + u64::from(!self.is_conserved)
    }

    /// Mebibytes an hour, by least squares over all but the first quarter of the samples.
    fn resident_slope(&self) -> Option<f64> {
        let samples = &self.samples[self.samples.len() / 4..];
        let (first, last) = (samples.first()?, samples.last()?);
        if last.elapsed - first.elapsed < SLOPE_TIME_MIN {
            return None;
        }
        let points = || {
            let point = |sample: &Sample| {
                let hours = sample.elapsed.as_secs_f64() / 3600.0;
                (hours, mebibytes(sample.resident_bytes))
            };
            samples.iter().map(point)
        };
        let count = samples.len() as f64;
        let mean_x = points().map(|(x, _)| x).sum::<f64>() / count;
        let mean_y = points().map(|(_, y)| y).sum::<f64>() / count;
        let covariance: f64 = points().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let variance: f64 = points().map(|(x, _)| (x - mean_x).powi(2)).sum();
        (variance > 0.0).then(|| covariance / variance)
    }

    fn canary_max(&self) -> Option<Duration> {
        let canary = self.work.canary.as_ref()?;
        Some(Duration::from_nanos(canary.max()))
    }

    fn resident_max(&self) -> u64 {
        let resident = self.samples.iter().map(|sample| sample.resident_bytes);
        resident.max().unwrap_or_default()
    }

    fn object(&self) -> Value {
        let canary = self.work.canary.as_ref();
        json!({
            "name": self.name,
            "sessions": self.work.sessions,
            "stalled_closed": self.work.stalled_closed,
            "conservation": self.conservation.object(),
            "conserved": self.is_conserved,
            "unexplained": self.unexplained(),
            "left": self.left,
            "sessions_closed": self.closed,
            "canary_ns": canary.map(|canary| json!({
                "count": canary.len(),
                "p50": canary.value_at_quantile(0.5),
                "p99": canary.value_at_quantile(0.99),
                "max": canary.max(),
            })),
            "rss_slope_mib_per_hour": self.resident_slope(),
            "rss_max_bytes": self.resident_max(),
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
    /// Whether everything is accounted for and nothing was left.
    pub fn is_clean(&self) -> bool {
        self.reasons().is_empty()
    }

    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for life in &self.lives {
            let name = life.name;
            if life.unexplained() > 0 {
                let faults = life.work.faults;
                reasons.push(format!(
                    "{name}: {} unexplained ({faults:?}; {})",
                    life.unexplained(),
                    life.conservation
                ));
            }
            if !life.left.is_empty() {
                reasons.push(format!("{name}: leaked {}", life.left.join(", ")));
            }
            let failures = life.work.failures.iter();
            reasons.extend(failures.map(|failure| format!("{name}: {failure}")));
        }
        if self.kill.unexplained() > 0 {
            let faults = self.kill.work.arrived_faults;
            reasons.push(format!("around the kill: {faults:?}"));
        }
        let failures = self.kill.work.failures.iter();
        reasons.extend(failures.map(|failure| format!("around the kill: {failure}")));
        if self.kill.serving.is_none() {
            reasons.push("no message came through after the kill".into());
        }
        if self.interrupted {
            reasons.push("interrupted".into());
        }
        reasons
    }

    fn io_errors(&self) -> u64 {
        let errors = self
            .lives
            .iter()
            .filter_map(|life| life.closed.get("io_error"));
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
        for life in &self.lives {
            writeln!(out, "  {}", life.name)?;
            writeln!(out, "    {}", life.conservation)?;
            write!(
                out,
                "    sessions {}, stalled readers closed {}; RSS at most {:.1} MiB",
                life.work.sessions,
                life.work.stalled_closed,
                mebibytes(life.resident_max())
            )?;
            if let Some(slope) = life.resident_slope() {
                write!(out, ", slope {slope:.1} MiB/h")?;
            }
            if let Some(worst) = life.canary_max() {
                write!(out, "; worst canary {:.1} ms", milliseconds(worst))?;
            }
            writeln!(out)?;
        }
        let serving = self.kill.serving;
        writeln!(
            out,
            "  kill -9: listening again after {:.1} ms, a message came through after {}; in flight \
             and lost {}",
            milliseconds(self.kill.listening),
            serving.map_or_else(|| "-".into(), |it| format!("{:.1} ms", milliseconds(it))),
            self.kill.in_flight()
        )?;
        writeln!(out, "  sessions closed for io_error: {}", self.io_errors())
    }

    fn object(&self) -> Value {
        json!({
            "schema": 1,
            "mode": "soak",
            "valid": self.is_clean(),
            "invalid_reasons": self.reasons(),
            "argv": std::env::args().collect::<Vec<_>>(),
            "seed": self.seed,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "lives": self.lives.iter().map(Life::object).collect::<Vec<_>>(),
            "kill": self.kill.object(),
            "io_errors": self.io_errors(),
        })
    }
}

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
