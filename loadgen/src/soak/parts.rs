//! The parts of the load, each a thread: checked flows, the canary, and those who misbehave.
//!
//! Each part has topics of its own. Whoever is reset by itself never publishes and is never
//! published to, so that the ledgers stay exact; only stalled readers take something with them.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use hvlp::client::{Client, Reconnect};
use socket2::Socket;

use super::dice::Dice;
use super::work::{Signals, Work};
use crate::drive::{Driver, Load};
use crate::pace::Pacer;
use crate::run::pass_barrier;
use crate::stalled::{End, Stalled, Tally, read_to_end};
use crate::target::{Dialect, Endpoint, connect};
use crate::workload::Plan;

/// First topics of the parts; the flows have those below.
pub const FANOUT_TOPIC: usize = 0x1000;
const CHURN_TOPIC: usize = 0x2000;
const CHURN_TOPICS: usize = 200;
const RESET_TOPIC: usize = 0x3000;
const NOISE_TOPIC: usize = 0x4000;

/// How long anything may take that should be at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// From one canary message, visit or fault to the next.
const PERIOD: Duration = Duration::from_millis(10);

/// Visitors that are there at a time.
const VISITORS: usize = 20;
const STALLED: usize = 5;
/// Messages of the noise in a period: within seconds a stalled reader is owed all that it may be.
const NOISE: usize = 20;
const NOISE_PAYLOAD_LEN: usize = 200;

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

/// A pair of reconnecting clients, one message every [`PERIOD`].
pub fn canary(endpoint: &Endpoint, signals: &Signals) -> Result<Work> {
    let client = || {
        Client::builder()
            .address(endpoint.address.to_string().as_str())?
            .reconnect(Reconnect {
                first: Duration::from_millis(5),
                max: Duration::from_millis(20),
                attempts_max: None,
            })
            .write_timeout(PATIENCE)
            .connect()
    };
    let (mut subscriber, mut publisher) = (client()?, client()?);
    subscriber.subscribe(["canary"])?;
    let mut work = Work {
        sessions: 2,
        ..Work::default()
    };
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    // A subscription takes effect when the broker has read it: messages until one comes are probes.
    let (mut sent, mut expected) = (0_u64, None);
    let mut due = Instant::now();
    while !signals.is_stopped() {
        let stamp = [sent.to_le_bytes(), signals.now_ns().to_le_bytes()].concat();
        publisher.publish("canary", &stamp)?;
        sent += 1;
        due = (due + PERIOD).max(Instant::now());
        while let Some(message) =
            subscriber.receive(due.saturating_duration_since(Instant::now()))?
        {
            let (number, sent_ns) = read_stamp(message.data())?;
            histogram.saturating_record(signals.now_ns().saturating_sub(sent_ns));
            signals.served(sent_ns);
            take_number(&mut work, &mut expected, number, signals);
        }
    }
    publisher.disconnect()?;
    while let Some(message) = subscriber.receive(Duration::from_millis(300))? {
        let (number, _) = read_stamp(message.data())?;
        take_number(&mut work, &mut expected, number, signals);
    }
    subscriber.disconnect()?;
    work.faults.lost += sent - expected.unwrap_or_default();
    work.ledger.published = sent;
    work.canary = Some(histogram);
    Ok(work)
}

fn take_number(work: &mut Work, expected: &mut Option<u64>, number: u64, signals: &Signals) {
    work.ledger.received += 1;
    let next = expected.unwrap_or(number);
    match number.checked_sub(next) {
        Some(missing) => {
            work.faults.lost += missing;
            // Between the broker's two lives some may be missing in the middle.
            work.arrived_faults.lost += if signals.is_killed() { 0 } else { missing };
            *expected = Some(number + 1);
        }
        None => {
            work.faults.duplicate += 1;
            work.arrived_faults.duplicate += 1;
        }
    }
}

fn read_stamp(data: &[u8]) -> Result<(u64, u64)> {
    ensure!(data.len() == 16, "the canary got what it had not sent");
    let (number, sent_ns) = data.split_at(8);
    Ok((
        u64::from_le_bytes(number.try_into()?),
        u64::from_le_bytes(sent_ns.try_into()?),
    ))
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

/// Readers that stall, and what they do not read. Whom the broker closes has a successor.
pub fn stalled_readers(endpoint: &Endpoint, signals: &Signals) -> Result<Work> {
    let dialect = endpoint.dialect;
    let publisher = open(endpoint)?;
    (&publisher).write_all(&dialect.greeting())?;
    let noise = dialect.publish(NOISE_TOPIC, NOISE_PAYLOAD_LEN).bytes;
    let noise = noise.repeat(NOISE);
    let mut work = Work {
        sessions: 1,
        ..Work::default()
    };
    let open = |published: u64| {
        let reader = Stalled::connect(endpoint, std::iter::once(NOISE_TOPIC))?;
        Ok::<_, anyhow::Error>((reader, published))
    };
    let readers = (0..STALLED).map(|_| open(0));
    let mut readers = readers.collect::<Result<Vec<_>>>()?;
    work.sessions += STALLED as u64;
    while !signals.is_stopped() {
        (&publisher).write_all(&noise)?;
        work.ledger.published += NOISE as u64;
        for reader in &mut readers {
            if reader.0.is_reset()? {
                let successor = open(work.ledger.published)?;
                settle(vec![std::mem::replace(reader, successor)], &mut work)?;
                work.sessions += 1;
            }
        }
        std::thread::sleep(PERIOD);
    }
    // Once it has closed too, all of the noise has been matched.
    publisher.shutdown(Shutdown::Write)?;
    let len = (&publisher).read(&mut [0; 16])?;
    ensure!(len == 0, "the publisher of noise heard something");
    settle(readers, &mut work)?;
    Ok(work)
}

/// Reads them to their end; each came with what had been published before it.
fn settle(readers: Vec<(Stalled, u64)>, work: &mut Work) -> Result<()> {
    let (mut readers, before): (Vec<_>, Vec<_>) = readers.into_iter().unzip();
    read_to_end(&mut readers)?;
    for (reader, before) in readers.iter().zip(before) {
        work.ledger.received += reader.received();
        work.ledger.cut_max += reader.cut_max(work.ledger.published - before);
        work.stalled_closed += u64::from(reader.end == Some(End::Closed));
    }
    Ok(())
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
