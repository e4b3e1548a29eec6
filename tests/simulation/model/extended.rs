//! What sessions have asked for beyond the base protocol: the answers that they are owed, each
//! once and in the order of their requests, their last words, and their keepalives.

use std::collections::VecDeque;
use std::time::Duration;

use hvlp::deadline::Timestamp;
use hvlp::session::{CloseReason, SessionState};
use hvlp::shard::{Closed, Parting};

use super::{Ending, Model, Session};
use crate::account::is_lossless;
use crate::wire;

/// An answer that was not heard yet.
#[derive(Debug)]
pub(crate) enum Owed {
    Frame(Vec<u8>),
    /// That of a ping, executed behind so many messages of all sessions; whether other shards are
    /// asked first.
    Pong {
        executed: u64,
        is_late: bool,
    },
}

impl Owed {
    const fn is_late(&self) -> bool {
        matches!(self, Self::Pong { is_late: true, .. })
    }

    fn len(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Pong { .. } => wire::pong(0).len(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Extended {
    /// Asked for, and from the answer on granted.
    bits: u8,
    keepalive: Duration,
    /// When its last byte came, or the broker began to read it again.
    heard: Timestamp,
    owed: VecDeque<Owed>,
    /// So much of the first one is written.
    cut_len: usize,
    /// The most that ever waited, in bytes.
    len_max: usize,
    /// Messages that were dropped, as the last pong told.
    dropped: u64,
    /// It has published to other shards since its last ping.
    pub(super) has_forwarded: bool,
    /// It has sent a ping that waits for other shards, and was not read since.
    awaits: bool,
    last_words: Option<Vec<u8>>,
}

impl Extended {
    pub(super) const fn of(want: u8, keepalive: u8, now: Timestamp) -> Self {
        Self {
            bits: want,
            keepalive: Duration::from_millis(1_500 * keepalive as u64),
            heard: now,
            owed: VecDeque::new(),
            cut_len: 0,
            len_max: 0,
            dropped: 0,
            has_forwarded: false,
            awaits: false,
            last_words: None,
        }
    }

    pub(super) const fn grant(&mut self, offered: u8, now: Timestamp) {
        self.bits &= offered;
        self.heard = now;
    }

    pub(super) const fn bits(&self) -> u8 {
        self.bits
    }

    /// What waits for its socket; with a pong that waits for other shards.
    fn len(&self) -> usize {
        self.owed.iter().map(Owed::len).sum::<usize>() - self.cut_len
    }

    /// Whether it may wait for other shards, so that it is not read.
    fn may_await(&self) -> bool {
        self.awaits && self.owed.back().is_some_and(Owed::is_late)
    }
}

impl Session {
    /// Whether these extensions are in force.
    pub(crate) fn has(&self, bits: u8) -> bool {
        let extended = self.extended.as_ref();
        let granted = extended.is_some_and(|extended| extended.bits & bits == bits);
        granted && self.state == SessionState::Connected
    }

    pub(super) fn is_answered(&self) -> bool {
        self.has(wire::ACK)
    }

    /// Whether answers may wait for its socket.
    pub(crate) fn has_answers(&self) -> bool {
        self.extended.as_ref().is_some_and(|it| !it.owed.is_empty())
    }

    pub(crate) fn may_await_pong(&self) -> bool {
        self.extended.as_ref().is_some_and(Extended::may_await)
    }

    /// Memory that its answers, its last words included, take at most.
    pub(crate) fn answer_memory(&self) -> usize {
        // A buffer may have twice its bytes, or be a spare one; the last words come on top.
        let extended = self.extended.as_ref();
        extended.map_or(0, |extended| 2 * extended.len_max + 1_200)
    }

    /// Bytes came, or it is read again.
    pub(super) const fn heard(&mut self, now: Timestamp) {
        if let Some(extended) = &mut self.extended {
            extended.heard = now;
        }
    }

    /// When it will have been silent for too long, if it is read.
    pub(super) fn keepalive_due(&self, is_stopped: bool) -> Option<Timestamp> {
        let extended = self.extended.as_ref()?;
        let is_over = self.state != SessionState::Connected || is_stopped;
        (!is_over && !extended.keepalive.is_zero()).then(|| extended.heard + extended.keepalive)
    }

    /// What it is told when it ends for this reason.
    fn last_words(&self, reason: CloseReason) -> Option<Vec<u8>> {
        self.extended.as_ref()?;
        let (byte, text) = farewell(reason)?;
        match (self.state, self.is_broken) {
            (_, true) => None,
            (SessionState::Connected, _) => self
                .is_answered()
                .then(|| wire::frame(2, &[&[byte], text.as_bytes()].concat())),
            // Not authorised, malformed, and everything else is a limit.
            _ => Some(wire::hello_answer(
                0,
                if matches!(byte, 1 | 2) { byte } else { 3 },
            )),
        }
    }
}

impl Model {
    /// Bytes of a session came, or it goes on with those that it holds.
    pub(crate) fn read(&mut self, number: u64, now: Timestamp) {
        self.end_replay(number);
        let session = self.session(number);
        session.heard(now);
        let is_broken = session.is_broken;
        if let Some(extended) = &mut session.extended {
            extended.awaits = false;
            if is_broken {
                extended.owed.clear();
            }
        }
    }

    pub(super) fn answer(&mut self, number: u64, answer: Owed) {
        let answers_max = self.config.listener.answers_max;
        let session = self.session(number);
        // Of a broken one only matters that it waits.
        if !session.is_open() || session.is_broken && !answer.is_late() {
            return;
        }
        let Some(extended) = &mut session.extended else {
            return;
        };
        // One that waits for other shards finds out when it is there.
        if extended.len() + answer.len() > answers_max && !answer.is_late() {
            return self.end(number, CloseReason::SlowConsumerBytes);
        }
        extended.awaits |= answer.is_late();
        extended.owed.push_back(answer);
        extended.len_max = extended.len_max.max(extended.len());
    }

    /// Whether answers that nobody reads may have come to their bound.
    pub(super) fn is_unheard(&self, session: &Session) -> bool {
        let answers_max = self.config.listener.answers_max;
        let extended = session.extended.as_ref();
        extended.is_some_and(|it| it.may_await() && it.len() > answers_max)
    }

    /// The socket of a session fails, or nothing is left to be said.
    pub(super) fn forget_answers(&mut self, number: u64) {
        if let Some(extended) = &mut self.session(number).extended {
            // Whether that has come is not known, and it is not read before.
            extended.owed.retain(Owed::is_late);
            extended.cut_len = 0;
        }
    }

    /// So much of an answer was written.
    pub(super) fn cut_answer(&mut self, number: u64, len: usize) {
        if let Some(extended) = &mut self.session(number).extended {
            extended.cut_len = len;
        }
    }

    /// A session gets a frame that is no message.
    pub(super) fn hear(&mut self, number: u64, frame: &[u8]) {
        let session = self.sessions.get_mut(&number).expect("it was opened");
        let is_open = session.is_open();
        let extended = session.extended.as_mut();
        let extended = extended.unwrap_or_else(|| panic!("session {number} gets {frame:?}"));
        extended.cut_len = 0;
        assert_eq!(
            extended.last_words, None,
            "session {number} had its last words"
        );
        let is_refusal = frame[0] == 1 && frame.len() == 7 && frame[6] != 0;
        if frame[0] == 2 || is_refusal {
            let is_pong = |owed: &Owed| matches!(owed, Owed::Pong { .. });
            let is_late = extended.owed.len() <= 1 && extended.owed.iter().all(is_pong);
            assert!(
                is_late,
                "session {number}: answers are missing: {extended:?}"
            );
            assert!(!is_open, "session {number} has not ended: {frame:?}");
            extended.last_words = Some(frame.to_vec());
            return;
        }
        match extended.owed.pop_front() {
            Some(Owed::Frame(owed)) => {
                assert_eq!(owed, frame, "answers of session {number} come in order");
            }
            Some(Owed::Pong { executed, .. }) => self.hear_pong(number, executed, frame),
            None => panic!("session {number} is not owed {frame:?}"),
        }
    }

    /// What the session has published before is in effect everywhere, and what was dropped of its
    /// messages is no more than it has not got.
    fn hear_pong(&mut self, number: u64, executed: u64, frame: &[u8]) {
        assert_eq!(
            frame[..3],
            wire::pong(0)[..3],
            "session {number} has sent a ping"
        );
        let dropped = frame[3..].first_chunk().expect("a pong has a number");
        let dropped = u64::from(u32::from_be_bytes(*dropped));
        let (_, may) = self.ledger.unwritten(number);
        let most = match is_lossless(self.ledger.policy(number)) {
            true => 0,
            false => may,
        };
        let session = self.sessions.get_mut(&number).expect("it was opened");
        let extended = session.extended.as_mut().expect("it was asked for");
        assert!(
            (extended.dropped..=most).contains(&dropped),
            "session {number}: {dropped} dropped, {most} at most"
        );
        extended.dropped = dropped;
        self.ledger.pass_barrier(number, session.shard, executed);
    }

    /// Who has ended and hears why holds nobody any more, although that may take a second.
    pub(super) fn take_leave(&mut self, number: u64) {
        let session = self.session(number);
        let has_words = match session.ending {
            None => false,
            Some(Ending::Known(reason)) => session.last_words(reason).is_some(),
            // Whatever a shard decides on is told.
            Some(Ending::Seen(..)) => session.last_words(CloseReason::Shutdown).is_some(),
        };
        if has_words {
            session.pausing_since = None;
            let shard = session.shard;
            self.released(shard, number);
        }
    }

    pub(crate) fn hears_reason(&self, number: u64, reason: CloseReason) -> bool {
        self.sessions[&number].last_words(reason).is_some()
    }

    /// The last words are those of the reason, and whoever could take them has got them.
    pub(super) fn check_last_words(&self, number: u64, closed: &Closed) {
        let session = &self.sessions[&number];
        let due = session.last_words(closed.reason);
        let extended = session.extended.as_ref();
        let said = extended.and_then(|extended| extended.last_words.clone());
        match (said, due) {
            (None, None) => {}
            (None, Some(_)) => assert_eq!(closed.parting, Parting::Reset, "session {number}"),
            (said, due) => {
                assert_eq!(said, due, "last words to session {number}");
                assert_eq!(closed.parting, Parting::Lingering, "session {number}");
            }
        }
        let told = extended.map_or(0, |extended| extended.dropped);
        assert!(
            told <= closed.dropped,
            "session {number} was told of {told} drops"
        );
    }
}

/// The reason that is told, and its text; docs/protocol.md.
const fn farewell(reason: CloseReason) -> Option<(u8, &'static str)> {
    Some(match reason {
        CloseReason::ClientDisconnect
        | CloseReason::Eof
        | CloseReason::Reset
        | CloseReason::WriteTimeout
        | CloseReason::IoError => return None,
        CloseReason::Shutdown => (0, "shutdown"),
        CloseReason::AuthFailed => (1, "not authorised"),
        CloseReason::EofMidFrame
        | CloseReason::FrameTimeout
        | CloseReason::ConnectTimeout
        | CloseReason::ProtocolErrorBudget
        | CloseReason::HelloMalformed => (2, "protocol"),
        CloseReason::LimitConnect
        | CloseReason::LimitSubscriptions
        | CloseReason::NoMemory
        | CloseReason::WriteZero => (3, "limit"),
        CloseReason::SlowConsumerBytes
        | CloseReason::SlowConsumerStalled
        | CloseReason::SlowConsumerEvicted
        | CloseReason::SlowConsumerPaused => (4, "slow consumer"),
        CloseReason::Keepalive => (5, "keepalive"),
    })
}
