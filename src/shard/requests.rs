//! What a session asks for: CONNECT, DISCONNECT, SUBSCRIBE, UNSUBSCRIBE, and what it may not.

use crate::deadline::Timestamp;
use crate::handler::{ConnectAnswer, ConnectRequest, SessionHandler, SessionView, Verdict};
use crate::metrics::DiscardCause;
use crate::packet::{
    Answer, Extensions, Frame, Hello, PAYLOAD_LEN_MAX, Packet, Status, Topics, id,
};
use crate::register::directory::Interest;
use crate::register::wildcard::Pattern;
use crate::session::{CloseReason, Extended, Session, SessionKey, SessionState};
use crate::shard::Shard;
use crate::shard::parse::Next;

/// The statuses of a request, one for each topic: as many as a frame has room for.
struct Statuses {
    bytes: [u8; PAYLOAD_LEN_MAX],
    len: usize,
}

impl Statuses {
    const fn none() -> Self {
        Self {
            bytes: [0; PAYLOAD_LEN_MAX],
            len: 0,
        }
    }

    const fn push(&mut self, status: Status) {
        // A topic takes at least its length byte, so there are no more of them.
        self.bytes[self.len] = status.byte();
        self.len += 1;
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<H: SessionHandler> Shard<H> {
    /// Everything but a well-formed PUBLISH of a connected session.
    pub(super) fn on_frame(
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
            Err(error) => {
                if self.is_answered(key) {
                    self.answer_list(key, frame.id(), &[Status::Malformed.byte()]);
                }
                return self.discard(now, key, error.into());
            }
        };
        if connected && self.handler.on_packet(view, &packet) == Verdict::Discard {
            return self.deny(now, key, &packet);
        }
        match packet {
            Packet::Connect { payload } => {
                self.counters.count_accepted(id::CONNECT, 1);
                self.connect(now, key, view, payload)
            }
            Packet::Disconnect { .. } => {
                self.counters.count_accepted(id::DISCONNECT, 1);
                self.close(key, CloseReason::ClientDisconnect);
                Next::Stop
            }
            Packet::Subscribe { topics } => self.subscribe(now, key, view, topics),
            Packet::Unsubscribe { topics } => self.unsubscribe(key, view, topics),
            // Of PUBLISH packets none comes here: `Step` takes all that have a meaning.
            Packet::Unknown { .. } | Packet::Publish { .. } => {
                self.discard(now, key, DiscardCause::UnknownId)
            }
        }
    }

    fn connect(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        view: SessionView,
        payload: &[u8],
    ) -> Next {
        if self.is_connected(key) {
            return Next::Go;
        }
        let hello = Hello::parse(payload);
        if let (Some(hello), Some(session)) = (&hello, self.sessions.get_mut(key)) {
            let asked = hello.as_ref().copied().unwrap_or_default();
            session.extended = Some(Box::new(Extended::of(&asked)));
        }
        let Ok(hello) = hello.transpose() else {
            self.close(key, CloseReason::HelloMalformed);
            return Next::Stop;
        };
        let request = ConnectRequest::new(payload, hello, key, &self.resolver);
        let answer = self.handler.on_connect(view, request);
        let Some(session) = self.sessions.get_mut(key) else {
            return Next::Stop;
        };
        match answer {
            ConnectAnswer::Accept => {
                session.state = SessionState::Connected;
                self.deadlines.connect.disarm(key.slot());
                self.grant(now, key);
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

    /// Adds all topics of a list, as a set. Beyond a limit a session without answers is closed,
    /// because a base client could not be told otherwise.
    fn subscribe(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        view: SessionView,
        topics: Topics<'_>,
    ) -> Next {
        let extensions = self.extensions_of(key);
        let mut statuses = Statuses::none();
        let (mut granted, mut refused) = (0, None);
        for topic in topics {
            self.budget.spend_frames(1);
            let pattern = pattern(extensions, topic);
            if pattern == Pattern::Bad {
                refused = Some(DiscardCause::BadFilter);
                statuses.push(Status::Malformed);
                continue;
            }
            if self.handler.on_subscribe(view, topic) == Verdict::Discard {
                refused.get_or_insert(DiscardCause::Denied);
                statuses.push(Status::NotAuthorised);
                continue;
            }
            granted += 1;
            if self.is_at_subscription_limit(key, topic, pattern) {
                if extensions.contains(Extensions::ACK) {
                    statuses.push(Status::Limit);
                    continue;
                }
                self.close(key, CloseReason::LimitSubscriptions);
                break;
            }
            if self.add_topic(key, topic, pattern) {
                self.replays.note(topic, pattern);
            }
            statuses.push(Status::Ok);
        }
        if extensions.contains(Extensions::ACK) {
            self.answer_list(key, id::SUBSCRIBE, statuses.as_bytes());
        }
        if let (0, Some(cause)) = (granted, refused) {
            return self.discard(now, key, cause);
        }
        self.counters.count_accepted(id::SUBSCRIBE, 1);
        match self.replays.has_fresh() {
            true => self.begin_replay(key),
            false => self.next(key),
        }
    }

    /// Removes all topics of a list that the session holds. The empty list is a ping for who may
    /// send one, and nothing for others.
    fn unsubscribe(&mut self, key: SessionKey, view: SessionView, topics: Topics<'_>) -> Next {
        self.counters.count_accepted(id::UNSUBSCRIBE, 1);
        let extensions = self.extensions_of(key);
        let is_answered = extensions.contains(Extensions::ACK);
        if topics.is_empty() && is_answered {
            return self.ping(key);
        }
        let mut statuses = Statuses::none();
        for topic in topics {
            self.budget.spend_frames(1);
            let pattern = pattern(extensions, topic);
            if pattern == Pattern::Bad {
                statuses.push(Status::Malformed);
                continue;
            }
            self.handler.on_unsubscribe(view, topic);
            self.remove_topic(key, topic, pattern);
            statuses.push(Status::Ok);
        }
        if is_answered {
            self.answer_list(key, id::UNSUBSCRIBE, statuses.as_bytes());
        }
        self.next(key)
    }

    /// Whether that is new.
    fn add_topic(&mut self, key: SessionKey, topic: &str, pattern: Pattern) -> bool {
        if let Pattern::Filter(_) = pattern {
            return self.change_filters(|wildcards| {
                let added = wildcards.subscribe(key, topic);
                debug_assert!(added.is_some(), "the limit on shapes was looked at");
                added == Some(true)
            });
        }
        let remote = self.remote.as_ref();
        self.register
            .subscribe_with(key, topic, |name| match remote {
                Some(remote) => remote.join(name),
                None => Interest::alone(name),
            })
    }

    fn remove_topic(&mut self, key: SessionKey, topic: &str, pattern: Pattern) {
        if let Pattern::Filter(_) = pattern {
            self.change_filters(|wildcards| wildcards.unsubscribe(key, topic));
            return;
        }
        let remote = self.remote.as_ref();
        self.register.unsubscribe_with(key, topic, |orphan| {
            remote.iter().for_each(|remote| remote.leave(orphan));
        });
    }

    /// The handler lets a packet have no effect. A ping has none, so it is answered all the same.
    fn deny(&mut self, now: Timestamp, key: SessionKey, packet: &Packet<'_>) -> Next {
        let next = self.discard(now, key, DiscardCause::Denied);
        match *packet {
            Packet::Unsubscribe { topics } if topics.is_empty() && self.is_answered(key) => {
                return self.ping(key);
            }
            Packet::Subscribe { topics } | Packet::Unsubscribe { topics }
                if self.is_answered(key) =>
            {
                let mut statuses = Statuses::none();
                topics.for_each(|_| statuses.push(Status::NotAuthorised));
                self.answer_list(key, packet.id(), statuses.as_bytes());
                return self.next(key);
            }
            _ => {}
        }
        next
    }

    /// The extensions that are in force for a session.
    fn extensions_of(&self, key: SessionKey) -> Extensions {
        let session = self.sessions.get(key);
        session.map_or(Extensions::NONE, Session::extensions)
    }

    fn is_answered(&self, key: SessionKey) -> bool {
        self.extensions_of(key).contains(Extensions::ACK)
    }

    /// Answers a SUBSCRIBE or UNSUBSCRIBE, by its id.
    fn answer_list(&mut self, key: SessionKey, id: u8, statuses: &[u8]) {
        match id {
            id::SUBSCRIBE => self.answer(key, &Answer::Subscribe { statuses }),
            id::UNSUBSCRIBE => self.answer(key, &Answer::Unsubscribe { statuses }),
            _ => {}
        }
    }

    /// Behind an answer, for which there may have been no room.
    pub(super) fn next(&self, key: SessionKey) -> Next {
        match self.is_closing(key) {
            true => Next::Stop,
            false => Next::Go,
        }
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
            return self.next(key);
        }
        self.close(key, CloseReason::ProtocolErrorBudget);
        Next::Stop
    }

    pub(super) fn is_connected(&self, key: SessionKey) -> bool {
        self.sessions
            .get(key)
            .is_some_and(|session| session.state == SessionState::Connected)
    }
}

/// What a topic of a list is for a session with these extensions.
fn pattern(extensions: Extensions, topic: &str) -> Pattern {
    match extensions.contains(Extensions::WILD) {
        true => Pattern::of(topic),
        false => Pattern::Exact,
    }
}
