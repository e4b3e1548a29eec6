//! What a session asks for: CONNECT, DISCONNECT, SUBSCRIBE, UNSUBSCRIBE, and what it may not.

use crate::deadline::Timestamp;
use crate::handler::{ConnectAnswer, ConnectRequest, SessionHandler, SessionView, Verdict};
use crate::metrics::DiscardCause;
use crate::packet::{Frame, Packet, Topics, id};
use crate::register::directory::Interest;
use crate::session::{CloseReason, SessionKey, SessionState};
use crate::shard::Shard;
use crate::shard::parse::Next;

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
                    self.budget.spend_frames(1);
                    self.handler.on_unsubscribe(view, topic);
                    let remote = self.remote.as_ref();
                    self.register.unsubscribe_with(key, topic, |orphan| {
                        remote.iter().for_each(|remote| remote.leave(orphan));
                    });
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
            self.budget.spend_frames(1);
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
            let remote = self.remote.as_ref();
            self.register
                .subscribe_with(key, topic, |name| match remote {
                    Some(remote) => remote.join(name),
                    None => Interest::alone(name),
                });
        }
        if granted == 0 && denied > 0 {
            return self.discard(now, key, DiscardCause::Denied);
        }
        self.counters.count_accepted(id::SUBSCRIBE, 1);
        Next::Go
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

    pub(super) fn is_connected(&self, key: SessionKey) -> bool {
        self.sessions
            .get(key)
            .is_some_and(|session| session.state == SessionState::Connected)
    }
}
