//! Slow consumers that hold publishers: what the model learns of it, and what shards tell others.

use std::collections::VecDeque;

use hvlp::session::SessionKey;
use hvlp::shard::PauseChange;

use crate::faults::Mark;
use crate::model::Backlog;
use crate::outside::Outside;
use crate::reactor::Reactor;

/// What a shard tells another, with the number of the consumer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) consumer: u64,
    pub(crate) change: PauseChange,
}

impl Reactor {
    /// Whoever waited for a session that has ended is read again, here and on other reactors.
    pub(super) fn tell_of_pauses(&mut self) {
        self.resume();
        while let Some((to, change)) = self.shard.next_pause_change() {
            let (PauseChange::Hold { consumer, .. } | PauseChange::Release { consumer }) = change;
            let consumer = self.numbers[&consumer];
            self.told.push_back(Told {
                from: self.id,
                to: usize::from(to),
                consumer,
                change,
            });
        }
    }

    pub(super) fn apply_pause(&mut self, outside: &mut Outside, told: Told) {
        let from = u8::try_from(told.from).expect("at most three");
        self.shard.apply_pause(outside.now, from, told.change);
        match told.change {
            PauseChange::Hold { topic_hash, .. } => {
                let directory = &self.directory;
                let is_it = |topic: &str| directory.hash(topic.as_bytes()) == topic_hash;
                outside.model.hold(self.id, told.consumer, is_it);
            }
            PauseChange::Release { .. } => outside.model.released(self.id, told.consumer),
        }
        self.note_stopped(outside);
    }

    /// Tells the model how much is owed to a session.
    pub(super) fn note_backlog(&self, outside: &mut Outside, key: SessionKey) {
        let mut sessions = self.shard.sessions();
        if let Some((_, info)) = sessions.find(|(open, _)| *open == key) {
            let backlog = Backlog {
                bytes: info.backlog_bytes,
                frames: info.owed,
                pauses: self.shard.counters().pauses,
            };
            outside.model.backlog(info.number, backlog, outside.now);
        }
    }

    /// Tells the model who is stopped and who is read again.
    pub(super) fn note_stopped(&mut self, outside: &mut Outside) {
        for (key, connection) in &mut self.connections {
            let is = self.shard.is_stopped(*key);
            let was = std::mem::replace(&mut connection.was_stopped, is);
            let now = outside.now;
            outside.model.stopped(connection.number, was, is, now);
        }
    }

    /// At the end of a turn: nobody is held without a reason, nor read in spite of one.
    pub(super) fn check_held(&self, outside: &mut Outside) {
        let is_handed_over = self.shard.is_handed_over();
        for (key, connection) in self.connections.iter().filter(|(_, it)| !it.is_lingering) {
            let is_stopped = self.shard.is_stopped(*key);
            let number = connection.number;
            outside.model.check_held(number, is_stopped, is_handed_over);
            let (here, elsewhere) = outside.model.waits(number);
            outside.faults.mark(Mark::HeldHere, here > 0);
            outside.faults.mark(Mark::HeldElsewhere, elsewhere > 0);
            let pings = is_stopped && outside.model.sessions[&number].may_await_pong();
            outside.faults.mark(Mark::PingAwaited, pings);
            outside.faults.mark(Mark::HeldTwice, here + elsewhere > 1);
        }
    }

    /// What is under way to others, in its order.
    pub(crate) const fn told(&mut self) -> &mut VecDeque<Told> {
        &mut self.told
    }
}
