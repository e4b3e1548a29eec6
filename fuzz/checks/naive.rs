//! A broker as simple as can be: no turn, no arena, no queue, no bound. What it would have sent and
//! ended is what a shard is held against.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use hvlp::deadline::Timestamp;
use hvlp::outbound::SlowConsumer;
use hvlp::session::CloseReason;

use super::extended::{Extended, Kind, matches};

pub(crate) const CLIENT_COUNT: usize = 4;
const ERROR_BUDGET: usize = 64;
const ERROR_WINDOW: Duration = Duration::from_secs(10);

type Frame = Rc<[u8]>;

/// The newest frame at all, and of each topic.
#[derive(Debug, Default)]
struct Newest {
    at_all: Option<Frame>,
    by_topic: BTreeMap<Vec<u8>, Frame>,
}

impl Newest {
    fn put(&mut self, frame: &Frame) {
        let topic = &frame[3..3 + usize::from(frame[2])];
        match self.by_topic.get_mut(topic) {
            Some(newest) => *newest = frame.clone(),
            None => drop(self.by_topic.insert(topic.to_vec(), frame.clone())),
        }
        self.at_all = Some(frame.clone());
    }
}

/// One of its sessions.
pub(crate) struct Naive {
    pub(crate) policy: SlowConsumer,
    shard: usize,
    opened: Timestamp,
    connected: bool,
    pub(crate) extended: Extended,
    /// What the shard was given and has kept: a cut frame, or what it has put off.
    pub(crate) unexecuted: Vec<u8>,
    pub(crate) topics: BTreeSet<Vec<u8>>,
    filters: BTreeSet<Vec<u8>>,
    discarded_at: VecDeque<Timestamp>,
    /// Frames that its client has not read, nor are known to be left out.
    owed: VecDeque<Frame>,
    /// Frames that it was ever owed, and that its client has read.
    owed_total: u64,
    read_total: u64,
    /// The last pong that its client has read: how much of what it published is in effect.
    in_effect: u64,
    /// What it was owed last, and what it has read last.
    newest: Newest,
    newest_read: Newest,
    /// The beginning of a frame, as far as its client has read it.
    cut: Vec<u8>,
    /// Its socket has failed, and its input alone is still of interest.
    pub(crate) is_broken: bool,
    pub(crate) end: Option<CloseReason>,
}

impl Naive {
    pub(crate) fn open(shard: usize, policy: SlowConsumer, now: Timestamp) -> Self {
        Self {
            policy,
            shard,
            opened: now,
            connected: false,
            extended: Extended::default(),
            unexecuted: Vec::new(),
            topics: BTreeSet::new(),
            filters: BTreeSet::new(),
            discarded_at: VecDeque::new(),
            owed: VecDeque::new(),
            owed_total: 0,
            read_total: 0,
            in_effect: 0,
            newest: Newest::default(),
            newest_read: Newest::default(),
            cut: Vec::new(),
            is_broken: false,
            end: None,
        }
    }

    pub(crate) fn end(&mut self, reason: CloseReason) {
        if self.end.is_none() {
            self.end = Some(reason);
        }
    }

    fn discard(&mut self, now: Timestamp) {
        self.discarded_at.push_back(now);
        self.discarded_at.retain(|at| now.since(*at) < ERROR_WINDOW);
        if self.discarded_at.len() == ERROR_BUDGET {
            self.end(CloseReason::ProtocolErrorBudget);
        }
    }

    /// Whether the session may have ended for this reason, which nothing it was sent has decided.
    pub(crate) fn may_end(&self, reason: CloseReason, now: Timestamp) -> bool {
        match reason {
            // Answers wait for a bound, and for progress, whatever becomes of messages.
            _ if reason.is_slow() && self.extended.may_be_unheard() => true,
            CloseReason::ConnectTimeout => self.is_late_with_connect(now),
            CloseReason::FrameTimeout => !self.unexecuted.is_empty(),
            CloseReason::SlowConsumerPaused => self.policy == SlowConsumer::Pause,
            CloseReason::SlowConsumerStalled => self.policy != SlowConsumer::Pause,
            CloseReason::SlowConsumerEvicted => true,
            CloseReason::Keepalive => self.extended.is_silent(now),
            CloseReason::SlowConsumerBytes => matches!(
                self.policy,
                SlowConsumer::Disconnect | SlowConsumer::Conflate | SlowConsumer::Pause
            ),
            _ => false,
        }
    }

    pub(crate) fn is_late_with_connect(&self, now: Timestamp) -> bool {
        !self.connected && now.since(self.opened) >= Duration::from_secs(30)
    }

    fn owe(&mut self, frame: &Frame) {
        self.owed.push_back(frame.clone());
        self.owed_total += 1;
        self.newest.put(frame);
    }

