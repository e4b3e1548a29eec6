//! What holds after every turn, whenever nothing moves, and at the end.

use std::collections::BTreeSet;

use hvlp::metrics::DiscardCause;
use hvlp::metrics::DropReason;
use hvlp::outbound::SlowConsumer;
use hvlp::session::{CloseReason, SessionKey};

use crate::account::is_lossless;
use crate::model::{Model, Session};
use crate::reactor::Reactor;
use crate::world::World;

impl World {
    /// After a turn of one reactor.
    pub(crate) fn check_turn(&self, reactor: usize) {
        let reactor = &self.reactors[reactor];
        let model = &self.outside.model;
        check_counters(reactor, model);
        check_sessions(reactor, model);
        check_bounds(reactor, self);
        check_register(reactor, model);
        self.check_directory();
    }

    /// The directory holds what the registers hold, each shard by its bit.
    fn check_directory(&self) {
        if self.reactors.len() == 1 {
            return;
        }
        let by_shard: Vec<BTreeSet<&str>> = (0..self.reactors.len())
            .map(|shard| self.outside.model.topics_of(shard))
            .collect();
        let all: BTreeSet<&str> = by_shard.iter().flatten().copied().collect();
        assert_eq!(
            self.directory.topic_count(),
            all.len(),
            "topics of the directory"
        );
        let filtering = (0..self.reactors.len())
            .filter(|shard| !self.outside.model.filters_of(*shard).is_empty());
        let filtering: u64 = filtering.map(|shard| 1 << shard).sum();
        assert_eq!(self.directory.filtering(), filtering, "shards with filters");
        for topic in all {
            let hash = self.directory.hash(topic.as_bytes());
            let wanted = self.directory.look_up(hash, topic.as_bytes());
            let found = self.directory.recall(hash, &wanted);
            let bits = by_shard
                .iter()
                .enumerate()
                .filter(|(_, topics)| topics.contains(topic));
            let bits: u64 = bits.map(|(shard, _)| 1 << shard).sum();
            assert_eq!(found, Some(bits), "shards that want {topic:?}");
        }
    }

    /// No reactor has a reason to run: nothing is left that could be done.
    pub(crate) fn check_idle(&mut self) {
        // One that has ended at its deadline takes nothing any more.
        let is_meshed = !self.reactors.iter().any(|it| it.is_finished(&self.outside));
        if is_meshed {
            // A shard may have taken frames before it was known that they were there for it.
            (0..self.reactors.len()).for_each(|shard| self.outside.model.delivered(shard, true));
            let is_settled = self.outside.model.ledger.is_settled();
            assert!(is_settled, "frames are lost between shards");
        }
        for reactor in self.reactors.iter().filter(|_| is_meshed) {
            let numbers: Vec<_> = reactor.sessions().map(|(_, number, _)| number).collect();
            let model = &mut self.outside.model;
            numbers.iter().for_each(|number| model.end_replay(*number));
        }
        let (running, ledger) = (&self.reactors, &mut self.outside.model.ledger);
        for reactor in running.iter().filter(|it| it.shard.session_count() > 0) {
            let owed = reactor.shard.counters().deliveries_owed;
            assert_eq!(owed, 0, "shard {} owes something", reactor.id);
            reactor
                .sessions()
                .for_each(|(_, number, _)| ledger.paid(number));
            let is_handed_over = reactor.shard.is_handed_over() && reactor.shard.is_delivered();
            assert!(
                !is_meshed || is_handed_over,
                "shard {} has frames of others",
                reactor.id
            );
            // Of those whose connections linger nothing is read any more.
            let mut sessions = reactor.sessions();
            let is_held = sessions.any(|(key, ..)| reactor.shard.is_stopped(key));
            assert!(
                !is_meshed || !is_held && !reactor.shard.has_pauses(),
                "shard {} still holds somebody",
                reactor.id
            );
            for (key, number, peer) in reactor.sessions() {
                let session = &self.outside.model.sessions[&number];
                assert!(
                    !session.is_open() || !is_meshed || !session.has_answers(),
                    "session {number} is owed answers"
                );
                assert!(session.is_open(), "session {number} does not leave");
                let socket = &self.outside.peers[peer].socket;
                let has_input = socket.has_input() || reactor.shard.has_held(key);
                assert!(
                    reactor.is_stopping() || !has_input,
                    "session {number} has input that nobody reads"
                );
            }
        }
        let missed = self.counters().doorbells_missed;
        let lost = self.outside.lost_doorbells;
        assert!(missed <= lost, "{missed} sleepers were not woken");
    }

