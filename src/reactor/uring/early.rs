//! What came for sessions that are not read at the moment: a receive that was armed brings bytes
//! until the kernel has heard that it shall not.

use std::collections::{HashMap, VecDeque};

use crate::handler::SessionHandler;
use crate::reactor::uring::receiving::is_read;
use crate::session::SessionKey;
use crate::shard::{Gone, Shard};

/// By session; nearly always empty. Its bytes count as held input, which bounds them.
#[derive(Debug, Default)]
pub(super) struct Early {
    sessions: HashMap<SessionKey, Kept>,
    /// Those that may be read again, each once.
    awaited: VecDeque<SessionKey>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    read: usize,
    /// How the stream ended behind them.
    end: Option<Gone>,
    is_awaited: bool,
}

/// What came for a session.
pub(super) enum Came {
    Bytes(Vec<u8>),
    End(Gone),
}

/// As much is read at once: what the arena always has room for.
const READ_LEN_MAX: usize = 64 * 1024;

impl Early {
    pub(super) fn has(&self, key: SessionKey) -> bool {
        self.sessions.contains_key(&key)
    }

    pub(super) fn push(&mut self, key: SessionKey, bytes: &[u8]) {
        let kept = self.sessions.entry(key).or_default();
        kept.bytes.extend_from_slice(bytes);
    }

    /// The stream ends behind what was pushed.
    pub(super) fn end(&mut self, key: SessionKey, end: Gone) {
        let kept = self.sessions.entry(key).or_default();
        kept.end.get_or_insert(end);
    }

    /// Returns how many bytes nobody will read.
    pub(super) fn forget(&mut self, key: SessionKey) -> usize {
        let kept = self.sessions.remove(&key);
        kept.map_or(0, |kept| kept.bytes.len() - kept.read)
    }

    /// The session may be read again; returns whether something is here that comes first.
    pub(super) fn resume(&mut self, key: SessionKey) -> bool {
        let Some(kept) = self.sessions.get_mut(&key) else {
            return false;
        };
        if !std::mem::replace(&mut kept.is_awaited, true) {
            self.awaited.push_back(key);
        }
        true
    }

    /// Whether somebody may be read again of whom something is here.
    pub(super) fn is_awaited(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// What came next for a session that is to be read. One that is not, after all, has to be
    /// resumed again.
    pub(super) fn next<H: SessionHandler>(
        &mut self,
        shard: &Shard<H>,
    ) -> Option<(SessionKey, Came)> {
        while let Some(&key) = self.awaited.front() {
            match self.sessions.get_mut(&key) {
                Some(kept) if is_read(shard, key) => {
                    let came = kept.next();
                    // Its end may have to wait until the last bytes have been parsed.
                    if kept.is_over() {
                        self.sessions.remove(&key);
                        self.awaited.pop_front();
                    }
                    return Some((key, came?));
                }
                Some(kept) => kept.is_awaited = false,
                None => {}
            }
            self.awaited.pop_front();
        }
        None
    }
}

impl Kept {
    fn next(&mut self) -> Option<Came> {
        let rest = &self.bytes[self.read..];
        if rest.is_empty() {
            return self.end.take().map(Came::End);
        }
        let bytes = rest[..rest.len().min(READ_LEN_MAX)].to_vec();
        self.read += bytes.len();
        Some(Came::Bytes(bytes))
    }

    const fn is_over(&self) -> bool {
        self.read == self.bytes.len() && self.end.is_none()
    }
}
