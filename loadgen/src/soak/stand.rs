//! A broker under test, and what is done with each: it gets a load of several parts, is looked at
//! meanwhile, and held to account when all have left.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::broker::{BrokerProcess, Setup};
use super::verdict::{Life, Sample};
use super::work::{Signals, Work};
use crate::conservation::Account;

/// How often the broker is looked at: a dozen times in a short life, if that is not too often.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
const SAMPLE_INTERVAL_MIN: Duration = Duration::from_secs(1);
const SAMPLES_MIN: u32 = 12;
/// How long anything may take that should be at once.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// What all brokers of a soak have in common.
#[derive(Clone, Debug)]
pub struct Run {
    /// When it began.
    pub began: Instant,
    interrupted: Arc<AtomicBool>,
}

/// See the module.
#[derive(Debug)]
pub struct Stand {
    run: Run,
    setup: Setup,
    /// The broker.
    pub broker: BrokerProcess,
    /// Its descriptors when nobody was connected yet.
    descriptors: usize,
}

/// A part of the load, a thread.
pub type Part = JoinHandle<Result<Work>>;

impl Run {
    /// From now on, until a signal ends it early.
    ///
    /// # Errors
    /// The kernel takes no signal handler.
    pub fn begin() -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        Ok(Self {
            began: Instant::now(),
            interrupted,
        })
    }

    /// Whether somebody wants it to end early.
    pub fn is_interrupted(&self) -> bool {
        // Relaxed: nothing is handed over with it.
        self.interrupted.load(Ordering::Relaxed)
    }
}

impl Stand {
    /// Starts a broker.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(run: &Run, setup: Setup) -> Result<Self> {
        let broker = BrokerProcess::start(&setup)?;
        // What asking costs it for good is no leak.
        broker.admin.counts()?;
        let (_, descriptors) = broker.footprint()?;
        Ok(Self {
            run: run.clone(),
            setup,
            broker,
            descriptors,
        })
    }

    /// Ends it by `kill -9`, says so, and starts it again at the same addresses.
    ///
    /// # Errors
    /// It has ended by itself, or does not start again.
    pub fn kill(&mut self, signals: &Signals) -> Result<()> {
        signals.kill();
        let setup = self.setup.at(&self.broker.endpoints);
        self.broker.kill()?;
        signals.gone();
        self.broker = BrokerProcess::start(&setup)
            .context("the broker does not start again after kill -9")?;
        Ok(())
    }

    /// Lets `parts` go on for so long, or until one of them has ended; then all are told to stop.
    ///
    /// # Errors
    /// The broker has ended by itself, or a part panicked.
    pub fn load(
        &self,
        name: &str,
        time: Duration,
        parts: Vec<Part>,
        signals: &Signals,
    ) -> Result<(Work, Vec<Sample>)> {
        let samples = self.watch(name, time, &parts);
        signals.stop();
        let work = finish(parts)?;
        Ok((work, samples?))
    }

    /// Holds it to account for all that was done since `account` was opened.
    ///
    /// # Errors
    /// Somebody is still there.
    pub fn close(
        &self,
        name: impl Into<String>,
        account: Account<'_>,
        work: Work,
        samples: Vec<Sample>,
    ) -> Result<Life> {
        let conservation = account.close(work.ledger)?;
        let counts = self.broker.admin.counts_when_alone()?;
        let descriptors = self.descriptors_at_rest()?;
        let (rested_bytes, _) = self.broker.footprint()?;
        let left = [
            (counts.sessions, "sessions"),
            (counts.topics, "topics"),
            (counts.subscriptions, "subscriptions"),
            (counts.accounted_bytes, "accounted bytes"),
        ];
        let left = left.into_iter().filter(|(count, _)| *count > 0);
        Ok(Life {
            name: name.into(),
            work,
            samples,
            conservation,
            is_conserved: counts.is_conserved,
            closed: counts.closed,
            left: left
                .map(|(count, what)| format!("{count} {what}"))
                .collect(),
            descriptors: [self.descriptors, descriptors],
            // Whoever speaks of a panic may be the control plane, which counts its own.
            panics: self.broker.panics().max(counts.panics),
            rested_bytes,
            resident_peak: self.broker.resident_peak()?,
            memory_max: self.broker.memory_max,
            subscribed: counts.subscribed,
            more: Vec::new(),
        })
    }

    /// Looks at the broker again and again, for so long or until a part has ended.
    ///
    /// # Errors
    /// It has ended by itself.
    pub fn watch(&self, name: &str, time: Duration, parts: &[Part]) -> Result<Vec<Sample>> {
        let until = Instant::now() + time;
        let interval = SAMPLE_INTERVAL.min(time / SAMPLES_MIN);
        let interval = interval.max(SAMPLE_INTERVAL_MIN);
        let mut samples = Vec::new();
        let mut next = Instant::now() + interval;
        let goes_on = || {
            Instant::now() < until
                && !self.run.is_interrupted()
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

    /// Waits, unless the soak is to end early.
    pub fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.run.is_interrupted() {
            std::thread::sleep(PAUSE.min(until.saturating_duration_since(Instant::now())));
        }
    }

    fn sample(&self) -> Result<Sample> {
        let (resident_bytes, descriptors) = self.broker.footprint()?;
        Ok(Sample {
            elapsed: self.run.began.elapsed(),
            resident_bytes,
            descriptors,
            sessions: self.broker.admin.counts()?.sessions,
        })
    }

    /// How many there are when everybody has gone. Our own question's connection may be open for a
    /// moment more.
    fn descriptors_at_rest(&self) -> Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, descriptors) = self.broker.footprint()?;
            if descriptors <= self.descriptors || Instant::now() >= deadline {
                return Ok(descriptors);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Starts a part of the load.
///
/// # Errors
/// There is no thread for it.
pub fn spawn(name: &str, run: impl FnOnce() -> Result<Work> + Send + 'static) -> Result<Part> {
    let part = name.to_owned();
    let named = move || run().with_context(|| part);
    Ok(std::thread::Builder::new().name(name.into()).spawn(named)?)
}

/// Adds up what all parts have done; a part that failed says so in the sum.
///
/// # Errors
/// One of them panicked.
pub fn finish(parts: Vec<Part>) -> Result<Work> {
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
