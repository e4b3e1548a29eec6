//! The far end of a connection: what it writes, how it reads, how it leaves.

use std::collections::VecDeque;
use std::io::ErrorKind;

use crate::faults::{Fault, Faults};
use crate::guard;
use crate::ledger::Ledger;
use crate::network::Socket;
use crate::wire;

/// How it reads what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    All,
    /// A few bytes at a time.
    Trickle,
    Stopped,
}

impl Reading {
    fn draw(faults: &mut Faults) -> Self {
        if faults.hit(Fault::ReaderStops) {
            Self::Stopped
        } else if faults.hit(Fault::ReaderTrickles) {
            Self::Trickle
        } else {
            Self::All
        }
    }
}

#[derive(Debug)]
pub(crate) struct Peer {
    index: usize,
    pub(crate) socket: Socket,
    /// Written by the program behind it, not by its kernel yet.
    script: VecDeque<u8>,
    reading: Reading,
    /// How much it writes at a time.
    burst_max: usize,
    padding_max: usize,
    /// It has said all that it ever will.
    is_silent: bool,
    /// The broker has no session for it, and never will.
    pub(crate) is_refused: bool,
}

const TOPICS: [&str; 8] = [
    "",
    "a",
    "b",
    "ab",
    "topic/with/levels",
    "\u{FC}mlaut",
    "!denied",
    "a topic that is too long to be remembered by a shard that has no subscriber for it",
];

/// Filters, bad ones, and what looks like one to who may not use them.
const FILTERS: [&str; 12] = [
    "#",
    "+",
    "a/#",
    "+/#",
    "topic/+/levels",
    "topic/#",
    "+/with/+",
    "churn/+",
    "!denied/+",
    "a+",
    "#/levels",
    "topic/wi#th",
];

/// Beyond this a peer's kernel takes nothing more.
const UNDER_WAY_MAX: usize = 16 * 1024;

impl Peer {
    pub(crate) fn new(index: usize, frames_max: usize, faults: &mut Faults) -> Self {
        let room = faults.pick(&[64, 300, 2_000, 20_000]);
        let mut peer = Self {
            index,
            socket: Socket::new(room),
            script: VecDeque::new(),
            reading: Reading::draw(faults),
            burst_max: faults.pick(&[2, 10, 60]).min(frames_max),
            padding_max: faults.pick(&[1, 30, 170]),
            is_silent: false,
            is_refused: false,
        };
        if !faults.one_in(30) {
            peer.script.extend(connect(faults));
            peer.script.extend(wire::subscribe(&wanted(faults)));
            peer.script.extend(wire::subscribe(&wanted(faults)));
        }
        peer
    }

    /// Whether it can still do something.
    pub(crate) const fn is_alive(&self) -> bool {
        !self.socket.is_over() && !self.is_refused
    }

