//! What a delivery costs as the broker's surroundings grow: registered topics, subscribers, idle
//! connections, one at a time.
//!
//! Within a round every size has one run; who begins changes from round to round. What is relative
//! to the relay has the relay's run right behind its own.

use anyhow::{Result, bail};

use crate::args::Settings;
use crate::bench::once;
use crate::bystanders::Bystanders;
use crate::machine::{self, Environment, Watched};
use crate::pins::{self, Pins};
use crate::progress::Progress;
use crate::run::Outcome;
use crate::target::relay_process::RelayProcess;
use crate::target::{Endpoint, Target};

mod args;
mod axis;
mod report;

pub use args::GrowthArgs;
use axis::{Axis, Point};

/// All that was measured.
struct Growth<'a> {
    args: &'a GrowthArgs,
    environment: Environment,
    pins: Pins,
    axes: Vec<(Axis, Vec<Point>)>,
}

/// Who is measured, and where everybody runs.
struct Bench<'a> {
    args: &'a GrowthArgs,
    endpoint: &'a Endpoint,
    pins: Pins,
    relay_cpu: Option<usize>,
}

/// Runs everything and prints the report. Says whether every run has a result.
///
/// # Errors
/// There is no such process, nobody listens, or the kernel refuses something.
pub fn growth(args: &GrowthArgs) -> Result<bool> {
    let Target::Broker(endpoint) = &args.target else {
        bail!("a relay keeps no topics: measure a broker");
    };
    let connections = args.axes.iter().flat_map(|&axis| {
        let sizes = args.sizes(axis).into_iter();
        sizes.map(move |size| axis.connections(size))
    });
    // And the bystanders' herald.
    machine::reserve_descriptors(connections.max().unwrap_or(0) + 1)?;
    let broker = Watched::Process(args.pid);
    broker.cpu_time()?;
    let pins = pins::pin_generator(args.pins.pin_generator, Some(broker))?;
    let bench = Bench {
        args,
        endpoint,
        relay_cpu: pins::relay_cpu(args.pins.pin_relay, &pins),
        pins,
    };
    let axes = args
        .axes
        .iter()
        .map(|&axis| Ok((axis, bench.measure(axis)?)));
    let growth = Growth {
        args,
        environment: Environment::read(),
        axes: axes.collect::<Result<_>>()?,
        pins: bench.pins,
    };
    growth.print()?;
    Ok(growth.is_valid())
}

impl Bench<'_> {
    /// All rounds of one axis.
    fn measure(&self, axis: Axis) -> Result<Vec<Point>> {
        let mut points: Vec<_> = self.args.sizes(axis).into_iter().map(Point::new).collect();
        for round in 0..self.args.runs as usize {
            for step in 0..points.len() {
                let index = (round + step) % points.len();
                let point = &mut points[index];
                let size = point.size;
                let title = |who: &str| {
                    let runs = self.args.runs;
                    let round = round + 1;
                    Progress::new(format!("{axis} {size}, round {round} of {runs}, {who}"))
                };
                let progress = title(&self.args.target.to_string());
                point.runs.push(self.run(axis, size, &progress)?);
                drop(progress);
                if axis.is_beside_relay() {
                    point
                        .relay_runs
                        .push(self.relay(axis, size, &title("relay"))?);
                }
            }
        }
        Ok(points)
    }

    /// One run of the broker, with what stands beside it.
    fn run(&self, axis: Axis, size: usize, progress: &Progress) -> Result<Outcome> {
        progress.phase("connecting the bystanders");
        let (topics, per_connection) = axis.bystanders(size);
        let bystanders = Bystanders::connect(self.endpoint, topics, per_connection)?;
        let watched = Some(Watched::Process(self.args.pid));
        let settings = self.settings(axis, size);
        let mut outcome = once(&settings, self.endpoint, watched, &self.pins, progress)?;
        outcome.invalid.extend(bystanders.disturbed());
        Ok(outcome)
    }

    /// One run of the relay: a new one, which looks at no connections of earlier runs.
    fn relay(&self, axis: Axis, size: usize, progress: &Progress) -> Result<Outcome> {
        let relay = RelayProcess::spawn(self.relay_cpu)?;
        let pins = self.pins.beside_relay(self.relay_cpu);
        let settings = self.settings(axis, size);
        once(
            &settings,
            &relay.endpoint,
            Some(relay.watched()),
            &pins,
            progress,
        )
    }

    fn settings(&self, axis: Axis, size: usize) -> Settings {
        Settings {
            workload: axis.workload(),
            plan: axis.plan(size),
            rate: None,
            warmup: self.args.warmup,
            duration: self.args.duration,
            count: None,
            drain: self.args.drain,
        }
    }
}

impl Growth<'_> {
    fn is_valid(&self) -> bool {
        let mut points = self.axes.iter().flat_map(|(_, points)| points);
        points.all(|point| point.invalid_reasons().is_empty())
    }
}
