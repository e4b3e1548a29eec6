//! The program, run to its end, and what it printed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use assert_cmd::Command;
use serde_json::Value;

pub fn loadgen(args: &[&str]) -> Output {
    let mut command = Command::cargo_bin("hvlp-loadgen").unwrap();
    command
        .args(args)
        .timeout(Duration::from_secs(60))
        .output()
        .unwrap()
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"))
}

/// What made a run invalid, but for the generator's own schedule: whether it kept that depends on
/// what else runs here, and is no fault.
pub fn faults(reasons: &Value) -> Vec<String> {
    let reasons = reasons.as_array().unwrap().iter();
    let reasons = reasons.map(|reason| reason.as_str().unwrap().to_owned());
    let own = ["generator was", "were attempted"];
    reasons
        .filter(|reason| !own.iter().any(|own| reason.contains(own)))
        .collect()
}

/// Ends the process when the test does.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A relay of its own that listens at `address`.
pub fn relay(address: &str) -> Running {
    let mut relay = Running(
        std::process::Command::new(env!("CARGO_BIN_EXE_hvlp-loadgen"))
            .args(["relay", "--listen", address])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut ready = String::new();
    BufReader::new(relay.0.stderr.take().unwrap())
        .read_line(&mut ready)
        .unwrap();
    assert_eq!(ready.trim_end(), format!("relay listening on {address}"));
    relay
}
