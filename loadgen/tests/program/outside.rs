//! The program from outside: workloads, targets, files, exit codes.

use std::io::Read;
use std::net::TcpListener;
use std::process::Stdio;

use super::run::{json, loadgen, relay};
use super::support;

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn every_workload_with_load_delivers_each_message_to_each_subscriber() {
    let broker = support::honest().to_string();
    let small = [
        "--warmup", "0s", "--count", "300", "--window", "100", "--json",
    ];
    for (workload, numbers, per_message) in [
        ("fanout", vec!["--subscribers", "7"], 7),
        ("one", vec![], 1),
        ("wide", vec!["--subscribers", "20"], 20),
        ("spread", vec!["--topics", "10", "--subscribers", "10"], 1),
        ("mesh", vec!["--topics", "5", "--subscribers", "20"], 4),
        (
            "pairs",
            vec!["--publishers", "6", "--topics", "6", "--subscribers", "6"],
            1,
        ),
        ("fanout", vec!["--publishers", "3", "--subscribers", "4"], 4),
        ("spread", vec!["--topics", "30", "--subscribers", "4"], 1),
        ("one", vec!["--payload", "8"], 1),
        ("one", vec!["--payload", "7"], 1),
        ("one", vec!["--payload", "0"], 1),
        ("one", vec!["--payload", "249"], 1),
    ] {
        let args = [&[workload, &broker], &numbers[..], &small[..]].concat();
        let output = loadgen(&args);
        assert_eq!(output.status.code(), Some(0), "{args:?} {output:?}");
        let run = &json(&output)["runs"][0];
        assert_eq!(
            (&run["sent"], &run["lost"]),
            (&300.into(), &0.into()),
            "{args:?}"
        );
        assert_eq!(run["delivered"], 300 * per_message, "{args:?}");
    }
}

#[test]
fn the_relay_loses_nothing_and_stands_beside_a_broker_with_ratios() {
    let broker = support::honest().to_string();
    let args = [
        "--subscribers",
        "5",
        "--warmup",
        "0s",
        "--count",
        "5000",
        "--json",
    ];
    let output = loadgen(&[&["fanout", "relay"], &args[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_eq!(report["runs"][0]["delivered"], 25_000);
    assert!(report["runs"][0]["broker"]["cpu_s"].as_f64().is_some());

    let output = loadgen(
        &[
            &["fanout", &broker, "--with-relay", "--runs", "3"],
            &args[..],
        ]
        .concat(),
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_eq!(report["relay"]["runs"].as_array().unwrap().len(), 3);
    assert!(report["ratios"]["deliveries_per_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn an_open_loop_times_every_delivery_twice_and_writes_the_histogram() {
    let broker = support::honest().to_string();
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let output = loadgen(&[
        "fanout",
        &broker,
        "--subscribers",
        "4",
        "--rate",
        "500",
        "--warmup",
        "100ms",
        "--count",
        "200",
        "--json",
        "--hgrm",
        path,
    ]);
    // Whether the generator kept its schedule depends on what else runs here: both are answers.
    let report = json(&output);
    let expected = if report["valid"] == true { 0 } else { 3 };
    assert_eq!(output.status.code(), Some(expected), "{output:?}");
    let run = &report["runs"][0];
    assert_eq!((&run["offered"], &run["sent"]), (&200.into(), &200.into()));
    assert_eq!((&run["delivered"], &run["lost"]), (&800.into(), &0.into()));
    for latency in ["corrected_ns", "uncorrected_ns"] {
        let [p50, max] = ["p50", "max"].map(|name| run[latency][name].as_u64().unwrap());
        assert!(0 < p50 && p50 <= max, "{run}");
    }
    assert!(run["corrected_ns"]["max"].as_u64() >= run["uncorrected_ns"]["max"].as_u64());
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written.contains("1/(1-Percentile)") && written.contains("Total count"),
        "{written}"
    );
}

#[test]
fn a_relay_of_its_own_serves_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", directory.path().join("relay").display());
    let relay = relay(&address);
    let pid = relay.0.id().to_string();
    for _ in 0..2 {
        let output = loadgen(&[
            "fanout",
            &address,
            "--subscribers",
            "3",
            "--warmup",
            "0s",
            "--count",
            "20000",
            "--pid",
            &pid,
            "--json",
        ]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let run = &json(&output)["runs"][0];
        assert_eq!(run["delivered"], 60_000);
        assert!(run["broker"]["rss_bytes"].as_u64().unwrap() > 0);
    }
}

#[test]
fn idle_reads_the_memory_of_the_brokers_process() {
    let server = support::Process::start();
    let (broker, pid) = (server.address.to_string(), server.pid().to_string());
    let output = loadgen(&[
        "idle",
        &broker,
        "--connections",
        "50",
        "--pid",
        &pid,
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_eq!(report["connections"], 50);
    // A thread for each: the broker of these tests is not frugal.
    let [before, after] = ["rss_before_bytes", "rss_after_bytes"].map(|name| report[name].as_u64());
    assert!(before.unwrap() < after.unwrap(), "{report}");
}

#[test]
fn nobody_listening_is_a_failure_that_says_what_to_start() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let output = loadgen(&["one", &free.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let talk = text(&output.stderr);
    assert!(
        talk.contains(&format!("hvlp-broker --listen {free}")),
        "{talk}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn what_does_not_go_together_is_wrong_usage() {
    for (args, named) in [
        (&["mesh", "relay"][..], "1 publisher and 1 topic"),
        (&["fanout", "relay", "--with-relay"], "--with-relay"),
        (&["one", "--rate", "100", "--payload", "4"], "--payload"),
        (&["one", "--hgrm", "x"], "--rate"),
        (&["one", "--rate", "10", "--max"], "--max"),
        (&["one", "--rate", "0"], "--rate"),
        (&["one", "--payload", "250"], "--payload"),
        (&["one", "kafka://x/y"], "hvlp://host:port"),
        (&["idle", "--connections", "5"], "--pid"),
        (
            &["idle", "--connections", "0", "--pid", "1"],
            "--connections",
        ),
    ] {
        let output = loadgen(args);
        assert_eq!(output.status.code(), Some(2), "{args:?} {output:?}");
        assert!(text(&output.stderr).contains(named), "{args:?} {output:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn an_unknown_process_and_an_unknown_cpu_are_failures() {
    for (args, named) in [
        (["--pid", "2147483647"], "--pid"),
        (["--pin-generator", "1023"], "CPU 1023"),
    ] {
        let output = loadgen(&[&["one", "relay"], &args[..]].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?} {output:?}");
        assert!(text(&output.stderr).contains(named), "{args:?} {output:?}");
    }
}

#[test]
fn l9_generator_and_relay_on_one_cpu_are_invalid() {
    let output = loadgen(&[
        "one",
        "relay",
        "--pin-generator",
        "0",
        "--pin-relay",
        "0",
        "--warmup",
        "0s",
        "--count",
        "100",
    ]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(
        text(&output.stdout).contains("pinned to the same CPU, 0"),
        "{output:?}"
    );
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hvlp-loadgen"))
        .args(["one", "relay", "--warmup", "0s", "--count", "100"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut talk = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut talk)
        .unwrap();
    assert_eq!(talk, "");
}
