//! Last values: what is published is kept where its topic is, and who subscribes gets it first.
//!
//! Values go into the session's backlog at the beginning of turns, some in each, while its input is
//! held. What is newer than its SUBSCRIBE comes as a message, from the moment it has joined; older
//! messages may still be on their way from other shards, so these are left out for it until they
//! have said that there are none; see [`LastValues`].

use std::collections::HashMap;
use std::sync::Arc;

use crate::deadline::Timestamp;
use crate::handler::SessionHandler;
use crate::outbound::whole_frames;
use crate::packet::FRAME_LEN_MAX;
use crate::register::last_values::{Cursor, LastValues};
use crate::register::wildcard::{Pattern, Shape};
use crate::session::{Session, SessionKey};
use crate::shard::Shard;
use crate::shard::parse::Next;
use crate::shard::run::Run;

/// Values looked at in a turn, for whoever waits for them: some milliseconds.
const STEPS_PER_TURN: usize = 16_384;
/// A session gets no more of them before its socket has taken what it has got: 100,000 of them are
/// no reason to close it.
const AHEAD_MAX: usize = 256 * 1024;
/// Nor more than this part of what it may be owed. A backlog that conflates takes up to four times
/// its frames, and twice that while it grows.
const AHEAD_PART: usize = 16;

/// Who is given values just now.
#[derive(Debug, Default)]
pub(super) struct Replays {
    /// None if no topic is kept.
    values: Option<Arc<LastValues>>,
    by: HashMap<SessionKey, Replay, ahash::RandomState>,
    /// Of the SUBSCRIBE that is executed just now.
    fresh: Fresh,
    /// Those that go on with the next turn.
    ready: Vec<SessionKey>,
}

/// What a session has subscribed to in one packet and had not before.
#[derive(Debug, Default)]
struct Fresh {
    topics: Vec<Box<str>>,
    filters: Vec<(Box<str>, Shape)>,
}

#[derive(Debug)]
struct Replay {
    fresh: Fresh,
    /// It gets values up to this number.
    since: u64,
    /// How many of its topics have been looked up.
    looked_up: usize,
    /// How far all values have been held against its filters.
    cursor: Cursor,
    /// It waits for its socket.
    waits: bool,
    /// It gets no more values: the broker stops.
    is_over: bool,
    /// Bit k: messages with numbers up to `since` may still come from shard k.
    awaited: u64,
}

impl Fresh {
    const fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.filters.is_empty()
    }

    fn holds(&self, topic: &str) -> bool {
        self.topics.iter().any(|one| **one == *topic)
    }

    fn covers(&self, topic: &str) -> bool {
        let mut filters = self.filters.iter();
        self.holds(topic) || filters.any(|(filter, shape)| shape.matches(filter, topic))
    }
}

impl Replay {
    const fn is_read(&self) -> bool {
        let is_looked_up = self.looked_up == self.fresh.topics.len();
        self.is_over || is_looked_up && (self.fresh.filters.is_empty() || self.cursor.is_at_end())
    }
}

impl Replays {
    /// Whether the newest message of a topic is kept.
    #[inline]
    pub(super) fn keep(&self, topic: &str) -> bool {
        let values = self.values.as_ref();
        values.is_some_and(|values| values.prefixes().cover(topic.as_bytes()))
    }

    /// Keeps the last message of a run in `bytes`; returns the value's number.
    #[cold]
    pub(super) fn store(&self, run: &Run<'_>, bytes: &[u8]) -> Option<u64> {
        // All behind `run.last` are as long.
        let last = &bytes[run.end - run.last.len()..run.end];
        let values = self.values.as_ref();
        values.map(|values| values.store(run.hash, last))
    }

    /// Notes what a session has just subscribed to, if there may be a value for it.
    #[inline]
    pub(super) fn note(&mut self, topic: &str, pattern: Pattern) {
        if self.values.is_some() {
            self.note_fresh(topic, pattern);
        }
    }

    #[cold]
    fn note_fresh(&mut self, topic: &str, pattern: Pattern) {
        let prefixes = self.values.as_ref().map(|values| values.prefixes());
        match pattern {
            Pattern::Exact if self.keep(topic) => self.fresh.topics.push(topic.into()),
            Pattern::Filter(shape)
                if prefixes.is_some_and(|prefixes| prefixes.meet(shape.head(topic))) =>
            {
                self.fresh.filters.push((topic.into(), shape));
            }
            _ => {}
        }
    }

    /// Whether something was noted of the SUBSCRIBE that is executed just now.
    #[inline]
    pub(super) const fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Whether somebody goes on with the next turn.
    pub(super) const fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by.is_empty()
    }

    /// What all shards keep together.
    pub(super) fn values(&self) -> Option<&LastValues> {
        self.values.as_deref()
    }

    /// The session has ended.
    pub(super) fn forget(&mut self, key: SessionKey) {
        if !self.by.is_empty() {
            self.by.remove(&key);
        }
    }
}

