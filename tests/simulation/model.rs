//! A naive broker: what the protocol says, frame by frame, without turns, arenas or queues.
//!
//! It is told what each shard has executed, in the order of execution, and what has happened to
//! sessions at moments that only the shard can choose. What everybody is owed follows from that,
//! and is kept in the ledger.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hvlp::config::Config;
use hvlp::deadline::Timestamp;
use hvlp::metrics::DropReason;
use hvlp::outbound::SlowConsumer;
use hvlp::session::{CloseReason, SessionKey, SessionState};

use crate::filters;
use crate::guard;
use crate::ledger::{Ledger, Wanted};
use crate::values::Values;
use crate::wire;

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It follows from what the peer, the network or the handler did.
    Known(CloseReason),
    /// The shard chose the moment; whether it might is judged when the reason is told.
    Seen(Moment),
}

/// In which part of a turn a shard was seen to close a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Flush,
    Expire,
    Drain,
}

/// One session, from its opening until its slot is given back.
#[derive(Debug)]
pub(crate) struct Session {
    number: u64,
    pub(crate) shard: usize,
    pub(crate) key: SessionKey,
    pub(crate) state: SessionState,
    pub(crate) ending: Option<Ending>,
    /// The shard has told its reason; it only waits for its connection to be closed.
    pub(crate) is_told: bool,
    /// Its socket takes nothing any more.
    pub(crate) is_broken: bool,
    pub(crate) topics: BTreeSet<String>,
    pub(crate) filters: BTreeSet<String>,
    /// What it has asked for beyond the base protocol.
    pub(crate) extended: Option<Extended>,
    /// What it has subscribed to last, of topics that are kept.
    fresh: Option<Fresh>,
    /// Received and not executed.
    pub(crate) input: VecDeque<u8>,
    /// All of it waits for an answer, or for the next turn.
    is_held: bool,
    /// It is not read, whatever it waits for.
    is_stopped: bool,
    discards: VecDeque<Timestamp>,
    pub(crate) connect_due: Option<Timestamp>,
    pub(crate) frame_due: Option<Timestamp>,
    /// It may have been closed because it takes no answers.
    is_deaf: bool,
    /// When its socket last took something of what is owed.
    pub(crate) stalled_since: Option<Timestamp>,
    /// When its backlog reached the bound at which it holds its publishers, and has not gone since.
    pub(crate) pausing_since: Option<Timestamp>,
    /// The slow consumers, by number, on whose account it is not read.
    pub(crate) waits_for: BTreeSet<u64>,
    /// What all sessions of its shard were owed at most when it was seen to close, as memory.
    strain: usize,
}

impl Session {
    pub(crate) const fn is_open(&self) -> bool {
        self.ending.is_none()
    }

    /// Whether what is behind its CONNECT, ping or SUBSCRIBE waits.
    fn awaits_answer(&self) -> bool {
        self.state == SessionState::Verifying || self.may_await()
    }

    /// Whether it may not be read because of a ping, or of last values.
    pub(crate) fn may_await(&self) -> bool {
        self.may_await_pong() || self.is_replaying()
    }

    /// Whether it has subscribed to what is published on a topic.
    pub(crate) fn wants(&self, topic: &str) -> bool {
        let mut filters = self.filters.iter();
        self.topics.contains(topic) || filters.any(|filter| filters::matches(filter, topic))
    }

    fn takes(&self, topic: &str) -> bool {
        self.is_open() && !self.is_broken && self.wants(topic)
    }

    pub(crate) fn subscription_count(&self) -> usize {
        self.topics.len() + self.filters.len()
    }
}

/// What a shard must have counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) frames_read: u64,
    pub(crate) accepted: [u64; 5],
    pub(crate) discarded: u64,
    pub(crate) denied: u64,
    pub(crate) bad_filters: u64,
    pub(crate) unmatched: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) opened: u64,
    pub(crate) refused: u64,
    pub(crate) pauses: u64,
    /// Of sessions that are closed when they are slow.
    pub(crate) dropped: [u64; DropReason::ALL.len()],
    /// Of all others.
    pub(crate) dropped_by_policy: u64,
    pub(crate) closed: [u64; CloseReason::ALL.len()],
}

/// What becomes of a frame.
enum Fate {
    Accepted,
    Discarded,
    Denied,
    BadFilter,
}

pub(crate) struct Model {
    pub(crate) sessions: BTreeMap<u64, Session>,
    pub(crate) expected: Vec<Expected>,
    pub(crate) ledger: Ledger,
    pub(crate) draining: Vec<bool>,
    /// Every topic that was ever forwarded to another shard.
    forwarded: BTreeSet<String>,
    /// By shard: what it was told of slow consumers of other shards, their numbers by topic.
    holds: Vec<BTreeMap<String, BTreeSet<u64>>>,
    config: Config,
}

