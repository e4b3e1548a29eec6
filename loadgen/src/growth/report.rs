//! A table per axis, for people and as JSON.

use std::io::{self, Write};

use anyhow::Result;
use serde_json::{Value, json};

use super::Growth;
use super::axis::{Axis, Point, RATIO_MAX};
use crate::bench::typed;
use crate::compare::{median, rounds};
use crate::report::{print_as, rate};
use crate::run::Outcome;

impl Growth<'_> {
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
        writeln!(
            out,
            "growth {}: {} of {} after {}; medians",
            args.target,
            rounds(args.runs),
            typed(args.duration),
            typed(args.warmup),
        )?;
        for (axis, points) in &self.axes {
            writeln!(out, "\n{}", title(*axis, points))?;
            for point in points {
                write_point(out, *axis, point, &points[0])?;
            }
        }
        writeln!(
            out,
            "\ndisturbed: how much of a run other work held the broker's CPU or the generator's, \
             at worst"
        )
    }

    fn object(&self) -> Result<Value> {
        let axes = self.axes.iter().map(|(axis, points)| {
            let objects = points.iter().map(|point| object(point, &points[0]));
            json!({
                "axis": axis.to_string(),
                "workload": axis.workload().name(),
                "relative_to": if axis.is_beside_relay() { "relay" } else { "smallest" },
                "ratio_max": RATIO_MAX,
                "points": objects.collect::<Vec<_>>(),
            })
        });
        let mut env = serde_json::to_value(&self.environment)?;
        env["pinned"] = serde_json::to_value(&self.pins)?;
        Ok(json!({
            "schema": 1,
            "mode": "growth",
            "valid": self.is_valid(),
            "argv": std::env::args().collect::<Vec<_>>(),
            "target": self.args.target.to_string(),
            "env": env,
            "axes": axes.collect::<Vec<_>>(),
        }))
    }
}

fn title(axis: Axis, points: &[Point]) -> String {
    let smallest = points[0].size;
    match axis {
        Axis::Topics => format!(
            "topics: CPU per delivery of `spread` with so many topics registered, relative to \
             {smallest}"
        ),
        Axis::Subscribers => "subscribers: CPU per delivery of `fanout` with so many subscribers, \
                              relative to the relay with as many"
            .into(),
        Axis::Connections => format!(
            "connections: CPU per delivery of `fanout` with so many idle connections beside it, \
             relative to {smallest}"
        ),
    }
}

fn write_point(out: &mut impl Write, axis: Axis, point: &Point, base: &Point) -> io::Result<()> {
    write!(out, "  {:>9}", point.size)?;
    let reasons = point.invalid_reasons();
    if !reasons.is_empty() {
        return writeln!(out, "  INVALID: {}", reasons.join("; "));
    }
    let cost = median(point.costs()).unwrap_or(f64::NAN);
    write!(
        out,
        "  {:>9} /s  {cost:>8.4} µs",
        rate(deliveries_per_s(&point.runs))
    )?;
    if axis.is_beside_relay() {
        let relay = median(point.relay_costs()).unwrap_or(f64::NAN);
        write!(out, "  relay {relay:>8.4} µs")?;
    }
    match point.ratio(base) {
        Some(ratio) => write!(out, "  {ratio:>5.2}x, {}", standing(ratio))?,
        None => write!(out, "      -, nothing to be held against")?,
    }
    writeln!(out, "  disturbed {:.0} %", disturbance(point) * 100.0)
}

fn standing(ratio: f64) -> &'static str {
    match ratio <= RATIO_MAX {
        true => "within 15 %",
        false => "ABOVE 15 %",
    }
}

fn object(point: &Point, base: &Point) -> Value {
    let ratio = point.ratio(base);
    let reasons = point.invalid_reasons();
    json!({
        "size": point.size,
        "valid": reasons.is_empty(),
        "invalid_reasons": reasons,
        "deliveries_per_s": deliveries_per_s(&point.runs),
        "cpu_us_per_delivery": median(point.costs()),
        "cpu_us_per_delivery_runs": point.costs(),
        "relay_cpu_us_per_delivery_runs": point.relay_costs(),
        "ratio": ratio,
        "within": ratio.map(|ratio| ratio <= RATIO_MAX),
        "disturbed_share_max": disturbance(point),
    })
}

fn deliveries_per_s(runs: &[Outcome]) -> f64 {
    median(runs.iter().map(Outcome::deliveries_per_s).collect()).unwrap_or(0.0)
}

fn disturbance(point: &Point) -> f64 {
    let runs = point.runs.iter().chain(&point.relay_runs);
    runs.map(Outcome::disturbance).fold(0.0, f64::max)
}
