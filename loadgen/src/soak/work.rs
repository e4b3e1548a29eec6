//! What the parts of the load have done and seen, and when they stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::conservation::Ledger;
use crate::sequence::Faults;

/// One part's account, or that of several.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// Everything it published and received.
    pub ledger: Ledger,
    /// What was wrong with what it checks in order.
    pub faults: Faults,
    /// The same, without what may have been on its way when the broker was killed.
    pub arrived_faults: Faults,
    /// Sessions that it opened.
    pub sessions: u64,
    /// Of these, the ones that a trial is about.
    pub main_sessions: u64,
    /// Stalled readers that the broker closed.
    pub stalled_closed: u64,
    /// Messages that readers got who keep up beside others who do not.
    pub healthy_received: u64,
    /// How long it went on, where that is told.
    pub lasted: Option<Duration>,
    /// How long the canary's messages took, in nanoseconds.
    pub canary: Option<Histogram<u64>>,
    /// Why it could not go on.
    pub failures: Vec<String>,
}

impl Work {
    /// Adds what another part has done.
    pub fn add(&mut self, other: Self) {
        self.ledger = self.ledger.and(&other.ledger);
        self.faults.add(&other.faults);
        self.arrived_faults.add(&other.arrived_faults);
        self.sessions += other.sessions;
        self.main_sessions += other.main_sessions;
        self.stalled_closed += other.stalled_closed;
        self.healthy_received += other.healthy_received;
        self.lasted = self.lasted.max(other.lasted);
        self.canary = self.canary.take().or(other.canary);
        self.failures.extend(other.failures);
    }
}

/// Told to all parts.
#[derive(Clone, Debug)]
pub struct Signals {
    epoch: Instant,
    stopped: Arc<AtomicBool>,
    /// When the broker was killed, by the clock; 0 before.
    killed_ns: Arc<AtomicU64>,
    /// When there was no broker any more; 0 before.
    gone_ns: Arc<AtomicU64>,
    /// How long after that the canary's first message took; 0 before.
    served_ns: Arc<AtomicU64>,
}

// Relaxed everywhere: each value stands for itself, nothing is handed over with it.
impl Signals {
    /// For a new segment.
    pub fn new() -> Self {
        Self {
            epoch: Instant::now(),
            stopped: Arc::default(),
            killed_ns: Arc::default(),
            gone_ns: Arc::default(),
            served_ns: Arc::default(),
        }
    }

    /// The segment's clock.
    pub fn now_ns(&self) -> u64 {
        self.at_ns(Instant::now())
    }

    /// The same clock at another moment.
    pub fn at_ns(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Asks all parts to finish.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether they were asked.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The broker is about to be killed.
    pub fn kill(&self) {
        self.killed_ns.store(self.now_ns(), Ordering::Relaxed);
    }

    /// Whether it was.
    pub fn is_killed(&self) -> bool {
        self.killed_ns.load(Ordering::Relaxed) > 0
    }

    /// It has been.
    pub fn gone(&self) {
        self.gone_ns.store(self.now_ns(), Ordering::Relaxed);
    }

    /// The canary received what was due at `due_ns`. What was due before the broker was gone may
    /// still have come from it.
    pub fn served(&self, due_ns: u64) {
        let killed_ns = self.killed_ns.load(Ordering::Relaxed);
        let gone_ns = self.gone_ns.load(Ordering::Relaxed);
        if gone_ns > 0 && due_ns > gone_ns && self.served_ns.load(Ordering::Relaxed) == 0 {
            let after_ns = self.now_ns() - killed_ns;
            self.served_ns.store(after_ns, Ordering::Relaxed);
        }
    }

    /// How long after the kill the first message came through.
    pub fn time_to_serve(&self) -> Option<Duration> {
        match self.served_ns.load(Ordering::Relaxed) {
            0 => None,
            ns => Some(Duration::from_nanos(ns)),
        }
    }
}
