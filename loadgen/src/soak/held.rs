//! Idle sessions, each with a topic of its own, that are there for a whole life: what they cost,
//! and whether each still hears its topic at the end.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::Socket;

use super::figure::Figure;
use super::source::source;
use super::stand::Stand;
use super::work::Work;
use crate::admin::Counts;
use crate::target::{Delivery, Endpoint, connect_with, topic_name};
use crate::workload::TOPICS_MAX;

/// What one may cost, topic and subscription included.
const BYTES_MAX: f64 = 400.0;
/// What all of them together may use while nothing happens, in percent of a CPU.
const CPU_MAX: f64 = 1.0;
/// How long the broker is given to come to rest.
const REST: Duration = Duration::from_millis(500);
/// And how long anything may take that should be at once.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(110);

/// See the module.
#[derive(Debug)]
pub struct Held {
    sockets: Vec<Socket>,
    /// The broker's memory before they came.
    resident_before: u64,
    figures: Vec<Figure>,
}

impl Held {
    /// Connects them while nothing else happens, and looks at the broker for `quiet`.
    ///
    /// # Errors
    /// The broker does not take all of them.
    pub fn connect(stand: &Stand, count: usize, quiet: Duration) -> Result<Self> {
        let endpoint = stand.broker.endpoint();
        let resident_before = stand.broker.footprint()?.0;
        let sockets = (0..count).map(|number| {
            let session = subscribe(endpoint, number);
            session.with_context(|| format!("held session {number} of {count}"))
        });
        let mut held = Self {
            sockets: sockets.collect::<Result<_>>()?,
            resident_before,
            figures: Vec::new(),
        };
        held.await_all(stand)?;
        std::thread::sleep(REST);
        let after = stand.broker.footprint()?.0;
        held.figures.push(per_session(
            "RSS per held session",
            resident_before,
            after,
            count,
        ));
        let (before, began) = (stand.broker.cpu_time()?, Instant::now());
        stand.sleep(quiet);
        let used = stand.broker.cpu_time()?.since(&before).used;
        let share = used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
        let cpu = Figure::at_most("CPU with held sessions alone", CPU_MAX, Some(share), "%");
        held.figures.push(cpu);
        Ok(held)
    }

    /// The broker has taken the subscription of each.
    fn await_all(&self, stand: &Stand) -> Result<()> {
        let count = self.sockets.len() as u64;
        await_counts(stand, |counts| {
            counts.sessions == count && counts.subscriptions == count
        })
    }

    /// The broker has nobody else. Whom of these it has closed is deaf, which is found out later.
    fn await_only(&self, stand: &Stand) -> Result<()> {
        let count = self.sockets.len() as u64;
        await_counts(stand, |counts| counts.sessions <= count)
    }

    /// Once everybody else has gone: what they cost now, beyond a broker that has served the same
    /// load without them; then each hears one message, and all leave.
    ///
    /// # Errors
    /// The broker does not let the others go, or these.
    pub fn finish(mut self, stand: &Stand, rested_without: u64) -> Result<(Work, Vec<Figure>)> {
        let count = self.sockets.len();
        self.await_only(stand)?;
        std::thread::sleep(REST);
        let after = stand.broker.footprint()?.0;
        // A broker that has served no load yet grew by the load as well.
        let without = self.resident_before.max(rested_without);
        self.figures.push(per_session(
            "RSS per held session beside load",
            without,
            after,
            count,
        ));
        let work = self.call_each(stand.broker.endpoint())?;
        let deaf = count as u64 - work.ledger.received;
        self.figures
            .push(Figure::none("held sessions that went deaf", deaf));
        for socket in &self.sockets {
            // Who was hung up on is deaf, and counted.
            let _ = socket.shutdown(Shutdown::Write);
        }
        for mut socket in &self.sockets {
            while let Ok(1..) = socket.read(&mut [0; 64]) {}
        }
        Ok((work, self.figures))
    }

    /// One message to each; what was heard is in the ledger.
    fn call_each(&self, endpoint: &Endpoint) -> Result<Work> {
        let herald = open(endpoint, 0)?;
        (&herald).write_all(&endpoint.dialect.greeting())?;
        let mut work = Work {
            sessions: self.sockets.len() as u64 + 1,
            ..Work::default()
        };
        for number in 0..self.sockets.len() {
            let call = endpoint.dialect.publish(TOPICS_MAX + number, 1).bytes;
            (&herald).write_all(&call)?;
            work.ledger.published += 1;
        }
        herald.shutdown(Shutdown::Write)?;
        for (number, socket) in self.sockets.iter().enumerate() {
            let heard = hears(socket, endpoint, number);
            work.ledger.received += u64::from(heard);
        }
        let len = (&herald).read(&mut [0; 64])?;
        ensure!(len == 0, "the herald of held sessions heard something");
        Ok(work)
    }
}

fn await_counts(stand: &Stand, is_so: impl Fn(&Counts) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counts = stand.broker.admin.counts()?;
        if is_so(&counts) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "beside held sessions the broker comes to no rest: it has {} sessions, {} subscriptions",
            counts.sessions,
            counts.subscriptions
        );
        std::thread::sleep(PAUSE);
    }
}

fn subscribe(endpoint: &Endpoint, number: usize) -> Result<Socket> {
    let socket = open(endpoint, number)?;
    let mut hello = endpoint.dialect.greeting();
    let topic = std::iter::once(TOPICS_MAX + number);
    hello.extend(endpoint.dialect.subscribe(topic));
    (&socket).write_all(&hello)?;
    Ok(socket)
}

/// Whether the next thing that it hears is its own call.
fn hears(mut socket: &Socket, endpoint: &Endpoint, number: usize) -> bool {
    let mut said = [0; 64];
    let mut len = 0;
    loop {
        match endpoint.dialect.split(&said[..len]) {
            Some((Delivery::Message { topic, .. }, whole)) => {
                return whole == len && topic == topic_name(TOPICS_MAX + number).as_bytes();
            }
            Some(_) => return false,
            None => match socket.read(&mut said[len..]) {
                Ok(more @ 1..) => len += more,
                _ => return false,
            },
        }
    }
}

/// A connection that waits, but not for ever.
fn open(endpoint: &Endpoint, number: usize) -> Result<Socket> {
    let socket = connect_with(&endpoint.address, |socket| socket.bind(&source(number)))?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn per_session(name: &'static str, before: u64, after: u64, count: usize) -> Figure {
    let bytes = (after as f64 - before as f64) / count as f64;
    Figure::at_most(name, BYTES_MAX, Some(bytes), "B")
}
