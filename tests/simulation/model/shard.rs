//! What a shard does at moments of its own choice, and whether it may.

use std::io::ErrorKind;

use hvlp::deadline::Timestamp;
use hvlp::metrics::DropReason;
use hvlp::outbound::SlowConsumer;
use hvlp::session::{CloseReason, SessionState};
use hvlp::shard::Closed;

use crate::account::is_lossless;
use crate::model::{Ending, Model, Moment, Session};

/// What is owed to a session at the end of a turn, answers included in the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owing {
    pub(crate) frames: u64,
    pub(crate) bytes: usize,
}

/// As much as a backlog takes at least.
const CHUNK_LEN_MIN: usize = 4 * 1024;

impl Model {
    /// A session's socket has taken these bytes.
    pub(crate) fn taken(&mut self, number: u64, bytes: &[u8]) {
        let shard = self.sessions[&number].shard;
        self.expected[shard].bytes_out += bytes.len() as u64;
        for answer in self.ledger.taken(number, shard, bytes) {
            self.hear(number, &answer);
        }
        let cut_len = self.ledger.cut_answer_len(number);
        self.cut_answer(number, cut_len);
    }

    /// The end of the stream was read.
    pub(crate) fn ended(&mut self, number: u64) {
        let session = self.session(number);
        let reason = match (session.is_broken, session.input.is_empty()) {
            (true, _) => CloseReason::Reset,
            (false, true) => CloseReason::Eof,
            (false, false) => CloseReason::EofMidFrame,
        };
        self.end(number, reason);
    }

    /// The socket has failed.
    pub(crate) fn failed(&mut self, number: u64, kind: ErrorKind) {
        self.end(
            number,
            match kind {
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => CloseReason::Reset,
                ErrorKind::TimedOut => CloseReason::WriteTimeout,
                ErrorKind::WriteZero => CloseReason::WriteZero,
                _ => CloseReason::IoError,
            },
        );
    }

    /// A receive was executed as far as it could; `is_same`: nothing of it, so the frame that was
    /// cut before still is. A frame has its time from its first byte on.
    pub(crate) fn kept(&mut self, number: u64, is_held: bool, is_same: bool, now: Timestamp) {
        let timeout = self.config.listener.frame_timeout;
        let draining = &self.draining;
        let session = self.sessions.get_mut(&number).expect("it was opened");
        session.is_held = is_held || session.state == SessionState::Verifying;
        let is_done = !session.is_open() || session.is_held || session.input.is_empty();
        // Nobody reads the rest of a frame while the broker drains.
        if is_done || draining[session.shard] {
            session.frame_due = None;
        } else if !is_same {
            session.frame_due = Some(now + timeout);
        }
    }

    /// The session was closed in a receive: perhaps because what it sent behind a CONNECT, ping or
    /// SUBSCRIBE that waits was more than all such sessions may hold.
    pub(crate) fn not_held(&mut self, number: u64) {
        let session = &self.sessions[&number];
        let reason = match session.state {
            SessionState::Verifying => CloseReason::LimitConnect,
            _ => CloseReason::NoMemory,
        };
        let is_held = reason == CloseReason::LimitConnect || session.may_await();
        if !session.is_open() || !is_held {
            return;
        }
        let others = self
            .of_shard(session.shard)
            .filter(|(other, _)| *other != number);
        let held: usize = others.map(|(_, other)| other.held_len()).sum();
        assert!(
            held + session.input.len() > self.config.limits.held_total_max,
            "session {number}: there was room for what it sent"
        );
        let session = self.session(number);
        session.is_held = false;
        if session.state == SessionState::Verifying {
            session.state = SessionState::WaitConnect;
        }
        self.end(number, reason);
    }

    /// Whether a shard has, or has had, sessions whose deliveries are dropped while they live.
    pub(crate) fn has_policies(&self, shard: usize) -> bool {
        let mut live = self.of_shard(shard).filter(|(_, session)| !session.is_told);
        self.expected[shard].dropped_by_policy > 0
            || live.any(|(number, _)| !is_lossless(self.ledger.policy(number)))
    }

    /// What a shard holds, of sessions that are about to end too.
    pub(crate) fn held_total(&self, shard: usize) -> usize {
        self.of_shard(shard)
            .map(|(_, session)| session.held_len())
            .sum()
    }

