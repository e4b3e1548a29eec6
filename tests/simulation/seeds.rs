//! Seeds: many of them at once, and one of them again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hvlp::metrics::Counters;

use crate::faults::{Fault, Mark};
use crate::world::World;

const SEEDS: u64 = 2_000;
const STEPS: usize = 500;

/// What a range of seeds has met.
#[derive(Default)]
struct Coverage {
    counters: Counters,
    faults: Vec<u64>,
    marks: Vec<u64>,
    seeds: u64,
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

fn steps() -> usize {
    number("SIM_STEPS").map_or(STEPS, |steps| steps as usize)
}

/// Runs one seed. What fails is told by the panic itself; this is what led to it.
fn run(seed: u64) -> Result<World, String> {
    let mut world = World::new(seed);
    let steps = steps();
    match catch_unwind(AssertUnwindSafe(|| world.run(steps))) {
        Ok(()) => Ok(world),
        Err(_) => Err(format!(
            "{world}\nreplay it: SIM_SEED={seed} SIM_STEPS={steps} \
             cargo test --test simulation replay -- --nocapture"
        )),
    }
}

/// Runs seeds on all cores until there is no next one, or one has failed.
fn run_all(next: impl Fn() -> Option<u64> + Sync) -> Coverage {
    let coverage = Mutex::new(Coverage::default());
    let failure = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failure.lock().unwrap().is_none()
                    && let Some(seed) = next()
                {
                    match run(seed) {
                        Ok(world) => coverage.lock().unwrap().add(&world),
                        Err(text) => *failure.lock().unwrap() = Some(text),
                    }
                }
            });
        }
    });
    if let Some(text) = failure.into_inner().unwrap() {
        panic!("{text}");
    }
    coverage.into_inner().unwrap()
}

impl Coverage {
    fn add(&mut self, world: &World) {
        self.seeds += 1;
        self.counters.add(&world.counters());
        let faults = &world.outside.faults;
        add(&mut self.faults, faults.met());
        add(&mut self.marks, faults.marks());
    }

    /// Everything that can happen here has happened.
    fn check(&self) {
        // A reservation that fails cannot be arranged from outside, and connections that wait to be
        // adopted, or come from one address, are not bounded here. No reactor can be late.
        let impossible = [
            "no_memory",
            "overload",
            "per_address",
            "loop_lags_total",
            "accept_rests_total",
        ];
        let unmet = Fault::ALL
            .iter()
            .zip(&self.faults)
            .filter(|(_, met)| **met == 0);
        let unmet: Vec<_> = unmet.map(|(fault, _)| *fault).collect();
        assert!(unmet.is_empty(), "faults that never happened: {unmet:?}");
        let unmet = Mark::ALL
            .iter()
            .zip(&self.marks)
            .filter(|(_, met)| **met == 0);
        let unmet: Vec<_> = unmet.map(|(mark, _)| *mark).collect();
        assert!(unmet.is_empty(), "states that no run came to: {unmet:?}");
        let samples = self.counters.samples();
        let zero = samples.iter().filter(|(name, label, value)| {
            *value == 0
                && name.ends_with("_total")
                && ![name, label].iter().any(|it| impossible.contains(it))
        });
        let zero: Vec<_> = zero
            .map(|(name, label, _)| format!("{name} {label}"))
            .collect();
        assert!(zero.is_empty(), "counters that nothing has moved: {zero:?}");
    }

    fn show(&self) {
        println!("{} seeds", self.seeds);
        for (fault, met) in Fault::ALL.iter().zip(&self.faults) {
            println!("{met:>10} {fault:?}");
        }
        for (mark, met) in Mark::ALL.iter().zip(&self.marks) {
            println!("{met:>10} {mark:?}");
        }
        for (name, label, value) in self.counters.samples() {
            println!("{value:>10} {name} {label}");
        }
    }
}

fn add(sums: &mut Vec<u64>, values: &[u64]) {
    sums.resize(values.len(), 0);
    sums.iter_mut()
        .zip(values)
        .for_each(|(sum, value)| *sum += value);
}

#[test]
fn every_seed_keeps_every_promise_and_all_of_them_meet_every_fault() {
    let first = number("SIM_FIRST").unwrap_or(0);
    let minutes = number("SIM_MINUTES");
    let seeds = number("SIM_SEEDS").unwrap_or(match minutes {
        Some(_) => u64::MAX,
        None => SEEDS,
    });
    let until = minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let taken = AtomicU64::new(0);
    let coverage = run_all(|| {
        let taken = taken.fetch_add(1, Ordering::Relaxed);
        if minutes.is_some() && taken.is_multiple_of(10 * SEEDS) {
            println!("{taken} seeds");
        }
        let is_over = taken >= seeds || until.is_some_and(|until| Instant::now() >= until);
        (!is_over).then_some(first + taken)
    });
    coverage.show();
    if coverage.seeds >= SEEDS {
        coverage.check();
    }
}

#[test]
fn replay_of_a_seed_does_the_same_again() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS / 100,
    };
    for seed in seeds {
        let [first, second] = [run(seed), run(seed)].map(|run| match run {
            Ok(world) => world.fingerprint(),
            Err(text) => panic!("{text}"),
        });
        assert!(first == second, "seed {seed} does something else");
    }
}
