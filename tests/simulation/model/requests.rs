//! What sessions ask for, and what they are answered.

use hvlp::deadline::Timestamp;
use hvlp::session::{CloseReason, SessionState};

use super::{Fate, Model};
use crate::filters::{self, Kind};
use crate::guard;
use crate::model::extended::{Extended, Owed};
use crate::model::replay::Fresh;
use crate::wire;

/// What an extended CONNECT begins with.
const MAGIC: [u8; 3] = [0xFF, b'H', b'+'];
/// Statuses, of CONNECT and of topics.
const OK: u8 = 0;
const NOT_AUTHORISED: u8 = 1;
const MALFORMED: u8 = 2;
const LIMIT: u8 = 3;

impl Model {
    pub(super) fn connect(&mut self, number: u64, payload: &[u8], now: Timestamp) {
        let mut choice = payload.first().copied();
        if let Some(fields) = payload.strip_prefix(&MAGIC[..]) {
            let asked = match *fields {
                [want, keepalive] => Some((want, keepalive, None)),
                [want, keepalive, 1, user] => Some((want, keepalive, Some(user))),
                _ => None,
            };
            let (want, keepalive, user) = asked.unwrap_or_default();
            self.session(number).extended = Some(Extended::of(want, keepalive, now));
            if asked.is_none() {
                return self.end(number, CloseReason::HelloMalformed);
            }
            choice = user;
        }
        match choice {
            Some(guard::LATER) => self.session(number).state = SessionState::Verifying,
            Some(guard::UNAUTHORISED) => self.end(number, CloseReason::AuthFailed),
            Some(guard::BEYOND_LIMIT) => self.end(number, CloseReason::LimitConnect),
            _ => self.grant(number, now),
        }
    }

    fn grant(&mut self, number: u64, now: Timestamp) {
        let offered = self.config.extensions.bits();
        let session = self.session(number);
        session.state = SessionState::Connected;
        session.connect_due = None;
        if let Some(extended) = &mut session.extended {
            extended.grant(offered, now);
            let answer = wire::hello_answer(extended.bits(), OK);
            self.answer(number, Owed::Frame(answer));
        }
    }

    /// A ticket was answered.
    pub(crate) fn resolved(
        &mut self,
        number: u64,
        verdict: Result<(), CloseReason>,
        now: Timestamp,
    ) {
        let Some(session) = self.sessions.get(&number) else {
            return;
        };
        if session.state != SessionState::Verifying || !session.is_open() {
            return;
        }
        match verdict {
            Ok(()) if self.draining[session.shard] => self.end(number, CloseReason::Shutdown),
            Ok(()) => self.grant(number, now),
            Err(reason) => self.end(number, reason),
        }
    }

    /// A list that makes no sense.
    pub(super) fn malformed(&mut self, number: u64, id: u8) {
        if matches!(id, 3 | 4) {
            self.answer_list(number, id, &[MALFORMED]);
        }
    }

    pub(super) fn subscribe(&mut self, number: u64, topics: Vec<String>) -> Fate {
        let (mut statuses, mut fresh) = (Vec::new(), Fresh::default());
        let is_answered = self.sessions[&number].is_answered();
        for topic in topics {
            let kind = self.kind(number, &topic);
            let status = if kind == Kind::Bad {
                MALFORMED
            } else if guard::is_denied(&topic) {
                NOT_AUTHORISED
            } else if self.is_full(number, &topic, kind) {
                LIMIT
            } else {
                self.add(number, topic, kind, &mut fresh);
                OK
            };
            statuses.push(status);
            if status == LIMIT && !is_answered {
                self.end(number, CloseReason::LimitSubscriptions);
                break;
            }
        }
        self.answer_list(number, 3, &statuses);
        self.begin_replay(number, fresh);
        if statuses.iter().any(|it| matches!(*it, OK | LIMIT)) || statuses.is_empty() {
            Fate::Accepted
        } else if statuses.contains(&MALFORMED) {
            Fate::BadFilter
        } else {
            Fate::Denied
        }
    }

    pub(super) fn unsubscribe(&mut self, number: u64, topics: &[String]) -> Fate {
        if topics.is_empty() && self.sessions[&number].is_answered() {
            let executed = self.ledger.executed();
            let extended = self.session(number).extended.as_mut();
            let is_late = extended.is_some_and(|it| std::mem::take(&mut it.has_forwarded));
            self.answer(number, Owed::Pong { executed, is_late });
            return Fate::Accepted;
        }
        let mut statuses = Vec::new();
        for topic in topics {
            let kind = self.kind(number, topic);
            let session = self.session(number);
            statuses.push(match kind {
                Kind::Bad => MALFORMED,
                Kind::Topic => {
                    session.topics.remove(topic);
                    OK
                }
                Kind::Filter => {
                    session.filters.remove(topic);
                    OK
                }
            });
        }
        self.answer_list(number, 4, &statuses);
        Fate::Accepted
    }

    fn kind(&self, number: u64, topic: &str) -> Kind {
        match self.sessions[&number].has(wire::WILD) {
            true => filters::kind(topic),
            false => Kind::Topic,
        }
    }

    fn add(&mut self, number: u64, topic: String, kind: Kind, fresh: &mut Fresh) {
        let values = &self.ledger.values;
        let (keeps, meets) = (values.keeps(&topic), values.meets(&topic));
        let session = self.session(number);
        match kind {
            Kind::Filter => {
                if session.filters.insert(topic.clone()) && meets {
                    fresh.filters.push(topic);
                }
            }
            _ => {
                if session.topics.insert(topic.clone()) && keeps {
                    fresh.topics.push(topic);
                }
            }
        }
    }

    fn is_full(&self, number: u64, topic: &str, kind: Kind) -> bool {
        let (session, limits) = (&self.sessions[&number], &self.config.limits);
        let shard = session.shard;
        let all = self.of_shard(shard);
        let count: usize = all.map(|(_, other)| other.subscription_count()).sum();
        let (topics, filters) = (self.topics_of(shard), self.filters_of(shard));
        let (held, is_new) = match kind {
            Kind::Filter => (&session.filters, !filters.contains(topic)),
            _ => (&session.topics, !topics.contains(topic)),
        };
        let shapes: std::collections::BTreeSet<_> = filters
            .iter()
            .map(|filter| filters::shape(filter))
            .collect();
        let has_shape = kind != Kind::Filter
            || shapes.len() < limits.filter_shapes_max
            || shapes.contains(&filters::shape(topic));
        !held.contains(topic)
            && (session.subscription_count() >= limits.subscriptions_per_session_max
                || count >= limits.subscriptions_max
                || is_new && topics.len() + filters.len() >= limits.topics_max
                || !has_shape)
    }

    /// Answers a list, if the session has asked for answers.
    fn answer_list(&mut self, number: u64, id: u8, statuses: &[u8]) {
        if self.sessions[&number].is_answered() {
            self.answer(number, Owed::Frame(wire::frame(id, statuses)));
        }
    }
}
