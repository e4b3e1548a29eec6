//! Who holds whom, and for how long: the policy `pause`.
//!
//! When a consumer pauses follows from its backlog alone. Whoever publishes to it here is held with
//! that frame; whoever does elsewhere, from the moment that its shard was told.

use hvlp::deadline::Timestamp;
use hvlp::outbound::SlowConsumer;

use crate::model::Model;

impl Model {
    /// What is owed to a session takes so many bytes now.
    pub(crate) fn backlog(&mut self, number: u64, bytes: usize, now: Timestamp) {
        if self.ledger.policy(number) != SlowConsumer::Pause {
            return;
        }
        let bytes_max = self.config.listener.outbound_max;
        let session = self.session(number);
        let shard = session.shard;
        if bytes >= bytes_max && session.pausing_since.is_none() && session.is_open() {
            session.pausing_since = Some(now);
            self.expected[shard].pauses += 1;
        } else if bytes == 0 && session.pausing_since.take().is_some() {
            self.released(shard, number);
        }
    }

    /// A frame was executed: its publisher waits for whoever pauses among those that get it.
    pub(super) fn wait(&mut self, publisher: u64, topic: &str, is_forwarded: bool) {
        let shard = self.sessions[&publisher].shard;
        if self.draining[shard] {
            return;
        }
        let here = self.of_shard(shard).filter(|(number, session)| {
            let is_pausing = session.pausing_since.is_some();
            *number != publisher && is_pausing && session.topics.contains(topic)
        });
        let mut consumers: Vec<_> = here.map(|(number, _)| number).collect();
        if is_forwarded && let Some(elsewhere) = self.holds[shard].get(topic) {
            consumers.extend(elsewhere);
        }
        self.session(publisher).waits_for.extend(consumers);
    }

    /// Shard `to` is told that whoever publishes what `is_it` names waits for a consumer.
    pub(crate) fn hold(&mut self, to: usize, consumer: u64, is_it: impl Fn(&str) -> bool) {
        let topics = self.all_topics.get(&consumer).into_iter().flatten();
        let topic = topics.map(String::as_str).find(|topic| is_it(topic));
        let topic = topic.expect("it was subscribed to what it holds publishers of");
        let holds = self.holds[to].entry(topic.to_owned()).or_default();
        assert!(holds.insert(consumer), "a shard is told once");
    }

    /// Nobody of a shard waits for a consumer any more.
    pub(crate) fn released(&mut self, shard: usize, consumer: u64) {
        for session in self.sessions.values_mut() {
            if session.shard == shard {
                session.waits_for.remove(&consumer);
            }
        }
        for consumers in self.holds[shard].values_mut() {
            consumers.remove(&consumer);
        }
    }

    /// Sessions are held exactly if they wait for somebody, or perhaps for a ring that is full.
    pub(crate) fn check_held(&self, number: u64, is_stopped: bool, is_handed_over: bool) {
        let session = &self.sessions[&number];
        let waits = !session.waits_for.is_empty();
        assert!(
            is_stopped == waits || is_stopped && !is_handed_over,
            "session {number} is stopped: {is_stopped}; it waits for {:?}",
            session.waits_for
        );
    }

    /// A session is read, or what it holds is executed: it waits for nobody. So a consumer that
    /// pauses is brought no more than one receive of each publisher, and what is in the mesh.
    pub(crate) fn check_read(&self, number: u64) {
        let waits_for = &self.sessions[&number].waits_for;
        assert!(
            waits_for.is_empty(),
            "session {number} is read while it waits for {waits_for:?}"
        );
    }

    /// For how many of its own shard, and of others, a session waits.
    pub(crate) fn waits(&self, number: u64) -> (usize, usize) {
        let session = &self.sessions[&number];
        let is_here = |consumer: &&u64| {
            let consumer = self.sessions.get(*consumer);
            consumer.is_some_and(|it| it.shard == session.shard)
        };
        let here = session.waits_for.iter().filter(is_here).count();
        (here, session.waits_for.len() - here)
    }
}
