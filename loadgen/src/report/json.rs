//! The report as one JSON object, schema 1.

use std::collections::BTreeMap;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};
use serde_json::{Value, json};

use super::{Ratios, Report};
use crate::conservation::Conservation;
use crate::run::{Outcome, Second};

/// The report, with the relay's and the ratios inside if there was one.
///
/// # Errors
/// A histogram cannot be serialised.
pub fn object(own: &Report<'_>, relay: Option<(&Report<'_>, &Ratios)>) -> Result<Value> {
    let mut object = report(own)?;
    if let Some((relay, ratios)) = relay {
        object["valid"] = json!(own.is_valid() && relay.is_valid());
        object["relay"] = report(relay)?;
        object["ratios"] = json!({
            "deliveries_per_s": ratios.deliveries_per_s,
            "cpu_us_per_delivery": ratios.cpu_per_delivery,
            "p50": ratios.p50,
            "p99": ratios.p99,
        });
    }
    Ok(object)
}

/// One target's runs.
///
/// # Errors
/// A histogram cannot be serialised.
pub fn report(report: &Report<'_>) -> Result<Value> {
    let settings = report.settings;
    let plan = &settings.plan;
    let mut env = serde_json::to_value(report.environment)?;
    env["pinned"] = serde_json::to_value(&report.pins)?;
    let runs: Vec<_> = report.runs.iter().map(run).collect::<Result<_>>()?;
    Ok(json!({
        "schema": 1,
        "valid": report.is_valid(),
        "invalid_reasons": report.invalid_reasons(),
        "mode": settings.workload.name(),
        "target": report.target.to_string(),
        "argv": std::env::args().collect::<Vec<_>>(),
        "env": env,
        "load": {
            "loop": if settings.rate.is_some() { "open" } else { "closed" },
            "rate": settings.rate,
            "dist": settings.rate.map(|_| "fixed"),
            "window": settings.rate.is_none().then_some(plan.window),
            "publishers": plan.publishers,
            "subscribers": plan.subscribers,
            "topics": plan.topics,
            "payload": plan.payload_len,
            "warmup_s": settings.warmup.as_secs_f64(),
            "duration_s": settings.count.is_none().then_some(settings.duration.as_secs_f64()),
            "count": settings.count,
        },
        "runs": runs,
        "median_run": report.median_run,
    }))
}

fn run(run: &Outcome) -> Result<Value> {
    let faults = &run.faults;
    let mut object = json!({
        "valid": run.invalid.is_empty(),
        "elapsed_s": run.elapsed.as_secs_f64(),
        "offered": run.offered,
        "sent": run.sent,
        "delivered": run.delivered,
        "lost": faults.lost,
        "duplicate": faults.duplicate,
        "reordered": faults.reordered,
        "foreign": faults.foreign,
        "deliveries_per_s": run.deliveries_per_s(),
        "generator": {
            "busy_share": run.generator_share,
            "cpu_wait_s": run.generator_waited.as_secs_f64(),
        },
        "broker": run.usage.map(|usage| json!({
            "cpu_s": usage.cpu.used.as_secs_f64(),
            "cpu_wait_s": usage.cpu.waited.as_secs_f64(),
            "cpu_us_per_delivery": run.cpu_us_per_delivery(),
            "rss_bytes": usage.resident_bytes,
        })),
        "conservation": run.conservation.as_ref().map(Conservation::object),
        "series": run.series.iter().map(second).collect::<Vec<_>>(),
    });
    if let Some(latency) = &run.latency {
        object["corrected_ns"] = percentiles(&latency.corrected)?;
        object["uncorrected_ns"] = percentiles(&latency.uncorrected)?;
        object["attempt_lag_p99_ns"] = json!(latency.lag_p99_ns());
        object["attempt_lag_p99_max_ns"] = json!(latency.lag_p99_max_ns());
        let pair = |(p50, p99): (u64, u64)| json!({ "p50": p50, "p99": p99 });
        if let Some([worst, median]) = latency.worst_and_median_subscriber() {
            object["worst_subscriber_ns"] = pair(worst);
            object["median_subscriber_ns"] = pair(median);
        }
    }
    Ok(object)
}

fn second(second: &Second) -> Value {
    json!({
        "t": second.elapsed.as_secs_f64(),
        "sent": second.sent,
        "delivered": second.delivered,
    })
}

/// `null` where nothing was recorded.
fn percentiles(histogram: &Histogram<u64>) -> Result<Value> {
    if histogram.is_empty() {
        return Ok(Value::Null);
    }
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes)?;
    let ranks = [
        ("p50", 0.5),
        ("p90", 0.9),
        ("p99", 0.99),
        ("p999", 0.999),
        ("p9999", 0.9999),
    ];
    let ranks = ranks.map(|(name, rank)| (name, histogram.value_at_quantile(rank)));
    let mut object = json!(BTreeMap::from(ranks));
    object["max"] = json!(histogram.max());
    object["hdr"] = json!(STANDARD.encode(bytes));
    Ok(object)
}
