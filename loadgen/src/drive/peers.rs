//! Both ends of the load: what happens on each socket, whoever waited for it.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use mio::event::Event;
use socket2::Socket;

use super::publisher::Outgoing;
use super::subscriber::{Aside, Inbound, Sink};
use super::{Load, Totals};
use crate::latency::Latency;
use crate::pace::Pacer;
use crate::stamp::Stamp;
use crate::target::{Delivery, Dialect};
use crate::workload::Plan;

/// One read takes as much as the target is likely to have sent in one go.
const READ_LEN_MAX: usize = 256 * 1024;
/// One write hands over as much as the target is likely to read in one go.
const WRITE_LEN_MAX: usize = 256 * 1024;
/// The same for a loop that others wait for: a system call keeps its CPU until it is done.
const SHORT_LEN_MAX: usize = 16 * 1024;
/// Bytes that an open loop keeps for a target that does not read. Above, ticks are not attempted.
const UNWRITTEN_LEN_MAX: usize = 64 << 20;

/// Everything but the poll, so that its events can be borrowed meanwhile.
#[derive(Debug)]
pub struct Peers {
    epoch: Instant,
    dialect: Dialect,
    pub subscribers: Vec<Receiver>,
    pub publishers: Vec<Sender>,
    /// Deliveries that each publisher waits for.
    pub outstanding: Vec<u64>,
    buffer: Box<[u8]>,
    write_len_max: usize,
    pub load: Load,
    pub latency: Option<Latency>,
    pub totals: Totals,
    /// What the target did that ends the run, in words.
    pub breaches: Vec<String>,
}

/// One subscriber.
#[derive(Debug)]
pub struct Receiver {
    pub socket: Option<Socket>,
    pub inbound: Inbound,
    /// The beginning of a frame whose end has not arrived.
    pub remainder: Vec<u8>,
}

/// One publisher.
#[derive(Debug)]
pub struct Sender {
    pub socket: Option<Socket>,
    pub outgoing: Outgoing,
    /// The socket was full and has not said otherwise.
    pub blocked: bool,
    /// The beginning of an answer whose end has not arrived.
    pub remainder: Vec<u8>,
}

impl Peers {
    /// Room for the connections of `plan`.
    pub fn new(plan: &Plan, dialect: Dialect, epoch: Instant) -> Self {
        Self {
            epoch,
            dialect,
            subscribers: Vec::with_capacity(plan.subscribers),
            publishers: Vec::with_capacity(plan.publishers),
            outstanding: vec![0; plan.publishers],
            buffer: vec![0; READ_LEN_MAX].into(),
            write_len_max: WRITE_LEN_MAX,
            load: Load::Quiet,
            latency: None,
            totals: Totals::default(),
            breaches: Vec::new(),
        }
    }

    /// Makes all reads and writes short ones.
    pub fn shorten(&mut self) {
        self.buffer = vec![0; SHORT_LEN_MAX].into();
        self.write_len_max = SHORT_LEN_MAX;
    }

    /// The run's clock.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// One event of one socket.
    pub fn serve(&mut self, event: &Event) {
        let index = event.token().0;
        if index < self.subscribers.len() {
            if event.is_readable() {
                self.read(index, event.is_read_closed());
            }
        } else {
            let publisher = index - self.subscribers.len();
            let sender = &mut self.publishers[publisher];
            if event.is_writable() {
                sender.blocked = false;
                sender.flush();
            }
            if self.dialect.answers_publishers() {
                if event.is_readable() || event.is_read_closed() {
                    self.read_answers(publisher);
                }
            } else if event.is_read_closed() && sender.socket.take().is_some() {
                self.hung_up(&format!("publisher {publisher}"));
            }
        }
    }

