//! What the load generator says about targets that behave, and about those that do not.

use std::net::SocketAddr;
use std::process::Output;

use assert_cmd::Command;

use super::support::{self, Mangle};

/// A short counted run of `one`: small enough that nothing depends on time.
fn one(target: SocketAddr, more: &[&str]) -> Output {
    Command::cargo_bin("hvlp-loadgen")
        .unwrap()
        .args([
            "one",
            &target.to_string(),
            "--warmup",
            "0s",
            "--count",
            "200",
            "--window",
            "40",
        ])
        .args(["--drain", "200ms"])
        .args(more)
        .timeout(std::time::Duration::from_secs(60))
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

/// Runs against a broker with this fault: the verdict must name it, in place of the headline.
fn assert_invalid(mangle: Mangle, reason: &str) {
    let output = one(support::spawn(mangle), &[]);
    let headline = stdout(&output)
        .lines()
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    assert!(headline.starts_with("INVALID: "), "{output:?}");
    assert!(headline.contains(reason), "{headline}");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn an_honest_broker_has_a_valid_run() {
    let output = one(support::honest(), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("deliveries/s (throughput only)"));
    assert!(stdout(&output).contains("delivered     200, lost 0, repeated 0"));
}

#[test]
fn l9_one_lost_frame_makes_a_run_invalid() {
    assert_invalid(
        Box::new(|frame| match support::sequence(frame) {
            77 => Vec::new(),
            _ => frame.to_vec(),
        }),
        "1 lost delivery",
    );
}

#[test]
fn the_last_frame_lost_makes_a_run_invalid() {
    assert_invalid(
        Box::new(|frame| match support::sequence(frame) {
            199 => Vec::new(),
            _ => frame.to_vec(),
        }),
        "1 lost delivery",
    );
}

#[test]
fn l9_one_repeated_frame_makes_a_run_invalid() {
    assert_invalid(
        Box::new(|frame| match support::sequence(frame) {
            77 => frame.repeat(2),
            _ => frame.to_vec(),
        }),
        "1 repeated delivery",
    );
}

#[test]
fn l9_two_frames_in_the_wrong_order_make_a_run_invalid() {
    let mut held = Vec::new();
    assert_invalid(
        Box::new(move |frame| match support::sequence(frame) {
            77 => {
                held = frame.to_vec();
                Vec::new()
            }
            78 => [frame, &held].concat(),
            _ => frame.to_vec(),
        }),
        "1 reordered delivery",
    );
}

#[test]
fn somebody_elses_frame_makes_a_run_invalid() {
    assert_invalid(
        Box::new(|frame| match support::sequence(frame) {
            77 => [frame, b"\x05\x04\x01a\xAA\x55"].concat(),
            _ => frame.to_vec(),
        }),
        "1 foreign delivery",
    );
}

#[test]
fn a_broker_that_hangs_up_makes_a_run_invalid() {
    assert_invalid(
        Box::new(|frame| match support::sequence(frame) {
            77 => vec![0],
            _ => frame.to_vec(),
        }),
        "the target hung up on subscriber 0",
    );
}

#[test]
fn a_subscriber_that_is_never_reached_makes_a_run_invalid() {
    assert_invalid(
        Box::new(|_| vec![0]),
        "subscriber 0 was never seen to receive anything",
    );
}

#[test]
fn the_json_report_carries_the_verdict_and_its_reasons() {
    let broker = support::spawn(Box::new(|frame| match support::sequence(frame) {
        5 => Vec::new(),
        _ => frame.to_vec(),
    }));
    let output = one(broker, &["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["valid"], false);
    assert_eq!(
        report["invalid_reasons"],
        serde_json::json!(["1 lost delivery"])
    );
    assert_eq!(report["runs"][0]["lost"], 1);
    assert_eq!(
        (&report["schema"], &report["mode"]),
        (&1.into(), &"one".into())
    );
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn one_invalid_run_of_several_leaves_no_result() {
    let mut seen = 0;
    let broker = support::spawn(Box::new(move |frame| {
        seen += u32::from(support::sequence(frame) == 77);
        if support::sequence(frame) == 77 && seen == 2 {
            Vec::new()
        } else {
            frame.to_vec()
        }
    }));
    let output = one(broker, &["--runs", "3"]);
    assert!(
        stdout(&output).contains("INVALID: run 2: 1 lost delivery\n"),
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(3));
}
