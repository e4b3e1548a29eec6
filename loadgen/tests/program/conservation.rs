//! `--admin`: what the generator saw against what a real broker counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::thread;

use hvlp::{Broker, BrokerHandle};
use serde_json::Value;

use super::run::{json, loadgen};

/// A real broker in this process, and its admin endpoint.
pub fn broker(settings: &[&str]) -> (BrokerHandle, SocketAddr) {
    let builder = Broker::builder().listen("127.0.0.1:0").unwrap();
    let builder = builder.admin("127.0.0.1:0").unwrap();
    let builder = builder.set("reactors=2").unwrap();
    let builder = settings
        .iter()
        .fold(builder, |builder, setting| builder.set(setting).unwrap());
    let broker = builder.spawn().unwrap();
    let admin = broker.admin_addr().unwrap();
    (broker, admin)
}

fn counted(workload: &str, broker: &BrokerHandle, admin: SocketAddr, more: &[&str]) -> Output {
    let (target, admin) = (broker.local_addr().to_string(), format!("http://{admin}"));
    let short = ["--warmup", "0s", "--count", "500", "--admin", &admin];
    loadgen(&[&[workload, &target], &short[..], more].concat())
}

#[test]
fn every_message_and_delivery_is_known_to_both_sides() {
    let (broker, admin) = broker(&[]);
    for (workload, fan_out) in [("one", 1), ("mesh", 10)] {
        let output = counted(workload, &broker, admin, &["--json", "--runs", "2"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        for run in json(&output)["runs"].as_array().unwrap() {
            let account = &run["conservation"];
            assert_eq!(account["unexplained"], 0);
            // Probes count too.
            let published = account["published"].as_u64().unwrap();
            assert!(published > 500, "{account}");
            assert_eq!(account["accepted"], published);
            assert!(account["matched"].as_u64().unwrap() >= 500 * fan_out);
            assert_eq!(account["written"], account["matched"]);
        }
    }
    let output = counted("one", &broker, admin, &[]);
    let text = str::from_utf8(&output.stdout).unwrap();
    let line = text.lines().find(|line| line.contains("conserved: "));
    assert!(
        line.unwrap().ends_with("dropped 0, unexplained 0"),
        "{text}"
    );
    broker.stop();
    assert!(broker.join().unwrap().is_conserved());
}

#[test]
fn counters_that_are_short_of_one_make_the_run_invalid() {
    let short_of_one = |document: &mut Value, name: &str, label: Option<&str>| {
        let counter = &mut document["counters"][name];
        let counter = match label {
            Some(label) => &mut counter[label],
            None => counter,
        };
        let number = counter.as_u64().unwrap();
        *counter = number.saturating_sub(1).into();
    };
    for (name, label) in [
        ("packets_accepted_total", Some("publish")),
        ("deliveries_matched_total", None),
        ("deliveries_written_total", None),
    ] {
        let (broker, admin) = broker(&[]);
        let liar = proxy(admin, move |document| short_of_one(document, name, label));
        let output = counted("one", &broker, liar, &["--json"]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let reasons = json(&output)["invalid_reasons"].to_string();
        assert!(reasons.contains("unexplained"), "{name}: {reasons}");
    }
}

#[test]
fn somebody_elses_session_is_named_before_anything_is_measured() {
    let (broker, admin) = broker(&[]);
    let address = broker.local_addr().to_string();
    let somebody = TcpStream::connect(address).unwrap();
    let output = counted("one", &broker, admin, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let talk = str::from_utf8(&output.stderr).unwrap();
    assert!(talk.contains("1 sessions are connected"), "{talk}");
    drop(somebody);
}

#[test]
fn an_endpoint_that_is_none_is_said_to_be_none() {
    let (broker, _) = broker(&[]);
    // The broker's own listener speaks no HTTP.
    let listener: SocketAddr = broker.local_addr().to_string().parse().unwrap();
    let output = counted("one", &broker, listener, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let talk = str::from_utf8(&output.stderr).unwrap();
    assert!(talk.contains("--admin address"), "{talk}");
    for target in ["nats://127.0.0.1:1", "relay"] {
        let output = loadgen(&["one", target, "--admin", "http://127.0.0.1:1"]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

/// Passes the broker's answers on, and lies in all but the first.
fn proxy(admin: SocketAddr, lie: impl Fn(&mut Value) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let len = stream.read(&mut [0; 4096]).unwrap();
            assert!(len > 0, "a request comes in one piece");
            let mut broker = TcpStream::connect(admin).unwrap();
            let request = "GET /v1/snapshot HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
            broker
                .write_all(format!("{request}\r\n").as_bytes())
                .unwrap();
            let mut answer = String::new();
            broker.read_to_string(&mut answer).unwrap();
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let mut document: Value = serde_json::from_str(body).unwrap();
            if number > 0 {
                lie(&mut document);
            }
            let answer = format!("HTTP/1.1 200 OK\r\n\r\n{document}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}
