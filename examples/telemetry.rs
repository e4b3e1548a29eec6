//! Telemetry: publishes the real readings of this host, from /proc, ten times a second.
//!
//! Topics: `host/cpu/total` and `host/cpu/N` (per cent busy), `host/memory/available` (KiB),
//! `host/load` (one minute), `host/net/INTERFACE/received` and `.../sent` (bytes per second).
//!
//! ```sh
//! cargo run --bin hvlp-broker &
//! cargo run --bin hvlp -- sub -v host/cpu/total host/memory/available host/net/lo/sent &
//! cargo run --example telemetry -- --duration 5s
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use hvlp::address::Address;
use hvlp::client::{Batch, Client};

/// Publish this host's readings on topics host/...
#[derive(Parser)]
struct Arguments {
    /// Broker: host:port or unix:/path
    #[arg(short, long, default_value_t)]
    server: Address,
    /// Stop after this time [default: when the broker goes]
    #[arg(short, long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

const INTERVAL: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match publish(&Arguments::parse()) {
        Ok(count) => {
            eprintln!("published {count} readings");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("telemetry: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Publishes until the time is over; how many readings those were.
fn publish(arguments: &Arguments) -> Result<u64, Box<dyn Error>> {
    let mut client = Client::connect(&arguments.server)?;
    let mut batch = Batch::new();
    let mut before = Sample::read()?;
    let (start, mut due, mut count) = (Instant::now(), Instant::now(), 0_u64);
    let is_over = |start: Instant| arguments.duration.is_some_and(|end| start.elapsed() >= end);
    while !is_over(start) {
        due += INTERVAL;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = Sample::read()?;
        for (topic, value) in now.readings(&before) {
            batch.publish(&topic, value.as_bytes())?;
            count += 1;
        }
        client.send_batch(&mut batch)?;
        before = now;
    }
    client.disconnect()?;
    Ok(count)
}

/// What the kernel has counted at one moment.
struct Sample {
    at: Instant,
    /// Busy and all ticks of each processor and of their sum.
    cpus: HashMap<String, (u64, u64)>,
    /// Bytes received and sent of each interface.
    interfaces: HashMap<String, (u64, u64)>,
    memory_available_kib: Option<String>,
    load: Option<String>,
}

impl Sample {
    fn read() -> Result<Self, std::io::Error> {
        let memory = fs::read_to_string("/proc/meminfo")?;
        let available = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:"));
        let load = fs::read_to_string("/proc/loadavg")?;
        let first = |text: &str| text.split_whitespace().next().map(String::from);
        Ok(Self {
            at: Instant::now(),
            cpus: cpus(&fs::read_to_string("/proc/stat")?),
            interfaces: interfaces(&fs::read_to_string("/proc/net/dev")?),
            memory_available_kib: available.and_then(first),
            load: first(&load),
        })
    }

    /// Topics and values: what has changed since `before`, and what simply is.
    fn readings(&self, before: &Self) -> Vec<(String, String)> {
        let mut readings = Vec::new();
        for (name, &(busy, all)) in &self.cpus {
            if let Some((busy_before, all_before)) = before.cpus.get(name)
                && let Some(ticks) = all.checked_sub(*all_before)
                && ticks > 0
            {
                let share = 100 * busy.saturating_sub(*busy_before) / ticks;
                readings.push((format!("host/cpu/{name}"), share.to_string()));
            }
        }
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        for (name, &(received, sent)) in &self.interfaces {
            if let Some((received_before, sent_before)) = before.interfaces.get(name) {
                for (which, bytes) in [
                    ("received", received.saturating_sub(*received_before)),
                    ("sent", sent.saturating_sub(*sent_before)),
                ] {
                    // Bytes of a tenth of a second are far below 2^52.
                    #[allow(clippy::cast_precision_loss, reason = "see above")]
                    let rate = bytes as f64 / seconds;
                    readings.push((format!("host/net/{name}/{which}"), format!("{rate:.0}")));
                }
            }
        }
        let memory = self.memory_available_kib.clone();
        readings.extend(memory.map(|kib| ("host/memory/available".into(), kib)));
        readings.extend(self.load.clone().map(|load| ("host/load".into(), load)));
        readings.sort();
        readings
    }
}

/// The lines `cpu` and `cpuN` of /proc/stat.
fn cpus(stat: &str) -> HashMap<String, (u64, u64)> {
    let lines = stat.lines().filter_map(|line| line.strip_prefix("cpu"));
    let cpu = |line: &str| {
        let (name, ticks) = line.split_once(' ')?;
        let name = if name.is_empty() { "total" } else { name };
        let ticks: Vec<u64> = ticks.split_whitespace().flat_map(str::parse).collect();
        // user nice system idle iowait irq softirq steal; guest time is part of user time.
        let all: u64 = ticks.iter().take(8).sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        Some((name.into(), (all.saturating_sub(idle), all)))
    };
    lines.filter_map(cpu).collect()
}

/// The lines of /proc/net/dev below its two lines of headings.
fn interfaces(dev: &str) -> HashMap<String, (u64, u64)> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().flat_map(str::parse).collect();
        Some((name.trim().into(), (*numbers.first()?, *numbers.get(8)?)))
    };
    dev.lines().skip(2).filter_map(interface).collect()
}