    /// Whether a session is read has changed, or not. While it is not, it cannot be late.
    pub(crate) fn stopped(&mut self, number: u64, was: bool, is: bool, now: Timestamp) {
        let timeout = self.config.listener.frame_timeout;
        let draining = &self.draining;
        let session = self.sessions.get_mut(&number).expect("it was opened");
        session.is_stopped = is;
        if was && !is {
            session.heard(now);
        }
        if is {
            session.frame_due = None;
        } else if was && !session.input.is_empty() && !session.is_held && !draining[session.shard] {
            session.frame_due = Some(now + timeout);
        }
    }

    /// All that can be written in this turn was; `taken`: bytes that the socket has taken in it.
    pub(crate) fn owing(&mut self, number: u64, owed: Owing, taken: usize, now: Timestamp) {
        let pauses = self.ledger.policy(number) == SlowConsumer::Pause;
        let session = self.session(number);
        let waits = match pauses {
            // Its pause has an end of its own: of what else waits, answers alone count.
            true => session.has_answers(),
            false => owed.frames > 0 || owed.bytes > 0,
        };
        if !waits {
            session.stalled_since = None;
        } else if taken > 0 || session.stalled_since.is_none() {
            session.stalled_since = Some(now);
        }
        if owed.frames == 0 {
            self.ledger.paid(number);
        }
    }

    /// The shard ends the session at a moment of its choice.
    pub(crate) fn seen_closing(&mut self, number: u64, moment: Moment, now: Timestamp) {
        let session = &self.sessions[&number];
        if !session.is_open() {
            return;
        }
        // A backlog takes at least one chunk, and at most twice its bytes and that; one of the
        // newest of each topic has two generations.
        let memory = |number, session: &Session| {
            session.answer_memory()
                + match self.ledger.strain(number) {
                    0 => 0,
                    len => 4 * len + 2 * CHUNK_LEN_MIN + 2_000,
                }
        };
        let untold = self
            .of_shard(session.shard)
            .filter(|(_, other)| !other.is_told);
        let strain = untold.map(|(number, it)| memory(number, it)).sum();
        let overdue = self.overdue(session, now);
        let is_deaf = moment == Moment::Expire && self.is_deaf(session, now);
        let session = self.session(number);
        session.is_deaf = is_deaf;
        session.strain = strain;
        session.ending = Some(match (moment, overdue) {
            (Moment::Expire, Some(reason)) => Ending::Known(reason),
            _ => Ending::Seen(moment),
        });
        self.take_leave(number);
    }

    fn overdue(&self, session: &Session, now: Timestamp) -> Option<CloseReason> {
        let is_over = |due: Option<Timestamp>| due.is_some_and(|due| due <= now);
        let timeout = self.config.listener.progress_timeout;
        let pause_max = self.config.listener.pause_max;
        let is_read = !session.is_stopped && !self.draining[session.shard];
        let is_pause = self.ledger.policy(session.number) == SlowConsumer::Pause;
        if is_over(session.connect_due) {
            Some(CloseReason::ConnectTimeout)
        } else if is_over(session.frame_due) {
            Some(CloseReason::FrameTimeout)
        } else if !is_pause && is_over(session.stalled_since.map(|since| since + timeout)) {
            Some(CloseReason::SlowConsumerStalled)
        } else if is_over(session.pausing_since.map(|since| since + pause_max)) {
            Some(CloseReason::SlowConsumerPaused)
        } else if is_over(session.keepalive_due(!is_read)) {
            Some(CloseReason::Keepalive)
        } else {
            None
        }
    }

    /// Every wait that is over has ended its session.
    pub(crate) fn check_expired(&self, shard: usize, now: Timestamp) {
        for (number, session) in self
            .of_shard(shard)
            .filter(|(_, session)| session.is_open())
        {
            let overdue = self.overdue(session, now);
            assert_eq!(
                overdue, None,
                "session {number} should have been closed by {now:?}: {session:?}"
            );
        }
    }

    /// The shard reads nothing any more, so nobody can be late.
    pub(crate) fn stop_reading(&mut self, shard: usize) {
        self.draining[shard] = true;
        for session in self
            .sessions
            .values_mut()
            .filter(|session| session.shard == shard)
        {
            session.connect_due = None;
            session.frame_due = None;
            session.waits_for.clear();
        }
        self.holds[shard].clear();
    }

