//! Several targets in turn, under the same conditions, and how they stand to each other.
//!
//! Within a round every target has one run of the workload; who begins changes from round to
//! round. A target that cannot be reached, hangs up or loses has no figures and says why.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::args::Settings;
use crate::bench::{once, relay_once};
use crate::machine::{self, Environment, Watched};
use crate::pins::{self, Pins};
use crate::progress::Progress;
use crate::report::{Report, print_as};
use crate::run::Outcome;
use crate::target::Target;

mod args;
mod chart;
mod contestant;
mod goals;
mod html;
mod json;
mod text;

pub use args::CompareArgs;
use args::Scenario;
use contestant::{Contestant, Standing};
pub use goals::median;
use goals::{Figure, GOALS, Goal, Series, Verdict};
pub use text::rounds;

/// How often a run is repeated that failed by the generator's own fault: somebody else had its CPU.
const REPEATS_MAX: u32 = 3;

/// All that was measured.
struct Comparison<'a> {
    args: &'a CompareArgs,
    /// What the user had to say about it.
    about: String,
    environment: &'a Environment,
    sections: Vec<Section<'a>>,
}

/// One workload.
struct Section<'a> {
    scenario: Scenario,
    entries: Vec<Entry<'a>>,
}

/// One contestant in it.
struct Entry<'a> {
    contestant: &'a Contestant,
    report: Report<'a>,
    /// Runs that were thrown away by the generator's own fault.
    repeats: u32,
}

/// A contestant before its runs.
struct Place<'a> {
    contestant: &'a Contestant,
    settings: Settings,
    pins: Pins,
    relay_cpu: Option<usize>,
}

/// Runs everything and prints the reports. Says whether every run has a result.
///
/// # Errors
/// A file cannot be read or written, or the kernel refuses something. What a target does wrong is
/// no error, but its result.
pub fn compare(args: &CompareArgs) -> Result<bool> {
    let about = match &args.about {
        Some(path) => {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => String::new(),
    };
    reserve_descriptors(args)?;
    let environment = Environment::read();
    let field = places(args)?;
    let mut sections = Vec::new();
    for (scenario, places) in &field {
        sections.push(measure(args, *scenario, places, &environment)?);
    }
    let comparison = Comparison {
        args,
        about,
        environment: &environment,
        sections,
    };
    comparison.publish()?;
    Ok(comparison.is_valid())
}

fn reserve_descriptors(args: &CompareArgs) -> Result<()> {
    let connections = args.workloads.iter().map(|scenario| {
        let plan = scenario.workload().plan();
        plan.publishers + plan.subscribers
    });
    // Both ends of the relay's connections are ours.
    machine::reserve_descriptors(2 * connections.max().unwrap_or(0))
}

/// Who takes part in what, and where everybody runs.
fn places<'a>(args: &'a CompareArgs) -> Result<Vec<(Scenario, Vec<Place<'a>>)>> {
    let first = args.contestants.iter().find_map(Contestant::watched);
    let pins = pins::pin_generator(args.pins.pin_generator, first)?;
    let relay_cpu = pins::relay_cpu(args.pins.pin_relay, &pins);
    let place = |scenario: Scenario, contestant: &'a Contestant| Place {
        contestant,
        settings: scenario.settings(args, contestant),
        pins: match contestant.watched() {
            None if contestant.target == Target::Relay => pins.beside_relay(relay_cpu),
            watched => Pins {
                broker: watched.map(Watched::cpus).unwrap_or_default(),
                generator: pins.generator.clone(),
            },
        },
        relay_cpu,
    };
    // Without ours there is nothing to be held against, so that everybody takes part in everything.
    let alone = !args
        .contestants
        .iter()
        .any(|who| who.standing() == Standing::Own);
    let lineup = |&scenario: &Scenario| {
        let admitted = args
            .contestants
            .iter()
            .filter(|who| scenario.admits(who) && (alone || scenario.concerns(who.standing())));
        let places = admitted.map(|contestant| place(scenario, contestant));
        (scenario, places.collect())
    };
    Ok(args.workloads.iter().map(lineup).collect())
}

