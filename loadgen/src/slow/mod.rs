//! What healthy subscribers notice of stalled ones on their topic: latency alone and beside them,
//! and whether anything was lost.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::args::Settings;
use crate::conservation::{Account, Conservation, Ledger};
use crate::drive::Driver;
use crate::machine::{self, Environment, Watched};
use crate::pins::{self, Pins};
use crate::progress::Progress;
use crate::run::{Outcome, measure, pass_barrier};
use crate::stalled::{End, Stalled, read_to_end};
use crate::target::{Endpoint, Target};
use crate::workload::{Plan, Workload};

mod args;
mod report;

pub use args::SlowArgs;

/// All that was measured.
struct Slow<'a> {
    args: &'a SlowArgs,
    environment: Environment,
    pins: Pins,
    alone: Outcome,
    beside: Outcome,
    stalled: Crowd,
    /// Resident memory before the stalled ones came, and when the measurement was over.
    resident_bytes: [Option<u64>; 2],
    conservation: Option<Conservation>,
}

/// What became of the stalled ones.
struct Crowd {
    /// Reset while they were stalled.
    reset: usize,
    /// Closed by the target in all, those that found their end by reading on included.
    closed: usize,
    /// Still there.
    kept: usize,
    /// Never heard of: not even subscribed, perhaps.
    unreached: usize,
    /// Messages read from them at the end.
    received: u64,
    cut_max: u64,
}

/// Measures both phases and prints the report. Says whether all of it was valid.
///
/// # Errors
/// Nobody listens, there is no such CPU or process, or the kernel refuses something.
pub fn slow(args: &SlowArgs, plan: &Plan) -> Result<bool> {
    let Target::Broker(endpoint) = &args.target else {
        bail!("a relay waits for its slowest subscriber: measure a broker");
    };
    machine::reserve_descriptors(1 + plan.subscribers + args.stalled as usize)?;
    let watched = args.pid.map(Watched::Process);
    if let Some(broker) = watched {
        broker.cpu_time()?;
    }
    let pins = pins::pin_generator(args.pin_generator, watched)?;
    let account = args.admin.admin.as_ref().map(Account::open).transpose()?;
    let progress = Progress::new(format!("slow, {}", args.target));
    let mut slow = measure_both(args, plan, endpoint, watched, pins, &progress)?;
    if let Some(account) = account {
        let stalled = Ledger {
            published: 0,
            received: slow.stalled.received,
            cut_max: slow.stalled.cut_max,
        };
        slow.conservation = Some(account.close(slow.beside.ledger.and(&stalled))?);
    }
    drop(progress);
    slow.print()?;
    Ok(slow.invalid_reasons().is_empty())
}

fn measure_both<'a>(
    args: &'a SlowArgs,
    plan: &Plan,
    endpoint: &Endpoint,
    watched: Option<Watched>,
    pins: Pins,
    progress: &Progress,
) -> Result<Slow<'a>> {
    let settings = Settings {
        workload: Workload::Fanout,
        plan: *plan,
        rate: Some(args.rate),
        warmup: args.warmup,
        duration: args.duration,
        count: None,
        drain: args.drain,
    };
    progress.phase("connecting the healthy ones");
    let mut driver = Driver::connect(plan, endpoint, Instant::now())?;
    if let Some(missing) = pass_barrier(&mut driver, plan)? {
        bail!("the healthy ones: {missing}");
    }
    let resident = || watched.and_then(Watched::resident_bytes);
    let alone = measure(&mut driver, &settings, watched, progress)?;
    let before = resident();
    progress.phase("connecting the stalled ones");
    let published_before = driver.ledger().published;
    let topics = || plan.publications(0);
    let stalled = (0..args.stalled).map(|_| Stalled::connect(endpoint, topics()));
    let mut stalled = stalled.collect::<Result<Vec<_>>>()?;
    let beside = measure(&mut driver, &settings, watched, progress)?;
    let after = resident();
    drop(driver);
    progress.phase("reading the stalled ones to their end");
    let crowd = Crowd::read(&mut stalled, beside.ledger.published - published_before)?;
    Ok(Slow {
        args,
        environment: Environment::read(),
        pins,
        alone,
        beside,
        stalled: crowd,
        resident_bytes: [before, after],
        conservation: None,
    })
}

impl Crowd {
    /// Reads them to their end; `published` is what each of them can have got at most.
    fn read(stalled: &mut [Stalled], published: u64) -> Result<Self> {
        let mut reset = vec![false; stalled.len()];
        for (reset, one) in reset.iter_mut().zip(&mut *stalled) {
            *reset = one.is_reset()?;
        }
        read_to_end(stalled)?;
        let count = |is: &dyn Fn(&Stalled) -> bool| stalled.iter().filter(|one| is(one)).count();
        let closed = count(&|one| one.end == Some(End::Closed));
        Ok(Self {
            reset: reset.iter().filter(|reset| **reset).count(),
            closed,
            kept: stalled.len() - closed,
            unreached: count(&|one| one.received() == 0 && one.end != Some(End::Closed)),
            received: stalled.iter().map(Stalled::received).sum(),
            cut_max: stalled.iter().map(|one| one.cut_max(published)).sum(),
        })
    }
}

impl Slow<'_> {
    /// Why there is no result.
    fn invalid_reasons(&self) -> Vec<String> {
        let named = |phase: &'static str, outcome: &Outcome| {
            let reasons = outcome.invalid.iter();
            let reasons = reasons.map(move |reason| format!("{phase}: {reason}"));
            reasons.collect::<Vec<_>>()
        };
        let mut reasons = named("alone", &self.alone);
        reasons.extend(named("beside stalled ones", &self.beside));
        if self.stalled.unreached > 0 {
            reasons.push(format!(
                "{} stalled subscribers never got anything",
                self.stalled.unreached
            ));
        }
        let conservation = self.conservation.as_ref();
        reasons.extend(conservation.and_then(Conservation::invalid_reason));
        reasons
    }
}
