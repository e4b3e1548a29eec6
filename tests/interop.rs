//! Peers that share no code with this project: clients against the broker's own binary, and a
//! broker against the client.
//!
//! `tests/interop/run.py` is a second implementation of the protocol, `tests/interop/nc.sh` none at
//! all; `tests/interop/hvlp_broker.py` is a base broker for this project's own client. Where an
//! interpreter is missing, its test says so by name and passes.
#![cfg(all(feature = "broker", feature = "client", feature = "cli"))]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hvlp::Client;

const DEADLINE: Duration = Duration::from_secs(20);

/// A broker in a process of its own, killed when the test ends.
struct BrokerProcess {
    child: Child,
    address: String,
}

impl BrokerProcess {
    /// Starts the broker and waits for the line that says where it listens.
    fn start(listen: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hvlp-broker"));
        let variables = std::env::vars_os().map(|(name, _)| name);
        let is_foreign = |name: &std::ffi::OsString| {
            // All settings but the engine, of whoever runs the tests.
            name.to_string_lossy().starts_with("HVLP_") && name != "HVLP_ENGINE"
        };
        for name in variables.filter(is_foreign) {
            command.env_remove(name);
        }
        // The default port is one for the whole host.
        command.env("HVLP_ADMIN", "off");
        let command = command.args(["--listen", listen]).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map(Result::unwrap)
            .inspect(|line| eprintln!("{line}"))
            .find_map(|line| bound_address(&line))
            .expect("the broker says where it listens before its standard error ends");
        // Read on, so that the broker's log never meets a full pipe.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("{line}");
            }
        });
        Self { child, address }
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        // An error means that it has ended already, which the test itself has noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn b6_a_python_client_is_served_over_tcp() {
    run_python(&BrokerProcess::start("127.0.0.1:0"));
}

#[test]
fn b6_a_python_client_is_served_over_tcp_by_ipv6() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return eprintln!("skipped: this host has no IPv6");
    }
    run_python(&BrokerProcess::start("[::1]:0"));
}

#[test]
fn b6_a_python_client_is_served_over_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker");
    run_python(&BrokerProcess::start(&format!("unix:{}", path.display())));
}

#[test]
fn b6_printf_and_nc_are_served() {
    let broker = BrokerProcess::start("127.0.0.1:0");
    let (host, port) = broker.address.rsplit_once(':').unwrap();
    run(Command::new("bash").args([&script("nc.sh"), host, port]));
}

#[test]
fn the_client_is_served_by_a_broker_of_another_house() {
    let broker = Command::new("python3")
        .args(["-B", &script("hvlp_broker.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match broker {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return eprintln!("skipped: python3 is not installed");
        }
        Err(error) => panic!("python3: {error}"),
    };
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let address = bound_address(line.trim()).expect("the broker says where it listens");
    let broker = BrokerProcess { child, address };

    let mut subscriber = Client::connect(broker.address.as_str()).unwrap();
    let mut publisher = Client::connect(broker.address.as_str()).unwrap();
    subscriber.subscribe(["numbers", "ready"]).unwrap();
    // A base client cannot see when its SUBSCRIBE took effect.
    let begin = Instant::now();
    let is_ready = |subscriber: &mut Client| {
        subscriber
            .receive(Duration::from_millis(50))
            .unwrap()
            .is_some()
    };
    while !is_ready(&mut subscriber) {
        assert!(
            begin.elapsed() < DEADLINE,
            "the subscription never took effect"
        );
        publisher.publish("ready", b"").unwrap();
    }

    for number in 0..1000_u16 {
        publisher.publish("numbers", &number.to_be_bytes()).unwrap();
    }
    publisher.disconnect().unwrap();
    let mut received = Vec::new();
    while received.len() < 1000 {
        let message = subscriber
            .receive(DEADLINE)
            .unwrap()
            .expect("1000 of 1000 arrive");
        if message.topic() == "numbers" {
            received.push(u16::from_be_bytes(message.data().try_into().unwrap()));
        }
    }
    assert!(received.into_iter().eq(0..1000), "in the publisher's order");
}

fn run_python(broker: &BrokerProcess) {
    // -B: no __pycache__ beside the sources.
    run(Command::new("python3").args(["-B", &script("run.py"), &broker.address]));
}

fn run(command: &mut Command) {
    let interpreter = command.get_program().to_owned();
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            println!("{text}{}", String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{}", output.status);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {} is not installed", interpreter.display());
        }
        Err(error) => panic!("{}: {error}", interpreter.display()),
    }
}

fn script(name: &str) -> String {
    format!("{}/tests/interop/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// `127.0.0.1:40123` of `hvlp-broker 0.1.0 listening on 127.0.0.1:40123, ...`.
fn bound_address(line: &str) -> Option<String> {
    let (_, behind) = line.split_once("listening on ")?;
    let address = behind.split([' ', ',', ';']).next()?;
    Some(address.to_owned())
}
