//! The canary: a pair on a topic of its own that must lose nothing, whatever happens beside it.
//!
//! One message every 10 ms with a sequence number, the time of sending and a CRC-32. Loss, order,
//! duplicates and integrity are asserted; latency never is.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hvlp::address::Address;

use super::{DEADLINE, wire};

pub(crate) struct Canary {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

const PERIOD: Duration = Duration::from_millis(10);
/// A canary that could not run proves nothing.
const MESSAGES_MIN: u64 = 5;
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Canary {
    /// Starts a pair; returns once the first message has passed from one end to the other.
    pub(crate) fn start(address: &Address) -> Self {
        let mut pair = Pair::open(address);
        pair.probe();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::spawn(move || pair.sing(&seen));
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends the pair: every message must have arrived once, in order, unaltered.
    pub(crate) fn finish(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("it is joined once");
        let sung = thread.join().expect("the canary is well");
        assert!(sung >= MESSAGES_MIN, "the canary sang {sung} times only");
    }
}

impl Drop for Canary {
    /// A test that failed for its own reason: the pair must not outlive it.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

struct Pair {
    topic: String,
    publisher: TcpStream,
    subscriber: TcpStream,
    received: Vec<u8>,
    start: Instant,
    next_sent: u64,
    next_due: u64,
}

impl Pair {
    fn open(address: &Address) -> Self {
        let Address::Tcp { host, port } = address else {
            panic!("a canary uses TCP");
        };
        let open = || {
            let mut socket = TcpStream::connect((host.as_str(), *port)).unwrap();
            socket.set_nodelay(true).unwrap();
            socket.set_write_timeout(Some(DEADLINE)).unwrap();
            socket.write_all(&wire::CONNECT).unwrap();
            socket
        };
        let topic = format!("canary/{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (publisher, mut subscriber) = (open(), open());
        subscriber.write_all(&wire::subscribe(&[&topic])).unwrap();
        Self {
            topic,
            publisher,
            subscriber,
            received: Vec::new(),
            start: Instant::now(),
            next_sent: 0,
            next_due: 0,
        }
    }

    /// A base client cannot see when its subscription is in force; so the first messages go out
    /// until one of them has come back, and the count begins with that one.
    fn probe(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while self.next_due == 0 {
            assert!(Instant::now() < deadline, "the canary is not heard at all");
            self.send();
            let heard = self.hear(PERIOD);
            if let Some(first) = heard.first() {
                self.next_due = *first;
                self.check(&heard);
            }
        }
    }

    fn sing(mut self, stop: &AtomicBool) -> u64 {
        let first = self.next_sent;
        while !stop.load(Ordering::SeqCst) || self.next_sent < first + MESSAGES_MIN {
            self.send();
            let until = Instant::now() + PERIOD;
            while Instant::now() < until {
                let heard = self.hear(until - Instant::now());
                self.check(&heard);
            }
        }
        let deadline = Instant::now() + DEADLINE;
        while self.next_due < self.next_sent {
            assert!(Instant::now() < deadline, "lost from {} on", self.next_due);
            let heard = self.hear(PERIOD);
            self.check(&heard);
        }
        self.next_sent - first
    }

    fn send(&mut self) {
        let mut message = self.next_sent.to_be_bytes().to_vec();
        let time = u64::try_from(self.start.elapsed().as_micros()).expect("a short test");
        message.extend_from_slice(&time.to_be_bytes());
        let crc = crc32fast::hash(&message);
        message.extend_from_slice(&crc.to_be_bytes());
        self.publisher
            .write_all(&wire::publish(&self.topic, message))
            .expect("the broker serves the canary's publisher");
        self.next_sent += 1;
    }

    fn check(&mut self, heard: &[u64]) {
        for number in heard {
            assert_eq!(*number, self.next_due, "lost, doubled or out of order");
            self.next_due += 1;
        }
    }

    /// The numbers of the messages that come within `patience`, unaltered.
    fn hear(&mut self, patience: Duration) -> Vec<u64> {
        let patience = patience.max(Duration::from_millis(1));
        self.subscriber.set_read_timeout(Some(patience)).unwrap();
        let mut room = [0; 4096];
        match self.subscriber.read(&mut room) {
            Ok(0) => panic!("the broker has closed the canary's subscriber"),
            Ok(len) => self.received.extend_from_slice(&room[..len]),
            Err(error) if is_patience(error.kind()) => return Vec::new(),
            Err(error) => panic!("the canary's subscriber: {error}"),
        }
        let mut numbers = Vec::new();
        let mut rest = &self.received[..];
        while let Some((frame, behind)) = wire::split(rest) {
            numbers.push(decode(&self.topic, frame));
            rest = behind;
        }
        self.received = rest.to_vec();
        numbers
    }
}

fn is_patience(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

fn decode(topic: &str, frame: &[u8]) -> u64 {
    let head = wire::publish(topic, []);
    assert_eq!(frame.len(), head.len() + 20, "a message of the canary");
    assert_eq!(frame[2..head.len()], head[2..], "the canary's own topic");
    let (message, crc) = frame[head.len()..].split_at(16);
    assert_eq!(crc32fast::hash(message).to_be_bytes(), crc, "not altered");
    u64::from_be_bytes(message[..8].try_into().expect("eight bytes"))
}
