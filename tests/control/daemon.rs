//! The daemon's endpoint: where it is, and what happens when it cannot be there.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

use serde_json::Value;

use crate::scraper::Scraper;
use crate::support::{Peer, Process, command, wait_until};

/// Where it says that metrics are.
fn told(process: &Process) -> SocketAddr {
    let mut address = None;
    wait_until("it says where metrics are", || {
        address = process.lines().iter().find_map(|line| {
            let url = line.split_once("metrics: http://")?.1;
            url.strip_suffix("/metrics")?.parse().ok()
        });
        address.is_some()
    });
    address.unwrap()
}

#[test]
fn the_daemon_says_where_its_metrics_are_and_serves_them() {
    let process = Process::start(&["--admin", "127.0.0.1:0"]);
    let scraper = Scraper::of(told(&process));
    let peer = Peer::connect(process.address());
    wait_until("the session is counted", || {
        scraper.metrics().get("sessions", "state=\"connected\"") > 0.0
    });
    assert_eq!(scraper.get("/healthz").body, "ok\n");
    let document = scraper.snapshot();
    assert_eq!(document["listen"][0], process.address().to_string());
    let names: Vec<_> = document["reactors"].as_array().unwrap().iter().collect();
    assert!(
        names.iter().all(|one| one["reactor"] != "process"),
        "it serves sockets alone"
    );
    drop(peer);
    process.stop();
    assert!(!scraper.is_listening());
}

#[test]
fn with_json_the_first_line_says_where_metrics_are() {
    let mut daemon = command(&["--listen", "127.0.0.1:0", "--log", "json"]);
    daemon.args(["--admin", "127.0.0.1:0"]);
    let mut daemon = daemon.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let address = line["admin"].as_str().unwrap().parse().unwrap();
    assert_eq!(Scraper::of(address).get("/healthz").code, 200);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn an_address_that_was_asked_for_and_is_taken_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, lines) = Process::fail(&["--listen", "127.0.0.1:0", "--admin", &address]);
    assert_eq!(code, Some(4), "{lines:?}");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in [&address, "in use", "--admin", "--no-admin"] {
        assert!(lines[0].contains(part), "{part} in {lines:?}");
    }
    let (code, lines) = Process::fail(&["--admin", "localhost"]);
    assert_eq!(code, Some(2), "{lines:?}");
    assert!(lines[0].contains("127.0.0.1:9644"), "{lines:?}");
}

#[test]
fn a_second_broker_on_the_host_warns_and_serves_without_metrics() {
    // Unless somebody else has it already, which comes to the same.
    let _taken = TcpListener::bind("127.0.0.1:9644");
    let mut second = command(&["--listen", "127.0.0.1:0"]);
    let process = Process::spawn(second.env_remove("HVLP_ADMIN"));
    wait_until("it warns", || {
        process.count_lines("no metrics are served") == 1
    });
    assert_eq!(process.count_lines("WARN"), 1);
    assert_eq!(process.count_lines("metrics: http"), 0);
    process.stop();
}

#[test]
fn without_admin_nothing_is_served_whatever_the_variable_says() {
    for args in [&["--no-admin"][..], &["--admin", "off"]] {
        let mut daemon = command(&["--listen", "127.0.0.1:0"]);
        let process = Process::spawn(daemon.args(args).env("HVLP_ADMIN", "127.0.0.1:0"));
        wait_until("it has greeted", || process.count_lines("try: hvlp") == 1);
        assert_eq!(process.count_lines("metrics"), 0, "{args:?}");
        process.stop();
    }
}
