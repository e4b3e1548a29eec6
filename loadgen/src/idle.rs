//! Memory per connection: what the broker's resident memory grows by when many connections, each
//! with a topic of its own, sit there and do nothing.
//!
//! The broker should be freshly started: what it freed earlier it uses again, and does not grow.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::args::{Format, IdleArgs};
use crate::drive::{Driver, Load};
use crate::machine::{self, Watched};
use crate::progress::Progress;
use crate::run::pass_barrier;
use crate::target::Target;
use crate::workload::{Plan, Workload};

/// How long the broker is given to come to rest.
const REST_NS: u64 = 300_000_000;

#[derive(Serialize)]
struct IdleReport {
    schema: u32,
    valid: bool,
    invalid_reasons: Vec<String>,
    mode: &'static str,
    target: String,
    connections: usize,
    rss_before_bytes: u64,
    rss_after_bytes: u64,
    rss_bytes_per_connection: f64,
}

/// Opens the connections, reads the memory and prints the report. Says whether it is valid.
///
/// # Errors
/// Nobody listens, there is no such process, or the kernel refuses something.
pub fn idle(args: &IdleArgs) -> Result<bool> {
    let Target::Broker(endpoint) = &args.target else {
        bail!("a relay keeps no topics: measure a broker");
    };
    // One publisher more, and the two of the rehearsal.
    machine::reserve_descriptors(args.connections + 3)?;
    let broker = Watched::Process(args.pid);
    broker.cpu_time()?;
    let resident = || {
        broker
            .resident_bytes()
            .context("the broker's memory cannot be read")
    };
    let plan = plan(args.connections);
    let progress = Progress::new(format!("idle, {}", args.target));

    // What the broker allocates once, for whatever load, is none of the connections' memory.
    progress.phase("rehearsing");
    let mut rehearsal = Driver::connect(&self::plan(1), endpoint, Instant::now())?;
    let mut missing = pass_barrier(&mut rehearsal, &self::plan(1))?;
    let remaining = args.connections as u64;
    rehearsal.set_load(Load::Closed {
        window: remaining,
        remaining,
    });
    let until_ns = rehearsal.now_ns() + 10_000_000_000;
    rehearsal.turn_until(until_ns, |driver| {
        driver.is_exhausted() && driver.is_drained()
    })?;
    let before = resident()?;

    progress.phase("connecting");
    let mut driver = Driver::connect(&plan, endpoint, Instant::now())?;
    progress.phase("waiting until every connection is reached");
    missing = missing.or(pass_barrier(&mut driver, &plan)?);
    driver.turn_until(driver.now_ns() + REST_NS, |_| false)?;
    let after = resident()?;
    drop(progress);

    let report = IdleReport::new(args, before, after, missing);
    report.print(args.output.format())?;
    Ok(report.valid)
}

/// One publisher that can reach each of the connections by its topic.
const fn plan(connections: usize) -> Plan {
    Plan {
        topics: connections,
        subscribers: connections,
        ..Workload::Idle.plan()
    }
}

impl IdleReport {
    fn new(args: &IdleArgs, before: u64, after: u64, missing: Option<String>) -> Self {
        let reused = (after <= before).then(|| {
            "the broker's memory did not grow, so it used what it had freed earlier: measure a \
             freshly started one"
                .to_owned()
        });
        let invalid_reasons: Vec<_> = missing.into_iter().chain(reused).collect();
        Self {
            schema: 1,
            valid: invalid_reasons.is_empty(),
            invalid_reasons,
            mode: Workload::Idle.name(),
            target: args.target.to_string(),
            connections: args.connections,
            rss_before_bytes: before,
            rss_after_bytes: after,
            rss_bytes_per_connection: (after as f64 - before as f64) / args.connections as f64,
        }
    }

    fn print(&self, format: Format) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if format == Format::Json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        let Self {
            target,
            connections,
            rss_before_bytes,
            rss_after_bytes,
            ..
        } = self;
        writeln!(
            out,
            "idle {target}: {connections} connections, each with a topic of its own"
        )?;
        match self.invalid_reasons.first() {
            Some(reason) => writeln!(out, "INVALID: {reason}")?,
            None => writeln!(
                out,
                "{:.0} B of RSS per connection",
                self.rss_bytes_per_connection
            )?,
        }
        writeln!(
            out,
            "  broker RSS  {rss_before_bytes} B before, {rss_after_bytes} B with them"
        )?;
        Ok(())
    }
}
