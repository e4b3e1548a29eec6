//! Readers that do not keep up, under a policy, beside healthy ones that must lose nothing.
//!
//! Under `pause` a slow reader holds whoever publishes to it, so the healthy ones have a topic and
//! a publisher of their own there; under all others they share both with the crowd.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::Socket;

use super::work::{Signals, Work};
use crate::drive::{Driver, Load};
use crate::run::pass_barrier;
use crate::stalled::{End, Stalled, read_to_end};
use crate::target::{Endpoint, connect};
use crate::workload::{Plan, TOPIC_LEN, Workload};

/// What a listener does with slow consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `disconnect`
    Disconnect,
    /// `drop_newest`
    DropNewest,
    /// `drop_oldest`
    DropOldest,
    /// `conflate`
    Conflate,
    /// `pause`
    Pause,
}

/// How large a crowd, beside how many, and how much it is offered.
#[derive(Clone, Copy, Debug)]
pub struct Siege {
    /// The listener's policy.
    pub policy: Policy,
    /// Who reads everything, checked.
    pub healthy: usize,
    /// Who reads nothing.
    pub stalled: usize,
    /// Who reads less than comes.
    pub slow: usize,
    /// Messages that are offered at once,
    pub burst: u64,
    /// from one time to the next.
    pub period: Duration,
    /// Messages after which it is over; without, it goes on until it is told to stop.
    pub messages: Option<u64>,
}

/// First of the topics, two for each policy.
const TOPIC: usize = 0x4000;
const PAYLOAD_LEN: usize = 200;
/// Header, topic and payload of a message.
pub const FRAME_LEN: u64 = (2 + 1 + TOPIC_LEN + PAYLOAD_LEN) as u64;
/// Messages that a healthy one may be behind: what a kernel buffers. It would be no healthy one if
/// this generator were too slow to read for it.
const BEHIND_MAX: u64 = 250;
/// Of connections that the broker hung up on, how many are named.
const NAMED_MAX: usize = 3;
/// What a slow one reads in each period.
const SLOW_READ_LEN: usize = 512;
/// What is read of each when all are to be read to their end.
const READ_LEN: usize = 64 << 10;
/// How long anything may take that should be at once; who is held by a pause is let go within.
const PATIENCE: Duration = Duration::from_secs(30);

impl Policy {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Disconnect,
        Self::DropNewest,
        Self::DropOldest,
        Self::Conflate,
        Self::Pause,
    ];

    /// As the setting has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::DropNewest => "drop_newest",
            Self::DropOldest => "drop_oldest",
            Self::Conflate => "conflate",
            Self::Pause => "pause",
        }
    }

    /// How what it drops is counted.
    pub const fn drops(self) -> &'static [&'static str] {
        match self {
            Self::Disconnect => &["slow_close", "evicted"],
            Self::DropNewest => &["queue_full"],
            Self::DropOldest => &["displaced"],
            Self::Conflate => &["conflated"],
            // Of those who have held their publisher for too long.
            Self::Pause => &["slow_close"],
        }
    }

    /// What the healthy ones hear, and what the crowd does not read.
    const fn topics(self) -> (usize, usize) {
        let first = TOPIC + 2 * self as usize;
        match self {
            Self::Pause => (first, first + 1),
            _ => (first, first),
        }
    }
}

impl Siege {
    fn is_over(&self, driver: &Driver, signals: &Signals) -> bool {
        let published = driver.ledger().published;
        signals.is_stopped()
            || self.messages.is_some_and(|messages| published >= messages)
            || !driver.breaches().is_empty()
    }
}

/// Publishes to the healthy and to the crowd until it is over; then everybody is read to the end.
pub fn besiege(siege: &Siege, endpoint: &Endpoint, signals: &Signals) -> Result<Work> {
    let began = Instant::now();
    let (own, shared) = siege.policy.topics();
    let plan = Plan {
        subscribers: siege.healthy,
        topics_from: own,
        payload_len: PAYLOAD_LEN,
        ..Workload::Fanout.plan()
    };
    let mut driver = Driver::connect(&plan, endpoint, Instant::now())?;
    if let Some(missing) = pass_barrier(&mut driver, &plan)? {
        anyhow::bail!("{missing}");
    }
    let mut noise = match own == shared {
        true => None,
        false => Some(Noise::connect(endpoint, shared)?),
    };
    let mut crowd = Crowd::connect(endpoint, shared, siege, driver.ledger().published)?;
    while !siege.is_over(&driver, signals) {
        driver.set_load(Load::Closed {
            window: BEHIND_MAX * siege.healthy as u64,
            remaining: siege.burst,
        });
        driver.turn_until(driver.now_ns() + nanoseconds(siege.period), |_| false)?;
        let published = match &mut noise {
            Some(noise) => noise.offer(siege.burst)?,
            None => driver.ledger().published,
        };
        crowd.tend(published)?;
    }
    let lasted = began.elapsed();
    driver.set_load(Load::Quiet);
    driver.turn_until(driver.now_ns() + nanoseconds(PATIENCE), Driver::is_drained)?;
    let mut work = Work {
        ledger: driver.ledger(),
        faults: driver.finish(),
        arrived_faults: driver.finish_arrived(),
        sessions: 1 + siege.healthy as u64,
        healthy_received: driver.ledger().received,
        lasted: Some(lasted),
        failures: driver.breaches().iter().take(NAMED_MAX).cloned().collect(),
        ..Work::default()
    };
    let published = match noise {
        Some(noise) => {
            work.sessions += 1;
            let published = noise.finish(&mut crowd)?;
            work.ledger.published += published;
            published
        }
        None => driver.ledger().published,
    };
    work.add(crowd.settle(published)?);
    Ok(work)
}

