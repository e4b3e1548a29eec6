//! Mixed load and faults, for minutes or for days, across a `kill -9`.
//!
//! 1. The first life: all parts of the load, then everybody leaves; ledgers are reconciled.
//! 2. Flows and a canary of reconnecting clients, the broker killed under them and started again at
//!    the same addresses. What was on its way is counted, nothing else may be missing.
//! 3. The second life: as the first, from counters that have begun anew; idle sessions may be held
//!    beside it.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::broker::{Listener, Program, Setup, SocketDirectory};
use super::canary::canary;
use super::crowd::{Policy, Siege, besiege};
use super::dice::Dice;
use super::held::Held;
use super::parts;
use super::slope;
use super::stand::{Part, Run, Stand, finish, spawn};
use super::verdict::{Kill, Life};
use super::work::{Signals, Work};
use crate::conservation::Account;
use crate::target::Endpoint;
use crate::workload::{Plan, Workload};

/// Which parts of the time are the first life, and around the kill; the second life has the rest.
const SHARES: [f64; 2] = [0.45, 0.1];
/// As long at most if sessions are held in the second life: then that is what the time is for.
const MOST_BEFORE_HOLD: [Duration; 2] = [Duration::from_mins(3), Duration::from_mins(1)];
/// Half of it is enough to connect everybody.
const PART_TIME_MIN: Duration = Duration::from_secs(2);
/// How long the first message after it is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of a life, how long held sessions are alone before the load begins, and at most.
const QUIET_SHARE: f64 = 0.1;
const QUIET_MAX: Duration = Duration::from_secs(60);

/// A backlog that a stalled reader fills within seconds, and a pause that is over as soon.
const BOUND: &str = "outbound_max=256KiB";
const PAUSE_MAX: &str = "pause_max=5s";

/// Two lives of a broker, and what lay between them.
#[derive(Debug)]
pub struct Mixed {
    /// Before and after.
    pub lives: [Life; 2],
    /// Between them.
    pub kill: Kill,
}

/// Runs all of it.
///
/// # Errors
/// The broker does not start or ends by itself, or the kernel refuses something.
pub fn mixed(
    run: &Run,
    program: &Program,
    seed: u64,
    time: Duration,
    hold: Option<usize>,
) -> Result<Mixed> {
    let directory = SocketDirectory::create()?;
    let setup = Setup {
        program: program.clone(),
        listeners: listeners(&directory),
    };
    let mut soak = Soak {
        stand: Stand::start(run, setup)?,
        dice: Dice::new(seed),
    };
    let most = hold.map_or([Duration::MAX; 2], |_| MOST_BEFORE_HOLD);
    let part = |at: usize| time.mul_f64(SHARES[at]).clamp(PART_TIME_MIN, most[at]);
    let (first_time, kill_time) = (part(0), part(1));
    let first = soak.live("first life", first_time, None)?;
    let kill = soak.kill(kill_time)?;
    let hold = hold.map(|count| (count, first.rested_bytes));
    let second_time = time.saturating_sub(first_time + kill_time);
    let second = soak.live("second life", second_time.max(PART_TIME_MIN), hold)?;
    Ok(Mixed {
        lives: [first, second],
        kill,
    })
}

/// One for each policy, in their order, and a unix socket.
fn listeners(directory: &SocketDirectory) -> Vec<Listener> {
    let listener = |policy: Policy| {
        let name = policy.name();
        Listener::loopback(format!("slow_consumer={name}&{BOUND}&{PAUSE_MAX}"))
    };
    let mut listeners: Vec<_> = Policy::ALL.map(listener).into();
    listeners.push(directory.listener());
    listeners
}

/// The broker, and what is drawn for it.
struct Soak {
    stand: Stand,
    dice: Dice,
}

type Faulty = fn(&Endpoint, &Signals, Dice) -> Result<Work>;