    /// Does one thing, drawn by the dice; says which.
    pub(crate) fn act(&mut self, faults: &mut Faults, ledger: &mut Ledger) -> &'static str {
        match faults.below(40) {
            0..=15 => self.write(faults, ledger),
            16..=25 => self.send(faults),
            26..=35 => self.read(faults),
            36..=37 => self.change_pace(faults),
            _ => self.leave(faults),
        }
    }

    /// Writes a few frames, and sends some of it.
    fn write(&mut self, faults: &mut Faults, ledger: &mut Ledger) -> &'static str {
        let is_full = self.script.len() + self.socket.under_way_len() > UNDER_WAY_MAX;
        if self.is_silent || self.socket.has_ended() || is_full {
            return "stays silent";
        }
        let padding = faults.below(self.padding_max);
        let same = topic(faults);
        for _ in 0..=faults.below(self.burst_max) {
            // Mostly as the one before: that is what runs are made of.
            let frame = match faults.below(20) {
                0 => self.frame(faults, ledger),
                1 => ledger.draft(self.index, &topic(faults), padding),
                _ => ledger.draft(self.index, &same, padding),
            };
            self.script.extend(frame);
        }
        self.send(faults);
        "writes"
    }

    /// Any number of bytes of what it has written go on their way.
    fn send(&mut self, faults: &mut Faults) -> &'static str {
        if self.socket.has_ended() || self.is_silent {
            return "has nothing to send";
        }
        let mut len = self.script.len();
        if len > 0 && faults.one_in(2) {
            len = faults.below(len);
        }
        self.socket.write(self.script.drain(..len));
        self.socket.arrive(faults);
        "sends"
    }

    fn read(&mut self, faults: &mut Faults) -> &'static str {
        let len = match self.reading {
            Reading::All => usize::MAX,
            Reading::Trickle => 1 + faults.below(40),
            Reading::Stopped => return "does not read",
        };
        self.socket.read(len);
        "reads"
    }

    fn change_pace(&mut self, faults: &mut Faults) -> &'static str {
        self.reading = Reading::draw(faults);
        "changes its pace"
    }

    fn leave(&mut self, faults: &mut Faults) -> &'static str {
        if faults.hit(Fault::PeerResets) {
            self.socket.reset(ErrorKind::ConnectionReset);
            "resets"
        } else if faults.hit(Fault::PeerEnds) && !self.socket.has_ended() {
            self.socket.end();
            self.socket.arrive(faults);
            "ends its stream"
        } else if faults.hit(Fault::PeerStopsMidFrame) && !self.is_silent {
            if !self.socket.has_ended() && self.script.len() > 1 {
                self.socket.write(self.script.drain(..1));
            }
            self.is_silent = true;
            "stops in the middle of a frame"
        } else {
            "stays"
        }
    }

    /// Everything that it can still send and read.
    pub(crate) fn settle(&mut self, faults: &mut Faults) {
        self.socket.arrive(faults);
        self.socket.read(usize::MAX);
    }

    /// It leaves in one of the ways that a peer may.
    pub(crate) fn part(&mut self, faults: &mut Faults) {
        match faults.below(3) {
            0 => self.socket.reset(ErrorKind::ConnectionReset),
            1 if self.script.is_empty() && !self.socket.has_ended() => {
                self.socket.write(wire::DISCONNECT);
                self.socket.end();
            }
            _ => self.socket.end(),
        }
        self.socket.arrive(faults);
    }

    fn frame(&self, faults: &mut Faults, ledger: &mut Ledger) -> Vec<u8> {
        match faults.below(24) {
            0 if faults.one_in(2) => connect(faults),
            0 => wire::frame(1, &[guard::LATER][..faults.below(2)]),
            1 if faults.one_in(3) => [&wire::DISCONNECT[..], b"\x01\x00"].concat(),
            2..=8 => wire::subscribe(&wanted(faults)),
            9 => wire::PING.to_vec(),
            10..=14 => wire::unsubscribe(&wanted(faults)),
            15..=17 => malformed(faults),
            _ => ledger.draft(self.index, &topic(faults), 0),
        }
    }
}

/// A CONNECT; one in three asks for extensions, and some of these make no sense.
fn connect(faults: &mut Faults) -> Vec<u8> {
    let choice = match faults.below(40) {
        0 => &[guard::UNAUTHORISED][..],
        1 => &[guard::BEYOND_LIMIT],
        2..=9 => &[guard::LATER],
        _ => b"",
    };
    if !faults.one_in(3) {
        return wire::frame(1, choice);
    }
    let keepalive = faults.pick(&[0, 0, 0, 1, 5, 20]);
    let mut hello = wire::hello(faults.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 7, 0xFF]), keepalive);
    if let [user] = choice {
        hello.extend([1, *user]);
    }
    if faults.one_in(12) {
        // Cut, or with more behind it than it says.
        match faults.one_in(2) {
            true => hello.truncate(5 + faults.below(2)),
            false => hello.push(9),
        }
    }
    let (_, payload) = hello.split_at(2);
    wire::frame(1, payload)
}

/// A few topics and filters, of those that everybody uses and of many more.
fn wanted(faults: &mut Faults) -> Vec<String> {
    let mut wanted = Vec::new();
    for _ in 0..faults.below(4) {
        wanted.push(match faults.one_in(5) {
            true => faults.pick(&FILTERS).to_owned(),
            false => topic(faults),
        });
    }
    wanted
}

fn topic(faults: &mut Faults) -> String {
    match faults.below(12) {
        0 if faults.one_in(4) => faults.pick(&FILTERS).to_owned(),
        0 => format!("churn/{}", faults.below(30)),
        1..=5 => faults.pick(&TOPICS[..3]).to_owned(),
        _ => faults.pick(&TOPICS).to_owned(),
    }
}

fn malformed(faults: &mut Faults) -> Vec<u8> {
    match faults.below(6) {
        0 => wire::frame(5, &[]),
        1 => wire::frame(5, &[200, b'a']),
        2 => wire::publish(b"\xFF", b"data"),
        3 => wire::subscribe(&[&b"a"[..], b"\xC0\x80"]),
        4 => wire::frame(4, &[3, b'a']),
        _ => wire::frame(faults.pick(&[0, 6, 255]), b"?"),
    }
}
