//! Figures at full size, each against a broker of its own with the default settings, beside a
//! canary: a flood of connections, resets, and stalled readers by the thousand.

use std::time::Duration;

use anyhow::Result;

use super::broker::{Listener, Program, Setup};
use super::canary::canary;
use super::crowd::{FRAME_LEN, Policy, Siege, besiege};
use super::figure::Figure;
use super::flood::{flood, subscribe_and_reset};
use super::stand::{Run, Stand, spawn};
use super::verdict::Life;
use super::work::{Signals, Work};
use crate::conservation::Account;
use crate::target::Endpoint;

/// No trial takes so long.
const TIME_MAX: Duration = Duration::from_mins(60);
/// Which part of the rate a flood must reach: the last connection is due a little before its end.
const RATE_SHARE: f64 = 0.99;
/// Messages beside stalled readers: 1,000 a second, two million deliveries to 2,000 readers. So
/// many at once, that each reader has one send for all of them; and no more, for beside a broker
/// that is never idle a canary says nothing of stalled readers.
const SIEGE_BURST: u64 = 20;
const SIEGE_PERIOD: Duration = Duration::from_millis(20);
/// Messages for each healthy reader beside as many stalled ones: of 1,000, 10^8 deliveries; and
/// how many of a few.
const MESSAGES_PER_READER: u64 = 100;
const MESSAGES_MIN: u64 = 5_000;
/// What a session may be owed by default: a thousand meet the bound of all before their own.
const BOUND_MAX: u64 = 8 << 20;
/// Under the policies that begin at a session's own bound: a thousand come to a quarter of all.
const BOUND_OF_POLICY: u64 = 256 << 10;
/// The least that it can be set to.
const BOUND_MIN: u64 = 64 << 10;

/// So many connections a second for `time`.
///
/// # Errors
/// The broker does not start or ends by itself, or the kernel refuses something.
pub fn flood_of(run: &Run, program: &Program, rate: u64, time: Duration) -> Result<Life> {
    let part = move |endpoint: &Endpoint, signals: &Signals| flood(rate, time, endpoint, signals);
    let mut life = trial(run, program, "flood", String::new(), part)?;
    let reached = life.work.main_sessions as f64 / seconds(&life.work);
    let wanted = rate as f64 * RATE_SHARE;
    let figure = Figure::at_least("connections", wanted.floor(), reached, "/s");
    life.more.push(figure);
    let asked = rate as f64 * time.as_secs_f64() * RATE_SHARE;
    let count = life.work.main_sessions as f64;
    life.more.push(Figure::at_least(
        "connections in all",
        asked.floor(),
        count,
        "",
    ));
    Ok(life)
}

/// So many sessions that subscribe and are reset.
///
/// # Errors
/// As [`flood_of`].
pub fn resets_of(run: &Run, program: &Program, count: u64) -> Result<Life> {
    let part =
        move |endpoint: &Endpoint, signals: &Signals| subscribe_and_reset(count, endpoint, signals);
    let mut life = trial(run, program, "resets", String::new(), part)?;
    let reset = life.work.main_sessions as f64;
    let figure = Figure::at_least("sessions reset", count as f64, reset, "");
    life.more.push(figure);
    // A reset takes with it what had not been read: were it most of them, nothing would be shown.
    let subscribed = life.subscribed as f64;
    let wanted = (count / 2) as f64;
    let figure = Figure::at_least("of which subscribed", wanted, subscribed, "");
    life.more.push(figure);
    Ok(life)
}

/// So many stalled readers beside as many healthy ones, under `policy`.
///
/// # Errors
/// As [`flood_of`].
pub fn stalled_under(run: &Run, program: &Program, policy: Policy, count: usize) -> Result<Life> {
    let messages = MESSAGES_MIN.max(MESSAGES_PER_READER * count as u64);
    let siege = Siege {
        policy,
        healthy: count,
        stalled: count,
        slow: 0,
        burst: SIEGE_BURST,
        period: SIEGE_PERIOD,
        messages: Some(messages),
    };
    let part = move |endpoint: &Endpoint, signals: &Signals| besiege(&siege, endpoint, signals);
    let name = format!("stalled, {}", policy.name());
    // So that a stalled one has more to get than it may be owed, however few messages there are.
    let most = match policy {
        Policy::Disconnect => BOUND_MAX,
        _ => BOUND_OF_POLICY,
    };
    let bound = (messages * FRAME_LEN / 2).clamp(BOUND_MIN, most);
    let settings = format!(
        "slow_consumer={}&outbound_max={bound}B&pause_max=2s",
        policy.name()
    );
    let mut life = trial(run, program, &name, settings, part)?;
    let deliveries = life.work.healthy_received as f64;
    let wanted = messages as f64 * count as f64;
    let figure = Figure::at_least("deliveries to healthy ones", wanted, deliveries, "");
    life.more.push(figure);
    let acted: u64 = policy
        .drops()
        .iter()
        .map(|reason| life.conservation.dropped(reason))
        .sum();
    let figure = Figure::at_least("deliveries that it dropped", 1.0, acted as f64, "");
    life.more.push(figure);
    let peak = mebibytes(life.resident_peak);
    let figure = match life.memory_max.map(mebibytes) {
        Some(bound) => Figure::at_most("peak RSS", bound.floor(), Some(peak), "MiB"),
        None => Figure::unjudged("peak RSS", "the bound that it prints", peak, "MiB"),
    };
    life.more.push(figure);
    Ok(life)
}

/// `part` beside a canary, until it ends.
fn trial(
    run: &Run,
    program: &Program,
    name: &str,
    settings: String,
    part: impl FnOnce(&Endpoint, &Signals) -> Result<Work> + Send + 'static,
) -> Result<Life> {
    let setup = Setup {
        program: program.clone(),
        listeners: vec![Listener::loopback(settings)],
    };
    let stand = Stand::start(run, setup)?;
    let account = Account::open(&stand.broker.admin)?;
    let signals = Signals::new();
    let (endpoint, told) = (stand.broker.endpoint().clone(), signals.clone());
    let (nest, listened) = (endpoint.clone(), signals.clone());
    let parts = vec![
        spawn("canary", move || canary(&nest, &listened))?,
        spawn(name, move || {
            let mut work = part(&endpoint, &told)?;
            work.main_sessions = work.sessions;
            Ok(work)
        })?,
    ];
    let (work, samples) = stand.load(name, TIME_MAX, parts, &signals)?;
    stand.close(name, account, work, samples)
}

fn seconds(work: &Work) -> f64 {
    work.lasted
        .unwrap_or_default()
        .as_secs_f64()
        .max(f64::MIN_POSITIVE)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
