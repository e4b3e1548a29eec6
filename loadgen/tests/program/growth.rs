//! `growth`: sizes in turn, what is held beside them, and what they are relative to.

use std::process::Output;

use serde_json::Value;

use super::run::{json, loadgen};
use super::support;

/// `pid`: the broker's.
fn growth(pid: u32, args: &[&str]) -> Output {
    let pid = pid.to_string();
    // Long enough for the clock of CPU time to advance in every run, on a machine that is busy too.
    let short = ["--runs", "2", "--warmup", "20ms", "--duration", "400ms"];
    loadgen(&[&["growth"], args, &short[..], &["--pid", &pid, "--json"]].concat())
}

fn sizes(axis: &Value) -> Vec<u64> {
    let points = axis["points"].as_array().unwrap().iter();
    points
        .map(|point| point["size"].as_u64().unwrap())
        .collect()
}

#[test]
fn each_axis_has_its_sizes_and_their_ratios() {
    let server = support::Process::start();
    let output = growth(
        server.pid(),
        &[
            &server.address.to_string(),
            "--topics",
            "120,100",
            "--subscribers",
            "2,5",
            "--connections",
            "0,7",
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    let axes = report["axes"].as_array().unwrap();
    let names: Vec<_> = axes.iter().map(|axis| &axis["axis"]).collect();
    assert_eq!(names, ["topics", "subscribers", "connections"]);
    assert_eq!(
        axes.iter().map(sizes).collect::<Vec<_>>(),
        [[100, 120], [2, 5], [0, 7]]
    );
    for axis in axes {
        for point in axis["points"].as_array().unwrap() {
            let ratio = point["ratio"].as_f64().unwrap_or_else(|| panic!("{axis}"));
            assert_eq!(point["within"], ratio <= 1.15, "{point}");
            let beside_relay = point["relay_cpu_us_per_delivery_runs"].as_array().unwrap();
            let expected = if axis["axis"] == "subscribers" { 2 } else { 0 };
            assert_eq!(beside_relay.len(), expected, "{point}");
        }
    }
    for axis in [0, 2] {
        assert_eq!(axes[axis]["points"][0]["ratio"], 1.0, "relative to itself");
    }
}

#[test]
fn a_bystander_that_hears_something_makes_the_size_invalid() {
    // Every message of the load goes to the topic of the first bystander as well.
    let broker = support::spawn(Box::new(<[u8]>::to_vec));
    let leaky = support::spawn_leaking("t10000");
    for (broker, code) in [(broker, 0), (leaky, 3)] {
        let output = growth(
            std::process::id(),
            &[
                &broker.to_string(),
                "--axes",
                "connections",
                "--connections",
                "1",
            ],
        );
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let reasons = json(&output)["axes"][0]["points"][0]["invalid_reasons"].to_string();
        assert_eq!(
            reasons.contains("bystander 0 heard"),
            code == 3,
            "{reasons}"
        );
    }
}

#[test]
fn a_broker_without_room_for_the_topics_is_a_failure() {
    // It takes no topic of the bystanders.
    let broker = support::spawn(Box::new(|frame| match frame[2..8] {
        [5, b't', b'0', ..] => frame.to_vec(),
        _ => vec![0],
    }));
    let output = growth(
        std::process::id(),
        &[&broker.to_string(), "--axes", "topics", "--topics", "200"],
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let talk = str::from_utf8(&output.stderr).unwrap();
    assert!(talk.contains("bystander 0"), "{talk}");
}

#[test]
fn sizes_that_cannot_be_are_wrong_usage() {
    for (args, named) in [
        (&["--topics", "99"][..], "--topics"),
        (&["--subscribers", "0"], "--subscribers"),
        (&["relay"], "broker"),
        (&["--axes", "depth"], "--axes"),
    ] {
        let output = growth(std::process::id(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?} {output:?}");
        let talk = str::from_utf8(&output.stderr).unwrap();
        assert!(talk.contains(named), "{args:?} {talk}");
    }
}