impl<H: SessionHandler> Shard<H> {
    /// Keeps last values in here, together with all shards of the broker; none without.
    #[must_use]
    pub fn with_last_values(mut self, values: Option<Arc<LastValues>>) -> Self {
        self.replays.values = values;
        self
    }

    /// A session has subscribed: it gets the values first, and is read again when it has them.
    #[cold]
    pub(super) fn begin_replay(&mut self, key: SessionKey) -> Next {
        let fresh = std::mem::take(&mut self.replays.fresh);
        let values = self.replays.values.as_ref();
        let Some(values) = values.filter(|_| !self.is_closing(key)) else {
            return self.next(key);
        };
        let since = values.newest();
        let mut awaited = 0;
        if let Some(remote) = &mut self.remote {
            awaited = remote.others(self.shard_count);
            for to in (0..64).filter(|to| awaited & 1 << to != 0) {
                remote.mesh.ask(to, key);
            }
        }
        let replay = Replay {
            fresh,
            since,
            looked_up: 0,
            cursor: Cursor::default(),
            waits: false,
            is_over: self.draining,
            awaited,
        };
        self.replays.by.insert(key, replay);
        self.replays.ready.push(key);
        if let Some(session) = self.sessions.get_mut(key) {
            session.replaying = true;
        }
        Next::Hold
    }

    /// Gives the next values to those who wait for some.
    pub(super) fn replay(&mut self) {
        if !self.replays.is_ready() {
            return;
        }
        let Some(values) = self.replays.values.clone() else {
            return;
        };
        let mut steps = STEPS_PER_TURN;
        for key in std::mem::take(&mut self.replays.ready) {
            if !self.takes_values(key) {
                self.end_replay(self.now, key);
                continue;
            }
            let Some(mut replay) = self.replays.by.remove(&key) else {
                continue;
            };
            if steps > 0 {
                self.replay_some(key, &mut replay, &values, &mut steps);
            }
            if !replay.waits && !replay.is_read() {
                self.replays.ready.push(key);
            }
            self.replays.by.insert(key, replay);
            self.end_replay_if_done(key);
        }
    }

