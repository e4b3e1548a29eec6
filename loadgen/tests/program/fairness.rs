//! `fairness`: canaries alone and beside loads, and what makes their figures worthless.

use std::process::Output;

use serde_json::Value;

use super::run::{self, json, loadgen};
use super::support;

fn fairness(args: &[&str]) -> Output {
    let short = ["--rate", "300", "--warmup", "50ms", "--duration", "300ms"];
    let small = ["--subscribers", "5", "--drain", "5s", "--json"];
    loadgen(&[&["fairness"], args, &short[..], &small[..]].concat())
}

fn faults(report: &Value) -> Vec<String> {
    let phases = report["phases"].as_array().unwrap().iter();
    let reasons = phases.map(|phase| &phase["invalid_reasons"]);
    reasons.flat_map(run::faults).collect()
}

#[test]
fn the_canary_of_each_reactor_is_timed_alone_and_beside_both_loads() {
    let broker = support::honest().to_string();
    let output = fairness(&[&broker, "--reactors", "2"]);
    let report = json(&output);
    assert_eq!(faults(&report), [""; 0], "{output:?}");
    let expected = if report["valid"] == true { 0 } else { 3 };
    assert_eq!(output.status.code(), Some(expected), "{output:?}");
    let phases = report["phases"].as_array().unwrap();
    let loads: Vec<_> = phases
        .iter()
        .map(|phase| &phase["load"]["workload"])
        .collect();
    assert_eq!(loads, [&Value::Null, &"one".into(), &"fanout".into()]);
    assert_eq!(phases[2]["load"]["subscribers"], 5);
    for phase in phases {
        assert_eq!(phase["lost"], 0);
        let canaries = phase["canaries"].as_array().unwrap();
        assert_eq!(canaries.len(), 2);
        for canary in canaries {
            let ranks = ["p50", "p90", "p99", "p999", "max"];
            let values = ranks.map(|rank| canary["corrected_ns"][rank].as_u64().unwrap());
            assert!(values[0] > 0 && values.is_sorted(), "{canary}");
            assert!(canary["times_alone"]["p50"].as_f64().unwrap() > 0.0);
        }
    }
    for phase in &phases[1..] {
        assert!(phase["load"]["deliveries_per_s"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn what_the_load_or_a_canary_loses_leaves_no_result() {
    for (topic, named) in [(b"tffff", "canaries: 1 lost"), (b"t0000", "load: 1 lost")] {
        let mut dropped = false;
        let broker = support::spawn(Box::new(move |frame| {
            let loses = frame[3..8] == *topic && support::sequence(frame) == 7 && !dropped;
            dropped |= loses;
            if loses { Vec::new() } else { frame.to_vec() }
        }));
        let output = fairness(&[&broker.to_string()]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let faults = faults(&json(&output));
        assert!(
            faults.iter().any(|fault| fault.starts_with(named)),
            "{faults:?}"
        );
    }
}

#[test]
fn a_fan_out_that_does_not_fit_is_made_smaller_and_said_so() {
    let broker = support::honest().to_string();
    // 2 canaries' connections and 5 of the load before or its publisher on each reactor.
    let output = fairness(&[&broker, "--reactors", "2", "--sessions", "16"]);
    let talk = str::from_utf8(&output.stderr).unwrap();
    assert!(talk.contains("3 subscribers instead of 5"), "{talk}");
    assert_eq!(json(&output)["phases"][2]["load"]["subscribers"], 3);
}

#[test]
fn only_a_broker_of_ours_has_canaries() {
    for target in ["relay", "nats://127.0.0.1:1"] {
        let output = fairness(&[target]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let talk = str::from_utf8(&output.stderr).unwrap();
        assert!(talk.contains("HVLP"), "{talk}");
    }
}
