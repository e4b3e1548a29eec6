//! The end of sessions: why, what becomes of what they were owed, and when their slot is free.

use std::io;

use crate::handler::{SessionHandler, SessionView};
use crate::metrics::DropReason;
use crate::session::{CloseReason, Foreign, Peer, Session, SessionKey};
use crate::shard::{Parting, Shard};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The peer ended its stream, and every byte before was received.
    Eof,
    /// The socket failed.
    Failed(io::ErrorKind),
}

/// A session that has ended: everything about it is settled but its slot.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// Its key; valid until `reaped`.
    pub key: SessionKey,
    /// The number that logs show.
    pub number: u64,
    /// Who was at the other end.
    pub peer: Peer,
    /// Why.
    pub reason: CloseReason,
    /// Deliveries that it was owed and did not get.
    pub dropped: u64,
    /// What the peer seems to have spoken, if not HVLP.
    pub foreign: Option<Foreign>,
    /// How its connection is to be closed.
    pub parting: Parting,
}

impl<H: SessionHandler> Shard<H> {
    /// The stream of `key` has ended.
    pub fn gone(&mut self, key: SessionKey, gone: Gone) {
        let Some(session) = self.sessions.get(key) else {
            return self.count_stale_event();
        };
        if session.is_leaving() && matches!(gone, Gone::Failed(_)) {
            return self.part(key);
        }
        let (cut, broken) = (!session.remainder.is_empty(), session.outbound.broken);
        self.close(
            key,
            match gone {
                // Its last deliveries failed before: the end of its stream only followed.
                Gone::Eof if broken => CloseReason::Reset,
                Gone::Eof if cut => CloseReason::EofMidFrame,
                Gone::Eof => CloseReason::Eof,
                Gone::Failed(io::ErrorKind::TimedOut) => CloseReason::WriteTimeout,
                Gone::Failed(kind) if is_reset(kind) => CloseReason::Reset,
                Gone::Failed(io::ErrorKind::WriteZero) => CloseReason::WriteZero,
                Gone::Failed(io::ErrorKind::OutOfMemory) => CloseReason::NoMemory,
                Gone::Failed(_) => CloseReason::IoError,
            },
        );
    }

    /// Marks a session to end with this turn. The first reason stays.
    pub fn close(&mut self, key: SessionKey, reason: CloseReason) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.closing.is_some() {
            return;
        }
        session.closing = Some(reason);
        if self.say_farewell(key, reason) {
            return;
        }
        self.closing.push_back(key);
        if !reason.flushes() {
            self.drop_owed(key, DropReason::of_close(reason));
        }
    }

    /// The next session that has ended. Its subscriptions are gone, what it was still owed is
    /// counted; its slot stays taken until `reaped`.
    pub fn next_closed(&mut self) -> Option<Closed> {
        let key = self.closing.pop_front()?;
        let session = self.sessions.get(key)?;
        let reason = session
            .closing
            .expect("it is on the list of closing sessions");
        let parting = Self::parting(session, reason);
        self.drop_owed(key, DropReason::of_close(reason));
        self.drop_answers(key);
        self.unsubscribe_all(key);
        self.end_pause(self.now, key);
        self.forget_waiting(key);
        self.deadlines.disarm(key.slot());
        self.counters.count_closed(reason, 1);

        let session = self.sessions.get_mut(key)?;
        let remainder = std::mem::take(&mut session.remainder);
        if std::mem::take(&mut session.holds) {
            self.held_total -= remainder.len();
        }
        let Session {
            number,
            peer,
            foreign,
            dropped,
            ..
        } = *session;
        self.keep_spare(remainder);
        self.handler.on_close(SessionView { number, peer }, reason);
        Some(Closed {
            key,
            number,
            peer,
            reason,
            dropped,
            foreign,
            parting,
        })
    }

    /// Nothing of the connection is in flight any more: the slot is free from the next turn on.
    pub fn reaped(&mut self, key: SessionKey) {
        let session = self.sessions.remove(key);
        debug_assert!(session.is_none_or(|session| session.closing.is_some()));
    }
}

/// Whether the peer has cut the connection, however the kernel says so.
pub(super) const fn is_reset(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset)
}
