//! Connections that come and go by the ten thousand: closed at once, or reset with subscriptions.

use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::Socket;

use super::source::source;
use super::work::{Signals, Work};
use crate::pace::Pacer;
use crate::target::{Endpoint, connect_with};

/// First topic of those who are reset, and how many topics they share.
const RESET_TOPIC: usize = 0x3000;
const RESET_TOPICS: usize = 500;
/// Topics of each.
const SUBSCRIPTIONS: usize = 5;
/// So many more connect before one is reset: most of its subscriptions have been read by then.
const STANDING: usize = 200;

/// Opens `rate` connections a second for `time`, each closed at once, by a reset: an orderly close
/// would hold its port for a minute.
pub fn flood(rate: u64, time: Duration, endpoint: &Endpoint, signals: &Signals) -> Result<Work> {
    let began = Instant::now();
    let mut pacer = Pacer::new(0, rate);
    let mut work = Work::default();
    loop {
        let due = Duration::from_nanos(pacer.take());
        if due >= time || signals.is_stopped() {
            work.lasted = Some(began.elapsed());
            return Ok(work);
        }
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        reset(&open(endpoint, &mut work)?)?;
    }
}

/// Opens `count` connections that subscribe, and resets each a little later.
pub fn subscribe_and_reset(count: u64, endpoint: &Endpoint, signals: &Signals) -> Result<Work> {
    let began = Instant::now();
    let mut work = Work::default();
    let mut standing = VecDeque::new();
    while work.sessions < count && !signals.is_stopped() {
        let number = usize::try_from(work.sessions)?;
        let socket = open(endpoint, &mut work)?;
        let mut hello = endpoint.dialect.greeting();
        let topics = (number..number + SUBSCRIPTIONS).map(|one| RESET_TOPIC + one % RESET_TOPICS);
        hello.extend(endpoint.dialect.subscribe(topics));
        (&socket).write_all(&hello)?;
        standing.push_back(socket);
        if standing.len() > STANDING {
            let oldest = standing.pop_front().context("there are several")?;
            reset(&oldest)?;
        }
    }
    for socket in &standing {
        reset(socket)?;
    }
    work.lasted = Some(began.elapsed());
    Ok(work)
}

fn open(endpoint: &Endpoint, work: &mut Work) -> Result<Socket> {
    let number = usize::try_from(work.sessions)?;
    let socket = connect_with(&endpoint.address, |socket| socket.bind(&source(number)));
    let socket = socket.with_context(|| format!("connection {number}"))?;
    socket.set_nonblocking(false)?;
    work.sessions += 1;
    Ok(socket)
}

/// It ends by a reset once it is dropped.
fn reset(socket: &Socket) -> Result<()> {
    Ok(socket.set_linger(Some(Duration::ZERO))?)
}
