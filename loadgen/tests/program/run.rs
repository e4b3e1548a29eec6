//! The program, run to its end, and what it printed.

use std::process::Output;
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