    /// Its client has read these bytes; returns how many frames have become whole.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> u64 {
        let mut stream = std::mem::take(&mut self.cut);
        stream.extend_from_slice(bytes);
        let (mut rest, mut count) = (stream.as_slice(), 0);
        while let [_, len, ..] = *rest
            && let Some((frame, behind)) = rest.split_at_checked(2 + usize::from(len))
        {
            rest = behind;
            if frame[0] == 5 {
                self.read_frame(frame);
                count += 1;
            } else {
                let unread = self.owed_total - self.read_total - count;
                let in_effect = self.extended.read(frame, unread);
                self.in_effect = in_effect.unwrap_or(self.in_effect);
            }
        }
        self.read_total += count;
        let is_next = |frame: &Frame| frame.starts_with(rest);
        let is_owed = match self.loses_nothing() {
            true => self.owed.front().is_some_and(is_next),
            false => self.owed.iter().any(is_next),
        };
        assert!(
            rest.is_empty() || is_owed || rest[0] != 5 && self.extended.may_begin(rest),
            "a cut frame is one that is owed"
        );
        self.cut = rest.to_vec();
        count
    }

    /// In order, and without a gap unless its policy leaves gaps.
    fn read_frame(&mut self, frame: &[u8]) {
        loop {
            let next = self.owed.pop_front();
            let next = next.expect("what was read is what was sent, in its order");
            if *next == *frame {
                self.newest_read.put(&next);
                return;
            }
            assert!(!self.loses_nothing(), "{}: a frame is missing", self.policy);
        }
    }

    pub(crate) const fn loses_nothing(&self) -> bool {
        matches!(self.policy, SlowConsumer::Disconnect | SlowConsumer::Pause)
    }

    /// Its client has read everything that it will get for now.
    pub(crate) fn check_settled(&mut self) {
        let is_whole = self.cut.is_empty() || self.extended.has_failed;
        assert!(is_whole, "half a frame");
        match self.policy {
            SlowConsumer::Disconnect | SlowConsumer::Pause => {
                assert_eq!(self.owed.len(), 0, "frames are missing");
            }
            SlowConsumer::DropNewest => {}
            SlowConsumer::DropOldest => {
                assert_eq!(self.newest_read.at_all, self.newest.at_all);
            }
            SlowConsumer::Conflate => {
                let (read, newest) = (&self.newest_read.by_topic, &self.newest.by_topic);
                assert_eq!(read, newest, "the newest of each topic");
            }
        }
        self.owed.clear();
        self.extended.check_settled();
    }

    pub(crate) fn hears(&self) -> bool {
        self.extended.hears(self.connected) && !self.is_broken
    }

    pub(crate) fn check_last_words(&self, reason: CloseReason) {
        self.extended.check_last_words(self.connected, reason);
    }

    fn connect(&mut self, payload: &[u8]) {
        if !self.connected {
            match self.extended.connect(payload) {
                true => self.connected = true,
                false => self.end(CloseReason::HelloMalformed),
            }
        }
    }

    fn subscribe(&mut self, topics: Vec<Vec<u8>>, now: Timestamp) {
        let mut statuses = Vec::new();
        for topic in topics {
            let kind = self.extended.kind(&topic);
            statuses.push(if matches!(kind, Kind::Bad) { 2 } else { 0 });
            match kind {
                Kind::Topic => drop(self.topics.insert(topic)),
                Kind::Filter => drop(self.filters.insert(topic)),
                Kind::Bad => {}
            }
        }
        self.extended.answer(3, &statuses);
        if statuses.contains(&2) && !statuses.contains(&0) {
            self.discard(now);
        }
    }

    fn unsubscribe(&mut self, topics: &[Vec<u8>]) {
        if topics.is_empty() && self.extended.ping() {
            return;
        }
        let mut statuses = Vec::new();
        for topic in topics {
            let kind = self.extended.kind(topic);
            statuses.push(if matches!(kind, Kind::Bad) { 2 } else { 0 });
            match kind {
                Kind::Topic => drop(self.topics.remove(topic)),
                Kind::Filter => drop(self.filters.remove(topic)),
                Kind::Bad => {}
            }
        }
        self.extended.answer(4, &statuses);
    }

    fn wants(&self, topic: &[u8]) -> bool {
        let mut filters = self.filters.iter();
        self.topics.contains(topic) || filters.any(|filter| matches(filter, topic))
    }
}

/// A frame, its topic, and whose it is: which one of the client's messages.
type OnTheWay = (Vec<u8>, Frame, (usize, u64));

