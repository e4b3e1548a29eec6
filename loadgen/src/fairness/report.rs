//! The canaries' percentiles beside each load, and how many times those of the canaries alone.

use std::io::{self, Write};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{Fairness, Phase};
use crate::bench::typed;
use crate::latency::{RANKS, ranked};
use crate::report::{print_as, rate};

type Canary = Histogram<u32>;

impl Fairness<'_> {
    /// Prints in the format that was asked for.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print(&self) -> Result<()> {
        let format = self.args.output.format();
        print_as(
            format,
            |out| self.write(out),
            || Ok(self.object()?.to_string()),
        )
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let args = self.args;
        let shared = match self.place.is_shared {
            true => "the canaries' CPU, with the least priority".into(),
            false => format!("CPU {}", self.place.cpu.unwrap_or_default()),
        };
        writeln!(
            out,
            "fairness {}: a canary of {} messages/s on each of {} reactors; warm-up {}, measured \
             {}; broker on CPUs {:?}, canaries on {:?}, load on {shared}",
            args.target,
            args.rate,
            args.reactors,
            typed(args.warmup),
            typed(args.duration),
            self.pins.broker,
            self.pins.generator,
        )?;
        for phase in &self.phases {
            write!(out, "\n{}", title(phase))?;
            if let Some((_, _, outcome)) = &phase.load {
                write!(out, ": {} deliveries/s", rate(outcome.deliveries_per_s()))?;
            }
            writeln!(out)?;
            self.write_phase(out, phase)?;
        }
        Ok(())
    }

    fn write_phase(&self, out: &mut impl Write, phase: &Phase) -> io::Result<()> {
        match &phase.invalid_reasons()[..] {
            [] => writeln!(out, "  nothing lost, repeated or reordered")?,
            reasons => writeln!(out, "  INVALID: {}", reasons.join("; "))?,
        }
        write!(out, "  {:<20}", "canary µs")?;
        RANKS
            .iter()
            .try_for_each(|(name, _)| write!(out, "{name:>11}"))?;
        writeln!(out)?;
        for (reactor, canary) in canaries(phase).iter().enumerate() {
            write!(out, "    reactor {reactor:<10}")?;
            for value in ranked(canary) {
                write!(out, "{:>11.1}", value as f64 / 1e3)?;
            }
            writeln!(out)?;
            if phase.load.is_none() {
                continue;
            }
            write!(out, "    {:<18}", "times alone")?;
            for ratio in self.ratios(reactor, canary) {
                let ratio = ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}x"));
                write!(out, "{ratio:>11}")?;
            }
            writeln!(out)?;
        }
        if let Some(latency) = &phase.canaries.latency {
            let microseconds = |ns: u64| ns as f64 / 1e3;
            write!(
                out,
                "  generator lag p99 {:.1} µs, of {:.1} allowed",
                microseconds(latency.lag_p99_ns()),
                microseconds(latency.lag_p99_max_ns()),
            )?;
            if phase.repeats > 0 {
                write!(out, "; late and repeated: {}", phase.repeats)?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    /// Each rank over that of the same canary alone.
    fn ratios(&self, reactor: usize, canary: &Canary) -> [Option<f64>; RANKS.len()] {
        let alone = self.phases.first().map(canaries).unwrap_or_default();
        let alone = alone.get(reactor).map(ranked).unwrap_or_default();
        let mut ratios = [None; RANKS.len()];
        for ((ratio, own), alone) in ratios.iter_mut().zip(ranked(canary)).zip(alone) {
            *ratio = (alone > 0).then(|| own as f64 / alone as f64);
        }
        ratios
    }

    fn object(&self) -> Result<Value> {
        let mut env = serde_json::to_value(&self.environment)?;
        env["pinned"] = serde_json::to_value(&self.pins)?;
        env["pinned"]["load"] = json!(self.place.cpu);
        let phases = self.phases.iter().map(|phase| self.phase(phase));
        Ok(json!({
            "schema": 1,
            "mode": "fairness",
            "valid": self.is_valid(),
            "argv": std::env::args().collect::<Vec<_>>(),
            "target": self.args.target.to_string(),
            "env": env,
            "rate": self.args.rate,
            "reactors": self.args.reactors,
            "phases": phases.collect::<Vec<_>>(),
        }))
    }

    fn phase(&self, phase: &Phase) -> Value {
        let named = |values: [Value; RANKS.len()]| -> Value {
            let names = RANKS.iter().map(|(name, _)| name.replace('.', ""));
            Value::Object(names.zip(values).collect())
        };
        let canaries = canaries(phase).iter().enumerate();
        let canaries = canaries.map(|(reactor, canary)| {
            json!({
                "reactor": reactor,
                "corrected_ns": named(ranked(canary).map(Value::from)),
                "times_alone": named(self.ratios(reactor, canary).map(Value::from)),
            })
        });
        let latency = phase.canaries.latency.as_ref();
        let faults = phase.canaries.faults;
        json!({
            "load": phase.load.as_ref().map(|(workload, plan, outcome)| json!({
                "workload": workload.name(),
                "subscribers": plan.subscribers,
                "deliveries_per_s": outcome.deliveries_per_s(),
                "lost": outcome.faults.lost,
            })),
            "valid": phase.invalid_reasons().is_empty(),
            "invalid_reasons": phase.invalid_reasons(),
            "canaries": canaries.collect::<Vec<_>>(),
            "lost": faults.lost,
            "duplicate": faults.duplicate,
            "reordered": faults.reordered,
            "attempt_lag_p99_ns": latency.map(|latency| latency.lag_p99_ns()),
            "attempt_lag_p99_max_ns": latency.map(|latency| latency.lag_p99_max_ns()),
            "repeated_runs": phase.repeats,
        })
    }
}

fn title(phase: &Phase) -> String {
    match &phase.load {
        None => "alone".into(),
        Some((workload, plan, _)) => format!("beside `{}` ({plan}), reactor 0", workload.name()),
    }
}

/// One histogram per reactor.
fn canaries(phase: &Phase) -> &[Canary] {
    let latency = phase.canaries.latency.as_ref();
    latency
        .map(|latency| &latency.subscribers[..])
        .unwrap_or_default()
}
