//! A workload with load, from the options to the verdict: pins, runs in turn, reports.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::args::{LoadArgs, Settings};
use crate::conservation::Account;
use crate::machine::{self, Environment, Watched};
use crate::pins::{self, Pins};
use crate::progress::Progress;
use crate::report::{self, Ratios, Report};
use crate::run::{Outcome, run};
use crate::target::relay::RelayThread;
use crate::target::{Endpoint, Target};

/// Runs the workload as often as asked, alternating with the relay if asked, and prints the report.
/// Says whether all of it was valid.
///
/// # Errors
/// Nobody listens, a file cannot be written, or the kernel refuses something.
pub fn bench(args: &LoadArgs, settings: &Settings) -> Result<bool> {
    let plan = &settings.plan;
    let connections = plan.publishers + plan.subscribers;
    let in_process = args.with_relay || args.target == Target::Relay;
    machine::reserve_descriptors(if in_process {
        2 * connections
    } else {
        connections
    })?;
    let broker = args.pid.map(Watched::Process);
    if let Some(broker) = broker {
        broker.cpu_time()?;
    }
    let pins = pins::pin_generator(args.pins.pin_generator, broker)?;
    let relay_cpu = pins::relay_cpu(args.pins.pin_relay, &pins);
    let relay_pins = pins.beside_relay(relay_cpu);

    let (mut runs, mut relay_runs) = (Vec::new(), Vec::new());
    for number in 1..=args.runs {
        let title = format!("run {number} of {}, {}", args.runs, args.target);
        match &args.target {
            Target::Broker(endpoint) => {
                let account = args.admin.admin.as_ref().map(Account::open).transpose()?;
                let run = once(settings, endpoint, broker, &pins, &Progress::new(title))?;
                runs.push(reconcile(run, account)?);
            }
            Target::Relay => runs.push(relay_once(settings, relay_cpu, &relay_pins, title)?),
        }
        if args.with_relay {
            let title = format!("run {number} of {}, relay", args.runs);
            relay_runs.push(relay_once(settings, relay_cpu, &relay_pins, title)?);
        }
    }

    let environment = Environment::read();
    let own_pins = if args.target == Target::Relay {
        relay_pins.clone()
    } else {
        pins
    };
    let own = Report::new(settings, &args.target, own_pins, &environment, runs);
    let relay = args.with_relay.then(|| {
        Report::new(
            settings,
            &Target::Relay,
            relay_pins,
            &environment,
            relay_runs,
        )
    });
    let ratios = relay.as_ref().map(|relay| Ratios::new(&own, relay));
    if let (Some(path), Some(latency)) = (&args.output.hgrm, &own.median().latency) {
        report::hgrm::write(path, &latency.corrected)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    report::print(
        args.output.format.format(),
        &own,
        relay.as_ref().zip(ratios.as_ref()),
    )?;
    Ok(own.is_valid() && relay.is_none_or(|relay| relay.is_valid()))
}

/// What the broker counted, beside what the run saw.
fn reconcile(mut run: Outcome, account: Option<Account<'_>>) -> Result<Outcome> {
    // A run that ended before its load has nothing to reconcile.
    if let Some(account) = account.filter(|_| run.ledger.published > 0) {
        let conservation = account.close(run.ledger)?;
        run.invalid.extend(conservation.invalid_reason());
        run.conservation = Some(conservation);
    }
    Ok(run)
}

/// One run of a relay that is started for it.
///
/// # Errors
/// The relay or the run cannot be started.
pub fn relay_once(
    settings: &Settings,
    cpu: Option<usize>,
    pins: &Pins,
    title: String,
) -> Result<Outcome> {
    let relay = RelayThread::spawn(cpu)?;
    let watched = Some(Watched::Thread(relay.thread));
    once(
        settings,
        &relay.endpoint(),
        watched,
        pins,
        &Progress::new(title),
    )
}

/// One run, and whether its pins made sense.
///
/// # Errors
/// Nobody listens, or the kernel refuses something.
pub fn once(
    settings: &Settings,
    endpoint: &Endpoint,
    watched: Option<Watched>,
    pins: &Pins,
    progress: &Progress,
) -> Result<Outcome> {
    let mut outcome = run(settings, endpoint, watched, progress)?;
    if pins.collide() {
        outcome.invalid.push(format!(
            "broker and generator are pinned to the same CPU, {}: give each its own",
            pins.generator[0]
        ));
    }
    Ok(outcome)
}

/// `2s`, `500ms`: as it would be typed.
pub fn typed(duration: Duration) -> String {
    humantime::format_duration(duration)
        .to_string()
        .replace(' ', "")
}
