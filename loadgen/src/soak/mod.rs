//! Mixed load and faults against a broker of its own, for minutes or for days: is everything
//! accounted for, and is nothing left when everybody has gone?
//!
//! 1. The first life: all parts of the load, then everybody leaves; ledgers are reconciled.
//! 2. Flows and a canary of reconnecting clients, the broker killed (`kill -9`) under them and
//!    started again on the same port. What was on its way is counted, nothing else may be missing.
//! 3. The second life: as the first, from counters that have begun anew.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::admin::Counts;
use crate::conservation::Account;
use crate::machine;
use crate::workload::{Plan, Workload};

mod args;
mod broker;
mod dice;
mod parts;
mod verdict;
mod work;

pub use args::SoakArgs;
use broker::BrokerProcess;
use dice::Dice;
use verdict::{Kill, Life, Sample, Verdict};
use work::{Signals, Work};

/// Which part of the time is around the kill.
const KILL_SHARE: f64 = 0.1;
/// Half of it is enough to connect everybody.
const KILL_TIME_MIN: Duration = Duration::from_secs(2);
/// How often the broker is looked at, but a dozen times at least.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// How long anything may take that should be at once.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// Runs it all and prints the verdict. Says whether it is clean.
///
/// # Errors
/// The broker does not start or ends by itself, or the kernel refuses something.
pub fn soak(args: &SoakArgs) -> Result<bool> {
    machine::reserve_descriptors(1_000)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let program = match &args.broker {
        Some(program) => program.clone(),
        None => broker::program()?,
    };
    let mut soak = Soak {
        args,
        began: Instant::now(),
        interrupted,
        broker: BrokerProcess::start(&program, "127.0.0.1:0")?,
        dice: Dice::new(args.seed),
    };
    // What asking costs it for good is no leak.
    soak.broker.admin.counts()?;
    let (_, descriptors) = soak.broker.footprint()?;
    let kill_time = args.minutes.mul_f64(KILL_SHARE).max(KILL_TIME_MIN);
    let life_time = args.minutes.saturating_sub(kill_time) / 2;

    let first = soak.live("first life", life_time, descriptors)?;
    let kill = soak.kill(&program, kill_time)?;
    let second = soak.live("second life", life_time, descriptors)?;
    let verdict = Verdict {
        seed: args.seed,
        elapsed: soak.began.elapsed(),
        interrupted: soak.is_interrupted(),
        lives: [first, second],
        kill,
    };
    verdict.print(args.output.format())?;
    Ok(verdict.is_clean())
}

/// The broker, and what is drawn for it.
struct Soak<'a> {
    args: &'a SoakArgs,
    began: Instant,
    interrupted: Arc<AtomicBool>,
    broker: BrokerProcess,
    dice: Dice,
}

type Part = JoinHandle<Result<Work>>;

