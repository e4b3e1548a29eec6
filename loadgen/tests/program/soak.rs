//! `soak`: a trial of seconds against a real broker, which this test's own program is started as.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use hvlp::Broker;
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
    let mut builder = Broker::builder().listen("127.0.0.1:0").unwrap();
    let mut listen = None;
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        match name {
            "--listen" => listen = Some(value.to_owned()),
            "--admin" => builder = builder.admin(value).unwrap(),
            "--set" => builder = builder.set(value).unwrap(),
            _ => {}
        }
    }
    // The first listener is not used: a builder with none has the default one.
    let broker = builder.listen(&listen.unwrap()).unwrap().spawn().unwrap();
    let (address, admin) = (&broker.local_addrs()[1], broker.admin_addr().unwrap());
    eprintln!("broker listening on {address}\n  metrics: http://{admin}/metrics");
    broker.join().unwrap();
}

#[test]
fn a_broker_that_is_killed_once_loses_what_was_on_its_way_and_nothing_else() {
    let (_directory, daemon) = daemon("");
    let daemon = daemon.to_str().unwrap();
    let trial = ["soak", "--minutes", "0.1", "--json"];
    let output = loadgen(&[&trial[..], &["--broker", daemon]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_eq!(report["valid"], true);
    assert_eq!(report["io_errors"], 0);
    for life in report["lives"].as_array().unwrap() {
        assert_eq!(life["unexplained"], 0);
        assert_eq!(life["left"].as_array().unwrap().len(), 0);
        let account = &life["conservation"];
        assert!(account["published"].as_u64().unwrap() > 1_000, "{account}");
        assert!(account["matched"].as_u64() > account["published"].as_u64());
        assert!(life["sessions"].as_u64().unwrap() > 150, "{life}");
        assert!(life["canary_ns"]["max"].as_u64().unwrap() > 0);
        assert!(!life["samples"].as_array().unwrap().is_empty());
        // Faults that the broker names: they were really there.
        for reason in ["reset", "protocol_error_budget", "eof", "client_disconnect"] {
            let closed = life["sessions_closed"][reason].as_u64().unwrap();
            assert!(closed > 0, "{reason}: {life}");
        }
    }
    assert!(report["kill"]["serving_again_s"].as_f64().unwrap() > 0.0);
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
