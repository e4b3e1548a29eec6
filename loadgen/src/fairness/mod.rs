//! Who else pays when one publisher or one fan-out takes all it can get: the latency of canaries,
//! alone and beside such a load.
//!
//! The canaries are never held up by our own work on the load, which is a thread of its own: on
//! another CPU or, where there is none, on theirs with the least priority. There they sleep until
//! shortly before their next tick and preempt it; when they are alone, a thread that does nothing
//! keeps that CPU awake as the loads do.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use crate::args::Settings;
use crate::bystanders::Bystanders;
use crate::drive::Driver;
use crate::machine::{self, Environment, Watched};
use crate::pins::{self, Pins};
use crate::progress::Progress;
use crate::run::{Outcome, measure, pass_barrier};
use crate::target::{Dialect, Endpoint, Target};
use crate::workload::{Plan, TOPICS_MAX, Workload};

mod args;
mod load;
mod report;

pub use args::FairnessArgs;
use load::{LoadThread, Place};

/// How often a phase is repeated that failed by the generator's own fault.
const REPEATS_MAX: u32 = 3;

/// How long before a tick canaries wake up that share their CPU: most wake-ups of a virtual machine
/// are no later than that.
const EARLY: Duration = Duration::from_micros(250);

/// All that was measured.
struct Fairness<'a> {
    args: &'a FairnessArgs,
    environment: Environment,
    pins: Pins,
    place: Place,
    phases: Vec<Phase>,
}

/// The canaries beside one load.
struct Phase {
    /// `None` for nothing.
    load: Option<(Workload, Plan, Outcome)>,
    canaries: Outcome,
    /// Measurements that were thrown away by the generator's own fault.
    repeats: u32,
}

/// The canaries, connected once for all phases: where they are must not change.
struct Canaries<'a> {
    driver: Driver,
    settings: Settings,
    watched: Option<Watched>,
    args: &'a FairnessArgs,
    endpoint: &'a Endpoint,
    place: Place,
}

/// Runs all phases and prints the report. Says whether all of it was valid.
///
/// # Errors
/// Nobody listens, there is no such CPU or process, or the kernel refuses something.
pub fn fairness(args: &FairnessArgs) -> Result<bool> {
    let endpoint = match &args.target {
        Target::Broker(endpoint) if endpoint.dialect == Dialect::Hvlp => endpoint,
        _ => bail!("where connections land is known of HVLP brokers alone: measure one"),
    };
    machine::reserve_descriptors(0)?;
    let descriptors = machine::descriptors_max();
    let subscribers = args
        .fitting_subscribers(descriptors)
        .map_err(|text| anyhow!(text))?;
    if subscribers < args.subscribers as usize {
        writeln!(
            std::io::stderr(),
            "hvlp-loadgen: {subscribers} subscribers instead of {}: no more fit with {} sessions \
             and {descriptors} descriptors",
            args.subscribers,
            args.sessions
        )?;
    }
    let watched = args.pid.map(Watched::Process);
    if let Some(broker) = watched {
        broker.cpu_time()?;
    }
    let allowed = machine::own_cpus();
    let pins = pins::pin_generator(args.pin_generator, watched)?;
    let place = place(args, &allowed, &pins);
    let mut canaries = Canaries::connect(args, endpoint, watched, place)?;
    let ballast = ballast(args, endpoint, subscribers)?;

    let loads = [
        None,
        Some((Workload::One, Workload::One.plan())),
        Some((Workload::Fanout, Plan::fanout_to(subscribers))),
    ];
    let phases = loads.into_iter().map(|load| canaries.measure(load));
    let mut phases: Vec<_> = phases.collect::<Result<_>>()?;
    if let Some(last) = phases.last_mut() {
        last.canaries.invalid.extend(ballast.disturbed());
    }
    let fairness = Fairness {
        args,
        environment: Environment::read(),
        pins,
        place,
        phases,
    };
    fairness.print()?;
    Ok(fairness.is_valid())
}

