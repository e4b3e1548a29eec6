//! The canary: a publisher and a subscriber that come back when they are cut off, one message every
//! few milliseconds, timed from when it was to be sent.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use hvlp::client::{Client, Reconnect};

use super::work::{Signals, Work};
use crate::target::Endpoint;

const TOPIC: &str = "canary";
/// From one message to the next.
const PERIOD: Duration = Duration::from_millis(10);
/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What was published and is not there so long after the last message is lost.
const QUIET: Duration = Duration::from_millis(300);
/// A later message is recorded as this.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Sings and listens until it is told to stop.
pub fn canary(endpoint: &Endpoint, signals: &Signals) -> Result<Work> {
    let mut subscriber = client(endpoint)?;
    let publisher = client(endpoint)?;
    subscriber.subscribe([TOPIC])?;
    let mut ear = Ear::new(signals)?;
    let sent = thread::scope(|scope| {
        // A thread of its own: whoever waits for messages wakes up too late to send one.
        let voice = thread::Builder::new().name("canary's voice".into());
        let voice = voice.spawn_scoped(scope, || sing(publisher, signals))?;
        while !voice.is_finished() {
            if let Some(message) = subscriber.receive(PERIOD)? {
                ear.hear(message.data())?;
            }
        }
        let sung = voice.join();
        sung.map_err(|_| anyhow!("the canary's voice panicked"))?
    })?;
    while let Some(message) = subscriber.receive(QUIET)? {
        ear.hear(message.data())?;
    }
    subscriber.disconnect()?;
    Ok(ear.finish(sent))
}

fn client(endpoint: &Endpoint) -> Result<Client> {
    let client = Client::builder()
        .address(endpoint.address.to_string().as_str())?
        .reconnect(Reconnect {
            first: Duration::from_millis(5),
            max: Duration::from_millis(20),
            // Half a minute: a broker that does not come back must not keep the soak from its end.
            attempts_max: Some(3_000),
        })
        .write_timeout(PATIENCE)
        .connect();
    client.context("the canary cannot connect")
}

/// Publishes on a schedule that never moves, so that a late message is late by all of it. Says how
/// many there were.
fn sing(mut publisher: Client, signals: &Signals) -> Result<u64> {
    let mut due = Instant::now();
    let mut sent = 0_u64;
    while !signals.is_stopped() {
        due += PERIOD;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let stamp = [sent.to_le_bytes(), signals.at_ns(due).to_le_bytes()].concat();
        publisher.publish(TOPIC, &stamp)?;
        sent += 1;
    }
    publisher.disconnect()?;
    Ok(sent)
}

/// What was heard.
struct Ear<'a> {
    signals: &'a Signals,
    work: Work,
    latency: Histogram<u64>,
    /// A subscription takes effect when the broker has read it: what came before are probes.
    expected: Option<u64>,
}

impl<'a> Ear<'a> {
    fn new(signals: &'a Signals) -> Result<Self> {
        let work = Work {
            sessions: 2,
            ..Work::default()
        };
        Ok(Self {
            signals,
            work,
            latency: Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3)?,
            expected: None,
        })
    }

    fn hear(&mut self, data: &[u8]) -> Result<()> {
        ensure!(data.len() == 16, "the canary got what it had not sent");
        let (number, due_ns) = data.split_at(8);
        let (number, due_ns) = (
            u64::from_le_bytes(number.try_into()?),
            u64::from_le_bytes(due_ns.try_into()?),
        );
        let latency_ns = self.signals.now_ns().saturating_sub(due_ns);
        self.latency.saturating_record(latency_ns);
        // Between the broker's two lives some may be missing, and never again once the second one
        // has served.
        let is_between = self.signals.is_killed() && self.signals.time_to_serve().is_none();
        self.signals.served(due_ns);
        self.take(number, is_between);
        Ok(())
    }

    fn take(&mut self, number: u64, is_between: bool) {
        let work = &mut self.work;
        work.ledger.received += 1;
        let next = self.expected.unwrap_or(number);
        match number.checked_sub(next) {
            Some(missing) => {
                work.faults.lost += missing;
                let arrived = if is_between { 0 } else { missing };
                work.arrived_faults.lost += arrived;
                self.expected = Some(number + 1);
            }
            None => {
                work.faults.duplicate += 1;
                work.arrived_faults.duplicate += 1;
            }
        }
    }

    fn finish(self, sent: u64) -> Work {
        let mut work = self.work;
        work.faults.lost += sent - self.expected.unwrap_or_default();
        work.ledger.published = sent;
        work.canary = Some(self.latency);
        work
    }
}