    /// Reads and drops what the target has to say to one publisher.
    fn read_answers(&mut self, publisher: usize) {
        let who = || format!("publisher {publisher}");
        let sender = &mut self.publishers[publisher];
        while let Some(socket) = &sender.socket {
            let kept = sender.remainder.len();
            self.buffer[..kept].copy_from_slice(&sender.remainder);
            let len = match (&*socket).read(&mut self.buffer[kept..]) {
                Ok(len @ 1..) => kept + len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => {
                    sender.socket = None;
                    return self.hung_up(&who());
                }
            };
            let mut rest = &self.buffer[..len];
            while let Some((answer, len)) = self.dialect.split(rest) {
                match answer {
                    Delivery::Answer => {}
                    // Between two frames: what the socket refused stays in front.
                    Delivery::Ping => sender.outgoing.push_control(self.dialect.pong()),
                    Delivery::Complaint(text) => self.breaches.push(complaint(&who(), text)),
                    Delivery::Message { .. } | Delivery::Other => self
                        .breaches
                        .push(format!("the target sent {} what it did not ask for", who())),
                }
                rest = &rest[len..];
            }
            sender.remainder.clear();
            sender.remainder.extend_from_slice(rest);
            sender.flush();
        }
    }

    fn hung_up(&mut self, who: &str) {
        self.breaches.push(format!("the target hung up on {who}"));
    }

    /// Reads one subscriber until it has nothing more.
    fn read(&mut self, index: usize, ending: bool) {
        loop {
            let peer = &mut self.subscribers[index];
            let Some(socket) = &peer.socket else { return };
            let kept = peer.remainder.len();
            self.buffer[..kept].copy_from_slice(&peer.remainder);
            let room = &mut self.buffer[kept..];
            let room_len = room.len();
            let read = match (&*socket).read(room) {
                Ok(0) => Err(()),
                Ok(len) => Ok(len),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => Err(()),
            };
            let Ok(len) = read else {
                peer.socket = None;
                return self.hung_up(&format!("subscriber {index}"));
            };
            let now_ns = self.now_ns();
            self.receive(index, kept + len, now_ns);
            self.offer(index, now_ns);
            if len < room_len && !ending {
                // A short read has emptied the socket; what comes next is a new event. Only the
                // end of the stream may have come with the last bytes.
                return;
            }
        }
    }

    fn receive(&mut self, index: usize, len: usize, now_ns: u64) {
        let Self {
            subscribers,
            buffer,
            outstanding,
            latency,
            totals,
            ..
        } = self;
        let peer = &mut subscribers[index];
        let latency = latency.as_mut();
        let mut account = Account {
            subscriber: index,
            now_ns,
            outstanding,
            latency,
            totals,
        };
        let taken = peer.inbound.receive(&buffer[..len], now_ns, &mut account);
        peer.remainder.clear();
        peer.remainder.extend_from_slice(&buffer[taken..len]);
        if let Some(aside) = peer.inbound.take_aside() {
            self.answer(index, aside);
        }
    }

    /// What a target said to a subscriber beside messages.
    #[cold]
    fn answer(&mut self, index: usize, aside: Aside) {
        let pong = self.dialect.pong().repeat(aside.pings);
        // A subscriber sends nothing else, so that its socket always has room.
        if let Some(mut socket) = self.subscribers[index].socket.as_ref()
            && !socket
                .write(&pong)
                .is_ok_and(|written| written == pong.len())
        {
            self.breaches
                .push(format!("the target does not read from subscriber {index}"));
        }
        let complaints = aside.complaints.iter();
        self.breaches
            .extend(complaints.map(|text| complaint(&format!("subscriber {index}"), text)));
    }

    /// After each read: whoever was waiting for it sends at once, and no tick waits for the rest.
    fn offer(&mut self, subscriber: usize, now_ns: u64) {
        match self.load {
            Load::Quiet => {}
            Load::Closed { .. } => {
                let publisher = self.subscribers[subscriber].inbound.current_publisher();
                self.refill(usize::from(publisher), now_ns);
            }
            Load::Open(pacer) if pacer.next_due_ns() <= now_ns => self.keep_schedule(pacer),
            Load::Open(_) => {}
        }
    }

