//! The parts of the mixed load, each a thread: checked flows, and those who come, go and misbehave.
//!
//! Each part has topics of its own. Whoever is reset by itself never publishes and is never
//! published to, so that the ledgers stay exact; only stalled readers take something with them.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::Socket;

use super::dice::Dice;
use super::work::{Signals, Work};
use crate::drive::{Driver, Load};
use crate::pace::Pacer;
use crate::run::pass_barrier;
use crate::stalled::Tally;
use crate::target::{Dialect, Endpoint, connect};
use crate::workload::Plan;

/// First topics of the parts; the pairs have those below.
pub const UNIX_TOPIC: usize = 0x0800;
pub const FANOUT_TOPIC: usize = 0x1000;
const CHURN_TOPIC: usize = 0x2000;
const CHURN_TOPICS: usize = 200;
const RESET_TOPIC: usize = 0x3000;

/// How long anything may take that should be at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// From one visit or fault to the next.
const PERIOD: Duration = Duration::from_millis(10);

/// Visitors that are there at a time.
const VISITORS: usize = 20;

/// A workload on a schedule, each delivery checked.
pub fn flows(plan: &Plan, rate: u64, endpoint: &Endpoint, signals: &Signals) -> Result<Work> {
    let mut driver = Driver::connect(plan, endpoint, Instant::now())?;
    driver.share_cpu(Duration::ZERO)?;
    if let Some(missing) = pass_barrier(&mut driver, plan)? {
        // Killed so early that nobody had got anything yet.
        ensure!(signals.is_killed(), "{missing}");
        return Ok(Work::default());
    }
    driver.set_load(Load::Open(Pacer::new(driver.now_ns(), rate)));
    while !signals.is_stopped() && driver.breaches().is_empty() {
        driver.turn_until(driver.now_ns() + nanoseconds(PERIOD), |_| false)?;
    }
    driver.set_load(Load::Quiet);
    let patience = if signals.is_killed() {
        PERIOD
    } else {
        PATIENCE
    };
    driver.turn_until(driver.now_ns() + nanoseconds(patience), Driver::is_drained)?;
    let breaches = driver.breaches().iter().filter(|_| !signals.is_killed());
    Ok(Work {
        ledger: driver.ledger(),
        faults: driver.finish(),
        arrived_faults: driver.finish_arrived(),
        sessions: (plan.publishers + plan.subscribers) as u64,
        failures: breaches.cloned().collect(),
        ..Work::default()
    })
}

/// Sessions that come, subscribe, publish and go, in order.
pub fn churn(endpoint: &Endpoint, signals: &Signals, mut dice: Dice) -> Result<Work> {
    let mut work = Work::default();
    let mut visitors = VecDeque::new();
    while !signals.is_stopped() {
        visitors.push_back(visit(endpoint, &mut dice, &mut work)?);
        if visitors.len() > VISITORS {
            let oldest = visitors.pop_front().context("there are several")?;
            leave(&oldest, endpoint.dialect, &mut dice, &mut work)?;
        }
        std::thread::sleep(PERIOD);
    }
    for visitor in &visitors {
        leave(visitor, endpoint.dialect, &mut dice, &mut work)?;
    }
    Ok(work)
}

fn visit(endpoint: &Endpoint, dice: &mut Dice, work: &mut Work) -> Result<Socket> {
    let socket = open(endpoint)?;
    let mut topic = || CHURN_TOPIC + dice.below(CHURN_TOPICS);
    let mut topics = [topic(), topic(), topic()];
    topics.sort_unstable();
    let dialect = endpoint.dialect;
    let mut bytes = dialect.greeting();
    bytes.extend(dialect.subscribe(topics.into_iter()));
    let count = dice.below(20);
    for _ in 0..count {
        let topic = CHURN_TOPIC + dice.below(CHURN_TOPICS);
        bytes.extend(dialect.publish(topic, 1 + dice.below(200)).bytes);
    }
    (&socket).write_all(&bytes)?;
    work.sessions += 1;
    work.ledger.published += count as u64;
    Ok(socket)
}

/// Says goodbye in one of two ways, and reads what there is until the broker has closed too.
fn leave(socket: &Socket, dialect: Dialect, dice: &mut Dice, work: &mut Work) -> Result<()> {
    if dice.below(2) == 0 {
        // DISCONNECT.
        let mut writer = socket;
        writer.write_all(&[2, 0])?;
    }
    socket.shutdown(Shutdown::Write)?;
    let mut tally = Tally::new(dialect);
    let (mut reader, mut buffer) = (socket, [0; 16 << 10]);
    loop {
        match reader.read(&mut buffer).context("a visitor that leaves")? {
            0 => break,
            len => tally.take(&buffer[..len]),
        }
    }
    work.ledger.received += tally.messages;
    Ok(())
}

/// Sessions that end in the middle of a frame, by a reset.
pub fn resets(endpoint: &Endpoint, signals: &Signals, mut dice: Dice) -> Result<Work> {
    let mut work = Work::default();
    while !signals.is_stopped() {
        let socket = open(endpoint)?;
        let mut bytes = endpoint.dialect.greeting();
        let topics = (0..1 + dice.below(50)).map(|topic| RESET_TOPIC + topic);
        bytes.extend(endpoint.dialect.subscribe(topics));
        let frame = endpoint.dialect.publish(RESET_TOPIC, 100).bytes;
        bytes.extend_from_slice(&frame[..dice.below(frame.len())]);
        (&socket).write_all(&bytes)?;
        if dice.below(2) == 0 {
            // The broker has read it by then, or not.
            std::thread::sleep(PERIOD);
        }
        socket.set_linger(Some(Duration::ZERO))?;
        drop(socket);
        work.sessions += 1;
        std::thread::sleep(PERIOD);
    }
    Ok(work)
}

/// Sessions that send what no broker can accept.
pub fn bad_bytes(endpoint: &Endpoint, signals: &Signals, mut dice: Dice) -> Result<Work> {
    let mut work = Work::default();
    while !signals.is_stopped() {
        let socket = open(endpoint)?;
        let greeting = endpoint.dialect.greeting();
        let bytes = match dice.below(5) {
            // Before CONNECT, in another protocol.
            0 => b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            // No id and no length has its highest bit clear, so none of these is a packet.
            1 => (0..dice.below(2000)).map(|_| dice.high_byte()).collect(),
            2 => {
                let noise = (0..dice.below(2000)).map(|_| dice.high_byte());
                greeting.into_iter().chain(noise).collect()
            }
            // An empty PUBLISH, a topic longer than its frame, a topic that is no UTF-8.
            3 => [
                &greeting[..],
                &b"\x05\x00\x05\x02\x09x\x05\x03\x02\xFF\xFE".repeat(50),
            ]
            .concat(),
            // Topics that do not fit into their SUBSCRIBE.
            _ => [&greeting[..], b"\x03\x02\xFFa"].concat(),
        };
        // The broker may have hung up in the middle of it.
        let _ = (&socket).write_all(&bytes);
        work.sessions += 1;
        std::thread::sleep(PERIOD);
    }
    Ok(work)
}

/// A connection that waits, but not for ever.
fn open(endpoint: &Endpoint) -> Result<Socket> {
    let socket = connect(&endpoint.address).context("the broker takes no connection")?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}
