//! The comparison as one self-contained page: tables, charts, and what was run.

use std::fmt::Write;

use anyhow::Result;

use super::chart::{self, Curve, Group};
use super::goals::{Figure, Goal, Verdict};
use super::text::{against, amount, rounds};
use super::{Comparison, Section};
use crate::bench::typed;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;max-width:1100px;\
    margin:2em auto;padding:0 1em}h1{margin-bottom:0}h2{margin-top:2em}svg{width:100%;height:auto}\
    table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
    th,td{padding:.3em .7em;border-bottom:1px solid #dfe3e8;text-align:right}\
    th:first-child,td:first-child,.text{text-align:left}th{background:#f4f6f8}\
    td.bad,.missed{color:#b3261e}.met{color:#1e7a46}.legend span{margin-right:1.4em}\
    i{display:inline-block;width:.9em;height:.9em;margin-right:.4em;border-radius:2px;\
    vertical-align:-1px}pre{background:#f4f6f8;padding:1em;overflow-x:auto;font-size:13px;\
    white-space:pre-wrap}";

/// The page.
///
/// # Errors
/// A chart cannot be drawn.
pub fn page(comparison: &Comparison<'_>) -> Result<String> {
    let args = comparison.args;
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>HVLP beside its rivals</title>\
         <style>{STYLE}</style><h1>HVLP beside its rivals</h1>\
         <p>Every target in turn, {} of {} after a warm-up of {}; medians. Every delivery \
         is checked: a run that lost, repeated or reordered one has no figures. The relay copies \
         bytes and parses nothing: it is the limit of the kernel. \
         Disturbed: how much of a run other work, or another thread of the target itself, held \
         the target's CPU or the generator's, at worst; with more than a few per cent the absolute \
         figures mean little, CPU per delivery still does.</p>",
        rounds(args.runs),
        typed(args.duration),
        typed(args.warmup),
    );
    legend(&mut page, comparison)?;
    goals(&mut page, &comparison.verdicts())?;
    bar_charts(&mut page, comparison)?;
    for section in &comparison.sections {
        if section.scenario.rate().is_some() {
            percentiles(&mut page, comparison, section)?;
        }
    }
    for section in &comparison.sections {
        table(&mut page, comparison, section)?;
    }
    environment(&mut page, comparison)?;
    page.push_str("</html>\n");
    Ok(page)
}

/// Which colour is whose; the same in all charts.
fn legend(page: &mut String, comparison: &Comparison<'_>) -> Result<()> {
    page.push_str("<p class=\"legend\">");
    for (index, contestant) in comparison.args.contestants.iter().enumerate() {
        let target = match &contestant.name {
            Some(_) => format!(", {}", contestant.target),
            None => String::new(),
        };
        write!(
            page,
            "<span>{}{}</span>",
            swatch(index),
            escaped(&format!("{contestant}{target}"))
        )?;
    }
    page.push_str("</p>");
    Ok(())
}

fn swatch(target: usize) -> String {
    let colour = chart::colour(target);
    let (red, green, blue) = (colour.0, colour.1, colour.2);
    format!("<i style=\"background:#{red:02x}{green:02x}{blue:02x}\"></i>")
}

fn goals(page: &mut String, verdicts: &[(&Goal, Option<Verdict>)]) -> Result<()> {
    page.push_str(
        "<h2>Goals</h2><table><tr><th>workload<th class=\"text\">of<th class=\"text\">figure<th class=\"text\">against\
         <th>ratio<th>wanted<th></tr>",
    );
    for (goal, verdict) in verdicts {
        let (who, whom, ratio, standing) = match verdict {
            Some(Verdict {
                subject,
                opponent,
                ratio,
                met,
            }) => {
                let standing = if *met { "met" } else { "missed" };
                let ratio = format!("{ratio:.2}");
                (subject.as_str(), opponent.as_str(), ratio, standing)
            }
            None => (goal.of.name(), against(goal), "-".into(), "no result"),
        };
        write!(
            page,
            "<tr><td>{}<td class=\"text\">{}<td class=\"text\">{}<td class=\"text\">{}<td>{ratio}\
             <td>{}<td class=\"{standing}\">{standing}</tr>",
            goal.scenario,
            escaped(who),
            goal.figure.name(),
            escaped(whom),
            escaped(&goal.bound.text()),
        )?;
    }
    page.push_str("</table>");
    Ok(())
}

fn bar_charts(page: &mut String, comparison: &Comparison<'_>) -> Result<()> {
    let closed = |section: &&Section<'_>| section.scenario.rate().is_none();
    let all = |_: &&Section<'_>| true;
    let rates = groups(comparison, Figure::DeliveriesPerS, closed);
    if !rates.is_empty() {
        let svg = chart::bars(&rates, "deliveries/s")?;
        write!(page, "<h2>Throughput: more is better</h2>{svg}")?;
    }
    let costs = groups(comparison, Figure::CpuPerDelivery, all);
    if !costs.is_empty() {
        let svg = chart::bars(&costs, "µs")?;
        write!(
            page,
            "<h2>CPU time of the target per delivery: less is better</h2>{svg}"
        )?;
    }
    Ok(())
}

/// Groups of bars, without those that have none.
fn groups(
    comparison: &Comparison<'_>,
    figure: Figure,
    wanted: impl Fn(&&Section<'_>) -> bool,
) -> Vec<Group> {
    let group = |section: &Section<'_>| {
        let bars = section.entries.iter().filter_map(|entry| {
            let value = entry.median(figure).filter(|&value| value > 0.0)?;
            Some((comparison.number(entry), value, chart::short(value)))
        });
        Group {
            name: section.scenario.to_string(),
            bars: bars.collect(),
        }
    };
    let groups = comparison.sections.iter().filter(wanted).map(group);
    groups.filter(|group| !group.bars.is_empty()).collect()
}

fn percentiles(
    page: &mut String,
    comparison: &Comparison<'_>,
    section: &Section<'_>,
) -> Result<()> {
    let valid = section
        .entries
        .iter()
        .filter(|entry| entry.report.is_valid());
    let curves: Vec<_> = valid
        .filter_map(|entry| {
            let latency = &entry.report.median().latency.as_ref()?.corrected;
            Some(Curve {
                target: comparison.number(entry),
                latency,
            })
        })
        .collect();
    if curves.is_empty() {
        return Ok(());
    }
    let svg = chart::percentiles(&curves)?;
    write!(
        page,
        "<h2>{}: latency of the median run</h2>{svg}",
        section.scenario
    )?;
    Ok(())
}

fn table(page: &mut String, comparison: &Comparison<'_>, section: &Section<'_>) -> Result<()> {
    let plan = section.scenario.workload().plan();
    let pace = match section.scenario.rate() {
        Some(rate) => format!("open loop, {rate} messages/s"),
        None => "closed loop".into(),
    };
    write!(
        page,
        "<h2>{}</h2><p>{plan}; {pace}</p><table><tr><th>target<th>window",
        section.scenario
    )?;
    let figures = section.figures();
    for figure in figures {
        write!(page, "<th>{}", figure.title())?;
    }
    page.push_str("<th>disturbed<th>repeated runs</tr>");
    for entry in &section.entries {
        let number = comparison.number(entry);
        let name = escaped(&entry.contestant.to_string());
        write!(page, "<tr><td>{}{name}", swatch(number))?;
        if entry.report.is_valid() {
            write!(page, "<td>{}", entry.report.window())?;
            for &figure in figures {
                let value = entry.median(figure);
                let text = value.map_or_else(|| "-".into(), |value| amount(figure, value));
                write!(page, "<td>{text}")?;
            }
            let disturbed = entry.disturbance() * 100.0;
            write!(page, "<td>{disturbed:.0} %<td>{}</tr>", entry.repeats)?;
        } else {
            let reasons = escaped(&entry.report.invalid_reasons().join("; "));
            write!(
                page,
                "<td class=\"text bad\" colspan=\"{}\">INVALID: {reasons}</tr>",
                figures.len() + 3
            )?;
        }
    }
    page.push_str("</table>");
    Ok(())
}

fn environment(page: &mut String, comparison: &Comparison<'_>) -> Result<()> {
    let environment = comparison.environment;
    write!(
        page,
        "<h2>Machine and commands</h2><pre>{}, {} CPUs, Linux {}\n{}\n\n{}</pre>",
        escaped(&environment.cpu),
        environment.cores,
        escaped(&environment.kernel),
        escaped(&std::env::args().collect::<Vec<_>>().join(" ")),
        escaped(&comparison.about),
    )?;
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_no_markup() {
        assert_eq!(
            escaped("<a href=\"&\">"),
            "&lt;a href=&quot;&amp;&quot;&gt;"
        );
    }
}
