//! What a shard tells about itself to whoever asks.

use crate::handler::SessionHandler;
use crate::metrics::{Counters, Overload};
use crate::register::Register;
use crate::register::wildcard::Wildcards;
use crate::session::{SessionInfo, SessionKey};
use crate::shard::Shard;

impl<H: SessionHandler> Shard<H> {
    /// The counters, with what is owed and held as it is now.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters {
            topics: self.topic_count() as u64,
            topic_bytes: self.topic_bytes() as u64,
            accounted_bytes: self.accounted_bytes() as u64,
            subscriptions: self.subscription_count() as u64,
            backlog_bytes: self.backlog_total as u64,
            held_bytes: self.held_total as u64,
            ..self.counters.clone()
        };
        for (_, session) in self.sessions.iter() {
            let backlog = session.owed_bytes() as u64;
            counters.deliveries_owed += session.outbound.owed();
            counters.backlog_bytes_max_session = counters.backlog_bytes_max_session.max(backlog);
            counters.publishers_paused += u64::from(session.is_stopped());
            counters.count_in_state(session.state, 1);
        }
        for (overload, holds) in Overload::ALL.into_iter().zip(self.overloads) {
            counters.count_overload(overload, u64::from(holds));
        }
        if let Some(values) = self.replays.values() {
            counters.last_value_topics = values.topics() as u64;
            counters.last_value_bytes = values.bytes() as u64;
            counters.last_values_evicted = values.evicted();
        }
        if let Some(remote) = &self.remote {
            (counters.mesh_bytes, counters.doorbells) = remote.mesh.totals();
            counters.mesh_spill_bytes = remote.mesh.spill_total() as u64;
        }
        counters
    }

    /// Who wants what, here.
    pub const fn register(&self) -> &Register {
        &self.register
    }

    /// Who has which filter, here.
    pub const fn wildcards(&self) -> &Wildcards {
        &self.wildcards
    }

    /// Topics and filters that somebody here is subscribed to.
    pub(super) fn topic_count(&self) -> usize {
        self.register.topic_count() + self.wildcards.filters().topic_count()
    }

    /// The lengths of their names together.
    pub(super) const fn topic_bytes(&self) -> usize {
        self.register.topic_bytes() + self.wildcards.filters().topic_bytes()
    }

    pub(super) fn subscription_count(&self) -> usize {
        self.register.subscription_count() + self.wildcards.filters().subscription_count()
    }

    /// What a session is subscribed to, filters last.
    fn topics(&self, key: SessionKey) -> impl Iterator<Item = &str> {
        let filters = self.wildcards.filters().topics(key);
        self.register.topics(key).chain(filters)
    }

    /// How many slots are taken.
    pub const fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// What is known of each session that has not ended.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionKey, SessionInfo)> {
        let live = self
            .sessions
            .iter()
            .filter(|(_, session)| session.closing.is_none());
        live.map(|(key, session)| {
            let info = SessionInfo {
                number: session.number,
                peer: session.peer,
                state: session.state,
                since: session.opened,
                topics: self.topics(key).map(String::from).collect(),
                frames_in: session.frames_in,
                deliveries: session.deliveries,
                owed: session.outbound.owed(),
                backlog_bytes: session.owed_bytes(),
            };
            (key, info)
        })
    }
}
