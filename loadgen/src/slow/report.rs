//! The healthy ones' percentiles alone and beside the stalled ones, and what became of those.

use std::io::{self, Write};

use anyhow::Result;
use serde_json::{Value, json};

use super::Slow;
use crate::bench::typed;
use crate::conservation::Conservation;
use crate::latency::{RANKS, ranked};
use crate::report::print_as;
use crate::run::Outcome;

type Ranked<T> = [T; RANKS.len()];

impl Slow<'_> {
    /// Prints in the format that was asked for.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print(&self) -> Result<()> {
        print_as(
            self.args.output.format(),
            |out| self.write(out),
            || Ok(self.object()?.to_string()),
        )
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let args = self.args;
        writeln!(
            out,
            "slow {}: 1 publisher, {} messages/s, {} bytes; {} healthy subscribers alone, then \
             beside {} stalled ones; warm-up {}, measured {} each; broker on CPUs {:?}, generator \
             on {:?}",
            args.target,
            args.rate,
            args.payload,
            args.healthy,
            args.stalled,
            typed(args.warmup),
            typed(args.duration),
            self.pins.broker,
            self.pins.generator,
        )?;
        let faults = &self.beside.faults;
        match &self.invalid_reasons()[..] {
            [] => writeln!(out, "nothing lost, repeated or reordered by a healthy one")?,
            reasons => writeln!(out, "INVALID: {}", reasons.join("; "))?,
        }
        self.write_latency(out)?;
        writeln!(
            out,
            "  healthy       lost {}, repeated {}, reordered {}, foreign {}",
            faults.lost, faults.duplicate, faults.reordered, faults.foreign
        )?;
        let crowd = &self.stalled;
        writeln!(
            out,
            "  stalled       closed by the target {} ({} by a reset), still there {}; read at the \
             end: {} messages",
            crowd.closed, crowd.reset, crowd.kept, crowd.received
        )?;
        if let [Some(before), Some(after)] = self.resident_bytes {
            let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            writeln!(
                out,
                "  broker RSS    {:.1} MiB before the stalled ones, {:.1} MiB at the end",
                mebibytes(before),
                mebibytes(after)
            )?;
        }
        match &self.conservation {
            Some(conservation) => writeln!(out, "  {conservation}"),
            None => Ok(()),
        }
    }

    fn write_latency(&self, out: &mut impl Write) -> io::Result<()> {
        write!(out, "  {:<14}", "latency µs")?;
        RANKS
            .iter()
            .try_for_each(|(name, _)| write!(out, "{name:>11}"))?;
        writeln!(out)?;
        for (name, outcome) in [("alone", &self.alone), ("beside", &self.beside)] {
            write!(out, "    {name:<12}")?;
            for value in values_ns(outcome) {
                write!(out, "{:>11.1}", value as f64 / 1e3)?;
            }
            writeln!(out)?;
        }
        write!(out, "    {:<12}", "times alone")?;
        for ratio in self.ratios() {
            let ratio = ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}x"));
            write!(out, "{ratio:>11}")?;
        }
        writeln!(out)
    }

    fn ratios(&self) -> Ranked<Option<f64>> {
        let (alone, beside) = (values_ns(&self.alone), values_ns(&self.beside));
        let mut ratios = [None; RANKS.len()];
        for ((ratio, own), alone) in ratios.iter_mut().zip(beside).zip(alone) {
            *ratio = (alone > 0).then(|| own as f64 / alone as f64);
        }
        ratios
    }

    fn object(&self) -> Result<Value> {
        let args = self.args;
        let mut env = serde_json::to_value(&self.environment)?;
        env["pinned"] = serde_json::to_value(&self.pins)?;
        let faults = &self.beside.faults;
        let reasons = self.invalid_reasons();
        let conservation = self.conservation.as_ref();
        let [before, after] = self.resident_bytes;
        Ok(json!({
            "schema": 1,
            "mode": "slow",
            "valid": reasons.is_empty(),
            "invalid_reasons": reasons,
            "argv": std::env::args().collect::<Vec<_>>(),
            "target": args.target.to_string(),
            "env": env,
            "rate": args.rate,
            "payload": args.payload,
            "warmup_s": args.warmup.as_secs_f64(),
            "duration_s": args.duration.as_secs_f64(),
            "healthy": {
                "subscribers": args.healthy,
                "alone_ns": named(values_ns(&self.alone).map(Value::from)),
                "beside_ns": named(values_ns(&self.beside).map(Value::from)),
                "times_alone": named(self.ratios().map(Value::from)),
                "lost": faults.lost,
                "duplicate": faults.duplicate,
                "reordered": faults.reordered,
                "foreign": faults.foreign,
            },
            "stalled": {
                "subscribers": args.stalled,
                "closed": self.stalled.closed,
                "reset": self.stalled.reset,
                "kept": self.stalled.kept,
                "received_at_end": self.stalled.received,
            },
            "broker": {"rss_before_bytes": before, "rss_after_bytes": after},
            "conservation": conservation.map(Conservation::object),
        }))
    }
}

fn named(values: Ranked<Value>) -> Value {
    let names = RANKS.iter().map(|(name, _)| name.replace('.', ""));
    Value::Object(names.zip(values).collect())
}

fn values_ns(outcome: &Outcome) -> Ranked<u64> {
    let latency = outcome.latency.as_ref();
    latency.map_or([0; RANKS.len()], |latency| ranked(&latency.corrected))
}
