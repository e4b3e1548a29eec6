//! Who holds whom, and for how long: the policy `pause`.
//!
//! When a consumer pauses follows from its backlog alone. Whoever publishes to it here is held with
//! that frame; whoever does elsewhere, from the moment that its shard was told.

use hvlp::deadline::Timestamp;
use hvlp::outbound::SlowConsumer;

use crate::model::Model;

/// What is owed to a session, by its shard's account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backlog {
    /// Memory, that of answers included.
    pub(crate) bytes: usize,
    pub(crate) frames: u64,
    /// How often anybody of its shard has paused so far.
    pub(crate) pauses: u64,
}

impl Model {
    /// What is owed to a session takes so many bytes now.
    ///
    /// Answers that wait take memory too, and are no reason to pause: where there are some, what
    /// the shard `has_paused` decides, within its bound.
    pub(crate) fn backlog(&mut self, number: u64, backlog: Backlog, now: Timestamp) {
        if self.ledger.policy(number) != SlowConsumer::Pause {
            return;
        }
        let bytes_max = self.config.listener.outbound_max;
        let session = self.session(number);
        let (shard, answers_max) = (session.shard, session.answer_memory());
        let is_full = backlog.bytes >= bytes_max;
        let pauses = match session.has_answers() {
            true => backlog.pauses > self.expected[shard].pauses,
            false => is_full,
        };
        let session = self.session(number);
        if pauses && session.pausing_since.is_none() && session.is_open() {
            assert!(
                is_full,
                "session {number} pauses over {} bytes",
                backlog.bytes
            );
            session.pausing_since = Some(now);
            self.expected[shard].pauses += 1;
        } else if backlog.frames == 0 && session.pausing_since.take().is_some() {
            self.released(shard, number);
        } else if session.is_open() && session.pausing_since.is_none() {
            let is_over = backlog.bytes >= bytes_max + answers_max;
            assert!(!is_over, "session {number} does not pause");
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
            *number != publisher && is_pausing && session.wants(topic)
        });
        let mut consumers: Vec<_> = here.map(|(number, _)| number).collect();
        if is_forwarded && let Some(elsewhere) = self.holds[shard].get(topic) {
            consumers.extend(elsewhere);
        }
        self.session(publisher).waits_for.extend(consumers);
    }

    /// Shard `to` is told that whoever publishes what `is_it` names waits for a consumer.
    pub(crate) fn hold(&mut self, to: usize, consumer: u64, is_it: impl Fn(&str) -> bool) {
        let topic = self.forwarded.iter().find(|topic| is_it(topic));
        let topic = topic.expect("it holds publishers of what came to it");
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
        // Its pong, and the end of last values, comes when other shards have answered.
        let may_wait = !is_handed_over || session.may_await();
        assert!(
            is_stopped == waits || is_stopped && may_wait,
            "session {number} is stopped: {is_stopped}; it waits for {:?}; {:?}",
            session.waits_for,
            session
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
