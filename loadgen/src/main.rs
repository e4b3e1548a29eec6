//! `hvlp-loadgen`: makes a load, checks every delivery, and says how fast it was.
//!
//! | module | what it is |
//! |---|---|
//! | `args` | the command line, and what it means for a run |
//! | `workload` | who publishes what to whom: pure arithmetic |
//! | `pace`, `stamp`, `sequence` | the schedule; what a message carries; what must arrive |
//! | `target` | dialects, and the relay |
//! | `bystanders` | connections beside a load |
//! | `drive` | the loop over all sockets |
//! | `latency`, `machine`, `pins` | histograms; CPU clocks and memory; which CPU does what |
//! | `admin`, `conservation` | a broker's own counters, and whether they say what we saw |
//! | `run`, `bench`, `idle` | one run; a workload's runs in turn; memory per connection |
//! | `compare` | several targets in turn, their ratios, the page with charts |
//! | `growth` | what a delivery costs beside more topics, subscribers, connections |
//! | `fairness` | what a canary notices of other people's load |
//! | `slow`, `stalled` | what healthy subscribers notice of stalled ones |
//! | `soak` | mixed load and faults against brokers of its own, and the figures they must hold |
//! | `report`, `progress` | figures on standard output; talk on standard error |
#![expect(
    unreachable_pub,
    reason = "a program has no outside: `pub` is what other modules may use"
)]

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command, LoadArgs, RelayArgs};
use crate::soak::Outcome;
use crate::target::relay::Relay;
use crate::target::relay_process::READY;
use crate::workload::{TOPICS_MAX, Workload};

mod admin;
mod args;
mod bench;
mod bystanders;
mod compare;
mod conservation;
mod drive;
mod fairness;
mod growth;
mod idle;
mod latency;
mod machine;
mod pace;
mod pins;
mod progress;
mod report;
mod run;
mod sequence;
mod slow;
mod soak;
mod stalled;
mod stamp;
mod target;
mod workload;

/// A run without a result.
const INVALID: u8 = 3;
/// A run with one that is not good enough.
const MISSED: u8 = 4;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli.command.unwrap_or(Command::Fanout(cli.fanout))) {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Invalid) => ExitCode::from(INVALID),
        Ok(Outcome::Missed) => ExitCode::from(MISSED),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "hvlp-loadgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether the figures are valid, and good where that is judged.
fn execute(command: Command) -> Result<Outcome> {
    let load = |workload: Workload, args: LoadArgs| {
        let settings = args.settings(workload).unwrap_or_else(|text| refuse(&text));
        bench::bench(&args, &settings)
    };
    let valid = match command {
        Command::Fanout(args) => load(Workload::Fanout, args),
        Command::One(args) => load(Workload::One, args),
        Command::Wide(args) => load(Workload::Wide, args),
        Command::Spread(args) => load(Workload::Spread, args),
        Command::Mesh(args) => load(Workload::Mesh, args),
        Command::Pairs(args) => load(Workload::Pairs, args),
        Command::Idle(args) if !(1..=TOPICS_MAX).contains(&args.connections) => {
            refuse(&format!("--connections must be 1 to {TOPICS_MAX}"))
        }
        Command::Idle(args) => idle::idle(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Fairness(args) => fairness::fairness(&args),
        Command::Growth(args) => {
            args.check().unwrap_or_else(|text| refuse(&text));
            growth::growth(&args)
        }
        Command::Slow(args) => {
            let plan = args.plan().unwrap_or_else(|text| refuse(&text));
            slow::slow(&args, &plan)
        }
        Command::Soak(args) => return soak::soak(&args),
        Command::Relay(args) => relay(&args),
    };
    Ok(match valid? {
        true => Outcome::Good,
        false => Outcome::Invalid,
    })
}

/// Runs until a signal ends the process: a relay has nothing to finish.
fn relay(args: &RelayArgs) -> Result<bool> {
    machine::reserve_descriptors(0)?;
    if let Some(cpu) = args.pin_relay {
        machine::pin_thread(cpu)?;
    }
    let mut relay = Relay::bind(&args.listen)?;
    writeln!(io::stderr(), "{READY}{}", relay.local_address()?)?;
    relay.run()?;
    Ok(true)
}

/// Ends the program with a usage error.
fn refuse(text: &str) -> ! {
    Cli::command()
        .error(ErrorKind::ValueValidation, text)
        .exit()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
