//! What the canaries are disturbed by: a workload in a closed loop, on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::drive::{Driver, Load};
use crate::machine;
use crate::run::{Outcome, pass_barrier};
use crate::sequence::Faults;
use crate::target::Endpoint;
use crate::workload::Plan;

/// Which CPU the load has, and whether a canary is there too.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The CPU, if it can be told.
    pub cpu: Option<usize>,
    /// The canary goes before.
    pub is_shared: bool,
}

impl Place {
    /// Moves the calling thread there.
    fn take(self) -> Result<()> {
        if let Some(cpu) = self.cpu {
            machine::pin_thread(cpu)?;
        }
        if self.is_shared {
            machine::yield_to_others()?;
        }
        Ok(())
    }
}

/// A load that has begun to flow.
#[derive(Debug)]
pub struct LoadThread {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Outcome>>>,
}

impl LoadThread {
    /// Starts it, and returns when it has been at full rate for `warmup`.
    ///
    /// # Errors
    /// Nobody listens, a subscriber is never reached, or there is no such CPU.
    pub fn spawn(
        plan: Plan,
        endpoint: &Endpoint,
        place: Place,
        warmup: Duration,
        drain: Duration,
    ) -> Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let (sender, flows) = channel();
        let thread = std::thread::Builder::new().name("load".into()).spawn({
            let (endpoint, stopped) = (endpoint.clone(), Arc::clone(&stopped));
            move || run(&plan, &endpoint, place, [warmup, drain], &sender, &stopped)
        })?;
        let thread = Some(thread);
        Self { stopped, thread }.once_it_flows(&flows)
    }

    /// A load on the canaries' CPU alone: a CPU that sleeps takes its time to wake up, and beside
    /// the other loads it never does.
    ///
    /// # Errors
    /// There is no such CPU.
    pub fn spin(place: Place) -> Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let (sender, flows) = channel();
        let thread = std::thread::Builder::new().name("spin".into()).spawn({
            let stopped = Arc::clone(&stopped);
            move || {
                place.take()?;
                let _ = sender.send(());
                while !stopped.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                let faults = Faults::default();
                Ok(Outcome::of_load(0, Duration::ZERO, faults, &[]))
            }
        })?;
        let thread = Some(thread);
        Self { stopped, thread }.once_it_flows(&flows)
    }

    fn once_it_flows(self, flows: &Receiver<()>) -> Result<Self> {
        match flows.recv() {
            Ok(()) => Ok(self),
            // It ended before: its result says why.
            Err(_) => match self.finish() {
                Err(error) => Err(error),
                Ok(_) => bail!("the load ended at once"),
            },
        }
    }

    /// Stops it, and says what it came to since it began to flow.
    ///
    /// # Errors
    /// The kernel refused something.
    pub fn finish(mut self) -> Result<Outcome> {
        self.stopped.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("a load ends once")?;
        thread
            .join()
            .map_err(|_| anyhow!("the load's thread panicked"))?
    }
}

/// The canary failed: nobody asks for the load's result any more.
impl Drop for LoadThread {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

fn run(
    plan: &Plan,
    endpoint: &Endpoint,
    place: Place,
    [warmup, drain]: [Duration; 2],
    flows: &Sender<()>,
    stopped: &AtomicBool,
) -> Result<Outcome> {
    place.take()?;
    let mut driver = Driver::connect(plan, endpoint, Instant::now())?;
    if place.is_shared {
        driver.yield_often();
    }
    if let Some(missing) = pass_barrier(&mut driver, plan)? {
        bail!("the load: {missing}");
    }
    driver.set_load(Load::Closed {
        window: plan.window,
        remaining: u64::MAX,
    });
    // Relaxed: nothing is handed over with it.
    let ends = |driver: &Driver| stopped.load(Ordering::Relaxed) || !driver.breaches().is_empty();
    driver.turn_until(driver.now_ns() + nanoseconds(warmup), ends)?;
    let (began_ns, before) = (driver.now_ns(), driver.totals().delivered);
    let _ = flows.send(()); // Nobody waits if the canary has failed.
    driver.turn_until(u64::MAX, ends)?;
    let elapsed = Duration::from_nanos(driver.now_ns() - began_ns);
    let delivered = driver.totals().delivered - before;
    driver.set_load(Load::Quiet);
    driver.turn_until(driver.now_ns() + nanoseconds(drain), Driver::is_drained)?;
    let faults = driver.finish();
    Ok(Outcome::of_load(
        delivered,
        elapsed,
        faults,
        driver.breaches(),
    ))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}