    fn takes_values(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| session.closing.is_none() && !session.outbound.broken)
    }

    fn replay_some(
        &mut self,
        key: SessionKey,
        replay: &mut Replay,
        values: &LastValues,
        steps: &mut usize,
    ) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        if session.outbound.has_pieces() {
            return;
        }
        let bound = self.bounds[session.listener.index()];
        let ahead_max = AHEAD_MAX.min(bound.bytes_max / AHEAD_PART);
        let room = ahead_max.saturating_sub(session.outbound.backlog_bytes());
        if room < ahead_max / 2 {
            replay.waits = true;
            return;
        }
        let mut frames = Vec::new();
        while frames.len() < room && *steps > 0 && !replay.is_read() {
            let fitting = (room - frames.len()).div_ceil(FRAME_LEN_MAX);
            let count = fitting.min(LOOKED_AT_ONCE);
            let looked_at = self.look_at(key, replay, values, *steps, count, &mut frames);
            *steps = steps.saturating_sub(looked_at);
        }
        self.give_values(key, &frames);
    }

    /// Looks at some values, and appends those that the session is to get. Returns how many
    /// comparisons that were: about as many as it may have, `steps`, or less.
    fn look_at(
        &mut self,
        key: SessionKey,
        replay: &mut Replay,
        values: &LastValues,
        steps: usize,
        count: usize,
        frames: &mut Vec<u8>,
    ) -> usize {
        if let Some(topic) = replay.fresh.topics.get(replay.looked_up) {
            replay.looked_up += 1;
            let hash = self.register.hash(topic.as_bytes());
            if !self.had_before(key, &replay.fresh, hash, topic)
                && let Some(frame) = values.find(hash, topic.as_bytes(), replay.since)
            {
                frames.extend_from_slice(&frame);
            }
            return 1 + self.shapes_beside(key, &replay.fresh);
        }
        let cost = replay.fresh.filters.len() + self.shapes_beside(key, &replay.fresh);
        let Replay {
            fresh,
            cursor,
            since,
            ..
        } = replay;
        let count = (steps / cost).clamp(1, count);
        values.scan(cursor, *since, count, |hash, topic, frame| {
            let Ok(topic) = str::from_utf8(topic) else {
                return;
            };
            let is_new = !fresh.holds(topic) && fresh.covers(topic);
            if is_new && !self.had_before(key, fresh, hash, topic) {
                frames.extend_from_slice(frame);
            }
        });
        cost * count
    }

    /// Whether a session got messages on a topic before it has subscribed to these.
    fn had_before(&mut self, key: SessionKey, fresh: &Fresh, hash: u64, topic: &str) -> bool {
        if self.register.is_subscribed(key, topic) && !fresh.holds(topic) {
            return true;
        }
        if self.shapes_beside(key, fresh) == 0 {
            return false;
        }
        let matched = self.wildcards.matched(hash, topic.as_bytes());
        let filters = self.wildcards.filters();
        let mut names = matched.iter().map(|filter| filters.name_at(*filter));
        names.any(|name| {
            let is_fresh = fresh.filters.iter().any(|(filter, _)| **filter == *name);
            !is_fresh && filters.is_subscribed(key, name)
        })
    }

    /// How many shapes a topic has to be held against to find that; none without other filters.
    fn shapes_beside(&self, key: SessionKey, fresh: &Fresh) -> usize {
        match self.wildcards.filters().topics(key).len() > fresh.filters.len() {
            true => self.wildcards.shape_count(),
            false => 0,
        }
    }

    /// Values are deliveries like others.
    fn give_values(&mut self, key: SessionKey, frames: &[u8]) {
        let (_, count) = whole_frames(frames, frames.len());
        let Some(session) = self.sessions.get_mut(key).filter(|_| count > 0) else {
            return;
        };
        let bound = self.bounds[session.listener.index()];
        session.deliveries += count;
        self.counters.deliveries_matched += count;
        self.counters.deliveries_replayed += count;
        let outbound = &mut session.outbound;
        let before = outbound.backlog_bytes();
        let kept = outbound.keep(frames, count, bound, &mut self.spare_chunks);
        self.backlog_total = self.backlog_total + outbound.backlog_bytes() - before;
        self.settle_kept(self.now, key, kept);
        self.mark_dirty(key);
    }

    /// The socket has taken something: whoever waited for that goes on.
    #[inline]
    pub(super) fn replay_on(&mut self, key: SessionKey) {
        if self
            .sessions
            .get(key)
            .is_some_and(|session| session.replaying)
            && let Some(replay) = self.replays.by.get_mut(&key)
            && std::mem::take(&mut replay.waits)
        {
            self.replays.ready.push(key);
        }
    }

    /// Nothing with a number up to its `since` comes from shard `from` any more. False if nobody
    /// waits for that.
    pub(super) fn replay_passed(&mut self, from: usize, key: SessionKey) -> bool {
        let Some(replay) = self.replays.by.get_mut(&key) else {
            return false;
        };
        replay.awaited &= !(1 << from);
        self.end_replay_if_done(key);
        true
    }

    /// The broker stops: nobody gets more values, and what was read behind a SUBSCRIBE is executed
    /// as soon as older messages are accounted for.
    pub(super) fn stop_replays(&mut self) {
        let keys: Vec<_> = self.replays.by.keys().copied().collect();
        for key in keys {
            if let Some(replay) = self.replays.by.get_mut(&key) {
                replay.is_over = true;
            }
            self.end_replay_if_done(key);
        }
    }

    fn end_replay_if_done(&mut self, key: SessionKey) {
        let replay = self.replays.by.get(&key);
        if replay.is_some_and(|replay| replay.is_read() && replay.awaited == 0) {
            self.end_replay(self.now, key);
        }
    }

    /// The session has its values, or will get none; it is read again.
    pub(super) fn end_replay(&mut self, now: Timestamp, key: SessionKey) {
        if self.replays.by.remove(&key).is_none() {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.replaying = false;
        let (is_stopped, has_answers) = (session.is_stopped(), session.has_answers());
        if !has_answers && !self.watches_progress(key) {
            // What is left of the values waits as messages do.
            self.deadlines.progress.disarm(key.slot());
        }
        if !is_stopped {
            self.read_again(now, key);
        }
    }

    /// Whom of `listeners`, in their order, a message with this number is left out for: they get a
    /// value that is at least as new.
    #[cold]
    pub(super) fn left_out(
        &mut self,
        listeners: &[SessionKey],
        number: u64,
        hash: u64,
        topic: &[u8],
    ) -> Vec<SessionKey> {
        let Ok(topic) = str::from_utf8(topic) else {
            return Vec::new();
        };
        // Those that are left out cost none of what deliveries do.
        self.budget.spend_frames(listeners.len());
        let replays = std::mem::take(&mut self.replays.by);
        let is_left_out = |key: &SessionKey| {
            let session = self.sessions.get(*key);
            let is_replaying = session.is_some_and(|session: &Session| session.replaying);
            let replay = replays.get(key).filter(|_| is_replaying);
            replay.is_some_and(|replay| {
                number <= replay.since
                    && replay.fresh.covers(topic)
                    && !self.had_before(*key, &replay.fresh, hash, topic)
            })
        };
        let left_out = listeners.iter().copied().filter(is_left_out).collect();
        self.replays.by = replays;
        left_out
    }
}

/// Values that are held against filters in one go, while whoever publishes to them waits.
const LOOKED_AT_ONCE: usize = 256;
