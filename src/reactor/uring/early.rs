//! What came for sessions that are not read at the moment: a receive that was armed brings bytes
//! until the kernel has heard that it shall not.

use crate::handler::SessionHandler;
use crate::session::SessionKey;
use crate::shard::{Gone, Shard};

/// By session, in no order; nearly always empty. Bounded by what the ring's buffers hold, twice:
/// once for what has completed, once for what does before the kernel hears of the end.
#[derive(Debug, Default)]
pub(super) struct Early {
    sessions: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    key: SessionKey,
    bytes: Vec<u8>,
    read: usize,
    /// How the stream ended behind them.
    end: Option<Gone>,
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
        self.sessions.iter().any(|kept| kept.key == key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = SessionKey> {
        self.sessions.iter().map(|kept| kept.key)
    }

    pub(super) fn push(&mut self, key: SessionKey, bytes: &[u8]) {
        self.of(key).bytes.extend_from_slice(bytes);
    }

    /// The stream ends behind what was pushed.
    pub(super) fn end(&mut self, key: SessionKey, end: Gone) {
        self.of(key).end.get_or_insert(end);
    }

    pub(super) fn forget(&mut self, key: SessionKey) {
        self.sessions.retain(|kept| kept.key != key);
    }

    /// Whether somebody is to be read of whom something is here.
    pub(super) fn is_awaited<H: SessionHandler>(&self, shard: &Shard<H>) -> bool {
        !shard.is_spilling() && self.sessions.iter().any(|kept| kept.is_awaited(shard))
    }

    /// What came next for a session that is to be read.
    pub(super) fn next<H: SessionHandler>(
        &mut self,
        shard: &Shard<H>,
    ) -> Option<(SessionKey, Came)> {
        let is_awaited = |kept: &Kept| kept.is_awaited(shard);
        let at = self.sessions.iter().position(is_awaited)?;
        let kept = &mut self.sessions[at];
        let rest = &kept.bytes[kept.read..];
        let bytes = rest[..rest.len().min(READ_LEN_MAX)].to_vec();
        kept.read += bytes.len();
        let key = kept.key;
        let is_all = kept.read == kept.bytes.len();
        Some(match kept.end {
            // Behind the last bytes, of which some may be held again.
            Some(end) if bytes.is_empty() => {
                self.sessions.swap_remove(at);
                (key, Came::End(end))
            }
            end => {
                if is_all && end.is_none() {
                    self.sessions.swap_remove(at);
                }
                (key, Came::Bytes(bytes))
            }
        })
    }

    fn of(&mut self, key: SessionKey) -> &mut Kept {
        let at = self.sessions.iter().position(|kept| kept.key == key);
        let at = at.unwrap_or_else(|| {
            self.sessions.push(Kept {
                key,
                bytes: Vec::new(),
                read: 0,
                end: None,
            });
            self.sessions.len() - 1
        });
        &mut self.sessions[at]
    }
}

impl Kept {
    fn is_awaited<H: SessionHandler>(&self, shard: &Shard<H>) -> bool {
        shard.wants_input(self.key) && !shard.has_held(self.key)
    }
}