impl Soak<'_> {
    /// All parts of the load for so long; then everybody leaves and the accounts are closed.
    fn live(&mut self, name: &'static str, time: Duration, descriptors: usize) -> Result<Life> {
        let admin = self.broker.admin.clone();
        let account = Account::open(&admin)?;
        let signals = Signals::new();
        let mut parts = self.start_flows(&signals)?;
        parts.extend(self.start_faults(&signals)?);
        let samples = self.watch(name, time, &parts);
        signals.stop();
        let work = finish(parts)?;
        let samples = samples?;
        let conservation = account.close(work.ledger)?;
        let (counts, left) = self.leaks(descriptors)?;
        Ok(Life {
            name,
            work,
            samples,
            conservation,
            is_conserved: counts.is_conserved,
            closed: counts.closed,
            left,
        })
    }

    /// The checked flows and the canary for so long, with a kill in the middle.
    fn kill(&mut self, program: &std::path::Path, time: Duration) -> Result<Kill> {
        let signals = Signals::new();
        let mut parts = self.start_flows(&signals)?;
        self.watch("before the kill", time / 2, &parts)?;
        signals.kill();
        let killed = Instant::now();
        let listen = self.broker.endpoint.address.to_string();
        self.broker.kill()?;
        self.broker = BrokerProcess::start(program, &listen)
            .context("the broker does not start again after kill -9")?;
        let listening = killed.elapsed();
        while signals.time_to_serve().is_none() && killed.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Only the canary has reconnecting clients; the flows have ended with their connections.
        let canary = parts.split_off(parts.len() - 1);
        self.watch("after the kill", time / 2, &canary)?;
        parts.extend(canary);
        signals.stop();
        let work = finish(parts)?;
        Ok(Kill {
            listening,
            serving: signals.time_to_serve(),
            work,
        })
    }

    /// Fan-out, pairs and, last, the canary.
    fn start_flows(&self, signals: &Signals) -> Result<Vec<Part>> {
        let endpoint = &self.broker.endpoint;
        let fanout = Plan {
            subscribers: 50,
            topics_from: parts::FANOUT_TOPIC,
            ..Workload::Fanout.plan()
        };
        let pairs = Plan {
            publishers: 20,
            topics: 20,
            subscribers: 20,
            ..Workload::Pairs.plan()
        };
        let flows = |name: &str, plan: Plan, rate: u64| {
            let (endpoint, signals) = (endpoint.clone(), signals.clone());
            spawn(name, move || parts::flows(&plan, rate, &endpoint, &signals))
        };
        let (canary, told) = (endpoint.clone(), signals.clone());
        Ok(vec![
            flows("fan-out", fanout, 200)?,
            flows("pairs", pairs, 1_000)?,
            spawn("canary", move || parts::canary(&canary, &told))?,
        ])
    }

    /// Those who come and go, and those who misbehave.
    fn start_faults(&mut self, signals: &Signals) -> Result<Vec<Part>> {
        let mut part = |name: &str, run: Faulty| {
            let (endpoint, signals) = (self.broker.endpoint.clone(), signals.clone());
            let dice = Dice::new(self.dice.next());
            spawn(name, move || run(&endpoint, &signals, dice))
        };
        Ok(vec![
            part("churn", parts::churn)?,
            part("resets", parts::resets)?,
            part("bad bytes", parts::bad_bytes)?,
            part("stalled readers", |endpoint, signals, _| {
                parts::stalled_readers(endpoint, signals)
            })?,
        ])
    }

    /// Looks at the broker again and again, for so long or until a part has ended.
    fn watch(&self, name: &str, time: Duration, parts: &[Part]) -> Result<Vec<Sample>> {
        let until = Instant::now() + time;
        let interval = SAMPLE_INTERVAL.min(self.args.minutes / 24);
        let mut samples = Vec::new();
        let mut next = Instant::now() + interval;
        let goes_on = || {
            Instant::now() < until
                && !self.is_interrupted()
                && !parts.iter().any(JoinHandle::is_finished)
        };
        loop {
            let ends = !goes_on();
            if ends || Instant::now() >= next {
                next += interval;
                let sample = self.sample()?;
                writeln!(std::io::stderr(), "soak, {name}: {sample}")?;
                samples.push(sample);
            }
            if ends {
                return Ok(samples);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn sample(&self) -> Result<Sample> {
        let (resident_bytes, descriptors) = self.broker.footprint()?;
        Ok(Sample {
            elapsed: self.began.elapsed(),
            resident_bytes,
            descriptors,
            sessions: self.broker.admin.counts()?.sessions,
        })
    }

    /// What is left of everybody who has gone, in words.
    fn leaks(&self, descriptors_before: usize) -> Result<(Counts, Vec<String>)> {
        let counts = self.broker.admin.counts_when_alone()?;
        let deadline = Instant::now() + PATIENCE;
        let (_, mut descriptors) = self.broker.footprint()?;
        // Our own question's connection may be open for a moment more.
        while descriptors > descriptors_before && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
            (_, descriptors) = self.broker.footprint()?;
        }
        let left = [
            (
                descriptors.saturating_sub(descriptors_before) as u64,
                "descriptors",
            ),
            (counts.sessions, "sessions"),
            (counts.topics, "topics"),
            (counts.subscriptions, "subscriptions"),
        ];
        let left = left.into_iter().filter(|(count, _)| *count > 0);
        let left = left
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        Ok((counts, left))
    }

    fn is_interrupted(&self) -> bool {
        // Relaxed: nothing is handed over with it.
        self.interrupted.load(Ordering::Relaxed)
    }
}

type Faulty = fn(&crate::target::Endpoint, &Signals, Dice) -> Result<Work>;

fn spawn(name: &str, run: impl FnOnce() -> Result<Work> + Send + 'static) -> Result<Part> {
    let part = name.to_owned();
    let named = move || run().with_context(|| part);
    Ok(std::thread::Builder::new().name(name.into()).spawn(named)?)
}

/// Adds up what all parts have done; a part that failed says so in the sum.
fn finish(parts: Vec<Part>) -> Result<Work> {
    let mut sum = Work::default();
    for part in parts {
        let name = part.thread().name().unwrap_or_default().to_owned();
        match part.join() {
            Ok(Ok(work)) => sum.add(work),
            Ok(Err(error)) => sum.failures.push(format!("{error:#}")),
            Err(_) => return Err(anyhow!("the part {name} panicked")),
        }
    }
    Ok(sum)
}
