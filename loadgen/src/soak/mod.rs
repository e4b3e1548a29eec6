//! Mixed load and faults against a broker of its own, for minutes or for days, and the figures that
//! it must hold: is everything accounted for, is nothing left when everybody has gone, and was
//! anything late or large?

use anyhow::Result;

use crate::machine;

mod args;
mod broker;
mod canary;
mod crowd;
mod dice;
mod figure;
mod flood;
mod held;
mod mixed;
mod parts;
mod slope;
mod source;
mod stand;
mod trials;
mod verdict;
mod work;

pub use args::SoakArgs;
use broker::Program;
use crowd::Policy;
use stand::Run;
pub use verdict::Outcome;
use verdict::Verdict;

/// Connections of one kind: their topics, and those of everything else, have distinct names.
const MOST: u64 = 60_000;
/// Connections of the mixed load.
const OTHERS: usize = 1_000;

/// Runs it all and prints the verdict.
///
/// # Errors
/// The broker does not start or ends by itself, or the kernel refuses something.
pub fn soak(args: &SoakArgs) -> Result<Outcome> {
    let programme = args.programme();
    let many = programme.hold.max(programme.stalled.map(|count| 2 * count));
    machine::reserve_descriptors(OTHERS + many.unwrap_or_default())?;
    let path = match &args.broker {
        Some(path) => path.clone(),
        None => broker::program()?,
    };
    let program = Program {
        path,
        engine: args.engine.clone(),
    };
    let run = Run::begin()?;
    let mut verdict = Verdict::new(args.seed);
    if let Some(time) = programme.mixed {
        let mixed = mixed::mixed(&run, &program, args.seed, time, programme.hold)?;
        verdict.lives.extend(mixed.lives);
        verdict.kill = Some(mixed.kill);
    }
    run_trials(args, &run, &program, &mut verdict)?;
    verdict.elapsed = run.began.elapsed();
    verdict.interrupted = run.is_interrupted();
    verdict.print(args.output.format())?;
    Ok(verdict.outcome())
}

fn run_trials(args: &SoakArgs, run: &Run, program: &Program, verdict: &mut Verdict) -> Result<()> {
    let programme = args.programme();
    let goes_on = || !run.is_interrupted();
    if let Some(count) = programme.resets.filter(|_| goes_on()) {
        verdict.lives.push(trials::resets_of(run, program, count)?);
    }
    if let Some(rate) = programme.flood.filter(|_| goes_on()) {
        let life = trials::flood_of(run, program, rate, args.flood_time)?;
        verdict.lives.push(life);
    }
    if let Some(count) = programme.stalled {
        for policy in Policy::ALL.into_iter().filter(|_| goes_on()) {
            let life = trials::stalled_under(run, program, policy, count)?;
            verdict.lives.push(life);
        }
    }
    Ok(())
}