/// Readers of one topic.
struct Crowd<'a> {
    endpoint: &'a Endpoint,
    topic: usize,
    readers: Vec<Reader>,
    /// Of those who have been closed.
    work: Work,
}

struct Reader {
    stalled: Stalled,
    /// Published before it came.
    before: u64,
    is_slow: bool,
}

impl<'a> Crowd<'a> {
    fn connect(
        endpoint: &'a Endpoint,
        topic: usize,
        siege: &Siege,
        published: u64,
    ) -> Result<Self> {
        let mut crowd = Self {
            endpoint,
            topic,
            readers: Vec::with_capacity(siege.stalled + siege.slow),
            work: Work::default(),
        };
        for number in 0..siege.stalled + siege.slow {
            let reader = crowd.admit(number >= siege.stalled, published)?;
            crowd.readers.push(reader);
        }
        Ok(crowd)
    }

    fn admit(&mut self, is_slow: bool, before: u64) -> Result<Reader> {
        self.work.sessions += 1;
        Ok(Reader {
            stalled: Stalled::connect(self.endpoint, std::iter::once(self.topic))?,
            before,
            is_slow,
        })
    }

    /// Lets slow ones read a little; whom the broker has closed has a successor.
    fn tend(&mut self, published: u64) -> Result<()> {
        let mut buffer = [0; SLOW_READ_LEN];
        for number in 0..self.readers.len() {
            let reader = &mut self.readers[number];
            if reader.is_slow {
                reader.stalled.read(&mut buffer);
            }
            if reader.stalled.is_reset()? || reader.stalled.end.is_some() {
                let successor = self.admit(self.readers[number].is_slow, published)?;
                let gone = std::mem::replace(&mut self.readers[number], successor);
                self.dismiss(vec![gone], published)?;
            }
        }
        Ok(())
    }

    /// Reads what there is of all of them.
    fn read(&mut self, buffer: &mut [u8]) {
        for reader in &mut self.readers {
            reader.stalled.read(buffer);
        }
    }

    /// Reads all of them to their end.
    fn settle(mut self, published: u64) -> Result<Work> {
        let readers = std::mem::take(&mut self.readers);
        self.dismiss(readers, published)?;
        Ok(self.work)
    }

    fn dismiss(&mut self, readers: Vec<Reader>, published: u64) -> Result<()> {
        let split = |reader: Reader| (reader.stalled, reader.before);
        let (mut readers, before): (Vec<_>, Vec<_>) = readers.into_iter().map(split).unzip();
        read_to_end(&mut readers)?;
        for (reader, before) in readers.iter().zip(before) {
            self.work.ledger.received += reader.received();
            self.work.ledger.cut_max += reader.cut_max(published - before);
            self.work.stalled_closed += u64::from(reader.end == Some(End::Closed));
        }
        Ok(())
    }
}

/// Who publishes to the crowd alone, as far as it is let.
struct Noise {
    socket: Socket,
    frame: Vec<u8>,
    /// What the kernel has not taken yet: a frame that was begun is finished.
    owed: Vec<u8>,
    published: u64,
}

impl Noise {
    fn connect(endpoint: &Endpoint, topic: usize) -> Result<Self> {
        let socket = connect(&endpoint.address).context("the broker takes no connection")?;
        Ok(Self {
            socket,
            frame: endpoint.dialect.publish(topic, PAYLOAD_LEN).bytes,
            owed: endpoint.dialect.greeting(),
            published: 0,
        })
    }

    /// So many messages more, if the last ones have gone. Says how many there were in all.
    fn offer(&mut self, messages: u64) -> Result<u64> {
        if self.flush()? {
            self.owed = self.frame.repeat(usize::try_from(messages)?);
            self.published += messages;
            self.flush()?;
        }
        Ok(self.published)
    }

    fn flush(&mut self) -> Result<bool> {
        while !self.owed.is_empty() {
            match (&self.socket).write(&self.owed) {
                Ok(len) => drop(self.owed.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("the publisher of noise"),
            }
        }
        Ok(true)
    }

    /// Says goodbye, and reads the crowd until the broker has got all of it. Says how many messages
    /// there were.
    fn finish(mut self, crowd: &mut Crowd<'_>) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = vec![0; READ_LEN];
        let mut said_goodbye = false;
        loop {
            ensure!(
                Instant::now() < deadline,
                "the publisher of noise is held although everybody reads"
            );
            crowd.read(&mut buffer);
            if !said_goodbye && self.flush()? {
                self.socket.shutdown(Shutdown::Write)?;
                said_goodbye = true;
            }
            match (&self.socket).read(&mut buffer) {
                Ok(0) if said_goodbye => return Ok(self.published),
                Ok(0) => anyhow::bail!("the broker hung up on the publisher of noise"),
                Ok(_) => anyhow::bail!("the publisher of noise heard something"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("the publisher of noise"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}