    /// Once a turn: whatever the load asks for by now.
    pub fn offer_all(&mut self) {
        match self.load {
            Load::Quiet => {}
            Load::Closed { .. } => {
                let now_ns = self.now_ns();
                (0..self.publishers.len()).for_each(|publisher| self.refill(publisher, now_ns));
            }
            Load::Open(pacer) => self.keep_schedule(pacer),
        }
    }

    /// Fills a publisher's window up again once an eighth of it has arrived: few, large writes, and
    /// most of the window is with the broker. With half of it, two halves could follow each other
    /// for good, so that a broker never met more than one of them.
    fn refill(&mut self, publisher: usize, now_ns: u64) {
        let Load::Closed {
            window,
            ref mut remaining,
        } = self.load
        else {
            return;
        };
        let sender = &mut self.publishers[publisher];
        let outstanding = &mut self.outstanding[publisher];
        if *outstanding > window - window / 8 {
            return;
        }
        while !sender.blocked && *remaining > 0 && sender.socket.is_some() {
            while sender.outgoing.unwritten().len() < self.write_len_max && *remaining > 0 {
                let fan_out = sender.outgoing.next_fan_out();
                // A window smaller than one message's fan-out still lets one message through.
                if *outstanding > 0 && *outstanding + fan_out > window {
                    break;
                }
                sender.outgoing.push(now_ns, 0);
                *outstanding += fan_out;
                *remaining -= 1;
                self.totals.sent += 1;
            }
            if sender.outgoing.unwritten().is_empty() {
                return;
            }
            sender.flush();
        }
    }

    /// Sends every message that is due, each publisher's in one write.
    fn keep_schedule(&mut self, mut pacer: Pacer) {
        let now_ns = self.now_ns();
        let publishers = self.publishers.len() as u64;
        while pacer.next_due_ns() <= now_ns {
            let tick = pacer.next();
            let publisher = usize::try_from(tick % publishers).expect("an index");
            let sender = &mut self.publishers[publisher];
            if sender.outgoing.unwritten().len() > UNWRITTEN_LEN_MAX {
                break;
            }
            let due_ns = pacer.take();
            let lag_ns = now_ns - due_ns;
            self.outstanding[publisher] += sender.outgoing.next_fan_out();
            sender
                .outgoing
                .push(due_ns, u32::try_from(lag_ns).unwrap_or(u32::MAX));
            self.totals.sent += 1;
            if let Some(latency) = &mut self.latency {
                latency.attempted(due_ns, lag_ns);
            }
        }
        self.load = Load::Open(pacer);
        self.publishers.iter_mut().for_each(Sender::flush);
    }
}

fn complaint(who: &str, text: &[u8]) -> String {
    format!("the target told {who}: {}", text.escape_ascii())
}

impl Sender {
    /// Writes until everything is gone or the socket is full.
    pub fn flush(&mut self) {
        let Some(mut socket) = self.socket.as_ref() else {
            return;
        };
        while !self.blocked && !self.outgoing.unwritten().is_empty() {
            match socket.write(self.outgoing.unwritten()) {
                Ok(written) => self.outgoing.advance(written),
                // An error of the connection is an event of its own.
                Err(_) => self.blocked = true,
            }
        }
    }
}

/// Where one read's messages are accounted for.
struct Account<'a> {
    subscriber: usize,
    now_ns: u64,
    outstanding: &'a mut [u64],
    latency: Option<&'a mut Latency>,
    totals: &'a mut Totals,
}

impl Sink for Account<'_> {
    fn arrived(&mut self, publisher: u16, count: usize) {
        let outstanding = &mut self.outstanding[usize::from(publisher)];
        // A repeated message may come when none is outstanding.
        *outstanding = outstanding.saturating_sub(count as u64);
        self.totals.delivered += count as u64;
    }

    fn is_timed(&self) -> bool {
        self.latency.is_some()
    }

    fn stamped(&mut self, stamp: &Stamp) {
        if let Some(latency) = &mut self.latency {
            latency.delivered(self.subscriber, stamp, self.now_ns);
        }
    }
}
