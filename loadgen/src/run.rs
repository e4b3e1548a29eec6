//! One run: connect, barrier, warm-up, measurement, drain, verdict.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::args::Settings;
use crate::conservation::{Conservation, Ledger};
use crate::drive::{Driver, Load, Totals};
use crate::latency::Latency;
use crate::machine::{CpuTime, ThreadId, Watched};
use crate::pace::Pacer;
use crate::progress::Progress;
use crate::sequence::Faults;
use crate::stamp::StampKind;
use crate::target::Endpoint;
use crate::workload::Plan;

/// How long subscribers may take to appear.
const BARRIER_MAX: Duration = Duration::from_secs(30);
/// How long one round of probes is given.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// Without stamps a late probe looks like a message: how long it must have been quiet.
const QUIET: Duration = Duration::from_millis(200);
/// How often figures are noted for the series and the progress line.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// What one run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Ticks of the schedule in the measured time; in a closed loop what was sent.
    pub offered: u64,
    /// Messages handed to the sockets in the measured time.
    pub sent: u64,
    /// Deliveries of the measured time: of messages that were due in it, or, in a closed loop,
    /// received in it.
    pub delivered: u64,
    /// What went wrong, from the first message to the last.
    pub faults: Faults,
    /// The measured time.
    pub elapsed: Duration,
    /// Histograms of an open loop.
    pub latency: Option<Latency>,
    /// Share of the measured time in which the generator had something to do, 0 to 1.
    pub generator_share: f64,
    /// How long something else held the generator's CPU.
    pub generator_waited: Duration,
    /// What the target used in the measured time, if it could be watched.
    pub usage: Option<Usage>,
    /// Second by second.
    pub series: Vec<Second>,
    /// Everything that was published and received, from the first probe on.
    pub ledger: Ledger,
    /// That against the broker's counters, if they were asked for.
    pub conservation: Option<Conservation>,
    /// Why the run has no result.
    pub invalid: Vec<String>,
    /// The generator alone is to blame for that.
    pub is_own_fault: bool,
}

/// What the target used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Its CPU time.
    pub cpu: CpuTime,
    /// Resident memory at the end.
    pub resident_bytes: Option<u64>,
}

/// One second of the series.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    /// Since the measurement began.
    pub elapsed: Duration,
    /// Messages in this second.
    pub sent: u64,
    /// Deliveries in this second.
    pub delivered: u64,
}

