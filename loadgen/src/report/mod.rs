//! What is printed and written: figures on standard output, files where they were asked for.

use std::io::{self, StdoutLock, Write};

use anyhow::Result;

use crate::args::{Format, Settings};
use crate::machine::Environment;
use crate::pins::Pins;
use crate::run::Outcome;
use crate::target::Target;

pub mod hgrm;
pub mod json;
mod text;

/// All runs of one target.
#[derive(Debug)]
pub struct Report<'a> {
    settings: &'a Settings,
    target: &'a Target,
    pins: Pins,
    environment: &'a Environment,
    runs: Vec<Outcome>,
    median_run: usize,
}

impl<'a> Report<'a> {
    /// # Panics
    /// There is no run.
    pub fn new(
        settings: &'a Settings,
        target: &'a Target,
        pins: Pins,
        environment: &'a Environment,
        runs: Vec<Outcome>,
    ) -> Self {
        let mut order: Vec<_> = (0..runs.len()).collect();
        order.sort_by(|&a, &b| merit(&runs[a]).total_cmp(&merit(&runs[b])));
        let median_run = order[order.len() / 2];
        Self {
            settings,
            target,
            pins,
            environment,
            runs,
            median_run,
        }
    }

    /// The run in the middle: by deliveries per second, or by p50 in an open loop.
    pub fn median(&self) -> &Outcome {
        &self.runs[self.median_run]
    }

    /// Whether every run has a result.
    pub fn is_valid(&self) -> bool {
        self.runs.iter().all(|run| run.invalid.is_empty())
    }

    /// All runs, in the order in which they were made.
    pub fn runs(&self) -> &[Outcome] {
        &self.runs
    }

    /// Deliveries that each publisher might have outstanding; `-` with a schedule.
    pub fn window(&self) -> String {
        match self.settings.rate {
            Some(_) => "-".into(),
            None => self.settings.plan.window.to_string(),
        }
    }

    /// Why not, with the run's number if there are several.
    pub fn invalid_reasons(&self) -> Vec<String> {
        let several = self.runs.len() > 1;
        let name = |(index, reason): (usize, &String)| match several {
            true => format!("run {}: {reason}", index + 1),
            false => reason.clone(),
        };
        let runs = self.runs.iter().enumerate();
        runs.flat_map(|(index, run)| run.invalid.iter().map(move |reason| (index, reason)))
            .map(name)
            .collect()
    }
}

/// What the runs of one report are ordered by.
fn merit(run: &Outcome) -> f64 {
    match &run.latency {
        Some(_) => p50_ns(run),
        None => run.deliveries_per_s(),
    }
}

fn p50_ns(run: &Outcome) -> f64 {
    run.latency.as_ref().map_or(0.0, |latency| {
        latency.corrected.value_at_quantile(0.5) as f64
    })
}

fn p99_ns(run: &Outcome) -> f64 {
    run.latency.as_ref().map_or(0.0, |latency| {
        latency.corrected.value_at_quantile(0.99) as f64
    })
}

/// The target's figures over the relay's: of each pair of runs, for they stood side by side, and
/// then the median.
#[derive(Clone, Copy, Debug)]
pub struct Ratios {
    deliveries_per_s: f64,
    cpu_per_delivery: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
}

impl Ratios {
    /// Of two reports with the same number of runs.
    pub fn new(own: &Report<'_>, relay: &Report<'_>) -> Self {
        let of = |figure: &dyn Fn(&Outcome) -> Option<f64>| {
            let pairs = own.runs.iter().zip(&relay.runs);
            median(
                pairs
                    .filter_map(|(own, relay)| Some(figure(own)? / figure(relay)?))
                    .collect(),
            )
        };
        let timed = |figure: fn(&Outcome) -> f64| {
            of(&|run| Some(figure(run)).filter(|_| run.latency.is_some()))
        };
        Self {
            deliveries_per_s: of(&|run| Some(run.deliveries_per_s())).unwrap_or(f64::NAN),
            cpu_per_delivery: of(&Outcome::cpu_us_per_delivery),
            p50: timed(p50_ns),
            p99: timed(p99_ns),
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Prints a report, and how it stands beside the relay's.
///
/// # Errors
/// Standard output is closed.
pub fn print(
    format: Format,
    own: &Report<'_>,
    relay: Option<(&Report<'_>, &Ratios)>,
) -> Result<()> {
    print_as(
        format,
        |out| text::write(out, own, relay),
        || Ok(json::object(own, relay)?.to_string()),
    )
}

/// Prints figures as they were asked for: as text, or as one object in one line.
///
/// # Errors
/// Standard output is closed; `object` fails.
pub fn print_as(
    format: Format,
    text: impl FnOnce(&mut StdoutLock<'_>) -> io::Result<()>,
    object: impl FnOnce() -> Result<String>,
) -> Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Text => text(&mut out)?,
        Format::Json => writeln!(out, "{}", object()?)?,
    }
    Ok(())
}

/// `95.20 M`, `31.2 k`, `17`.
pub fn rate(per_s: f64) -> String {
    match per_s {
        rate if rate >= 1e6 => format!("{:.2} M", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.1} k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_one_of_the_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn rates_keep_three_or_four_digits() {
        assert_eq!(
            [95_200_000.0, 31_234.0, 17.4].map(rate),
            ["95.20 M", "31.2 k", "17"]
        );
    }
}
