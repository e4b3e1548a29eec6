//! The loop: one thread, every socket, the same for all targets.
//!
//! A closed loop sleeps until something arrives. An open loop never does where it has a CPU for
//! itself: waking up would cost as much as what it measures. Where it has not, a timer wakes it for
//! the next tick. The time without anything to do is kept,
//! so that a saturated generator is recognised.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::Socket;

use crate::conservation::Ledger;
use crate::latency::Latency;
use crate::machine;
use crate::pace::Pacer;
use crate::sequence::Faults;
use crate::target::{Endpoint, connect};
use crate::workload::Plan;

mod peers;
mod publisher;
mod subscriber;
mod timer;

use peers::{Peers, Receiver, Sender};
use publisher::Outgoing;
use subscriber::Inbound;
use timer::Timer;

/// The longest sleep: a phase of the run ends no later than this.
const SLEEP: Duration = Duration::from_millis(1);
/// Of the timer's events; no peer has it.
const ALARM: Token = Token(usize::MAX);

/// What the publishers are asked to do.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// Nothing.
    Quiet,
    /// To keep so many deliveries outstanding each, for so many messages more.
    Closed {
        /// Deliveries.
        window: u64,
        /// Messages that may still be sent.
        remaining: u64,
    },
    /// To keep a schedule.
    Open(Pacer),
}

/// Counts since the start of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Messages handed to a socket or to its queue.
    pub sent: u64,
    /// Messages received.
    pub delivered: u64,
    /// Time without anything to do.
    pub idle: Duration,
}

/// All connections of a run and the loop over them.
#[derive(Debug)]
pub struct Driver {
    poll: Poll,
    events: Events,
    /// Wakes an open loop that has no CPU for itself, so many nanoseconds before the tick.
    timer: Option<(Timer, u64)>,
    peers: Peers,
}

