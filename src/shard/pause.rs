//! `pause`: a subscriber that does not keep up holds the publishers whose messages it gets.
//!
//! A consumer pauses when its backlog has reached its bound. From then on whoever publishes to it
//! is not read any further, until the backlog has gone or the consumer has. Publishers of the same
//! shard are held where a run meets the consumer. Others are known by the topic: the shard that a
//! run came from is told once, holds whoever publishes there from then on, and is told when that is
//! over. These words go from reactor to reactor beside the data, so neither waits behind it.
//!
//! All of it in order of keys: what a seed did once it does again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::deadline::Timestamp;
use crate::handler::SessionHandler;
use crate::outbound::SlowConsumer;
use crate::session::SessionKey;
use crate::shard::Shard;
use crate::shard::parse::Origin;

/// A session that holds publishers, and its shard.
type Consumer = (u8, SessionKey);

/// What a shard tells another about a consumer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseChange {
    /// Whoever publishes to the topic of this hash is to wait for it.
    Hold {
        /// The session that does not keep up.
        consumer: SessionKey,
        /// Of the topic, by the directory's hash.
        topic_hash: u64,
    },
    /// Nobody has to wait for it any more.
    Release {
        /// The session that did not keep up.
        consumer: SessionKey,
    },
}

/// Who waits for whom. Empty, unless somebody is slow under `pause`.
///
/// Bounded: `waiting` by the sessions, each consumer once; `topics` and `told` by the topics of
/// consumers that pause.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// How many sessions here pause: looked at once for each run.
    pub(super) consumers: usize,
    /// Publishers here, by the consumer they wait for.
    waiting: BTreeMap<Consumer, BTreeSet<SessionKey>>,
    /// Consumers elsewhere, by the hash of the topic on which they must get no more.
    topics: BTreeMap<u64, BTreeSet<Consumer>>,
    /// What other shards were told of each consumer here.
    told: BTreeMap<SessionKey, BTreeSet<(u8, u64)>>,
    changes: VecDeque<(u8, PauseChange)>,
}

impl<H: SessionHandler> Shard<H> {
    /// What another shard is to be told, and which.
    pub fn next_pause_change(&mut self) -> Option<(u8, PauseChange)> {
        self.pauses.changes.pop_front()
    }

    /// Whether anything is known of consumers that pause, here or elsewhere, or of whom they hold.
    pub fn has_pauses(&self) -> bool {
        let pauses = &self.pauses;
        pauses.consumers > 0
            || !pauses.waiting.is_empty()
            || !pauses.topics.is_empty()
            || !pauses.told.is_empty()
            || !pauses.changes.is_empty()
    }

    /// How many waits there are: of each publisher here, one for each consumer that holds it.
    pub fn wait_count(&self) -> usize {
        self.pauses.waiting.values().map(BTreeSet::len).sum()
    }

    /// Shard `from` has told this one about a consumer.
    pub fn apply_pause(&mut self, now: Timestamp, from: u8, change: PauseChange) {
        match change {
            PauseChange::Hold {
                consumer,
                topic_hash,
            } => {
                let consumers = self.pauses.topics.entry(topic_hash).or_default();
                consumers.insert((from, consumer));
            }
            PauseChange::Release { consumer } => {
                let consumer = (from, consumer);
                self.pauses.topics.retain(|_, consumers| {
                    consumers.remove(&consumer);
                    !consumers.is_empty()
                });
                self.release(now, consumer);
            }
        }
    }

    /// A backlog has grown: the consumer pauses if its policy is that, and its bound is reached.
    pub(super) fn pause_if_full(&mut self, now: Timestamp, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let bound = self.bounds[session.listener.index()];
        if bound.policy == SlowConsumer::Pause
            && !session.outbound.pausing
            && session.closing.is_none()
            && session.outbound.backlog_bytes() >= bound.bytes_max
        {
            session.outbound.pausing = true;
            self.pauses.consumers += 1;
            self.counters.pauses += 1;
            self.deadlines.pause.arm(key.slot(), session.listener, now);
        }
    }

