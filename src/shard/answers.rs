//! Answers: what the broker says to sessions that have asked for more than the base protocol, and
//! its last words to them.
//!
//! Answers go ahead of messages that wait, but never into the midst of a frame. No policy drops
//! them; who does not read them is closed when they have come to `listener.answers_max`.

use std::time::Duration;

use crate::deadline::Timestamp;
use crate::handler::SessionHandler;
use crate::metrics::DropReason;
use crate::packet::{Answer, Extensions, Reason, Status};
use crate::session::{Ahead, CloseReason, Session, SessionKey, SessionState};
use crate::shard::Shard;
use crate::shard::deadlines::Keepalives;

/// How long the last words to a session may take.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// At once.
    Plain,
    /// Behind what was written last: unread input would turn the close into a reset, which destroys
    /// it. So writing is shut down, and input thrown away for a while.
    Lingering,
    /// By a reset, so that the kernel's copy of what was not read goes at once.
    Reset,
}

impl<H: SessionHandler> Shard<H> {
    /// Says something to a session.
    pub(super) fn answer(&mut self, key: SessionKey, answer: &Answer<'_>) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let Some(extended) = &session.extended else {
            return;
        };
        // Statuses are as many as topics in a frame, and texts are ours.
        let Ok(frame) = answer.to_frame() else {
            return;
        };
        let answers_max = self.answers_max[session.listener.index()];
        // A socket that has failed is offered nothing more.
        if session.closing.is_some() || session.outbound.broken {
            return;
        }
        if extended.answers.len() + frame.bytes().len() > answers_max {
            return self.close(key, CloseReason::SlowConsumerBytes);
        }
        self.append_answer(key, frame.bytes());
        self.mark_dirty(key);
    }

    fn append_answer(&mut self, key: SessionKey, frame: &[u8]) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(extended) = &mut session.extended else {
            return;
        };
        let before = extended.answers.capacity();
        if before == 0 {
            extended.answers = self.spare.pop().unwrap_or_default();
        }
        extended.answers.extend_from_slice(frame);
        self.backlog_total += extended.answers.capacity() - before;
    }

    /// Whether something goes ahead of what else a session is owed: its answers, once the frame
    /// under way is complete.
    pub(super) fn begins_ahead(&mut self, key: SessionKey) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        if session.outbound.blocked || !session.has_answers() {
            return false;
        }
        let backlog = session.outbound.backlog.as_ref();
        let is_mid_frame = backlog.is_some_and(|backlog| !backlog.begun().is_empty());
        if let Some(extended) = &mut session.extended {
            extended.ahead = match is_mid_frame {
                true => Ahead::Frame,
                false => Ahead::Answers,
            };
        }
        true
    }

    /// The socket took so much of what went ahead; whether anything did.
    pub(super) fn advance_ahead(&mut self, now: Timestamp, key: SessionKey, taken: usize) -> bool {
        let session = self.sessions.get_mut(key);
        let Some(extended) = session.and_then(|session| session.extended.as_mut()) else {
            return false;
        };
        match std::mem::take(&mut extended.ahead) {
            Ahead::Nothing => return false,
            Ahead::Frame => self.advance_backlog(now, key, taken),
            Ahead::Answers => self.advance_answers(key, taken),
        }
        self.watch_progress(now, key, taken);
        self.part_if_silent(key);
        // What else it is owed has its turn behind that, or becomes its backlog.
        self.mark_dirty(key);
        true
    }

    /// The socket has so long to take some of what waits, answers or a backlog; of a consumer that
    /// pauses the backlog has an end of its own.
    fn watch_progress(&mut self, now: Timestamp, key: SessionKey, taken: usize) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let listener = session.listener;
        if session.closing.is_some() {
            return;
        }
        let has_backlog = session.outbound.backlog.is_some();
        let waits = session.has_answers() || has_backlog && self.watches_progress(key);
        if taken > 0 || !waits {
            self.deadlines.progress.disarm(key.slot());
        }
        if waits {
            self.deadlines.progress.arm(key.slot(), listener, now);
        }
    }

    /// The socket takes nothing any more, or nothing is to be said any more.
    pub(super) fn drop_answers(&mut self, key: SessionKey) {
        let session = self.sessions.get(key);
        let extended = session.and_then(|session| session.extended.as_ref());
        let len = extended.map_or(0, |extended| extended.answers.len());
        self.advance_answers(key, len);
    }

    fn advance_answers(&mut self, key: SessionKey, taken: usize) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(extended) = &mut session.extended else {
            return;
        };
        extended.answers.drain(..taken);
        if extended.answers.is_empty() && extended.answers.capacity() > 0 {
            let buffer = std::mem::take(&mut extended.answers);
            self.backlog_total -= buffer.capacity();
            self.keep_spare(buffer);
        }
    }

    /// Answers a CONNECT with yes.
    pub(super) fn grant(&mut self, now: Timestamp, key: SessionKey) {
        let offered = self.extensions;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(extended) = &mut session.extended else {
            return;
        };
        extended.extensions = extended.extensions & offered;
        extended.heard = now;
        let (have, keepalive) = (extended.extensions, extended.keepalive);
        self.deadlines.keepalive.begin(key, keepalive, now);
        let status = Status::Ok;
        self.answer(key, &Answer::Hello { have, status });
    }

    /// The last words to a session that ends for this reason, if it is to hear any. Whatever else
    /// it is owed is dropped, but a frame that has begun.
    ///
    /// They may take a second; false if there is nothing to be said.
    pub(super) fn say_farewell(&mut self, key: SessionKey, reason: CloseReason) -> bool {
        let session = self.sessions.get(key);
        let Some(last) = session.and_then(|session| last_answer(session, reason)) else {
            return false;
        };
        let Ok(frame) = last.to_frame() else {
            return false;
        };
        self.drop_unbegun(key, DropReason::of_close(reason));
        self.append_answer(key, frame.bytes());
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let listener = session.listener;
        if let Some(extended) = &mut session.extended {
            extended.is_leaving = true;
        }
        self.end_pause(now, key);
        self.deadlines.disarm(key.slot());
        self.deadlines.farewell.arm(key.slot(), listener, now);
        // With the next turn: this may be the midst of a flush.
        self.again.push(key);
        true
    }

    /// The last words to a session are written, or never will be.
    pub(super) fn part(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(extended) = &mut session.extended
            && std::mem::take(&mut extended.is_leaving)
        {
            self.deadlines.farewell.disarm(key.slot());
            self.closing.push_back(key);
        }
    }

    pub(super) fn part_if_silent(&mut self, key: SessionKey) {
        let session = self.sessions.get(key);
        if session.is_some_and(|session| session.is_leaving() && session.owed_bytes() == 0) {
            self.part(key);
        }
    }

    /// Ends sessions that were not heard of for too long. Those that are not read are not silent by
    /// their own doing.
    pub(super) fn expire_keepalives(&mut self, now: Timestamp) {
        while let Some(key) = self.deadlines.keepalive.pop_due(now) {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            let is_read = !session.is_stopped() && !self.draining;
            let Some(extended) = session.extended.as_mut() else {
                continue;
            };
            if !is_read {
                extended.heard = now;
            }
            let due = extended.heard + Keepalives::wait(extended.keepalive);
            if session.closing.is_some() {
                continue;
            }
            match due > now {
                true => self.deadlines.keepalive.look_at(key, due),
                false => self.close(key, CloseReason::Keepalive),
            }
        }
    }

    /// How the connection of a session that has ended is closed.
    pub(super) fn parting(session: &Session, reason: CloseReason) -> Parting {
        let is_told = session.extended.is_some() && last_answer(session, reason).is_some();
        match reason {
            _ if is_told && session.owed_bytes() > 0 => Parting::Reset,
            _ if is_told => Parting::Lingering,
            _ if reason.is_slow() => Parting::Reset,
            CloseReason::ClientDisconnect | CloseReason::Shutdown => Parting::Lingering,
            _ => Parting::Plain,
        }
    }
}

/// What is to be said to a session when it ends.
fn last_answer(session: &Session, reason: CloseReason) -> Option<Answer<'static>> {
    let extended = session.extended.as_ref()?;
    let reason = reason.farewell()?;
    if session.outbound.broken {
        return None;
    }
    if session.state == SessionState::Connected {
        let hears = extended.extensions.contains(Extensions::ACK);
        return hears.then_some(Answer::Disconnect {
            reason,
            text: reason.text(),
        });
    }
    // Its CONNECT was not answered yet.
    let status = match reason {
        Reason::NotAuthorised => Status::NotAuthorised,
        Reason::Protocol => Status::Malformed,
        _ => Status::Limit,
    };
    let have = Extensions::NONE;
    Some(Answer::Hello { have, status })
}