impl Driver {
    /// Opens all connections of `plan`.
    ///
    /// # Errors
    /// One of them was refused.
    pub fn connect(plan: &Plan, endpoint: &Endpoint, epoch: Instant) -> Result<Self> {
        let mut driver = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            timer: None,
            peers: Peers::new(plan, endpoint.dialect, epoch),
        };
        for publisher in 0..plan.publishers {
            driver.add_publisher(plan, publisher, endpoint)?;
        }
        for subscriber in 0..plan.subscribers {
            driver.add_subscriber(plan, subscriber, endpoint)?;
        }
        // Not what this thread may use: it is pinned, and its target runs elsewhere.
        if machine::cpu_count() == 1 {
            driver.share_cpu(Duration::ZERO)?;
        }
        Ok(driver)
    }

    /// Keeps the CPU from others for no longer than a short read or write takes.
    pub fn yield_often(&mut self) {
        self.peers.shorten();
    }

    /// Lets others have the CPU until `early` before the next tick of an open loop is due, but for
    /// three quarters of the time at least. A timer's wake-up may come late by as much.
    ///
    /// # Errors
    /// The kernel has no timer.
    pub fn share_cpu(&mut self, early: Duration) -> io::Result<()> {
        let timer = Timer::new(self.poll.registry(), ALARM)?;
        self.timer = Some((timer, u64::try_from(early.as_nanos()).unwrap_or(u64::MAX)));
        Ok(())
    }

    fn add_publisher(&mut self, plan: &Plan, publisher: usize, endpoint: &Endpoint) -> Result<()> {
        let dialect = endpoint.dialect;
        let token = Token(plan.subscribers + publisher);
        let socket = self.open(endpoint, token, &dialect.greeting())?;
        let topics = plan.publications(publisher).map(|topic| {
            (
                topic,
                dialect.publish(topic, plan.payload_len),
                plan.fan_out(topic),
            )
        });
        let number = u16::try_from(publisher).expect("the plan's publishers fit into the stamp");
        let outgoing = Outgoing::new(number, plan.stamp_kind(), topics);
        self.peers.publishers.push(Sender {
            socket: Some(socket),
            outgoing,
            blocked: false,
            remainder: Vec::new(),
        });
        Ok(())
    }

    fn add_subscriber(
        &mut self,
        plan: &Plan,
        subscriber: usize,
        endpoint: &Endpoint,
    ) -> Result<()> {
        let dialect = endpoint.dialect;
        let mut hello = dialect.greeting();
        hello.extend(dialect.subscribe(plan.subscriptions(subscriber)));
        let socket = self.open(endpoint, Token(subscriber), &hello)?;
        let flows: Vec<_> = plan
            .subscriptions(subscriber)
            .flat_map(|topic| {
                let template = dialect.delivery(topic, plan.payload_len);
                plan.writers(topic)
                    .map(move |publisher| (topic, publisher, template.clone()))
            })
            .collect();
        let flows = flows.iter().map(|(topic, publisher, template)| {
            let publisher = u16::try_from(*publisher).expect("they fit into the stamp");
            (*topic, publisher, template)
        });
        let inbound = Inbound::new(dialect, flows, plan.stamp_kind());
        let receiver = Receiver {
            socket: Some(socket),
            inbound,
            remainder: Vec::new(),
        };
        self.peers.subscribers.push(receiver);
        Ok(())
    }

    /// Connects, says hello and registers for both directions, once and edge triggered.
    fn open(&self, endpoint: &Endpoint, token: Token, hello: &[u8]) -> Result<Socket> {
        let socket = connect(&endpoint.address).with_context(|| refused(endpoint))?;
        let written = (&socket)
            .write(hello)
            .context("the target hung up at once")?;
        anyhow::ensure!(
            written == hello.len(),
            "a subscription is larger than a socket buffer"
        );
        let source = socket.as_raw_fd();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut SourceFd(&source), token, interest)?;
        Ok(socket)
    }

    /// One pass of the loop.
    ///
    /// # Errors
    /// The kernel refuses to wait for events.
    pub fn turn(&mut self) -> io::Result<()> {
        let began_ns = self.now_ns();
        let (spins, patience) = match (self.peers.load, &self.timer) {
            (Load::Open(_), None) => (true, Duration::ZERO),
            (Load::Open(pacer), Some((timer, early_ns))) => {
                let early_ns = (*early_ns).min(pacer.interval_ns() / 4);
                let sleep_ns = pacer.next_due_ns().saturating_sub(began_ns + early_ns);
                if sleep_ns > 0 {
                    timer.set(sleep_ns)?;
                }
                (
                    sleep_ns == 0,
                    if sleep_ns > 0 { SLEEP } else { Duration::ZERO },
                )
            }
            (Load::Quiet | Load::Closed { .. }, _) => (false, SLEEP),
        };
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let mut idle_until_ns = if spins { began_ns } else { self.now_ns() };
        let sent_before = self.peers.totals.sent;
        for event in self.events.iter().filter(|event| event.token() != ALARM) {
            self.peers.serve(event);
        }
        self.peers.offer_all();
        if self.events.is_empty() && sent_before == self.peers.totals.sent {
            idle_until_ns = self.now_ns();
        }
        self.peers.totals.idle += Duration::from_nanos(idle_until_ns - began_ns);
        Ok(())
    }

    /// Turns until `done` or until `until_ns`.
    ///
    /// # Errors
    /// As [`Driver::turn`].
    pub fn turn_until(&mut self, until_ns: u64, done: impl Fn(&Self) -> bool) -> io::Result<()> {
        while self.now_ns() < until_ns && !done(self) {
            self.turn()?;
        }
        Ok(())
    }

    /// Sends one probe for each subscription that was never heard of.
    pub fn probe(&mut self) {
        let peers = &mut self.peers;
        let unreached = peers
            .subscribers
            .iter()
            .flat_map(|peer| peer.inbound.unreached());
        let mut wanted: Vec<_> = unreached.collect();
        wanted.sort_unstable();
        wanted.dedup();
        for (topic, publisher) in wanted {
            peers.publishers[usize::from(publisher)]
                .outgoing
                .push_probe(topic);
        }
        peers.publishers.iter_mut().for_each(Sender::flush);
    }

    /// Whether every subscriber has seen a probe of everything that it subscribed to.
    pub fn is_reached(&self) -> bool {
        self.peers
            .subscribers
            .iter()
            .all(|peer| peer.inbound.is_reached())
    }

    /// The first subscriber that was never reached.
    pub fn first_unreached(&self) -> Option<usize> {
        self.peers
            .subscribers
            .iter()
            .position(|peer| !peer.inbound.is_reached())
    }

    /// From now on what arrives are messages.
    pub fn begin(&mut self) {
        self.peers
            .subscribers
            .iter_mut()
            .for_each(|peer| peer.inbound.begin());
    }

    /// Changes what the publishers do.
    pub const fn set_load(&mut self, load: Load) {
        self.peers.load = load;
    }

    /// What they do.
    pub const fn load(&self) -> Load {
        self.peers.load
    }

    /// Starts to record latencies.
    pub fn set_latency(&mut self, latency: Latency) {
        self.peers.latency = Some(latency);
    }

    /// What was recorded.
    pub const fn take_latency(&mut self) -> Option<Latency> {
        self.peers.latency.take()
    }

    /// Counts so far.
    pub const fn totals(&self) -> Totals {
        self.peers.totals
    }

    /// Whether every message sent has arrived everywhere.
    pub fn is_drained(&self) -> bool {
        self.peers
            .outstanding
            .iter()
            .all(|&outstanding| outstanding == 0)
    }

    /// Whether a closed loop has sent all that it may.
    pub const fn is_exhausted(&self) -> bool {
        matches!(self.peers.load, Load::Closed { remaining: 0, .. })
    }

    /// What the target did that ends the run, in words: connections closed, errors reported.
    pub fn breaches(&self) -> &[String] {
        &self.peers.breaches
    }

    /// The verdict, once nothing more can arrive.
    pub fn finish(&self) -> Faults {
        let mut faults = Faults::default();
        for peer in &self.peers.subscribers {
            faults.add(&peer.inbound.finish(|topic, publisher| {
                self.peers.publishers[usize::from(publisher)]
                    .outgoing
                    .sent(topic)
            }));
        }
        faults
    }

    /// The verdict on what has arrived, when the rest may still be on its way or lost with its
    /// target: of what is missing, only what later messages have overtaken.
    pub fn finish_arrived(&self) -> Faults {
        let mut faults = Faults::default();
        for peer in &self.peers.subscribers {
            faults.add(&peer.inbound.finish_arrived());
        }
        faults
    }

    /// What was published and received so far, probes included.
    pub fn ledger(&self) -> Ledger {
        let Peers {
            publishers,
            subscribers,
            ..
        } = &self.peers;
        Ledger {
            published: publishers
                .iter()
                .map(|peer| peer.outgoing.published())
                .sum(),
            received: subscribers.iter().map(|peer| peer.inbound.received()).sum(),
            cut_max: 0,
        }
    }

    /// The run's clock.
    pub fn now_ns(&self) -> u64 {
        self.peers.now_ns()
    }
}

fn refused(endpoint: &Endpoint) -> String {
    let Endpoint { dialect, address } = endpoint;
    if !dialect.is_ours() {
        return format!("nobody answers at {endpoint}: start a server there");
    }
    format!(
        "nobody answers at {address}: start a broker there (hvlp-broker --listen {address}), or \
         measure the limit alone with the target `relay`"
    )
}