    /// The backlog of a consumer has gone, or the consumer has: whoever waits for it goes on.
    pub(super) fn end_pause(&mut self, now: Timestamp, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if !std::mem::take(&mut session.outbound.pausing) {
            return;
        }
        self.pauses.consumers -= 1;
        self.deadlines.pause.disarm(key.slot());
        let told = self.pauses.told.remove(&key).unwrap_or_default();
        let shards: BTreeSet<_> = told.into_iter().map(|(shard, _)| shard).collect();
        let release = PauseChange::Release { consumer: key };
        let changes = shards.into_iter().map(|shard| (shard, release));
        self.pauses.changes.extend(changes);
        self.release(now, (self.id, key));
    }

    /// A run has gone to everyone who wants it: if there are consumers among them that pause, it is
    /// the last for now.
    #[cold]
    pub(super) fn hold_origin(&mut self, listeners: &[SessionKey], origin: Origin) {
        let pausing = |key: &SessionKey| {
            let session = self.sessions.get(*key);
            session.is_some_and(|session| session.outbound.pausing)
        };
        let others = listeners.iter().copied();
        let others = others.filter(|key| Some(*key) != origin.publisher());
        let consumers: Vec<_> = others.filter(pausing).collect();
        for consumer in consumers {
            match origin {
                Origin::Here(publisher) => self.hold_publisher((self.id, consumer), publisher),
                Origin::Shard { from, topic_hash } => self.hold_topic(consumer, from, topic_hash),
            }
        }
    }

    fn hold_publisher(&mut self, consumer: Consumer, publisher: SessionKey) {
        if self.draining {
            return;
        }
        let Some(session) = self.sessions.get_mut(publisher) else {
            return;
        };
        let waiting = self.pauses.waiting.entry(consumer).or_default();
        if waiting.insert(publisher) {
            session.paused_by += 1;
            // We do not read it, so it cannot be late with a frame.
            self.deadlines.frame.disarm(publisher.slot());
        }
    }

    fn hold_topic(&mut self, consumer: SessionKey, from: u8, topic_hash: u64) {
        let told = self.pauses.told.entry(consumer).or_default();
        if told.insert((from, topic_hash)) {
            let hold = PauseChange::Hold {
                consumer,
                topic_hash,
            };
            self.pauses.changes.push_back((from, hold));
        }
    }

    /// A run goes to other shards: holds its publisher if a consumer there is to get no more.
    #[inline]
    pub(super) fn hold_for_others(&mut self, publisher: SessionKey, topic_hash: u64) {
        if self.pauses.topics.is_empty() {
            return;
        }
        let consumers = self.pauses.topics.get(&topic_hash).cloned();
        for consumer in consumers.unwrap_or_default() {
            self.hold_publisher(consumer, publisher);
        }
    }

    fn release(&mut self, now: Timestamp, consumer: Consumer) {
        for publisher in self.pauses.waiting.remove(&consumer).unwrap_or_default() {
            let Some(session) = self.sessions.get_mut(publisher) else {
                continue;
            };
            session.paused_by -= 1;
            if !session.is_stopped() {
                self.read_again(now, publisher);
            }
        }
    }

    /// A publisher has ended: it waits for nobody.
    pub(super) fn forget_waiting(&mut self, publisher: SessionKey) {
        let Some(session) = self.sessions.get_mut(publisher) else {
            return;
        };
        if std::mem::take(&mut session.paused_by) == 0 {
            return;
        }
        self.pauses.waiting.retain(|_, waiting| {
            waiting.remove(&publisher);
            !waiting.is_empty()
        });
    }

    /// Nothing is read any more: what was received already is executed, whoever is slow.
    pub(super) fn release_all(&mut self, now: Timestamp) {
        self.pauses.topics.clear();
        let consumers: Vec<_> = self.pauses.waiting.keys().copied().collect();
        for consumer in consumers {
            self.release(now, consumer);
        }
    }

    /// A session that was not read is read again.
    pub(super) fn read_again(&mut self, now: Timestamp, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(extended) = &mut session.extended {
            extended.heard = now;
        }
        // Held input is not a frame that the peer has yet to complete.
        if !session.remainder.is_empty() && !session.holds && !self.draining {
            let listener = session.listener;
            self.deadlines.frame.rearm(key.slot(), listener, now);
        }
        self.resumed.push(key);
    }
}
