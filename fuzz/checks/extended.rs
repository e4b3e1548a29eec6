//! What a naive session knows beyond the base protocol: its answers, in the order of its requests,
//! filters held against topics level by level, and what it is told when it ends.

use std::collections::VecDeque;
use std::time::Duration;

use hvlp::deadline::Timestamp;
use hvlp::session::CloseReason;

const MAGIC: &[u8] = b"\xFFH+";
const ACK: u8 = 1;
const ECHO: u8 = 2;
const WILD: u8 = 4;

/// An answer that its client has not read.
#[derive(Debug)]
enum Owed {
    Frame(Vec<u8>),
    /// That of a ping behind so many messages of the session.
    Pong {
        published: u64,
    },
}

/// What a client has asked for, if anything, and what of its answers it has not read.
#[derive(Debug, Default)]
pub(crate) struct Extended {
    is_asked_for: bool,
    granted: u8,
    keepalive: Duration,
    pub(crate) heard: Timestamp,
    owed: VecDeque<Owed>,
    pub(crate) published: u64,
    dropped: u64,
    last_words: Option<Vec<u8>>,
    /// Its socket has failed, and what of its answers was lost is not counted.
    pub(crate) has_failed: bool,
    is_broken: bool,
}

/// What a topic of a list is.
pub(crate) enum Kind {
    Topic,
    Filter,
    Bad,
}

impl Extended {
    /// A CONNECT with this payload; false if it is malformed.
    pub(crate) fn connect(&mut self, payload: &[u8]) -> bool {
        let Some(fields) = payload.strip_prefix(MAGIC) else {
            return true;
        };
        self.is_asked_for = true;
        let [want, keepalive, rest @ ..] = fields else {
            return false;
        };
        let mut strings = Vec::new();
        let mut rest = rest;
        while let [len, behind @ ..] = rest {
            let Some((string, behind)) = behind.split_at_checked(usize::from(*len)) else {
                return false;
            };
            strings.push(string);
            rest = behind;
        }
        let user = strings.first().copied().unwrap_or_default();
        if strings.len() > 2 || std::str::from_utf8(user).is_err() {
            return false;
        }
        self.granted = want & (ACK | ECHO | WILD);
        self.keepalive = Duration::from_millis(1_500 * u64::from(*keepalive));
        let answer = [&[1, 5], MAGIC, &[self.granted, 0]].concat();
        self.owed.push_back(Owed::Frame(answer));
        true
    }

    pub(crate) const fn has_echo(&self) -> bool {
        self.granted & ECHO != 0
    }

    const fn is_answered(&self) -> bool {
        self.granted & ACK != 0
    }

    /// What of `topic` is for this session.
    pub(crate) fn kind(&self, topic: &[u8]) -> Kind {
        let is_wild = |byte: &u8| matches!(byte, b'+' | b'#');
        if self.granted & WILD == 0 || !topic.iter().any(is_wild) {
            return Kind::Topic;
        }
        let mut levels = topic.split(|byte| *byte == b'/').rev();
        let is_last_good = |level: &[u8]| level == b"#" || is_level_good(level);
        match levels.next().is_some_and(is_last_good) && levels.all(is_level_good) {
            true => Kind::Filter,
            false => Kind::Bad,
        }
    }

    /// A list was executed, and these are the statuses of its topics; or all of it is malformed.
    pub(crate) fn answer(&mut self, id: u8, statuses: &[u8]) {
        if self.is_answered() && matches!(id, 3 | 4) && !self.is_broken {
            let len = u8::try_from(statuses.len()).expect("at most one per byte of a list");
            let answer = [&[id, len], statuses].concat();
            self.owed.push_back(Owed::Frame(answer));
        }
    }

    /// An empty UNSUBSCRIBE: true if it is a ping.
    pub(crate) fn ping(&mut self) -> bool {
        if self.is_answered() && !self.is_broken {
            let published = self.published;
            self.owed.push_back(Owed::Pong { published });
        }
        self.is_answered()
    }