const ECHO: u8 = 2;

mod extended;
mod pauses;
mod replay;
mod requests;
mod shard;

use extended::Extended;
pub(crate) use pauses::Backlog;
use replay::Fresh;
pub(crate) use shard::Owing;

impl Model {
    pub(crate) fn new(shards: usize, config: &Config, values: Values) -> Self {
        Self {
            sessions: BTreeMap::new(),
            expected: vec![Expected::default(); shards],
            ledger: Ledger::new(shards, values),
            draining: vec![false; shards],
            forwarded: BTreeSet::new(),
            holds: vec![BTreeMap::new(); shards],
            config: config.clone(),
        }
    }

    pub(crate) fn opened(
        &mut self,
        number: u64,
        shard: usize,
        key: SessionKey,
        policy: SlowConsumer,
        now: Timestamp,
    ) {
        let session = Session {
            number,
            shard,
            key,
            state: SessionState::WaitConnect,
            ending: None,
            is_told: false,
            is_broken: false,
            topics: BTreeSet::new(),
            filters: BTreeSet::new(),
            extended: None,
            fresh: None,
            input: VecDeque::new(),
            is_held: false,
            is_stopped: false,
            discards: VecDeque::new(),
            connect_due: Some(now + self.config.listener.connect_timeout),
            frame_due: None,
            is_deaf: false,
            stalled_since: None,
            pausing_since: None,
            waits_for: BTreeSet::new(),
            strain: 0,
        };
        let before = self.sessions.insert(number, session);
        assert!(before.is_none(), "number {number} was given twice");
        let bytes_max = match policy {
            SlowConsumer::Pause => 2 * self.config.listener.outbound_max,
            _ => self.config.listener.outbound_max,
        };
        self.ledger.opened(number, policy, bytes_max);
        self.expected[shard].opened += 1;
    }

    /// The session of a number that is known.
    pub(crate) fn session(&mut self, number: u64) -> &mut Session {
        self.sessions.get_mut(&number).expect("it was opened")
    }

    /// Sessions of a shard, by number.
    pub(crate) fn of_shard(&self, shard: usize) -> impl Iterator<Item = (u64, &Session)> {
        let all = self
            .sessions
            .iter()
            .map(|(number, session)| (*number, session));
        all.filter(move |(_, session)| session.shard == shard)
    }

    pub(crate) fn end(&mut self, number: u64, reason: CloseReason) {
        let session = self.session(number);
        if session.is_open() {
            session.ending = Some(Ending::Known(reason));
            self.take_leave(number);
        }
    }

    /// Its socket has failed; only what it sent before is still waited for.
    pub(crate) fn broken(&mut self, number: u64) {
        self.forget_answers(number);
        let session = self.session(number);
        if !session.is_broken {
            session.is_broken = true;
            self.ledger.lose(number);
        }
    }

    pub(crate) fn received(&mut self, number: u64, bytes: &[u8]) {
        let session = self.session(number);
        session.input.extend(bytes);
        let shard = session.shard;
        self.expected[shard].bytes_in += bytes.len() as u64;
    }

    /// The shard has executed these bytes: whole frames, or all that a session had that has ended.
    pub(crate) fn execute(&mut self, number: u64, bytes: &[u8], now: Timestamp) {
        let session = self.session(number);
        assert!(
            session.input.len() >= bytes.len()
                && session.input.iter().zip(bytes).all(|(a, b)| a == b),
            "session {number} executes what it has received, in its order"
        );
        session.input.drain(..bytes.len());
        let mut rest = bytes;
        while self.sessions[&number].is_open()
            && !self.sessions[&number].awaits_answer()
            && let Some((frame, behind)) = wire::split(rest)
        {
            rest = behind;
            self.execute_frame(number, frame, now);
        }
        let session = self.session(number);
        if !session.is_open() {
            return session.input.clear();
        }
        assert!(
            rest.is_empty() || session.awaits_answer(),
            "session {number}: bytes of a cut frame were executed"
        );
        rest.iter()
            .rev()
            .for_each(|byte| session.input.push_front(*byte));
    }

