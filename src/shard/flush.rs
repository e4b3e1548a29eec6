//! Bytes out: what each dirty session is owed, and what its socket took of it.

use std::io;
use std::time::Duration;

use crate::arena::{Arena, Piece};
use crate::deadline::Timestamp;
use crate::handler::SessionHandler;
use crate::metrics::DropReason;
use crate::outbound::{Backlog, Kept, Refused, SlowConsumer};
use crate::session::{CloseReason, Session, SessionKey};
use crate::shard::closing::is_reset;
use crate::shard::{Gone, Shard};

/// What one send is to offer to a session's socket.
#[derive(Debug)]
pub enum Outgoing<'a, P, B> {
    /// One stretch, sent from where it lies.
    Run(Piece),
    /// Several stretches, oldest first.
    Scattered(P),
    /// What the socket refused before, in stretches of up to 64 KiB, oldest first. It need not be
    /// offered whole.
    Backlog(B),
    /// Answers, or the rest of a frame in front of them, by a send of their own. What else the
    /// session is owed has another turn in the same flush.
    Ahead(&'a [u8]),
    /// Nothing now: the socket is full, or the session has just been closed.
    Nothing,
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The kernel took all that was offered: this many bytes.
    Whole(usize),
    /// The kernel took this many bytes, perhaps none, and then was full.
    Short(usize),
    /// The kernel took this many bytes, perhaps none, and then had no memory for more. The socket
    /// is not full, so no edge will say when it takes bytes again.
    NoBuffers(usize),
    /// The socket failed.
    Failed(io::ErrorKind),
}

/// A send of less than this is worth waiting for another receive that is there already.
const SEND_LEN_WANTED: usize = 32 * 1024;

/// From a send that found no memory to the next one of that session; `progress_timeout` bounds how
/// often that is tried.
const RETRY_AFTER: Duration = Duration::from_millis(10);

impl<H: SessionHandler> Shard<H> {
    /// The next session with something to send; each once per flush.
    pub fn next_dirty(&mut self) -> Option<SessionKey> {
        let key = *self.dirty.get(self.flushed)?;
        self.flushed += 1;
        if let Some(session) = self.sessions.get_mut(key) {
            session.outbound.dirty = false;
        }
        Some(key)
    }

    /// How many sessions are still to be offered something.
    pub fn dirty_count(&self) -> usize {
        self.dirty.len() - self.flushed
    }

    /// All have been offered, and every offer was answered by `sent`: no session holds a piece.
    pub fn end_flush(&mut self) {
        debug_assert_eq!(self.flushed, self.dirty.len(), "each has had its turn");
        self.dirty.clear();
        self.flushed = 0;
        self.pieces.clear();
    }

    /// Whether the next turn has something to offer already, so that it must not sleep.
    pub const fn is_dirty(&self) -> bool {
        !self.again.is_empty() || self.flushed < self.dirty.len() || self.replays.is_ready()
    }

    /// Whether the next turn has something to parse already, so that it must not sleep.
    pub const fn has_put_off(&self) -> bool {
        !self.put_off.is_empty()
    }

    /// Goes on with what was more than the last turn's share, of sending and of reading. First of
    /// all in a turn: what it adds comes before what the turn brings.
    pub fn begin_turn(&mut self, now: Timestamp) {
        self.now = now;
        self.replay();
        for key in std::mem::take(&mut self.again) {
            self.mark_dirty(key);
        }
        self.resumed.append(&mut self.put_off);
    }

    /// Whether more input now would make fewer, larger sends: what the dirty sessions are owed is
    /// little on average, so a send costs more than the bytes in it.
    pub fn is_worth_filling(&self) -> bool {
        let delivered = self.budget.delivered_bytes();
        delivered < self.dirty.len().saturating_mul(SEND_LEN_WANTED)
    }