    /// Its client has read a frame that is no message. For a pong: how many of its messages are in
    /// effect everywhere, so that none of them may be under way.
    pub(crate) fn read(&mut self, frame: &[u8], dropped_max: u64) -> Option<u64> {
        assert_eq!(self.last_words, None, "nothing comes behind the last words");
        let is_refusal = frame[0] == 1 && frame[6] != 0;
        if frame[0] == 2 || is_refusal {
            let is_pong = |owed: &Owed| matches!(owed, Owed::Pong { .. });
            assert!(
                self.owed.len() <= 1 && self.owed.iter().all(is_pong),
                "{self:?}"
            );
            self.last_words = Some(frame.to_vec());
            return None;
        }
        let owed = self.owed.pop_front();
        match owed.expect("each request is answered once") {
            Owed::Frame(owed) => {
                assert_eq!(owed, frame, "in the order of the requests");
                None
            }
            Owed::Pong { published } => {
                let [4, 5, 0xFF, number @ ..] = frame else {
                    panic!("{frame:?} is no pong");
                };
                let number = number.first_chunk().expect("four bytes");
                let dropped = u64::from(u32::from_be_bytes(*number));
                assert!((self.dropped..=dropped_max).contains(&dropped), "{dropped}");
                self.dropped = dropped;
                Some(published)
            }
        }
    }

    /// Whether `rest` may be the beginning of what its client reads next.
    pub(crate) fn may_begin(&self, rest: &[u8]) -> bool {
        match self.owed.front() {
            _ if rest[0] == 2 || rest[0] == 1 => self.is_asked_for,
            Some(Owed::Frame(frame)) => frame.starts_with(rest),
            Some(Owed::Pong { .. }) => rest[0] == 4,
            None => false,
        }
    }

    /// Nothing is left that its client could read.
    pub(crate) fn check_settled(&self) {
        let is_settled = self.owed.is_empty() || self.has_failed;
        assert!(is_settled, "answers are missing: {:?}", self.owed);
    }

    /// Its socket has failed; if it `is_broken`, what waited for it is gone.
    pub(crate) fn fail(&mut self, is_broken: bool) {
        self.has_failed = true;
        self.is_broken |= is_broken;
        if self.is_broken {
            self.owed.clear();
        }
    }

    pub(crate) fn is_silent(&self, now: Timestamp) -> bool {
        !self.keepalive.is_zero() && now.since(self.heard) >= self.keepalive
    }

    pub(crate) const fn may_be_unheard(&self) -> bool {
        self.is_asked_for
    }

    /// Whether it may be told why it ends, so that it ends later than it is decided.
    pub(crate) const fn hears(&self, is_connected: bool) -> bool {
        self.is_asked_for && (self.is_answered() || !is_connected)
    }

    /// The last words that its client has read, if any, are those of the reason.
    pub(crate) fn check_last_words(&self, is_connected: bool, reason: CloseReason) {
        if let Some(words) = &self.last_words {
            assert!(self.hears(is_connected), "it has not asked for {words:?}");
            let byte = farewell(reason).expect("a reason that is told");
            match is_connected {
                true => assert_eq!((words[0], words[2]), (2, byte)),
                false => assert_eq!((words[0], words[6]), (1, byte.max(2))),
            }
        }
    }
}

fn is_level_good(level: &[u8]) -> bool {
    level == b"+" || !level.iter().any(|byte| matches!(byte, b'+' | b'#'))
}

/// Whether a filter matches a topic.
pub(crate) fn matches(filter: &[u8], topic: &[u8]) -> bool {
    let mut levels = topic.split(|byte| *byte == b'/');
    for wanted in filter.split(|byte| *byte == b'/') {
        match (wanted, levels.next()) {
            (b"#", _) => return true,
            (_, None) => return false,
            (b"+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// The byte that tells a reason; none has to do with a user here.
const fn farewell(reason: CloseReason) -> Option<u8> {
    Some(match reason {
        CloseReason::Shutdown => 0,
        CloseReason::EofMidFrame
        | CloseReason::FrameTimeout
        | CloseReason::ConnectTimeout
        | CloseReason::ProtocolErrorBudget
        | CloseReason::HelloMalformed => 2,
        CloseReason::NoMemory | CloseReason::WriteZero => 3,
        CloseReason::SlowConsumerBytes
        | CloseReason::SlowConsumerStalled
        | CloseReason::SlowConsumerEvicted
        | CloseReason::SlowConsumerPaused => 4,
        CloseReason::Keepalive => 5,
        _ => return None,
    })
}