    fn execute_frame(&mut self, number: u64, frame: &[u8], now: Timestamp) {
        let (shard, id) = (self.sessions[&number].shard, frame[0]);
        let fate = self.fate(number, frame, now);
        let expected = &mut self.expected[shard];
        expected.frames_read += 1;
        match fate {
            Some(Fate::Accepted) => expected.accepted[usize::from(id) - 1] += 1,
            Some(Fate::Denied) => {
                expected.discarded += 1;
                expected.denied += 1;
            }
            fate => {
                expected.discarded += 1;
                expected.bad_filters += u64::from(matches!(fate, Some(Fate::BadFilter)));
                if fate.is_none() {
                    self.malformed(number, id);
                }
                self.charge(number, now);
            }
        }
    }

    /// Executes a frame; `None`: it is malformed.
    fn fate(&mut self, number: u64, frame: &[u8], now: Timestamp) -> Option<Fate> {
        let (id, payload) = (frame[0], &frame[2..]);
        let is_connected = self.sessions[&number].state == SessionState::Connected;
        match id {
            1 => {
                if !is_connected {
                    self.connect(number, payload, now);
                }
                Some(Fate::Accepted)
            }
            2 => {
                self.end(number, CloseReason::ClientDisconnect);
                Some(Fate::Accepted)
            }
            3 if is_connected => Some(self.subscribe(number, topics(payload)?)),
            4 if is_connected => Some(self.unsubscribe(number, &topics(payload)?)),
            5 if is_connected => {
                let (len, rest) = payload.split_first()?;
                let topic = std::str::from_utf8(rest.get(..usize::from(*len))?).ok()?;
                if guard::is_denied(topic) {
                    return Some(Fate::Denied);
                }
                self.publish(number, topic, frame);
                Some(Fate::Accepted)
            }
            _ => Some(Fate::Discarded),
        }
    }

    fn publish(&mut self, publisher: u64, topic: &str, frame: &[u8]) {
        let from = self.sessions[&publisher].shard;
        let publication = self.ledger.publish(publisher, from, topic, frame);
        let (mut is_wanted, mut is_forwarded) = (false, false);
        for (number, session) in &self.sessions {
            let is_heard = *number != publisher || session.has(ECHO);
            if session.shard == from && is_heard && session.takes(topic) {
                self.ledger.owe(*number, &publication);
                is_wanted = true;
            }
        }
        for to in (0..self.expected.len()).filter(|to| *to != from) {
            // To a shard that has filters everything goes.
            let may_want =
                |session: &Session| session.topics.contains(topic) || !session.filters.is_empty();
            if self.of_shard(to).any(|(_, session)| may_want(session)) {
                self.ledger.forward(to, publication.clone());
                (is_wanted, is_forwarded) = (true, true);
            }
        }
        if is_forwarded {
            self.forwarded.insert(topic.to_owned());
            if let Some(extended) = &mut self.session(publisher).extended {
                extended.has_forwarded = true;
            }
        }
        self.wait(publisher, topic, is_forwarded);
        self.expected[from].unmatched += u64::from(!is_wanted);
    }

    /// A shard takes what others have handed over to it: any part of it, or all.
    pub(crate) fn delivered(&mut self, to: usize, all: bool) {
        let sessions = &self.sessions;
        self.ledger.deliver(to, all, |publication| -> Wanted {
            let takes = |(number, session): (&u64, &Session)| {
                let takes = session.takes(&publication.topic) && !session.has_newer(publication);
                (session.shard == to && takes).then_some(*number)
            };
            sessions.iter().filter_map(takes).collect()
        });
    }

    fn charge(&mut self, number: u64, now: Timestamp) {
        let (budget, window) = (
            self.config.limits.error_budget,
            self.config.limits.error_window,
        );
        let session = self.session(number);
        session.discards.push_back(now);
        session.discards.retain(|at| now.since(*at) < window);
        if session.discards.len() >= budget {
            self.end(number, CloseReason::ProtocolErrorBudget);
        }
    }

    /// All that a shard has subscribed to.
    pub(crate) fn topics_of(&self, shard: usize) -> BTreeSet<&str> {
        let sessions = self.of_shard(shard);
        sessions
            .flat_map(|(_, session)| session.topics.iter().map(String::as_str))
            .collect()
    }

    /// The filters of its sessions.
    pub(crate) fn filters_of(&self, shard: usize) -> BTreeSet<&str> {
        let sessions = self.of_shard(shard);
        sessions
            .flat_map(|(_, session)| session.filters.iter().map(String::as_str))
            .collect()
    }
}

fn topics(mut list: &[u8]) -> Option<Vec<String>> {
    let mut topics = Vec::new();
    while let [len, rest @ ..] = list {
        let topic = rest.get(..usize::from(*len))?;
        topics.push(std::str::from_utf8(topic).ok()?.to_owned());
        list = &rest[topic.len()..];
    }
    Some(topics)
}
