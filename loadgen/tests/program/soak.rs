//! `soak`: a trial of seconds against a real broker, which this test's own program is started as.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use hvlp::Broker;
use serde_json::Value;
use tempfile::TempDir;

use super::run::{json, loadgen};

const ARGUMENTS: &str = "BROKER_ARGUMENTS";

/// A program that is started like the daemon, and is this one.
fn daemon(before: &str) -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("daemon");
    let own = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\n{before}\nexport {ARGUMENTS}=\"$*\"\nexec '{}' --ignored --exact --nocapture \
         soak::serves_until_it_is_killed\n",
        own.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (directory, path)
}

#[test]
#[ignore = "not a test: what `daemon` starts"]
fn serves_until_it_is_killed() {
    let arguments = std::env::var(ARGUMENTS).unwrap();
    let mut arguments = arguments.split(' ');
    let mut builder = Broker::builder();
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        builder = match name {
            "--listen" => builder.listen(value).unwrap(),
            "--admin" => builder.admin(value).unwrap(),
            _ => builder,
        };
    }
    let broker = builder.spawn().unwrap();
    let addresses = broker.local_addrs().iter();
    let addresses: Vec<_> = addresses.map(ToString::to_string).collect();
    let memory = broker.memory_bound().in_all();
    let admin = broker.admin_addr().unwrap();
    eprintln!(
        "broker listening on {}\n  {memory} of memory at most\n  metrics: http://{admin}/metrics",
        addresses.join(", ")
    );
    broker.join().unwrap();
}

/// The report of a soak that lost nothing; what was late is not a test's business.
fn accounted(options: &[&str]) -> Value {
    let (_directory, daemon) = daemon("");
    let daemon = daemon.to_str().unwrap();
    let output = loadgen(&[&["soak", "--json", "--broker", daemon], options].concat());
    assert!(matches!(output.status.code(), Some(0 | 4)), "{output:?}");
    let report = json(&output);
    assert_eq!(report["valid"], true);
    assert_eq!(report["io_errors"], 0);
    for figure in array(&report["figures"]) {
        if figure["loss"] == true {
            assert_eq!(figure["verdict"], "held", "{figure}");
        }
    }
    for life in array(&report["lives"]) {
        assert_eq!(life["unexplained"], 0);
        assert_eq!(array(&life["left"]).len(), 0);
        assert!(life["canary_ns"]["max"].as_u64().unwrap() > 0);
        assert!(!array(&life["samples"]).is_empty());
    }
    report
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn figure<'a>(report: &'a Value, part: &str, name: &str) -> &'a Value {
    let mut figures = array(&report["figures"]).iter();
    let found = figures.find(|figure| figure["part"] == part && figure["figure"] == name);
    found.unwrap_or_else(|| panic!("{part}, {name}: {report}"))
}

#[test]
fn a_broker_that_is_killed_once_loses_what_was_on_its_way_and_nothing_else() {
    let report = accounted(&["--minutes", "0.2", "--hold", "100"]);
    let lives = array(&report["lives"]);
    for life in lives {
        let account = &life["conservation"];
        assert!(account["published"].as_u64().unwrap() > 1_000, "{account}");
        assert!(account["matched"].as_u64() > account["published"].as_u64());
        assert!(life["sessions"].as_u64().unwrap() > 150, "{life}");
        // Faults that the broker names: they were really there.
        for reason in ["reset", "protocol_error_budget", "eof", "client_disconnect"] {
            let closed = life["sessions_closed"][reason].as_u64().unwrap();
            assert!(closed > 0, "{reason}: {life}");
        }
        // Each policy has met a reader that was too slow for it.
        for reason in ["slow_close", "queue_full", "displaced", "conflated"] {
            let dropped = account["dropped"][reason].as_u64().unwrap();
            assert!(dropped > 0, "{reason}: {account}");
        }
        assert!(life["healthy_received"].as_u64().unwrap() > 5_000, "{life}");
    }
    let deaf = figure(&report, "second life", "held sessions that went deaf");
    assert_eq!(deaf["measured"], "0");
    for name in ["RSS per held session", "RSS per held session beside load"] {
        assert_eq!(figure(&report, "second life", name)["wanted"], "<= 400 B");
    }
    assert!(report["kill"]["serving_again_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn resets_a_flood_and_stalled_readers_leave_nothing_and_cost_the_healthy_nothing() {
    let resets = ["--resets", "500"];
    let flood = ["--flood", "300", "--flood-time", "1s"];
    let stalled = ["--stalled", "5"];
    let report = accounted(&[&resets[..], &flood, &stalled].concat());
    assert_eq!(report["kill"], Value::Null, "no mixed load was asked for");
    let names: Vec<_> = array(&report["lives"])
        .iter()
        .map(|life| life["name"].as_str().unwrap())
        .collect();
    assert_eq!(names[..2], ["resets", "flood"]);
    assert_eq!(
        figure(&report, "resets", "sessions reset")["measured"],
        "500"
    );
    assert!(report["lives"][0]["subscribed"].as_u64().unwrap() > 100);
    let opened = report["lives"][1]["sessions"].as_u64().unwrap();
    assert_eq!(opened, 300 + 2, "the canary has two");
    for (life, (policy, dropped)) in array(&report["lives"])[2..].iter().zip([
        ("disconnect", "slow_close"),
        ("drop_newest", "queue_full"),
        ("drop_oldest", "displaced"),
        ("conflate", "conflated"),
        ("pause", "slow_close"),
    ]) {
        assert_eq!(life["name"], format!("stalled, {policy}"));
        assert!(life["healthy_received"].as_u64().unwrap() >= 5 * 5_000);
        let reasons = life["conservation"]["dropped"].as_object().unwrap();
        let reasons: Vec<_> = reasons.keys().map(String::as_str).collect();
        assert_eq!(reasons, [dropped], "{policy}");
        let peak = figure(&report, life["name"].as_str().unwrap(), "peak RSS");
        assert_eq!(peak["verdict"], "held", "{peak}");
    }
    assert_eq!(names.len(), 2 + 5);
}

#[test]
fn what_cannot_be_reached_is_missed_but_nothing_is_lost() {
    let (_directory, daemon) = daemon("");
    let daemon = daemon.to_str().unwrap();
    // No machine opens so many one after the other.
    let flood = ["soak", "--flood", "1000000", "--flood-time", "100ms"];
    let output = loadgen(&[&flood[..], &["--broker", daemon]].concat());
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let text = str::from_utf8(&output.stdout).unwrap();
    assert!(text.contains("CLEAN"), "{text}");
    assert!(text.contains("MISSED: flood: connections "), "{text}");
}

#[test]
fn a_broker_that_does_not_start_or_ends_by_itself_is_a_failure() {
    let (_directory, mute) = daemon("echo no such setting >&2; exit 3");
    for (program, named) in [
        (mute.to_str().unwrap(), "no such setting"),
        ("/nonexistent/hvlp-broker", "--broker"),
    ] {
        let output = loadgen(&["soak", "--minutes", "0.05", "--broker", program]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let talk = str::from_utf8(&output.stderr).unwrap();
        assert!(talk.contains(named), "{talk}");
    }
}