    /// The shard has told how a session ended.
    pub(crate) fn closed(&mut self, closed: &Closed, now: Timestamp, stopping: Option<Timestamp>) {
        let number = closed.number;
        let session = &self.sessions[&number];
        assert_eq!(session.key, closed.key, "session {number} has one key");
        assert!(!session.is_told, "session {number} ends once");
        let is_late = stopping.is_some_and(|deadline| deadline <= now);
        // What was lost before is no matter of the stop.
        let loses = session.is_broken || !is_lossless(self.ledger.policy(number));
        let is_drained = stopping.is_some()
            && closed.reason == CloseReason::Shutdown
            && (is_late || loses || closed.dropped == 0);
        // Last values hold nobody: who does not read them is given no longer than without a pause.
        let is_slow_for_values = session.is_replaying()
            && self.ledger.policy(number) == SlowConsumer::Pause
            && closed.reason == CloseReason::SlowConsumerStalled;
        let is_just = match session.ending {
            None => false,
            _ if session.is_deaf && closed.reason == CloseReason::SlowConsumerStalled => true,
            _ if is_slow_for_values => true,
            Some(Ending::Known(reason)) => closed.reason == reason,
            Some(Ending::Seen(Moment::Flush)) => is_drained || self.is_slow(session, closed),
            Some(Ending::Seen(Moment::Expire)) => false,
            Some(Ending::Seen(Moment::Drain)) => is_drained,
        };
        assert!(
            is_just,
            "session {number} was closed for {}, {} dropped: {session:?}",
            closed.reason, closed.dropped
        );
        let (shard, is_broken) = (session.shard, session.is_broken);
        let reason = match is_broken {
            true => DropReason::SessionGone,
            false => drop_reason(closed.reason),
        };
        let policy = self.ledger.policy(number);
        self.check_last_words(number, closed);
        self.ledger.closed(number, closed.dropped);
        let expected = &mut self.expected[shard];
        match is_lossless(policy) {
            true => expected.dropped[reason as usize] += closed.dropped,
            // In its life by its policy, in the end by what ended it.
            false => expected.dropped_by_policy += closed.dropped,
        }
        expected.closed[closed.reason as usize] += 1;
        let session = self.session(number);
        session.is_told = true;
        session.is_held = false;
        session.pausing_since = None;
        session.waits_for.clear();
        session.topics.clear();
        session.filters.clear();
        self.released(shard, number);
    }

    /// A slow consumer: so much has gathered that a bound may have been reached.
    fn is_slow(&self, session: &Session, closed: &Closed) -> bool {
        let is_full = match (closed.reason, self.ledger.policy(closed.number)) {
            (CloseReason::SlowConsumerEvicted, _) => {
                session.strain >= self.config.limits.outbound_total_max
            }
            // Each of two generations, with its index, has half of the bound.
            (CloseReason::SlowConsumerBytes, SlowConsumer::Conflate) => true,
            (CloseReason::SlowConsumerBytes, SlowConsumer::Disconnect | SlowConsumer::Pause) => {
                self.ledger.was_full(closed.number)
            }
            _ => false,
        };
        let is_unheard =
            closed.reason == CloseReason::SlowConsumerBytes && self.is_unheard(session);
        let has_answers = session.answer_memory() > 0;
        (closed.dropped > 0 || has_answers) && is_full || is_unheard
    }

    /// Answers wait for a session that holds its publishers: when they were first offered is the
    /// shard's business, not before that a byte was taken last.
    fn is_deaf(&self, session: &Session, now: Timestamp) -> bool {
        let timeout = self.config.listener.progress_timeout;
        let due = session.stalled_since.map(|since| since + timeout);
        session.has_answers() && due.is_some_and(|due| due <= now)
    }

    /// The connection of a session that has ended was closed: its slot is free.
    pub(crate) fn forget(&mut self, number: u64) {
        let session = self.sessions.remove(&number);
        assert!(
            session.is_some_and(|session| session.is_told),
            "session {number} has ended"
        );
    }
}

impl Session {
    fn held_len(&self) -> usize {
        match self.is_held {
            true => self.input.len(),
            false => 0,
        }
    }
}

/// How deliveries that a session did not get are counted, by what ended it.
const fn drop_reason(reason: CloseReason) -> DropReason {
    match reason {
        CloseReason::SlowConsumerBytes
        | CloseReason::SlowConsumerStalled
        | CloseReason::SlowConsumerPaused => DropReason::SlowClose,
        CloseReason::NoMemory => DropReason::NoMemory,
        CloseReason::SlowConsumerEvicted => DropReason::Evicted,
        CloseReason::Shutdown => DropReason::Drain,
        _ => DropReason::SessionGone,
    }
}