    /// Everybody has left.
    pub(crate) fn check_end(&self) {
        let counters = self.counters();
        for reactor in &self.reactors {
            assert!(
                !reactor.is_stopping() || reactor.is_finished(&self.outside),
                "reactor {} does not end",
                reactor.id
            );
            assert!(
                reactor.is_empty() && reactor.shard.session_count() == 0,
                "sessions are left"
            );
            assert_eq!(reactor.shard.register().topic_count(), 0, "topics are left");
            assert!(reactor.shard.wildcards().is_empty(), "filters are left");
            assert!(!reactor.shard.has_any_held(), "input is left");
            // One that has ended is told nothing any more.
            let has_pauses = reactor.shard.has_pauses();
            assert!(reactor.is_stopping() || !has_pauses, "pauses are left");
        }
        assert_eq!(
            self.directory.topic_count(),
            0,
            "topics of the directory are left"
        );
        assert_eq!(counters.sessions_opened, counters.sessions_closed.total());
        assert_eq!(
            counters.deliveries_matched,
            counters.deliveries_written + counters.deliveries_dropped.total()
        );
    }
}

/// Everything that the shard has counted is what the model has seen.
fn check_counters(reactor: &Reactor, model: &Model) {
    let counters = reactor.shard.counters();
    let expected = &model.expected[reactor.id];
    assert!(counters.is_conserved(), "{counters:?}");
    let accepted: Vec<_> = (1..=5).map(|id| counters.accepted(id)).collect();
    assert_eq!(accepted, expected.accepted, "accepted packets, by id");
    assert_eq!(counters.frames_read, expected.frames_read, "frames");
    assert_eq!(
        counters.frames_discarded.total(),
        expected.discarded,
        "discarded frames"
    );
    assert_eq!(
        counters.discarded(DiscardCause::Denied),
        expected.denied,
        "denied frames"
    );
    assert_eq!(
        counters.discarded(DiscardCause::BadFilter),
        expected.bad_filters,
        "bad filters"
    );
    assert_eq!(
        counters.publishes_unmatched, expected.unmatched,
        "messages that nobody wants"
    );
    assert_eq!(counters.pauses, expected.pauses, "pauses begun");
    assert_eq!(counters.bytes_in, expected.bytes_in, "bytes in");
    assert_eq!(counters.bytes_out, expected.bytes_out, "bytes out");
    assert_eq!(counters.sessions_opened, expected.opened, "sessions opened");
    assert_eq!(
        counters.sessions_refused.total(),
        expected.refused,
        "connections refused"
    );
    assert_eq!(
        counters.deliveries_written, model.ledger.written[reactor.id],
        "written"
    );
    for reason in CloseReason::ALL {
        let count = expected.closed[reason as usize];
        assert_eq!(
            counters.closed(reason),
            count,
            "sessions closed for {reason}"
        );
    }
    let has_policies = model.has_policies(reactor.id);
    // What is lost with a socket, or when a session ends, is counted, and told with its end.
    let is_known =
        |(_, session): (_, &Session)| session.is_told || session.is_open() && !session.is_broken;
    let may_be_more = has_policies || !model.of_shard(reactor.id).all(is_known);
    for reason in DropReason::ALL {
        let count = expected.dropped[reason as usize];
        let found = counters.dropped(reason);
        assert!(
            found == count || found > count && may_be_more,
            "{found} deliveries dropped for {reason}, not {count}"
        );
    }
}

