//! `slow`: healthy subscribers beside stalled ones, whose end is told and is no fault.

use std::process::Output;

use super::conservation::broker;
use super::run::{faults, json, loadgen};
use super::support;

fn slow(target: &str, args: &[&str]) -> Output {
    let short = [
        "--warmup",
        "50ms",
        "--duration",
        "600ms",
        "--drain",
        "600ms",
    ];
    let small = ["--healthy", "3", "--stalled", "4", "--json"];
    loadgen(&[&["slow", target], &short[..], &small[..], args].concat())
}

#[test]
fn healthy_subscribers_are_timed_alone_and_beside_stalled_ones() {
    let server = support::Process::start();
    let (target, pid) = (server.address.to_string(), server.pid().to_string());
    let output = slow(&target, &["--rate", "200", "--pid", &pid]);
    let report = json(&output);
    assert_eq!(faults(&report["invalid_reasons"]), [""; 0], "{output:?}");
    let expected = if report["valid"] == true { 0 } else { 3 };
    assert_eq!(output.status.code(), Some(expected));
    for phase in ["alone_ns", "beside_ns"] {
        let ranks = ["p50", "p90", "p99", "p999", "max"];
        let values = ranks.map(|rank| report["healthy"][phase][rank].as_u64().unwrap());
        assert!(values[0] > 0 && values.is_sorted(), "{report}");
    }
    assert!(report["healthy"]["times_alone"]["p50"].as_f64().unwrap() > 0.0);
    let stalled = &report["stalled"];
    assert_eq!(
        (&stalled["closed"], &stalled["kept"]),
        (&0.into(), &4.into())
    );
    // Each of them got what the healthy ones got meanwhile: 650 ms of it.
    assert!(
        stalled["received_at_end"].as_u64().unwrap() >= 4 * 60,
        "{stalled}"
    );
    assert!(report["broker"]["rss_after_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_broker_that_loses_for_healthy_subscribers_leaves_no_result() {
    let mut count = 0;
    let broker = support::spawn(Box::new(move |frame| {
        count += u32::from(support::sequence(frame) == 7);
        let loses = support::sequence(frame) == 7 && count == 1;
        if loses { Vec::new() } else { frame.to_vec() }
    }));
    let output = slow(&broker.to_string(), &["--rate", "200"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let report = json(&output);
    assert_eq!(report["healthy"]["lost"], 3);
    assert!(
        faults(&report["invalid_reasons"])
            .iter()
            .any(|fault| fault.contains("3 lost"))
    );
}

#[test]
fn what_a_broker_makes_of_stalled_subscribers_is_told_and_reconciled() {
    for (policy, closed) in [
        ("disconnect", 4),
        ("conflate", 0),
        ("drop_newest", 0),
        ("drop_oldest", 0),
        // The healthy wait for those too, until they are closed.
        ("pause", 4),
    ] {
        let (broker, admin) = broker(&[
            &format!("listener.slow_consumer={policy}"),
            "listener.outbound_max=512KiB",
            "listener.pause_max=50ms",
        ]);
        let admin = format!("http://{admin}");
        // Twice what a session may be owed and its socket holds.
        let much = ["--rate", "8000", "--payload", "240", "--admin", &admin];
        let output = slow(&broker.local_addr().to_string(), &much);
        let report = json(&output);
        assert_eq!(
            faults(&report["invalid_reasons"]),
            [""; 0],
            "{policy}: {output:?}"
        );
        let stalled = &report["stalled"];
        assert_eq!(
            (&stalled["closed"], &stalled["reset"]),
            (&closed.into(), &closed.into())
        );
        let account = &report["conservation"];
        assert_eq!(account["unexplained"], 0, "{account}");
        let dropped = account["dropped"].as_object().unwrap();
        assert!(!dropped.is_empty(), "{policy}: {account}");
        assert_eq!(report["healthy"]["lost"], 0);
    }
}

#[test]
fn what_cannot_be_measured_is_wrong_usage() {
    for (args, named) in [
        (&["relay"][..], "broker"),
        (&["127.0.0.1:1", "--payload", "17"], "--payload"),
        (&["127.0.0.1:1", "--healthy", "0"], "--healthy"),
    ] {
        let output = loadgen(&[&["slow"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let talk = str::from_utf8(&output.stderr).unwrap();
        assert!(talk.contains(named), "{talk}");
    }
}