/// All of it: sessions by client, and what each shard has not yet told the other.
#[derive(Default)]
pub(crate) struct NaiveBroker {
    pub(crate) sessions: [Option<Naive>; CLIENT_COUNT],
    /// Frames for those who will want them on shard k, and their topics.
    on_the_way: [VecDeque<OnTheWay>; 2],
    /// Deliveries at most: a session that was closed for being slow is not known to be.
    pub(crate) matched_max: u64,
}

impl NaiveBroker {
    pub(crate) fn session(&mut self, who: usize) -> &mut Naive {
        self.sessions[who].as_mut().expect("a step has opened it")
    }

    /// Whole frames, and what followed them in a session that ended over them.
    pub(crate) fn execute(&mut self, who: usize, mut bytes: &[u8], now: Timestamp) {
        while self.session(who).end.is_none() && !bytes.is_empty() {
            let (frame, rest) = bytes.split_at(2 + usize::from(bytes[1]));
            bytes = rest;
            let session = self.session(who);
            match (frame[0], topics_of(frame)) {
                (1, _) => session.connect(&frame[2..]),
                (2, _) => session.end(CloseReason::ClientDisconnect),
                _ if !session.connected => session.discard(now),
                (3, Some(topics)) => session.subscribe(topics, now),
                (4, Some(topics)) => session.unsubscribe(&topics),
                (5, Some(topics)) => self.publish(who, &topics[0], frame),
                (id, _) => {
                    session.extended.answer(id, &[2]);
                    session.discard(now);
                }
            }
        }
    }

    fn publish(&mut self, who: usize, topic: &[u8], frame: &[u8]) {
        let here = self.session(who).shard;
        let frame: Frame = frame.into();
        let mut is_wanted_elsewhere = false;
        let publisher = &mut self.session(who).extended;
        publisher.published += 1;
        let number = publisher.published;
        let has_echo = publisher.has_echo();
        for (other, session) in self.sessions.iter_mut().enumerate() {
            let Some(session) = session.as_mut() else {
                continue;
            };
            let wants = session.wants(topic);
            if session.shard != here {
                // Everything goes where there are filters.
                is_wanted_elsewhere |= wants || !session.filters.is_empty();
            } else if wants && (other != who || has_echo) && session.end.is_none() {
                session.owe(&frame);
                self.matched_max += 1;
            }
        }
        if is_wanted_elsewhere {
            self.on_the_way[1 - here].push_back((topic.to_vec(), frame, (who, number)));
        }
    }

    /// All that is on its way to a shard is there, for those who want it now.
    pub(crate) fn deliver(&mut self, shard: usize) {
        for (topic, frame, _) in std::mem::take(&mut self.on_the_way[shard]) {
            for session in self.sessions.iter_mut().flatten() {
                let wants = session.shard == shard && session.wants(&topic);
                if wants && session.end.is_none() {
                    session.owe(&frame);
                    self.matched_max += 1;
                }
            }
        }
    }

    /// What a client was told with a pong to be in effect is on its way to nobody.
    pub(crate) fn check_barrier(&mut self, who: usize) {
        let in_effect = self.session(who).in_effect;
        let is_late =
            |(.., (publisher, number)): &OnTheWay| *publisher == who && *number <= in_effect;
        assert!(
            !self.on_the_way.iter().flatten().any(is_late),
            "a pong came too early"
        );
    }

    /// A session has ended; what it has published is nobody's any more.
    pub(crate) fn forget(&mut self, who: usize) {
        self.sessions[who] = None;
        for (.., (publisher, _)) in self.on_the_way.iter_mut().flatten() {
            if *publisher == who {
                *publisher = CLIENT_COUNT;
            }
        }
    }

    pub(crate) fn subscription_count(&self) -> usize {
        self.sessions
            .iter()
            .flatten()
            .map(|it| it.topics.len() + it.filters.len())
            .sum()
    }
}

/// Whether a session that ends for this reason is sent what it is owed, once more.
pub(crate) const fn flushes(reason: CloseReason) -> bool {
    !reason.is_slow()
        && !matches!(
            reason,
            CloseReason::Reset
                | CloseReason::WriteTimeout
                | CloseReason::WriteZero
                | CloseReason::IoError
        )
}

/// The topics of a frame: all of a list, the first of a PUBLISH; `None` if it is malformed.
fn topics_of(frame: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (id, mut rest) = (frame[0], &frame[2..]);
    let mut topics = Vec::new();
    while !rest.is_empty() && (id != 5 || topics.is_empty()) {
        let topic = rest.get(1..1 + usize::from(rest[0]))?;
        topics.push(String::from_utf8(topic.to_vec()).ok()?.into_bytes());
        rest = &rest[1 + topic.len()..];
    }
    (matches!(id, 3 | 4) || !topics.is_empty()).then_some(topics)
}
