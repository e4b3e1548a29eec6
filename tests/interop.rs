//! Clients that share no code with this project, against the broker's own binary.
//!
//! `tests/interop/run.py` is a second implementation of the protocol, `tests/interop/nc.sh` none at
//! all. Where an interpreter is missing, its test says so by name and passes.
#![cfg(all(feature = "broker", feature = "cli"))]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

/// A broker in a process of its own, killed when the test ends.
struct BrokerProcess {
    child: Child,
    address: String,
}

impl BrokerProcess {
    /// Starts the broker and waits for the line that says where it listens.
    fn start(listen: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hvlp-broker"))
            .args(["--listen", listen])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
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
