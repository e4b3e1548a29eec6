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
    /// Stalled readers that the broker closed.
    pub stalled_closed: u64,
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
        self.stalled_closed += other.stalled_closed;
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
            served_ns: Arc::default(),
        }
    }

    /// The segment's clock.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
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

    /// The canary received what it sent at `sent_ns`.
    pub fn served(&self, sent_ns: u64) {
        let killed_ns = self.killed_ns.load(Ordering::Relaxed);
        if killed_ns > 0 && sent_ns > killed_ns && self.served_ns.load(Ordering::Relaxed) == 0 {
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