    /// The socket of a session takes bytes again.
    pub fn writable(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key)
            && session.outbound.blocked
        {
            session.outbound.blocked = false;
            self.mark_dirty(key);
        }
    }

    /// Offers again what found no memory a while ago.
    pub(super) fn retry(&mut self, now: Timestamp) {
        while let Some((_, key)) = self.retries.pop_front_if(|(due, _)| *due <= now) {
            // With the next turn: this one has been flushed.
            if let Some(session) = self.sessions.get_mut(key)
                && session.outbound.blocked
            {
                session.outbound.blocked = false;
                self.again.push(key);
            }
        }
    }

    /// What to offer to the socket of `key`. A backlog goes first, and new pieces behind it.
    pub fn outgoing<'a>(
        &'a mut self,
        now: Timestamp,
        key: SessionKey,
        arena: &Arena,
    ) -> Outgoing<'a, impl Iterator<Item = Piece> + 'a, impl Iterator<Item = &'a [u8]> + 'a> {
        if !self.sessions.get(key).is_some_and(Session::is_plain) {
            self.keep_behind(now, key, arena);
            if self.begins_ahead(key) {
                let ahead = self.sessions.get(key).and_then(Session::ahead);
                return ahead.map_or(Outgoing::Nothing, Outgoing::Ahead);
            }
            if self.has_backlog(key) {
                return self.frozen(key).map_or(Outgoing::Nothing, |backlog| {
                    Outgoing::Backlog(backlog.chunks())
                });
            }
        }
        let Some(session) = self.sessions.get(key) else {
            return Outgoing::Nothing;
        };
        if session.outbound.blocked {
            return Outgoing::Nothing;
        }
        let mut pieces = session.outbound.pieces(&self.pieces).peekable();
        match pieces.next() {
            None => Outgoing::Nothing,
            Some(only) if pieces.peek().is_none() => Outgoing::Run(only),
            Some(_) => Outgoing::Scattered(session.outbound.pieces(&self.pieces)),
        }
    }

    /// What this turn brought goes behind what was refused before.
    fn keep_behind(&mut self, now: Timestamp, key: SessionKey, arena: &Arena) {
        let is_behind = |session: &Session| {
            let outbound = &session.outbound;
            outbound.has_pieces() && (outbound.blocked || outbound.backlog.is_some())
        };
        if self.sessions.get(key).is_some_and(is_behind) {
            self.keep_rest(now, key, arena, 0);
        }
    }

    fn has_backlog(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| session.outbound.backlog.is_some())
    }

    /// The backlog as it is offered, from now on unchanged; none while the socket is full.
    fn frozen(&mut self, key: SessionKey) -> Option<&Backlog> {
        let outbound = &mut self.sessions.get_mut(key)?.outbound;
        let backlog = outbound.backlog.as_mut().filter(|_| !outbound.blocked)?;
        self.backlog_total -= backlog.allocated();
        backlog.freeze();
        self.backlog_total += backlog.allocated();
        Some(backlog)
    }

    /// What became of the offer, while the pieces are still valid.
    pub fn sent(&mut self, now: Timestamp, key: SessionKey, arena: &Arena, outcome: SendOutcome) {
        // Of the last turn's flush an engine may hear before this turn begins.
        self.now = now;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let (taken, whole) = match outcome {
            SendOutcome::Whole(taken) => (taken, true),
            SendOutcome::Short(taken) => (taken, false),
            SendOutcome::NoBuffers(taken) => {
                // All waits are equally long: the first one to be due stays in front.
                self.retries.push_back((now + RETRY_AFTER, key));
                (taken, false)
            }
            SendOutcome::Failed(kind) => return self.send_failed(now, key, kind),
        };
        self.counters.sends += u64::from(taken > 0);
        self.counters.short_sends += u64::from(!whole);
        self.counters.bytes_out += taken as u64;
        session.outbound.blocked = !whole;
        if session.is_plain() {
            // A complete send settles everything at once: no header is walked.
            self.counters.deliveries_written += session.outbound.take_pieces();
        } else if self.advance_ahead(now, key, taken) {
            return;
        } else if self.has_backlog(key) {
            self.advance_backlog(now, key, taken);
        } else if whole {
            self.settle_pieces(key);
        } else {
            self.keep_rest(now, key, arena, taken);
        }
        self.close_if_drained(key);
    }

    fn settle_pieces(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key) {
            self.counters.deliveries_written += session.outbound.take_pieces();
        }
    }

    /// After a reset the kernel still hands out what the peer had sent before: that is read first.
    fn send_failed(&mut self, now: Timestamp, key: SessionKey, kind: io::ErrorKind) {
        if !is_reset(kind) || !self.wants_input(key) && !self.has_held(key) {
            return self.gone(key, Gone::Failed(kind));
        }
        self.drop_owed(key, DropReason::SessionGone);
        self.drop_answers(key);
        self.deadlines.progress.disarm(key.slot());
        self.end_replay(now, key);
        if let Some(session) = self.sessions.get_mut(key) {
            session.outbound.broken = true;
        }
        // Its backlog has gone; whoever waited for it may be whom it waits for.
        self.end_pause(now, key);
    }

    /// Whether the socket takes nothing any more, and its input is all that is waited for.
    pub fn is_broken(&self, key: SessionKey) -> bool {
        self.sessions
            .get(key)
            .is_some_and(|session| session.outbound.broken)
    }

    pub(super) fn advance_backlog(&mut self, now: Timestamp, key: SessionKey, taken: usize) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let listener = session.listener;
        let before = session.outbound.backlog_bytes();
        self.counters.deliveries_written += session.outbound.advance(taken, &mut self.spare_chunks);
        let is_empty = session.outbound.backlog.is_none();
        let is_blocked = session.outbound.blocked;
        self.backlog_total -= before - session.outbound.backlog_bytes();
        if is_empty {
            self.deadlines.progress.disarm(key.slot());
            self.end_pause(now, key);
        } else if taken > 0 {
            match self.watches_progress(key) {
                true => self.deadlines.progress.rearm(key.slot(), listener, now),
                false => self.deadlines.progress.disarm(key.slot()),
            }
        }
        if !is_empty && !is_blocked {
            self.again.push(key);
        }
        self.replay_on(key);
    }

    /// Copies what the socket did not take of this turn's pieces, within the bounds.
    fn keep_rest(&mut self, now: Timestamp, key: SessionKey, arena: &Arena, taken: usize) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let bound = self.bounds[session.listener.index()];
        let outbound = &mut session.outbound;
        let before = outbound.backlog_bytes();
        let kept = outbound.keep_rest(&self.pieces, arena, taken, bound, &mut self.spare_chunks);
        self.backlog_total = self.backlog_total + outbound.backlog_bytes() - before;
        if taken > 0 {
            self.deadlines.progress.disarm(key.slot());
        }
        self.settle_kept(now, key, kept);
    }

    /// A backlog has grown, or could not.
    pub(super) fn settle_kept(&mut self, now: Timestamp, key: SessionKey, kept: Kept) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let listener = session.listener;
        let bound = self.bounds[listener.index()];
        self.counters.deliveries_written += kept.written;
        if self.watches_progress(key) {
            self.deadlines.progress.arm(key.slot(), listener, now);
        }
        self.count_dropped(key, DropReason::Displaced, kept.displaced);
        self.count_dropped(key, DropReason::Conflated, kept.conflated);
        match kept.refused {
            None => {}
            Some(Refused::Full) if bound.policy == SlowConsumer::DropNewest => {
                self.count_dropped(key, DropReason::QueueFull, kept.dropped);
            }
            Some(Refused::Full) => {
                self.overflow(key, CloseReason::SlowConsumerBytes, kept.dropped);
            }
            Some(Refused::NoMemory) => self.overflow(key, CloseReason::NoMemory, kept.dropped),
        }
        if self.backlog_total > self.limits.outbound_total_max {
            self.evict(self.limits.outbound_total_max / 10 * 9);
        }
        self.pause_if_full(now, key);
    }

    /// Whether a session is closed when its socket takes nothing for a while. Under `pause`, which
    /// has its own end, only for last values: they hold nobody.
    pub(super) fn watches_progress(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| {
            let policy = self.bounds[session.listener.index()].policy;
            policy != SlowConsumer::Pause || session.replaying
        })
    }

    /// Closes a session that can be owed no more; what found no room counts by what ends it, which
    /// may have come before.
    fn overflow(&mut self, key: SessionKey, reason: CloseReason, dropped: u64) {
        self.close(key, reason);
        let closing = self.sessions.get(key).and_then(|session| session.closing);
        let reason = DropReason::of_close(closing.unwrap_or(reason));
        self.count_dropped(key, reason, dropped);
    }

    /// Closes the sessions with the largest backlogs until all together take `target` bytes. What
    /// belongs to sessions that are leaving counts as gone: this turn offers it a last time.
    pub(super) fn evict(&mut self, target: usize) {
        let backlogs = self
            .sessions
            .iter()
            .map(|(key, session)| (session.owed_bytes(), key, session.closing.is_some()));
        let (leaving, mut staying): (Vec<_>, Vec<_>) = backlogs
            .filter(|(bytes, ..)| *bytes > 0)
            .partition(|(.., is_leaving)| *is_leaving);
        let leaving: usize = leaving.iter().map(|(bytes, ..)| bytes).sum();
        staying.sort_unstable_by(|a, b| b.cmp(a));
        for (_, key, _) in staying {
            if self.backlog_total - leaving <= target {
                break;
            }
            self.close(key, CloseReason::SlowConsumerEvicted);
        }
    }

    /// Drops and counts everything that a session is owed.
    pub(super) fn drop_owed(&mut self, key: SessionKey, reason: DropReason) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        self.backlog_total -= session.outbound.backlog_bytes();
        let backlog = session.outbound.backlog.take();
        let mut frames = session.outbound.take_pieces();
        frames += backlog.map_or(0, |backlog| backlog.discard(&mut self.spare_chunks));
        self.count_dropped(key, reason, frames);
    }

    /// As `drop_owed`, but a frame that has begun is completed.
    pub(super) fn drop_unbegun(&mut self, key: SessionKey, reason: DropReason) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let outbound = &mut session.outbound;
        let before = outbound.backlog_bytes();
        let mut frames = outbound.take_pieces();
        if let Some(backlog) = &mut outbound.backlog {
            frames += backlog.discard_unbegun(&mut self.spare_chunks);
            if backlog.is_empty() {
                outbound.backlog = None;
            }
        }
        self.backlog_total = self.backlog_total + outbound.backlog_bytes() - before;
        self.count_dropped(key, reason, frames);
    }

    /// Every delivery that is dropped passes here.
    pub(super) fn count_dropped(&mut self, key: SessionKey, reason: DropReason, frames: u64) {
        self.counters.count_dropped(reason, frames);
        if let Some(session) = self.sessions.get_mut(key) {
            session.dropped += frames;
        }
    }

    pub(super) fn mark_dirty(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key)
            && !session.outbound.dirty
        {
            session.outbound.dirty = true;
            self.dirty.push(key);
        }
    }
}