impl Soak {
    /// All parts of the load for so long; then everybody leaves and the accounts are closed.
    /// `hold`: so many idle sessions beside it, and what a broker needs at rest without any.
    fn live(
        &mut self,
        name: &'static str,
        time: Duration,
        hold: Option<(usize, u64)>,
    ) -> Result<Life> {
        let admin = self.stand.broker.admin.clone();
        let account = Account::open(&admin)?;
        let quiet = time.mul_f64(QUIET_SHARE).min(QUIET_MAX);
        let held = hold.map(|(count, _)| Held::connect(&self.stand, count, quiet));
        let held = held.transpose()?;
        let signals = Signals::new();
        let mut parts = self.start_flows(&signals)?;
        parts.extend(self.start_faults(&signals)?);
        parts.extend(self.start_crowds(&signals)?);
        let (mut work, samples) = self.stand.load(name, time, parts, &signals)?;
        let mut more = Vec::new();
        if let (Some(held), Some((_, rested_without))) = (held, hold) {
            let (held_work, figures) = held.finish(&self.stand, rested_without)?;
            work.add(held_work);
            more = figures;
        }
        let mut life = self.stand.close(name, account, work, samples)?;
        life.more.push(slope::figure(life.slope()));
        life.more.extend(more);
        Ok(life)
    }

    /// The checked flows and the canary for so long, with a kill in the middle.
    fn kill(&mut self, time: Duration) -> Result<Kill> {
        let signals = Signals::new();
        let mut parts = self.start_flows(&signals)?;
        self.stand.watch("before the kill", time / 2, &parts)?;
        let killed = Instant::now();
        self.stand.kill(&signals)?;
        let listening = killed.elapsed();
        while signals.time_to_serve().is_none() && killed.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Only the canary has reconnecting clients; the flows have ended with their connections.
        let canary = parts.split_off(parts.len() - 1);
        self.stand.watch("after the kill", time / 2, &canary)?;
        parts.extend(canary);
        signals.stop();
        let work = finish(parts)?;
        Ok(Kill {
            listening,
            serving: signals.time_to_serve(),
            work,
        })
    }

    /// Fan-out, pairs over TCP and over the unix socket and, last, the canary.
    fn start_flows(&self, signals: &Signals) -> Result<Vec<Part>> {
        let fanout = Plan {
            subscribers: 50,
            topics_from: parts::FANOUT_TOPIC,
            ..Workload::Fanout.plan()
        };
        let pairs = Plan {
            publishers: 20,
            topics: 20,
            subscribers: 20,
            ..Workload::Pairs.plan()
        };
        let local = Plan {
            topics_from: parts::UNIX_TOPIC,
            ..pairs
        };
        let flows = |name: &str, plan: Plan, rate: u64, endpoint: &Endpoint| {
            let (endpoint, signals) = (endpoint.clone(), signals.clone());
            spawn(name, move || parts::flows(&plan, rate, &endpoint, &signals))
        };
        let endpoint = self.stand.broker.endpoint();
        let (nest, told) = (endpoint.clone(), signals.clone());
        Ok(vec![
            flows("fan-out", fanout, 200, endpoint)?,
            flows("pairs", pairs, 1_000, endpoint)?,
            flows("pairs over unix", local, 1_000, self.unix())?,
            spawn("canary", move || canary(&nest, &told))?,
        ])
    }

    /// Those who come and go, and those who misbehave.
    fn start_faults(&mut self, signals: &Signals) -> Result<Vec<Part>> {
        let endpoints = [self.stand.broker.endpoint().clone(), self.unix().clone()];
        let mut part = |name: &str, run: Faulty, endpoint: &Endpoint| {
            let (endpoint, signals) = (endpoint.clone(), signals.clone());
            let dice = Dice::new(self.dice.next());
            spawn(name, move || run(&endpoint, &signals, dice))
        };
        let [tcp, unix] = &endpoints;
        Ok(vec![
            part("churn", parts::churn, tcp)?,
            part("churn over unix", parts::churn, unix)?,
            part("resets", parts::resets, tcp)?,
            part("bad bytes", parts::bad_bytes, tcp)?,
        ])
    }

    /// On each listener readers that do not keep up, beside others that do.
    fn start_crowds(&self, signals: &Signals) -> Result<Vec<Part>> {
        let listeners = Policy::ALL.into_iter().zip(&self.stand.broker.endpoints);
        let parts = listeners.map(|(policy, endpoint)| {
            let siege = Siege {
                policy,
                healthy: 3,
                stalled: 3,
                slow: 2,
                burst: 10,
                period: Duration::from_millis(10),
                messages: None,
            };
            let (endpoint, signals) = (endpoint.clone(), signals.clone());
            spawn(policy.name(), move || besiege(&siege, &endpoint, &signals))
        });
        parts.collect()
    }

    /// The socket is the last listener.
    fn unix(&self) -> &Endpoint {
        &self.stand.broker.endpoints[Policy::ALL.len()]
    }
}
