//! `compare`: targets in turn, and those that fail among them.

use std::net::TcpListener;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use super::run::{json, relay};
use super::support;
use assert_cmd::Command;

fn compare(args: &[&str]) -> Output {
    let short = ["--warmup", "20ms", "--duration", "100ms", "--runs", "2"];
    let mut command = Command::cargo_bin("hvlp-loadgen").unwrap();
    command
        .arg("compare")
        .args(args)
        .args(short)
        .timeout(Duration::from_secs(60))
        .output()
        .unwrap()
}

#[test]
fn every_target_has_its_runs_and_the_goals_their_ratios() {
    let broker = support::honest().to_string();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (about, saved, page) = (path("about"), path("report.json"), path("report.html"));
    std::fs::write(&about, "broker --with <care>").unwrap();
    let output = compare(&[
        &broker,
        "relay",
        "--workloads",
        "one,pairs",
        "--about",
        &about,
        "--save",
        &saved,
        "--html",
        &page,
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    let workloads = report["workloads"].as_array().unwrap();
    let names: Vec<_> = workloads.iter().map(|one| &one["workload"]).collect();
    assert_eq!(names, ["one", "pairs"]);
    // The relay cannot take part in `pairs`.
    assert_eq!(workloads[0]["targets"].as_array().unwrap().len(), 2);
    assert_eq!(workloads[1]["targets"].as_array().unwrap().len(), 1);
    for target in workloads[0]["targets"].as_array().unwrap() {
        assert_eq!(target["runs"].as_array().unwrap().len(), 2);
        assert_eq!(target["valid"], true);
    }
    let goals = report["goals"].as_array().unwrap();
    let beside_relay = goals
        .iter()
        .find(|goal| goal["against"] == "relay" && goal["figure"] == "deliveries/s")
        .unwrap();
    assert!(beside_relay["ratio"].as_f64().unwrap() > 0.0);
    assert!(beside_relay["met"].is_boolean());
    let beside_rivals = goals
        .iter()
        .find(|goal| goal["against"] == "best rival")
        .unwrap();
    assert_eq!(beside_rivals["met"], Value::Null, "there was none");

    let same: Value = serde_json::from_str(&std::fs::read_to_string(saved).unwrap()).unwrap();
    assert_eq!(same, report);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<svg") && page.contains("broker --with &lt;care&gt;"));
    assert!(!page.contains("<script") && !page.contains("src="));
}

#[test]
fn who_loses_or_is_not_there_says_so_and_the_others_have_figures() {
    let honest = support::honest().to_string();
    let loser = support::spawn(Box::new(|frame| match support::sequence(frame) {
        77 => Vec::new(),
        _ => frame.to_vec(),
    }));
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("nats://{}", free.local_addr().unwrap());
    drop(free);
    let loser = loser.to_string();
    let targets = [
        &honest[..],
        &loser,
        &nobody,
        "--workloads",
        "one",
        "--drain",
        "200ms",
    ];
    let output = compare(&targets);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = str::from_utf8(&output.stdout).unwrap();
    let line = |of: &str| text.lines().find(|line| line.contains(of)).unwrap();
    assert!(line(&honest).contains(" /s"), "{text}");
    assert!(
        line(&loser).contains("INVALID: run 1: 1 lost delivery"),
        "{text}"
    );
    assert!(
        line(&nobody).contains("nobody answers at nats://"),
        "{text}"
    );
    assert!(
        text.contains("0 of 0 goals met, 3 without a result"),
        "{text}"
    );
}

#[test]
fn a_second_broker_of_ours_is_held_against_the_first_where_that_is_a_goal() {
    let server = support::Process::start();
    let (broker, process) = (server.address, server.pid());
    let first = format!("{broker}={process}");
    let second = format!("two-reactors=hvlp://{broker}={process}");
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("report.html");
    let args = ["--workloads", "one,pairs", "--json", "--html"];
    let args = [
        &[&second[..], &first][..],
        &args[..],
        &[page.to_str().unwrap()],
    ]
    .concat();
    let output = compare(&args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    let names = |workload: usize| {
        let targets = report["workloads"][workload]["targets"].as_array();
        let names = targets.unwrap().iter().map(|target| target["name"].clone());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(0), [Value::Null], "`one` asks nothing of it");
    assert_eq!(names(1), ["two-reactors".into(), Value::Null]);
    let goals = report["goals"].as_array().unwrap();
    let of_it: Vec<_> = goals
        .iter()
        .filter(|goal| goal["of"] == "two-reactors")
        .collect();
    assert_eq!(of_it.len(), 1, "{goals:?}");
    assert_eq!(of_it[0]["subject"], "two-reactors");
    assert_eq!(of_it[0]["opponent"], format!("hvlp://{broker}"));
    assert!(of_it[0]["ratio"].as_f64().unwrap() > 0.0);
    let others = ["unix socket", "busy-poll"];
    assert!(
        goals
            .iter()
            .all(|goal| !others.iter().any(|other| goal["of"] == *other))
    );
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&format!("two-reactors, hvlp://{broker}</span>")));
    assert!(page.contains("<td class=\"text\">two-reactors<td class=\"text\">CPU per delivery"));
}

#[test]
fn a_broker_is_measured_over_tcp_and_over_its_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.sock");
    let address = format!("unix:{}", path.to_str().unwrap());
    let _relay = relay(&address);
    let tcp = support::honest().to_string();
    let unix = format!("unix={address}");
    let output = compare(&[&unix, &tcp, "--workloads", "fanout,one"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = str::from_utf8(&output.stdout).unwrap();
    let mut lines = text.lines();
    let line = lines.find(|line| line.contains("-> unix: deliveries/s "));
    let line = line.unwrap();
    assert!(line.contains(&format!("x hvlp://{tcp}, own TCP")), "{text}");
    let (_, one) = text.split_once("\none: ").unwrap();
    assert!(!one.contains("unix"), "{text}");
}

#[test]
fn a_process_that_is_not_there_is_no_result() {
    let honest = format!("{}=2147483647", support::honest());
    let output = compare(&[&honest, "--workloads", "one", "--json"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let reasons = json(&output)["workloads"][0]["targets"][0]["invalid_reasons"].to_string();
    assert!(reasons.contains("no process 2147483647"), "{reasons}");
}

#[test]
fn wrong_contestants_are_wrong_usage() {
    for (args, named) in [
        (&["relay=5"][..], "without a pid"),
        (&["kafka://x/y"], "hvlp://host:port"),
        (&["relay", "--workloads", "idle"], "--workloads"),
        (&[], "TARGET"),
    ] {
        let output = compare(args);
        assert_eq!(output.status.code(), Some(2), "{args:?} {output:?}");
        let talk = str::from_utf8(&output.stderr).unwrap();
        assert!(talk.contains(named), "{args:?} {talk}");
    }
}
