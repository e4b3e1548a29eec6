//! Bytes in: what was received is parsed, and what cannot be parsed yet is kept.

use crate::arena::{Arena, Piece};
use crate::deadline::Timestamp;
use crate::handler::SessionHandler;
use crate::packet::Frame;
use crate::session::{CloseReason, Foreign, SessionKey, SessionState};
use crate::shard::Shard;
use crate::shard::budget::Budget;
use crate::shard::parse::Next;

impl<H: SessionHandler> Shard<H> {
    /// What must lie in front of the next received bytes of this session.
    pub fn remainder(&self, key: SessionKey) -> &[u8] {
        self.sessions
            .get(key)
            .map_or(&[], |session| &session.remainder)
    }

    /// Bytes of a session lie in the arena, its remainder in front of them: parses them, routes
    /// what is published and keeps what is cut off.
    ///
    /// When the turn `is_spent` the rest is held, and parsed when `next_resumed` names the session.
    /// Returns the rest if there is no room to hold it: flush every dirty session, then go on with
    /// `receive_rest`.
    #[must_use]
    pub fn receive(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        arena: &mut Arena,
        piece: Piece,
    ) -> Option<Piece> {
        let Some(session) = self.sessions.get_mut(key) else {
            self.count_stale_event();
            return None;
        };
        debug_assert_ne!(session.state, SessionState::Verifying, "its input is held");
        let was_held = std::mem::take(&mut session.holds);
        let remainder = std::mem::take(&mut session.remainder);
        if was_held {
            self.held_total -= remainder.len();
        } else {
            self.counters.receives += 1;
            self.counters.bytes_in += (piece.len() - remainder.len()) as u64;
        }
        if let Some(extended) = &mut session.extended {
            extended.heard = now;
        }
        let begun = !was_held && !remainder.is_empty();
        self.keep_spare(remainder);
        self.note_foreign(key, arena.bytes(piece));
        self.receive_part(now, key, arena, piece, begun)
    }

    /// Goes on with what `receive` has left, for another share: it cannot be put off.
    #[must_use]
    pub fn receive_rest(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        arena: &mut Arena,
        rest: Piece,
    ) -> Option<Piece> {
        self.budget = Budget::of(&self.limits);
        self.receive_part(now, key, arena, rest, false)
    }

    /// `begun`: the first frame of `piece` had begun in an earlier receive.
    fn receive_part(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        arena: &mut Arena,
        piece: Piece,
        begun: bool,
    ) -> Option<Piece> {
        let bytes = arena.bytes(piece);
        let (parsed, next) = self.parse(now, key, piece, bytes);
        let rest = &bytes[parsed..];
        match next {
            Next::Go if Frame::split_first(rest).is_some() => {
                if !self.put_off(key, rest) {
                    return Some(piece.part(parsed, piece.len()));
                }
            }
            Next::Go => self.keep_remainder(now, key, rest, begun && parsed == 0),
            Next::Hold => self.hold(key, rest),
            Next::Stop => self.deadlines.frame.disarm(key.slot()),
        }
        let rest_len = rest.len();
        arena.give_back(piece, rest_len);
        None
    }

    /// Remembers what a peer that does not speak HVLP speaks instead, for the line that says so.
    fn note_foreign(&mut self, key: SessionKey, bytes: &[u8]) {
        if let Some(session) = self.sessions.get_mut(key)
            && session.frames_in == 0
            && session.state == SessionState::WaitConnect
            && session.foreign.is_none()
        {
            session.foreign = Foreign::detect(bytes);
        }
    }

    /// Keeps a cut frame for the next receive. Its deadline runs from its first byte, so it goes on
    /// if this is still the `same` frame as before.
    fn keep_remainder(&mut self, now: Timestamp, key: SessionKey, rest: &[u8], same: bool) {
        if rest.is_empty() {
            self.deadlines.frame.disarm(key.slot());
            return;
        }
        // Nobody reads the rest of it while the broker drains, or a slow consumer holds it.
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if !same && !self.draining && !session.is_stopped() {
            let listener = session.listener;
            self.deadlines.frame.rearm(key.slot(), listener, now);
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.extend_from_slice(rest);
        session.remainder = buffer;
    }

    /// Keeps the rest of a receive until the handler has answered, or all shards have; the session
    /// is not read further.
    fn hold(&mut self, key: SessionKey, rest: &[u8]) {
        if !self.try_hold(key, rest) {
            self.end_without_room(key);
        }
    }

    /// There is no room for input of a session that is not read.
    fn end_without_room(&mut self, key: SessionKey) {
        if self.is_verifying(key) {
            self.refuse_connect(key);
        } else {
            self.close(key, CloseReason::NoMemory);
        }
    }

    /// Keeps the rest of a receive for the next turn; false if there is no room for it.
    fn put_off(&mut self, key: SessionKey, rest: &[u8]) -> bool {
        let is_held = self.try_hold(key, rest);
        if is_held {
            self.count_read_budget_exhausted(1);
            self.put_off.push(key);
        }
        is_held
    }

    /// Whether there is room for `len` bytes more of a session that is not read, which the engine
    /// keeps: they count as held input. Without room the session is closed.
    #[cfg(all(feature = "uring", target_os = "linux"))]
    pub(crate) fn hold_early(&mut self, key: SessionKey, len: usize) -> bool {
        let has_room = self.held_total + len <= self.limits.held_total_max;
        if has_room {
            self.held_total += len;
        } else {
            self.end_without_room(key);
        }
        has_room
    }

    /// So much of that is read now, or never.
    #[cfg(all(feature = "uring", target_os = "linux"))]
    pub(crate) const fn release_early(&mut self, len: usize) {
        self.held_total -= len;
    }

    fn is_verifying(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| session.state == SessionState::Verifying)
    }

    /// There is no room for what came behind a CONNECT that waits for its answer.
    fn refuse_connect(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.state = SessionState::WaitConnect;
        }
        self.close(key, CloseReason::LimitConnect);
    }

    fn try_hold(&mut self, key: SessionKey, rest: &[u8]) -> bool {
        self.deadlines.frame.disarm(key.slot());
        if self.held_total + rest.len() > self.limits.held_total_max {
            return false;
        }
        if let Some(session) = self.sessions.get_mut(key) {
            self.held_total += rest.len();
            session.remainder = rest.into();
            session.holds = true;
        }
        true
    }
}
