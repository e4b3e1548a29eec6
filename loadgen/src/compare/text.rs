//! The comparison for people: a table per workload, its goals below it.

use std::io::{self, Write};

use super::contestant::Standing;
use super::goals::{Against, Figure, Goal, Verdict};
use super::{Comparison, Entry, Section};
use crate::bench::typed;
use crate::report::rate;

/// Everything.
///
/// # Errors
/// Standard output is closed.
pub fn write(out: &mut impl Write, comparison: &Comparison<'_>) -> io::Result<()> {
    let args = comparison.args;
    let names = comparison
        .sections
        .iter()
        .flat_map(|section| &section.entries);
    let width = names
        .map(|entry| entry.contestant.to_string().len())
        .max()
        .unwrap_or(0);
    let verdicts = comparison.verdicts();
    for section in &comparison.sections {
        let plan = section.scenario.workload().plan();
        let pace = match section.scenario.rate() {
            Some(rate) => format!("open loop, {rate} messages/s"),
            None => "closed loop".into(),
        };
        writeln!(
            out,
            "{}: {plan}; {pace}; {} of {} after {}",
            section.scenario,
            rounds(args.runs),
            typed(args.duration),
            typed(args.warmup),
        )?;
        section
            .entries
            .iter()
            .try_for_each(|entry| write_entry(out, section, entry, width))?;
        let own = verdicts
            .iter()
            .filter(|(goal, _)| goal.scenario == section.scenario);
        for (goal, verdict) in own {
            writeln!(out, "  {}", sentence(goal, verdict.as_ref()))?;
        }
        writeln!(out)?;
    }
    let judged = verdicts.iter().filter_map(|(_, verdict)| verdict.as_ref());
    let met = judged.clone().filter(|verdict| verdict.met).count();
    let count = judged.count();
    writeln!(
        out,
        "disturbed: how much of a run other work, or another thread of the target itself, held the \
         target's CPU or the generator's, at worst"
    )?;
    writeln!(
        out,
        "{met} of {count} goals met, {} without a result",
        verdicts.len() - count
    )
}

fn write_entry(
    out: &mut impl Write,
    section: &Section<'_>,
    entry: &Entry<'_>,
    width: usize,
) -> io::Result<()> {
    write!(out, "  {:<width$}", entry.contestant.to_string())?;
    if !entry.report.is_valid() {
        writeln!(
            out,
            "  INVALID: {}",
            entry.report.invalid_reasons().join("; ")
        )?;
        return Ok(());
    }
    for &figure in section.figures() {
        if let Some(value) = entry.median(figure) {
            write!(out, "  {:>9} {}", amount(figure, value), unit(figure))?;
        }
    }
    write!(out, "  disturbed {:.0} %", entry.disturbance() * 100.0)?;
    if entry.repeats > 0 {
        write!(out, ", generator late and run repeated: {}", entry.repeats)?;
    }
    writeln!(out)
}

/// `1 round`, `3 rounds`.
pub fn rounds(runs: u32) -> String {
    format!("{runs} round{}", if runs == 1 { "" } else { "s" })
}

/// A figure's value with the digits that mean something.
pub fn amount(figure: Figure, value: f64) -> String {
    match figure {
        Figure::DeliveriesPerS => rate(value),
        Figure::CpuPerDelivery => format!("{value:.4}"),
        Figure::P50 | Figure::P99 | Figure::P999 => format!("{value:.1}"),
    }
}

const fn unit(figure: Figure) -> &'static str {
    match figure {
        Figure::DeliveriesPerS => "/s",
        Figure::CpuPerDelivery => "µs CPU per delivery",
        Figure::P50 => "µs p50",
        Figure::P99 => "µs p99",
        Figure::P999 => "µs p99.9",
    }
}

/// `deliveries/s 10.20x nats://..., the best rival; wanted >= 10: met`.
fn sentence(goal: &Goal, verdict: Option<&Verdict>) -> String {
    let figure = goal.figure.name();
    let wanted = goal.bound.text();
    let against = against(goal);
    let Some(verdict) = verdict else {
        let subject = subject(goal, goal.of.name());
        return format!("-> {subject}{figure} against {against}; wanted {wanted}: no result");
    };
    let Verdict {
        opponent, ratio, ..
    } = verdict;
    let subject = subject(goal, &verdict.subject);
    let standing = if verdict.met { "met" } else { "MISSED" };
    let whom = match goal.against {
        Against::BestRival | Against::Own => format!("{opponent}, {against}"),
        Against::Rival(_) | Against::Relay => opponent.clone(),
    };
    format!("-> {subject}{figure} {ratio:.2}x {whom}; wanted {wanted}: {standing}")
}

/// Whose figure it is, unless it is simply ours.
fn subject(goal: &Goal, name: &str) -> String {
    match goal.of {
        Standing::Own => String::new(),
        _ => format!("{name}: "),
    }
}

/// Whom a goal is about.
pub const fn against(goal: &Goal) -> &'static str {
    match goal.against {
        Against::BestRival => "the best rival",
        Against::Rival(dialect) => dialect.name(),
        Against::Relay => "the relay",
        Against::Own => Standing::Own.name(),
    }
}
