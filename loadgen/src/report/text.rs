//! The report for people.

use std::io::{self, Write};

use hdrhistogram::Histogram;

use super::{Ratios, Report, rate};
use crate::bench::typed;
use crate::latency::Latency;
use crate::run::Outcome;
use crate::stamp::StampKind;

/// A generator that works longer than this share of the time holds up its target.
const BUSY_SHARE: f64 = 0.9;

/// Less than this of other people's work on our CPUs is not worth a line.
const DISTURBED_SHARE: f64 = 0.02;

/// The report, the relay's below it and the ratios at the end.
///
/// # Errors
/// Standard output is closed.
pub fn write(
    out: &mut impl Write,
    own: &Report<'_>,
    relay: Option<(&Report<'_>, &Ratios)>,
) -> io::Result<()> {
    write_report(out, own)?;
    let Some((relay, ratios)) = relay else {
        return Ok(());
    };
    writeln!(out)?;
    write_report(out, relay)?;
    writeln!(out)?;
    if !(own.is_valid() && relay.is_valid()) {
        return writeln!(out, "ratio to relay: none, for a run is INVALID");
    }
    write!(
        out,
        "ratio to relay: deliveries/s {:.2}",
        ratios.deliveries_per_s
    )?;
    for (name, ratio) in [
        ("CPU per delivery", ratios.cpu_per_delivery),
        ("p50", ratios.p50),
        ("p99", ratios.p99),
    ] {
        if let Some(ratio) = ratio {
            write!(out, ", {name} {ratio:.2}")?;
        }
    }
    writeln!(out, " (median of {} pairs)", own.runs.len())
}

fn write_report(out: &mut impl Write, report: &Report<'_>) -> io::Result<()> {
    let run = report.median();
    writeln!(out, "{}", configuration(report))?;
    if report.is_valid() {
        writeln!(out, "{}", headline(run))?;
    } else {
        writeln!(out, "INVALID: {}", report.invalid_reasons().join("; "))?;
    }
    write_counts(out, report, run)?;
    write_cpu(out, report, run)?;
    match &run.latency {
        Some(latency) => write_latency(out, latency),
        None => Ok(()),
    }
}

fn configuration(report: &Report<'_>) -> String {
    let settings = report.settings;
    let plan = &settings.plan;
    let load = match settings.rate {
        Some(rate) => format!("open loop, {rate} messages/s"),
        None => format!("closed loop, window {}", plan.window),
    };
    let extent = match settings.count {
        Some(count) => format!("{count} messages"),
        None => typed(settings.duration),
    };
    let runs = match report.runs.len() {
        1 => String::new(),
        runs => format!(", median of {runs} runs"),
    };
    let cpus = |cpus: &[usize]| match cpus {
        [] => "an unknown CPU".into(),
        [cpu] => format!("CPU {cpu}"),
        several => format!("any of {} CPUs", several.len()),
    };
    let unchecked = match plan.stamp_kind() {
        StampKind::Absent => "\nUNCHECKED: payloads below 8 bytes have no room for a sequence",
        StampKind::Short | StampKind::Full => "",
    };
    format!(
        "{} {}: {plan}; {load}; warm-up {}, measured {extent}{runs}; broker on {}, generator on \
         {}{unchecked}",
        settings.workload.name(),
        report.target,
        typed(settings.warmup),
        cpus(&report.pins.broker),
        cpus(&report.pins.generator),
    )
}

fn headline(run: &Outcome) -> String {
    match &run.latency {
        None => format!(
            "{} deliveries/s (throughput only)",
            rate(run.deliveries_per_s())
        ),
        Some(latency) => {
            let at = |quantile| microseconds(latency.corrected.value_at_quantile(quantile));
            format!("p50 {} µs, p99 {} µs, nothing lost", at(0.5), at(0.99))
        }
    }
}

fn write_counts(out: &mut impl Write, report: &Report<'_>, run: &Outcome) -> io::Result<()> {
    let faults = &run.faults;
    writeln!(out, "  offered       {}, sent {}", run.offered, run.sent)?;
    writeln!(
        out,
        "  delivered     {}, lost {}, repeated {}, reordered {}, foreign {}",
        run.delivered, faults.lost, faults.duplicate, faults.reordered, faults.foreign
    )?;
    if let Some(conservation) = &run.conservation {
        writeln!(out, "  {conservation}")?;
    }
    let per_s = run.deliveries_per_s();
    let payload_len = report.settings.plan.payload_len as f64;
    write!(
        out,
        "  rate          {} deliveries/s, {:.3} GB/s of data",
        rate(per_s),
        per_s * payload_len / 1e9
    )?;
    if report.runs.len() > 1 {
        let rates = || report.runs.iter().map(Outcome::deliveries_per_s);
        let (min, max) = (
            rates().fold(f64::MAX, f64::min),
            rates().fold(0.0, f64::max),
        );
        write!(out, " (min {}, max {})", rate(min), rate(max))?;
    }
    writeln!(out)
}

fn write_cpu(out: &mut impl Write, report: &Report<'_>, run: &Outcome) -> io::Result<()> {
    write!(out, "  broker CPU    ")?;
    match (run.cpu_us_per_delivery(), run.target_share()) {
        (Some(per_delivery), Some(share)) => {
            write!(
                out,
                "{per_delivery:.4} µs per delivery, {:.0} % of a core",
                share * 100.0
            )?;
            let costs = || report.runs.iter().filter_map(Outcome::cpu_us_per_delivery);
            if report.runs.len() > 1 {
                let (min, max) = (
                    costs().fold(f64::MAX, f64::min),
                    costs().fold(0.0, f64::max),
                );
                write!(out, " (min {min:.4}, max {max:.4})")?;
            }
        }
        _ => write!(out, "not known: give its process with --pid")?,
    }
    if let Some(bytes) = run.usage.and_then(|usage| usage.resident_bytes) {
        write!(out, "; RSS {:.1} MiB", bytes as f64 / f64::from(1 << 20))?;
    }
    writeln!(out)?;
    let bound = run.latency.is_none()
        && run.generator_share > BUSY_SHARE
        && run.target_share().is_none_or(|share| share < BUSY_SHARE);
    let bound = if bound { ", generator-bound" } else { "" };
    writeln!(
        out,
        "  generator     busy {:.0} % of the time{bound}",
        run.generator_share * 100.0
    )?;
    write_disturbance(out, run)
}

/// Says so if something else ran on the CPUs that were measured.
fn write_disturbance(out: &mut impl Write, run: &Outcome) -> io::Result<()> {
    let broker = run.usage.map_or(0.0, |usage| run.share(usage.cpu.waited));
    let generator = run.share(run.generator_waited);
    if broker.max(generator) < DISTURBED_SHARE {
        return Ok(());
    }
    let (broker, generator) = (broker * 100.0, generator * 100.0);
    writeln!(
        out,
        "  disturbed     other work held the broker's CPU {broker:.0} %, the generator's \
         {generator:.0} % of the time"
    )
}

fn write_latency(out: &mut impl Write, latency: &Latency) -> io::Result<()> {
    let names = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
    write!(out, "  latency µs   ")?;
    names
        .iter()
        .try_for_each(|name| write!(out, "{name:>10}"))?;
    writeln!(out)?;
    write_percentiles(out, "corrected", &latency.corrected)?;
    if latency.uncorrected.is_empty() {
        writeln!(
            out,
            "    uncorrected no room for it in payloads below 18 bytes"
        )?;
    } else {
        write_percentiles(out, "uncorrected", &latency.uncorrected)?;
    }
    if let Some([worst, median]) = latency.worst_and_median_subscriber() {
        let pair = |(p50, p99)| format!("p50 {} p99 {}", microseconds(p50), microseconds(p99));
        writeln!(
            out,
            "  subscribers   worst {}, median {}",
            pair(worst),
            pair(median)
        )?;
    }
    writeln!(
        out,
        "  generator lag p99 {} µs, of {} allowed",
        microseconds(latency.lag_p99_ns()),
        microseconds(latency.lag_p99_max_ns()),
    )
}

fn write_percentiles(
    out: &mut impl Write,
    name: &str,
    histogram: &Histogram<u64>,
) -> io::Result<()> {
    write!(out, "    {name:<11}")?;
    for quantile in [0.5, 0.9, 0.99, 0.999, 0.9999] {
        write!(
            out,
            "{:>10}",
            microseconds(histogram.value_at_quantile(quantile))
        )?;
    }
    writeln!(out, "{:>10}", microseconds(histogram.max()))
}

/// One digit behind the point.
fn microseconds(nanoseconds: u64) -> String {
    format!("{:.1}", nanoseconds as f64 / 1e3)
}