/// The sessions are those of the model, each with what it has there.
fn check_sessions(reactor: &Reactor, model: &Model) {
    let (shard, mut open) = (&reactor.shard, BTreeSet::new());
    for (key, info) in shard.sessions() {
        let number = info.number;
        let session = model.sessions.get(&number).expect("it was opened");
        assert!(
            session.is_open() && session.key == key,
            "session {number} is open"
        );
        assert_eq!(session.state, info.state, "state of session {number}");
        let topics: BTreeSet<_> = info.topics.iter().cloned().collect();
        let held: BTreeSet<_> = session.topics.union(&session.filters).cloned().collect();
        assert_eq!(held, topics, "topics of session {number}");
        assert!(
            session.input.iter().eq(shard.remainder(key)),
            "session {number} keeps what it has not executed"
        );
        let (must, may) = model.ledger.owed(number);
        let must = match is_lossless(model.ledger.policy(number)) {
            true => must,
            false => 0,
        };
        assert!(
            (must..=may).contains(&info.owed),
            "session {number} is owed {}",
            info.owed
        );
        let (must, may) = model.ledger.matched(number);
        assert!(
            (must..=may).contains(&info.deliveries),
            "session {number}: {} deliveries, of {must} to {may}",
            info.deliveries
        );
        open.insert(number);
    }
    let mine: Vec<_> = model.of_shard(reactor.id).collect();
    assert_eq!(shard.session_count(), mine.len(), "slots");
    let expected = mine.iter().filter(|(_, session)| session.is_open());
    let expected: BTreeSet<_> = expected.map(|(number, _)| *number).collect();
    assert_eq!(open, expected, "open sessions");
}

/// What the shard holds is within its bounds, overhead included.
fn check_bounds(reactor: &Reactor, world: &World) {
    let (config, model) = (&world.outside.config, &world.outside.model);
    let (mut total, mut answers_total) = (0, 0);
    for (_, info) in reactor.shard.sessions() {
        let bytes = info.backlog_bytes;
        let bytes_max = match model.ledger.policy(info.number) {
            SlowConsumer::Conflate => 64 * 1024,
            // What comes before its publishers stand still has as much again.
            SlowConsumer::Pause => 2 * config.listener.outbound_max,
            _ => config.listener.outbound_max,
        };
        // No policy drops answers, but they have a bound of their own.
        let answers = model.sessions[&info.number].answer_memory();
        assert!(
            bytes <= bytes_max + answers,
            "a backlog takes {bytes} bytes"
        );
        total += bytes;
        answers_total += answers;
    }
    assert!(
        total <= config.limits.outbound_total_max + answers_total,
        "all backlogs take {total} bytes"
    );
    let held = model.held_total(reactor.id);
    assert!(
        held <= config.limits.held_total_max,
        "held input takes {held} bytes"
    );
    // Of sessions that have ended none is left.
    let waits = model.of_shard(reactor.id);
    let waits: usize = waits.map(|(_, session)| session.waits_for.len()).sum();
    assert_eq!(
        reactor.shard.wait_count(),
        waits,
        "waits for slow consumers"
    );
    assert!(
        reactor.shard.session_count() <= config.limits.sessions_max,
        "sessions"
    );
}

fn check_register(reactor: &Reactor, model: &Model) {
    let register = reactor.shard.register();
    let topics = model.topics_of(reactor.id);
    assert_eq!(register.topic_count(), topics.len(), "topics");
    for topic in topics {
        let found: BTreeSet<SessionKey> = register.subscribers(topic).iter().copied().collect();
        let subscribed = model
            .of_shard(reactor.id)
            .filter(|(_, it)| it.topics.contains(topic));
        let subscribed: BTreeSet<_> = subscribed.map(|(_, session)| session.key).collect();
        assert_eq!(found, subscribed, "subscribers of {topic:?}");
    }
    let all = model.of_shard(reactor.id);
    let count: usize = all.map(|(_, it)| it.topics.len()).sum();
    assert_eq!(register.subscription_count(), count, "subscriptions");
    let filters = reactor.shard.wildcards().filters();
    let all = model.of_shard(reactor.id);
    let count: usize = all.map(|(_, it)| it.filters.len()).sum();
    assert_eq!(filters.subscription_count(), count, "filters held");
    let count = model.filters_of(reactor.id).len();
    assert_eq!(filters.topic_count(), count, "filters");
}