impl Outcome {
    /// Deliveries per second.
    pub fn deliveries_per_s(&self) -> f64 {
        self.delivered as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// CPU time of the target per delivery, in microseconds.
    pub fn cpu_us_per_delivery(&self) -> Option<f64> {
        let usage = self.usage.filter(|_| self.delivered > 0)?;
        Some(usage.cpu.used.as_secs_f64() * 1e6 / self.delivered as f64)
    }

    /// A part of the measured time.
    pub fn share(&self, part: Duration) -> f64 {
        part.as_secs_f64() / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Share of the measured time in which something else held the target's CPU or the generator's.
    pub fn disturbance(&self) -> f64 {
        let target = self.usage.map(|usage| usage.cpu.waited);
        let waited = target.unwrap_or_default().max(self.generator_waited);
        self.share(waited)
    }

    /// Share of the measured time in which the target worked.
    pub fn target_share(&self) -> Option<f64> {
        Some(self.share(self.usage?.cpu.used))
    }
}

/// Runs `settings` once against `endpoint`.
///
/// # Errors
/// Nobody listens, or the kernel refuses something. What a target does wrong is no error but an
/// invalid [`Outcome`].
pub fn run(
    settings: &Settings,
    endpoint: &Endpoint,
    watched: Option<Watched>,
    progress: &Progress,
) -> Result<Outcome> {
    progress.phase("connecting");
    let mut driver = Driver::connect(&settings.plan, endpoint, Instant::now())?;
    progress.phase("waiting until every subscriber is reached");
    if let Some(missing) = pass_barrier(&mut driver, &settings.plan)? {
        return Ok(Outcome::failed(missing));
    }
    measure(&mut driver, settings, watched, progress)
}

/// The part of a run behind the barrier. The faults are those of all runs of `driver` so far.
///
/// # Errors
/// The kernel refuses something.
pub fn measure(
    driver: &mut Driver,
    settings: &Settings,
    watched: Option<Watched>,
    progress: &Progress,
) -> Result<Outcome> {
    let mut measurement = Measurement::warm_up(driver, settings, watched, progress)?;
    measurement.run(driver, progress)?;
    measurement.drain(driver, progress)?;
    Ok(measurement.conclude(driver))
}

/// Probes until every subscriber has seen one of each of its publishers and topics; otherwise says
/// who has not.
///
/// # Errors
/// As [`Driver::turn`].
pub fn pass_barrier(driver: &mut Driver, plan: &Plan) -> Result<Option<String>> {
    let deadline_ns = driver.now_ns() + nanoseconds(BARRIER_MAX);
    while !driver.is_reached() {
        if driver.now_ns() > deadline_ns || !driver.breaches().is_empty() {
            let subscriber = driver.first_unreached().unwrap_or(0);
            let breach = driver
                .breaches()
                .first()
                .map(|breach| format!("; {breach}"));
            return Ok(Some(format!(
                "subscriber {subscriber} was never seen to receive anything{}",
                breach.unwrap_or_default()
            )));
        }
        driver.probe();
        driver.turn_until(
            driver.now_ns() + nanoseconds(PROBE_INTERVAL),
            Driver::is_reached,
        )?;
    }
    if plan.stamp_kind() == StampKind::Absent {
        driver.turn_until(driver.now_ns() + nanoseconds(QUIET), |_| false)?;
    }
    driver.begin();
    Ok(None)
}

/// A run between its barrier and its verdict.
struct Measurement<'a> {
    settings: &'a Settings,
    watched: Option<Watched>,
    began: Snapshot,
    ended: Snapshot,
    target_cpu: Option<CpuTime>,
    offered: u64,
    series: Vec<Second>,
}

/// Everything that is read twice and subtracted.
#[derive(Clone, Copy)]
struct Snapshot {
    at_ns: u64,
    totals: Totals,
    own_cpu: CpuTime,
}

impl Snapshot {
    fn take(driver: &Driver) -> Result<Self> {
        let own_cpu = Watched::Thread(ThreadId::current()).cpu_time()?;
        Ok(Self {
            at_ns: driver.now_ns(),
            totals: driver.totals(),
            own_cpu,
        })
    }
}

impl<'a> Measurement<'a> {
    /// Starts the load and throws its first part away.
    fn warm_up(
        driver: &mut Driver,
        settings: &'a Settings,
        watched: Option<Watched>,
        progress: &Progress,
    ) -> Result<Self> {
        progress.phase("warming up");
        let begin_ns = driver.now_ns();
        let from_ns = begin_ns + nanoseconds(settings.warmup);
        let until_ns = from_ns + nanoseconds(settings.duration);
        let mut offered = 0;
        let load = match settings.rate {
            Some(rate) => {
                let pacer = Pacer::new(begin_ns, rate);
                offered = pacer.count_between(from_ns, until_ns);
                let subscribers = settings.plan.subscribers;
                driver.set_latency(Latency::new(from_ns, until_ns, subscribers));
                Load::Open(pacer)
            }
            None => Load::Closed {
                window: settings.plan.window,
                remaining: u64::MAX,
            },
        };
        driver.set_load(load);
        driver.turn_until(from_ns, |_| false)?;
        let began = Snapshot::take(driver)?;
        let target_cpu = watched.map(Watched::cpu_time).transpose()?;
        let (ended, series) = (began, Vec::new());
        Ok(Self {
            settings,
            watched,
            began,
            ended,
            target_cpu,
            offered,
            series,
        })
    }

    fn run(&mut self, driver: &mut Driver, progress: &Progress) -> Result<()> {
        if let (Load::Closed { window, .. }, Some(count)) = (driver.load(), self.settings.count) {
            // What the warm-up left outstanding would be counted as well.
            self.drain(driver, progress)?;
            self.began = Snapshot::take(driver)?;
            driver.set_load(Load::Closed {
                window,
                remaining: count,
            });
        }
        let counted = self.settings.count.is_some();
        let until_ns = match self.settings.count {
            Some(_) => u64::MAX,
            None => self.began.at_ns + nanoseconds(self.settings.duration),
        };
        let done = |driver: &Driver| {
            !driver.breaches().is_empty() || counted && driver.is_exhausted() && driver.is_drained()
        };
        let mut last = self.began;
        let mut stalled = false;
        while driver.now_ns() < until_ns && !done(driver) && !stalled {
            let sample_ns = last.at_ns + nanoseconds(SAMPLE_INTERVAL);
            driver.turn_until(sample_ns.min(until_ns), done)?;
            let now = Snapshot::take(driver)?;
            self.note(&last, &now, progress);
            // A counted run has no end of its own if its last messages are lost.
            stalled = counted && now.totals.delivered == last.totals.delivered;
            last = now;
        }
        self.ended = last;
        let cpu = self.watched.map(Watched::cpu_time).transpose()?;
        self.target_cpu = cpu
            .zip(self.target_cpu)
            .map(|(after, before)| after.since(&before));
        Ok(())
    }

    fn note(&mut self, last: &Snapshot, now: &Snapshot, progress: &Progress) {
        let second = Second {
            elapsed: Duration::from_nanos(now.at_ns - self.began.at_ns),
            sent: now.totals.sent - last.totals.sent,
            delivered: now.totals.delivered - last.totals.delivered,
        };
        progress.second(&second, Duration::from_nanos(now.at_ns - last.at_ns));
        self.series.push(second);
    }