fn place(args: &FairnessArgs, allowed: &[usize], pins: &Pins) -> Place {
    let own = (pins.generator.len() == 1).then(|| pins.generator[0]);
    let cpu = args.pin_load.or_else(|| pins::load_cpu(allowed, pins));
    Place {
        cpu: cpu.or(own),
        is_shared: cpu.is_none() || cpu == own,
    }
}

/// Idle connections on all reactors but the first, so many that all of the load lands there.
fn ballast(args: &FairnessArgs, endpoint: &Endpoint, subscribers: usize) -> Result<Bystanders> {
    let reactors = args.reactors();
    let progress = Progress::new(format!("fairness, {endpoint}"));
    progress.phase("connecting what is left idle");
    let mut ballast = Bystanders::idle(endpoint, args.ballast(subscribers) * reactors)?;
    ballast.close_every(reactors)?;
    Ok(ballast)
}

impl<'a> Canaries<'a> {
    /// One on each reactor: all publishers, then all subscribers, each of them going round.
    fn connect(
        args: &'a FairnessArgs,
        endpoint: &'a Endpoint,
        watched: Option<Watched>,
        place: Place,
    ) -> Result<Self> {
        let reactors = args.reactors();
        let plan = Plan {
            publishers: reactors,
            topics: reactors,
            subscribers: reactors,
            topics_from: TOPICS_MAX - reactors,
            ..Workload::One.plan()
        };
        let mut driver = Driver::connect(&plan, endpoint, Instant::now())?;
        if place.is_shared {
            driver.share_cpu(EARLY)?;
        }
        if let Some(missing) = pass_barrier(&mut driver, &plan)? {
            bail!("the canaries: {missing}");
        }
        let settings = Settings {
            workload: Workload::One,
            plan,
            rate: Some(args.rate * args.reactors),
            warmup: args.warmup,
            duration: args.duration,
            count: None,
            drain: args.drain,
        };
        Ok(Self {
            driver,
            settings,
            watched,
            args,
            endpoint,
            place,
        })
    }

    /// One phase.
    fn measure(&mut self, load: Option<(Workload, Plan)>) -> Result<Phase> {
        let name = load.map_or("alone", |(workload, _)| workload.name());
        let progress = Progress::new(format!("fairness, {}, {name}", self.args.target));
        progress.phase("starting the load");
        let (warmup, drain) = (self.args.warmup, self.args.drain);
        let spawn = |(_, plan)| LoadThread::spawn(plan, self.endpoint, self.place, warmup, drain);
        let thread = match load {
            Some(load) => Some(spawn(load)?),
            None if self.place.is_shared => Some(LoadThread::spin(self.place)?),
            None => None,
        };
        let mut repeats = 0;
        let canaries = loop {
            let run = measure(&mut self.driver, &self.settings, self.watched, &progress)?;
            if !run.is_own_fault || repeats == REPEATS_MAX {
                break run;
            }
            repeats += 1;
        };
        progress.phase("ending the load");
        let load = load.zip(thread.map(LoadThread::finish).transpose()?);
        Ok(Phase {
            load: load.map(|((workload, plan), outcome)| (workload, plan, outcome)),
            canaries,
            repeats,
        })
    }
}

impl Phase {
    /// Why it has no result.
    fn invalid_reasons(&self) -> Vec<String> {
        let load = self
            .load
            .iter()
            .flat_map(|(_, _, outcome)| &outcome.invalid);
        let load = load.map(|reason| format!("load: {reason}"));
        let canaries = self.canaries.invalid.iter();
        canaries
            .map(|reason| format!("canaries: {reason}"))
            .chain(load)
            .collect()
    }
}

impl Fairness<'_> {
    fn is_valid(&self) -> bool {
        let mut phases = self.phases.iter();
        phases.all(|phase| phase.invalid_reasons().is_empty())
    }
}
