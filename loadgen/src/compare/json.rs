//! The comparison as one JSON object, schema 1: the runs in full, and the goals.

use anyhow::Result;
use serde_json::{Value, json};

use super::contestant::Standing;
use super::goals::{Against, Goal, Verdict};
use super::{Comparison, Entry};
use crate::report::json::report;

/// The whole comparison.
///
/// # Errors
/// A histogram cannot be serialised.
pub fn object(comparison: &Comparison<'_>) -> Result<Value> {
    let mut workloads = Vec::new();
    for section in &comparison.sections {
        let targets: Vec<_> = section.entries.iter().map(entry).collect::<Result<_>>()?;
        workloads.push(json!({
            "workload": section.scenario.to_string(),
            "targets": targets,
        }));
    }
    let goals = comparison.verdicts();
    Ok(json!({
        "schema": 1,
        "mode": "compare",
        "valid": comparison.is_valid(),
        "argv": std::env::args().collect::<Vec<_>>(),
        "about": comparison.about,
        "env": comparison.environment,
        "workloads": workloads,
        "goals": goals.iter().map(goal).collect::<Vec<_>>(),
    }))
}

fn entry(entry: &Entry<'_>) -> Result<Value> {
    let mut object = report(&entry.report)?;
    object["name"] = json!(entry.contestant.name);
    object["pid"] = json!(entry.contestant.pid);
    object["disturbed_share_max"] = json!(entry.disturbance());
    object["repeated_runs"] = json!(entry.repeats);
    Ok(object)
}

fn goal((goal, verdict): &(&Goal, Option<Verdict>)) -> Value {
    let against = match goal.against {
        Against::BestRival => "best rival",
        Against::Rival(dialect) => dialect.name(),
        Against::Relay => "relay",
        Against::Own => Standing::Own.name(),
    };
    let verdict = verdict.as_ref();
    json!({
        "workload": goal.scenario.to_string(),
        "figure": goal.figure.name(),
        "of": goal.of.name(),
        "subject": verdict.map(|verdict| &verdict.subject),
        "against": against,
        "opponent": verdict.map(|verdict| &verdict.opponent),
        "bound": goal.bound.text(),
        "ratio": verdict.map(|verdict| verdict.ratio),
        "met": verdict.map(|verdict| verdict.met),
    })
}