    fn drain(&self, driver: &mut Driver, progress: &Progress) -> Result<()> {
        progress.phase("draining");
        // The last ticks of the schedule may have come due since the last turn.
        driver.turn()?;
        driver.set_load(Load::Quiet);
        let until_ns = driver.now_ns() + nanoseconds(self.settings.drain);
        driver.turn_until(until_ns, Driver::is_drained)?;
        Ok(())
    }

    fn conclude(self, driver: &mut Driver) -> Outcome {
        let elapsed = Duration::from_nanos(self.ended.at_ns - self.began.at_ns);
        let idle = self.ended.totals.idle - self.began.totals.idle;
        let busy = elapsed.saturating_sub(idle);
        let latency = driver.take_latency();
        let sent = match &latency {
            Some(latency) => latency.attempt_lag.len(),
            None => self.ended.totals.sent - self.began.totals.sent,
        };
        let delivered = match &latency {
            Some(latency) => latency.corrected.len(),
            None => self.ended.totals.delivered - self.began.totals.delivered,
        };
        let resident_bytes = self.watched.and_then(Watched::resident_bytes);
        let mut outcome = Outcome {
            offered: if latency.is_some() {
                self.offered
            } else {
                sent
            },
            sent,
            delivered,
            faults: driver.finish(),
            elapsed,
            latency,
            generator_share: 0.0,
            generator_waited: self.ended.own_cpu.since(&self.began.own_cpu).waited,
            usage: self.target_cpu.map(|cpu| Usage {
                cpu,
                resident_bytes,
            }),
            series: self.series,
            ledger: driver.ledger(),
            conservation: None,
            invalid: Vec::new(),
            is_own_fault: false,
        };
        outcome.generator_share = outcome.share(busy);
        outcome.invalid = reasons(&outcome, driver.breaches());
        let own = generator_faults(&outcome);
        outcome.is_own_fault = outcome.invalid.is_empty() && !own.is_empty();
        outcome.invalid.extend(own);
        outcome
    }
}

impl Outcome {
    fn empty() -> Self {
        Self {
            offered: 0,
            sent: 0,
            delivered: 0,
            faults: Faults::default(),
            elapsed: Duration::ZERO,
            latency: None,
            generator_share: 0.0,
            generator_waited: Duration::ZERO,
            usage: None,
            series: Vec::new(),
            ledger: Ledger::default(),
            conservation: None,
            invalid: Vec::new(),
            is_own_fault: false,
        }
    }

    /// What a load in a closed loop came to that nothing else was measured of.
    pub fn of_load(delivered: u64, elapsed: Duration, faults: Faults, breaches: &[String]) -> Self {
        let mut outcome = Self {
            delivered,
            faults,
            elapsed,
            ..Self::empty()
        };
        outcome.invalid = reasons(&outcome, breaches);
        outcome
    }

    /// A run that came to nothing.
    pub fn failed(reason: String) -> Self {
        Self {
            invalid: vec![reason],
            ..Self::empty()
        }
    }
}

/// What the target did wrong.
fn reasons(outcome: &Outcome, breaches: &[String]) -> Vec<String> {
    let mut reasons: Vec<_> = breaches.iter().take(3).cloned().collect();
    let Faults {
        lost,
        duplicate,
        reordered,
        foreign,
    } = outcome.faults;
    for (count, what) in [
        (lost, "lost"),
        (duplicate, "repeated"),
        (reordered, "reordered"),
        (foreign, "foreign"),
    ] {
        if count > 0 {
            let plural = if count == 1 { "delivery" } else { "deliveries" };
            reasons.push(format!("{count} {what} {plural}"));
        }
    }
    if outcome.delivered == 0 {
        reasons.push("nothing was delivered in the measured time".into());
    }
    reasons
}

/// What the generator itself did wrong in an open loop.
fn generator_faults(outcome: &Outcome) -> Vec<String> {
    let mut reasons = Vec::new();
    let Some(latency) = &outcome.latency else {
        return reasons;
    };
    let (lag_ns, max_ns) = (latency.lag_p99_ns(), latency.lag_p99_max_ns());
    if lag_ns > max_ns {
        reasons.push(format!(
            "the generator was late: p99 of its lag is {lag_ns} ns, above {max_ns} ns (a tenth of \
             the latency's p50, but at least a turn of its own)"
        ));
    }
    if outcome.generator_share > 0.9 {
        let percent = outcome.generator_share * 100.0;
        reasons.push(format!(
            "the generator was busy {percent:.0} % of the time, above 90 %"
        ));
    }
    if outcome.sent * 100 < outcome.offered * 99 {
        reasons.push(format!(
            "only {} of {} messages were attempted, below 99 %",
            outcome.sent, outcome.offered
        ));
    }
    reasons
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}
