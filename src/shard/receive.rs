//! Bytes in: frames are split, runs are routed, subscriptions change.

use crate::arena::{Arena, Piece};
use crate::deadline::Timestamp;
use crate::handler::{ConnectAnswer, ConnectRequest, SessionHandler, SessionView, Verdict};
use crate::metrics::{DiscardCause, DropReason};
use crate::packet::{Frame, HEADER_LEN, Packet, Topics, id};
use crate::register::Route;
use crate::session::{CloseReason, Foreign, SessionKey, SessionState};
use crate::shard::Shard;
use crate::shard::run::{Run, Step, is_same};

/// What the parser does after a frame.
enum Next {
    Go,
    /// The session waits for the handler's answer; the rest is held.
    Hold,
    /// The session has ended; the rest is not executed.
    Stop,
}

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
    /// Returns a rest that was not looked at when the turn has as many pieces as it may have: flush
    /// every dirty session, then go on with `receive_rest`.
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
        let remainder = std::mem::take(&mut session.remainder);
        self.counters.receives += 1;
        self.counters.bytes_in += piece.len().saturating_sub(remainder.len()) as u64;
        let begun = !remainder.is_empty();
        self.keep_spare(remainder);
        self.note_foreign(key, arena.bytes(piece));
        self.receive_part(now, key, arena, piece, begun)
    }

    /// Goes on with what `receive` has left.
    #[must_use]
    pub fn receive_rest(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        arena: &mut Arena,
        rest: Piece,
    ) -> Option<Piece> {
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
                return Some(piece.part(parsed, piece.len()));
            }
            Next::Go => self.keep_remainder(now, key, rest, begun && parsed == 0),
            Next::Hold => self.hold(key, rest),
            Next::Stop => self.deadlines.frame.disarm(key.slot()),
        }
        let rest_len = rest.len();
        arena.give_back(piece, rest_len);
        None
    }

    /// Executes whole frames from the front; returns how many bytes they were.
    fn parse(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        piece: Piece,
        bytes: &[u8],
    ) -> (usize, Next) {
        let Some(session) = self.sessions.get(key) else {
            return (0, Next::Stop);
        };
        if session.closing.is_some() {
            return (0, Next::Stop);
        }
        let view = SessionView {
            number: session.number,
            peer: session.peer,
        };
        let mut connected = session.state == SessionState::Connected;
        let frames_before = self.counters.frames_read;
        let (mut at, mut run, mut next) = (0, Run::NONE, Next::Go);

        while let Some((len, step)) = Step::next(&bytes[at..], &run, connected) {
            match step {
                Step::Publish { topic, data, same } => {
                    if !same {
                        self.end_run(key, piece, bytes, run.take());
                    }
                    let mut verdict = self.on_publish(view, topic, data);
                    if verdict == Verdict::Allow {
                        run.extend(topic, &bytes[at..at + len], at);
                        verdict = self.take_repeats(view, bytes, &mut run);
                        at = run.end;
                    }
                    if verdict == Verdict::Discard {
                        self.end_run(key, piece, bytes, run.take());
                        self.counters.frames_read += 1;
                        self.counters.count_discarded(DiscardCause::Denied, 1);
                        at += len;
                    }
                }
                Step::Other(frame) => {
                    self.end_run(key, piece, bytes, run.take());
                    self.counters.frames_read += 1;
                    next = self.on_frame(now, key, view, frame);
                    connected = self.is_connected(key);
                    at += len;
                }
            }
            if !matches!(next, Next::Go) || self.pieces.len() >= self.limits.pieces_per_turn {
                break;
            }
        }
        self.end_run(key, piece, bytes, run.take());
        if let Some(session) = self.sessions.get_mut(key) {
            session.frames_in += self.counters.frames_read - frames_before;
        }
        (at, next)
    }

    /// Extends the run by all frames behind it that differ from its last one in their data alone.
    /// Nothing else is left to be checked then, and most frames of a burst are like this.
    ///
    /// `Discard` if the frame behind the run is one of these and the handler denied it.
    fn take_repeats(&mut self, view: SessionView, bytes: &[u8], run: &mut Run<'_>) -> Verdict {
        let len = run.last.len();
        let (head, _) = run.last.split_at(HEADER_LEN + 1 + run.topic.len());
        while let Some(frame) = bytes.get(run.end..run.end + len) {
            let (next_head, data) = frame.split_at(head.len());
            if !is_same(head, next_head) {
                break;
            }
            if self.on_publish(view, run.topic, data) == Verdict::Discard {
                return Verdict::Discard;
            }
            run.end += len;
            run.frames += 1;
        }
        Verdict::Allow
    }

    #[inline]
    fn on_publish(&mut self, view: SessionView, topic: &str, data: &[u8]) -> Verdict {
        match self
            .handler
            .on_packet(view, &Packet::Publish { topic, data })
        {
            Verdict::Allow => self.handler.on_publish(view, topic, data),
            Verdict::Discard => Verdict::Discard,
        }
    }

    /// Gives a run to everyone who wants it.
    #[inline]
    fn end_run(&mut self, publisher: SessionKey, piece: Piece, bytes: &[u8], run: Run<'_>) {
        if run.frames == 0 {
            return;
        }
        self.counters.frames_read += u64::from(run.frames);
        self.counters
            .count_accepted(id::PUBLISH, u64::from(run.frames));
        let topic = run.topic.as_bytes();
        let others = match &mut self.remote {
            None => 0,
            Some(remote) => {
                let route = self.register.route(topic);
                remote.wanted_by(topic, route.and_then(Route::interest))
            }
        };
        self.forward(others, publisher, &bytes[run.start..run.end]);
        let piece = piece.part(run.start, run.end);
        let matched = self.fan_out(topic, Some(publisher), piece, run.frames);
        if matched == 0 && others == 0 {
            self.counters.publishes_unmatched += u64::from(run.frames);
        }
    }

    /// Appends a run for every shard whose bit is set.
    fn forward(&mut self, mut shards: u64, publisher: SessionKey, run: &[u8]) {
        let Some(remote) = &mut self.remote else {
            return;
        };
        while shards != 0 {
            remote
                .mesh
                .forward(shards.trailing_zeros() as usize, publisher, run);
            shards &= shards - 1;
        }
    }

    /// Gives a run to everyone here who wants it, except its publisher; returns how many deliveries
    /// that are.
    #[inline]
    pub(super) fn fan_out(
        &mut self,
        topic: &[u8],
        publisher: Option<SessionKey>,
        piece: Piece,
        frames: u32,
    ) -> u64 {
        let Some(route) = self.register.route(topic) else {
            return 0;
        };
        let mut matched = 0;
        let mut starved = Vec::new();
        for &subscriber in route.subscribers() {
            if Some(subscriber) == publisher {
                continue;
            }
            let Some(session) = self.sessions.get_mut(subscriber) else {
                continue;
            };
            if session.closing.is_some() || session.outbound.broken {
                continue;
            }
            matched += u64::from(frames);
            session.deliveries += u64::from(frames);
            if session
                .outbound
                .push(&mut self.pieces, piece, frames)
                .is_err()
            {
                starved.push(subscriber);
                continue;
            }
            if !session.outbound.dirty {
                session.outbound.dirty = true;
                self.dirty.push(subscriber);
            }
        }
        for subscriber in starved {
            self.count_dropped(subscriber, DropReason::NoMemory, u64::from(frames));
            self.close(subscriber, CloseReason::NoMemory);
        }
        self.counters.deliveries_matched += matched;
        matched
    }

    /// Everything but a well-formed PUBLISH of a connected session.
    fn on_frame(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        view: SessionView,
        frame: Frame<'_>,
    ) -> Next {
        let connected = self.is_connected(key);
        let packet = match frame.packet() {
            Ok(packet @ (Packet::Connect { .. } | Packet::Disconnect { .. })) => packet,
            _ if !connected => return self.discard(now, key, DiscardCause::BeforeConnect),
            Ok(packet) => packet,
            Err(error) => return self.discard(now, key, error.into()),
        };
        if connected && self.handler.on_packet(view, &packet) == Verdict::Discard {
            return self.discard(now, key, DiscardCause::Denied);
        }
        match packet {
            Packet::Connect { payload } => {
                self.counters.count_accepted(id::CONNECT, 1);
                self.connect(key, view, payload)
            }
            Packet::Disconnect { .. } => {
                self.counters.count_accepted(id::DISCONNECT, 1);
                self.close(key, CloseReason::ClientDisconnect);
                Next::Stop
            }
            Packet::Subscribe { topics } => self.subscribe(now, key, view, topics),
            Packet::Unsubscribe { topics } => {
                self.counters.count_accepted(id::UNSUBSCRIBE, 1);
                for topic in topics {
                    self.handler.on_unsubscribe(view, topic);
                    if self.register.unsubscribe(key, [topic]) > 0 {
                        self.withdraw(topic);
                    }
                }
                Next::Go
            }
            // Of PUBLISH packets none comes here: `Step` takes all that have a meaning.
            Packet::Unknown { .. } | Packet::Publish { .. } => {
                self.discard(now, key, DiscardCause::UnknownId)
            }
        }
    }

    fn connect(&mut self, key: SessionKey, view: SessionView, payload: &[u8]) -> Next {
        if self.is_connected(key) {
            return Next::Go;
        }
        let request = ConnectRequest::new(payload, key, &self.resolver);
        let answer = self.handler.on_connect(view, request);
        let Some(session) = self.sessions.get_mut(key) else {
            return Next::Stop;
        };
        match answer {
            ConnectAnswer::Accept => {
                session.state = SessionState::Connected;
                self.deadlines.connect.disarm(key.slot());
                Next::Go
            }
            ConnectAnswer::Refuse(refusal) => {
                self.close(key, refusal.close_reason());
                Next::Stop
            }
            ConnectAnswer::Later(_) => {
                session.state = SessionState::Verifying;
                Next::Hold
            }
        }
    }

    /// Adds all topics of a list, as a set; beyond a limit the session is closed, because a base
    /// client could not be told otherwise.
    fn subscribe(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        view: SessionView,
        topics: Topics<'_>,
    ) -> Next {
        let (mut granted, mut denied) = (0, 0);
        for topic in topics {
            if self.handler.on_subscribe(view, topic) == Verdict::Discard {
                denied += 1;
                continue;
            }
            granted += 1;
            if self.is_at_subscription_limit(key, topic) {
                self.counters.count_accepted(id::SUBSCRIBE, 1);
                self.close(key, CloseReason::LimitSubscriptions);
                return Next::Stop;
            }
            let is_first = self.register.subscribers(topic).is_empty();
            self.register.subscribe(key, [topic]);
            if is_first {
                self.announce(topic);
            }
        }
        if granted == 0 && denied > 0 {
            return self.discard(now, key, DiscardCause::Denied);
        }
        self.counters.count_accepted(id::SUBSCRIBE, 1);
        Next::Go
    }

    fn is_at_subscription_limit(&self, key: SessionKey, topic: &str) -> bool {
        let (register, limits) = (&self.register, &self.limits);
        let full = register.topics(key).len() >= limits.subscriptions_per_session_max
            || register.subscription_count() >= limits.subscriptions_max
            || register.topic_count() >= limits.topics_max
                && register.subscribers(topic).is_empty();
        full && !register.is_subscribed(key, topic)
    }

    /// Discards a whole frame and charges it to the error budget, unless it was denied.
    fn discard(&mut self, now: Timestamp, key: SessionKey, cause: DiscardCause) -> Next {
        self.counters.count_discarded(cause, 1);
        let (budget, window) = (self.limits.error_budget, self.limits.error_window);
        let Some(session) = self.sessions.get_mut(key) else {
            return Next::Stop;
        };
        if cause == DiscardCause::Denied
            || !session
                .errors
                .get_or_insert_default()
                .charge(now, budget, window)
        {
            return Next::Go;
        }
        self.close(key, CloseReason::ProtocolErrorBudget);
        Next::Stop
    }

    fn is_connected(&self, key: SessionKey) -> bool {
        self.sessions
            .get(key)
            .is_some_and(|session| session.state == SessionState::Connected)
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
        if !same {
            self.deadlines.frame.rearm(key.slot(), now);
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.extend_from_slice(rest);
        if let Some(session) = self.sessions.get_mut(key) {
            session.remainder = buffer;
        }
    }

    /// Keeps the rest of a receive until the handler has answered; the session is not read further.
    fn hold(&mut self, key: SessionKey, rest: &[u8]) {
        self.deadlines.frame.disarm(key.slot());
        if self.held_total + rest.len() > self.limits.held_total_max {
            if let Some(session) = self.sessions.get_mut(key) {
                session.state = SessionState::WaitConnect;
            }
            self.close(key, CloseReason::LimitConnect);
            return;
        }
        self.held_total += rest.len();
        if let Some(session) = self.sessions.get_mut(key) {
            session.remainder = rest.to_vec();
        }
    }
}