/// All rounds of one workload.
fn measure<'a>(
    args: &CompareArgs,
    scenario: Scenario,
    places: &'a [Place<'a>],
    environment: &'a Environment,
) -> Result<Section<'a>> {
    let mut runs = vec![Vec::new(); places.len()];
    let mut repeats = vec![0; places.len()];
    for round in 0..args.runs as usize {
        for step in 0..places.len() {
            let index = (round + step) % places.len();
            let place = &places[index];
            let title = format!(
                "{scenario}, round {} of {}, {}",
                round + 1,
                args.runs,
                place.contestant
            );
            let mut outcome = place.run(&title);
            while outcome.is_own_fault && repeats[index] < REPEATS_MAX {
                repeats[index] += 1;
                outcome = place.run(&title);
            }
            runs[index].push(outcome);
        }
    }
    let results = places.iter().zip(runs).zip(repeats);
    let entries = results.map(|((place, runs), repeats)| Entry {
        contestant: place.contestant,
        report: Report::new(
            &place.settings,
            &place.contestant.target,
            place.pins.clone(),
            environment,
            runs,
        ),
        repeats,
    });
    Ok(Section {
        scenario,
        entries: entries.collect(),
    })
}

impl Place<'_> {
    /// One run; what goes wrong in it is its result.
    fn run(&self, title: &str) -> Outcome {
        let outcome = match &self.contestant.target {
            Target::Relay => relay_once(&self.settings, self.relay_cpu, &self.pins, title.into()),
            Target::Broker(endpoint) => {
                let progress = Progress::new(title.into());
                let watched = self.contestant.watched();
                once(&self.settings, endpoint, watched, &self.pins, &progress)
            }
        };
        outcome.unwrap_or_else(|error| Outcome::failed(format!("{error:#}")))
    }
}

impl Section<'_> {
    /// What there is to say of it: a schedule decides how much is delivered, a closed loop how
    /// long it waits.
    const fn figures(&self) -> &'static [Figure] {
        use Figure::{CpuPerDelivery, DeliveriesPerS, P50, P99, P999};
        match self.scenario.rate() {
            Some(_) => &[P50, P99, P999, CpuPerDelivery],
            None => &[DeliveriesPerS, CpuPerDelivery],
        }
    }
}

impl Entry<'_> {
    /// Share of the time in which something else held the target's CPU or the generator's, in the
    /// worst of the runs.
    fn disturbance(&self) -> f64 {
        let runs = self.report.runs().iter();
        runs.map(Outcome::disturbance).fold(0.0, f64::max)
    }

    /// The median of a figure over all runs; `None` without a result.
    fn median(&self, figure: Figure) -> Option<f64> {
        median(self.values(figure))
    }

    /// A figure of each run; empty if one of them has no result.
    fn values(&self, figure: Figure) -> Vec<f64> {
        if !self.report.is_valid() {
            return Vec::new();
        }
        let values = self.report.runs().iter().map(|run| figure.of(run));
        values.collect::<Option<_>>().unwrap_or_default()
    }
}

impl Comparison<'_> {
    fn is_valid(&self) -> bool {
        let mut entries = self.sections.iter().flat_map(|section| &section.entries);
        entries.all(|entry| entry.report.is_valid())
    }

    /// Which of the contestants an entry is about: its colour.
    fn number(&self, entry: &Entry<'_>) -> usize {
        let is_it = |contestant: &Contestant| std::ptr::eq(contestant, entry.contestant);
        self.args.contestants.iter().position(is_it).unwrap_or(0)
    }

    /// The goals of the workloads that were run, each with its verdict.
    fn verdicts(&self) -> Vec<(&'static Goal, Option<Verdict>)> {
        let judged = |goal: &'static Goal| {
            let section = self
                .sections
                .iter()
                .find(|section| section.scenario == goal.scenario)?;
            let subjects = || {
                section
                    .entries
                    .iter()
                    .map(|entry| entry.contestant.standing())
            };
            // Whoever brings no second broker of ours is not told that it has no result.
            if goal.of != Standing::Own && !subjects().any(|standing| standing == goal.of) {
                return None;
            }
            let series = section.entries.iter().map(|entry| Series {
                name: entry.contestant.to_string(),
                standing: entry.contestant.standing(),
                values: entry.values(goal.figure),
            });
            Some((goal, goals::judge(goal, &series.collect::<Vec<_>>())))
        };
        GOALS.iter().filter_map(judged).collect()
    }

    /// Writes the files that were asked for, and prints.
    fn publish(&self) -> Result<()> {
        let write = |path: &Path, text: String| {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let object = json::object(self)?;
        if let Some(path) = &self.args.save {
            write(path, format!("{object}\n"))?;
        }
        if let Some(path) = &self.args.html {
            write(path, html::page(self)?)?;
        }
        let format = self.args.output.format();
        print_as(
            format,
            |out| text::write(out, self),
            || Ok(object.to_string()),
        )
    }
}
