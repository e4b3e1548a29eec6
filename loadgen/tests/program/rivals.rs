//! The dialects against the servers that they are made for, where those are installed.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use super::run::{json, loadgen};

/// A server of a test's own; it ends with the test.
struct Server {
    child: Child,
    target: String,
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// `None`, and a line that says so, where `program` is not installed.
///
/// Takes a port that is free now. Whoever took it meanwhile makes the server end at once, and
/// the next port is tried.
fn start(
    scheme: &str,
    program: &str,
    configuration: impl Fn(u16) -> String,
    arguments: &[&str],
) -> Option<Server> {
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    for _ in 0..5 {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("server.conf");
        std::fs::write(&file, configuration(port)).unwrap();
        let spawned = Process::new(program)
            .args(arguments)
            .arg(&file)
            .env("PATH", &path)
            .current_dir(&directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = spawned else {
            eprintln!("skipped: {program} is not installed");
            return None;
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(Server {
                    child,
                    target: format!("{scheme}://127.0.0.1:{port}"),
                    _directory: directory,
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("{program} does not start");
}

fn nats(more: &str) -> Option<Server> {
    let configuration = |port| format!("listen: \"127.0.0.1:{port}\"\n{more}\n");
    start("nats", "nats-server", configuration, &["-c"])
}

fn redis(more: &str) -> Option<Server> {
    let configuration =
        |port| format!("bind 127.0.0.1\nport {port}\nsave \"\"\nappendonly no\n{more}\n");
    start("redis", "redis-server", configuration, &[])
}

fn mosquitto(anonymous: bool) -> Option<Server> {
    let configuration = |port| format!("listener {port} 127.0.0.1\nallow_anonymous {anonymous}\n");
    start("mqtt", "mosquitto", configuration, &["-c"])
}

/// Every message to every subscriber, with heads and payloads of different lengths.
fn assert_delivers(server: Option<Server>) {
    let Some(server) = server else { return };
    let small = [
        "--warmup", "0s", "--window", "100", "--drain", "10s", "--json",
    ];
    for (workload, numbers, count, per_message) in [
        ("fanout", &["--subscribers", "7"][..], 300, 7),
        ("one", &["--payload", "8"], 300, 1),
        ("one", &["--payload", "249"], 300, 1),
        ("mesh", &["--topics", "12", "--subscribers", "24"], 600, 2),
        (
            "pairs",
            &["--publishers", "4", "--topics", "4", "--subscribers", "4"],
            400,
            1,
        ),
        ("spread", &["--topics", "200", "--subscribers", "2"], 600, 1),
    ] {
        let count_text = count.to_string();
        let head = [workload, &server.target, "--count", &count_text];
        let output = loadgen(&[&head, numbers, &small].concat());
        assert_eq!(output.status.code(), Some(0), "{workload} {output:?}");
        let run = &json(&output)["runs"][0];
        assert_eq!(run["delivered"], count * per_message, "{workload}");
        assert_eq!((&run["lost"], &run["foreign"]), (&0.into(), &0.into()));
    }
}

/// A run that the server does not put up with: the verdict has its own words.
fn assert_refused(server: Option<Server>, words: &str) {
    let Some(server) = server else { return };
    let output = loadgen(&[
        "one",
        &server.target,
        "--warmup",
        "0s",
        "--count",
        "10",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let reasons = json(&output)["invalid_reasons"].to_string();
    assert!(reasons.contains(words), "{reasons}");
}

#[test]
fn nats_server_delivers_every_message() {
    assert_delivers(nats(""));
}

#[test]
fn redis_delivers_every_message() {
    assert_delivers(redis(""));
}

#[test]
fn mosquitto_delivers_every_message() {
    assert_delivers(mosquitto(true));
}

#[test]
fn nats_server_has_its_pings_answered() {
    // Between two messages there is time for more pings than may go unanswered.
    let Some(server) = nats("ping_interval: \"50ms\"\nping_max: 2") else {
        return;
    };
    let output = loadgen(&[
        "one",
        &server.target,
        "--rate",
        "5",
        "--warmup",
        "0s",
        "--count",
        "15",
        "--json",
    ]);
    // Whether the generator kept its schedule depends on what else runs here.
    let report = json(&output);
    let reasons = report["invalid_reasons"].to_string();
    assert!(!reasons.contains("target"), "{reasons}");
    let run = &report["runs"][0];
    assert_eq!((&run["delivered"], &run["lost"]), (&15.into(), &0.into()));
}

#[test]
fn what_nats_server_complains_of_ends_the_run() {
    let words = "the target told publisher 0: -ERR \\\\'Maximum Payload Violation";
    assert_refused(nats("max_payload: 32"), words);
}

#[test]
fn what_redis_complains_of_ends_the_run() {
    assert_refused(
        redis("requirepass secret"),
        "0: -NOAUTH Authentication required.",
    );
}

#[test]
fn what_mosquitto_refuses_ends_the_run() {
    assert_refused(mosquitto(false), "CONNACK: connection refused");
}
