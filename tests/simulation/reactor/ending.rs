//! The end of connections, and of the reactor.

use std::time::Duration;

use hvlp::deadline::Timestamp;
use hvlp::session::{CloseReason, SessionKey};
use hvlp::shard::{Closed, Parting};

use crate::faults::Mark;
use crate::model::{Moment, Owing};
use crate::outside::Outside;
use crate::reactor::{RETIRED_MAX, Reactor};

/// Fewer than the engine's: there are fewer sessions.
const REAPED_PER_TURN: usize = 2;
/// As long as the engine's.
const LINGER: Duration = Duration::from_secs(1);
const FAREWELL: Duration = Duration::from_millis(100);

impl Reactor {
    pub(super) fn expire(&mut self, outside: &mut Outside) {
        let owing: Vec<_> = self.shard.sessions().collect();
        for (key, info) in owing {
            // Nobody knows yet whether its socket takes what it is owed. It has taken all before.
            if self.offered.iter().any(|(offered, _)| *offered == key) {
                outside.model.session(info.number).stalled_since = None;
                continue;
            }
            let taken = self
                .connections
                .get_mut(&key)
                .map_or(0, |it| std::mem::take(&mut it.taken));
            let owing = Owing {
                frames: info.owed,
                bytes: info.backlog_bytes,
            };
            outside.model.owing(info.number, owing, taken, outside.now);
        }
        self.shard.expire(outside.now);
        self.observe(outside, Moment::Expire);
        outside.model.check_expired(self.id, outside.now);
        if self
            .stopping
            .is_some_and(|deadline| deadline <= outside.now)
        {
            outside
                .faults
                .mark(Mark::DrainDeadline, self.shard.session_count() > 0);
            self.shard.close_all();
            self.observe(outside, Moment::Drain);
        }
    }

    pub(super) fn reap(&mut self, outside: &mut Outside) {
        for _ in 0..REAPED_PER_TURN {
            let Some(closed) = self.shard.next_closed() else {
                break;
            };
            self.check_reason(outside, closed.key, closed.reason);
            outside.model.closed(&closed, outside.now, self.stopping);
            let hears = outside.model.hears_reason(closed.number, closed.reason);
            outside.faults.mark(Mark::LastWords, hears);
            self.end_connection(outside, &closed);
        }
        let is_over = |(due, _): &(Timestamp, SessionKey)| *due <= outside.now;
        let (over, waiting) = self.lingering.drain(..).partition(is_over);
        let over: Vec<_> = over;
        self.lingering = waiting;
        for (_, key) in over {
            self.close_connection(outside, key);
        }
        let connections = &self.connections;
        self.lingering
            .retain(|(_, key)| connections.contains_key(key));
        self.note_stopped(outside);
        self.tell_of_pauses();
        self.shard.end_work();
        if self.offered.is_empty() {
            self.shard.void(&mut self.arena);
        }
        let is_left = self.shard.has_leftovers();
        outside.faults.mark(Mark::LeftForTheNextTurn, is_left);
    }

    fn end_connection(&mut self, outside: &mut Outside, closed: &Closed) {
        let key = closed.key;
        let lingers = closed.parting == Parting::Lingering;
        let Some(connection) = self.connections.get_mut(&key).filter(|_| lingers) else {
            return self.close_connection(outside, key);
        };
        connection.is_lingering = true;
        let peer = connection.peer;
        let wait = match outside.receive(peer, usize::MAX) {
            Ok(bytes) if !bytes.is_empty() => LINGER,
            Err(std::io::ErrorKind::WouldBlock)
                if closed.reason != CloseReason::ClientDisconnect =>
            {
                FAREWELL
            }
            _ => return self.close_connection(outside, key),
        };
        outside.faults.mark(Mark::Lingering, true);
        let due = outside.now + wait;
        let due = self.stopping.map_or(due, |deadline| due.min(deadline));
        self.lingering.push((due, key));
        self.make_ready(key);
    }

    /// Throws input away; returns how much.
    pub(super) fn linger(&mut self, outside: &mut Outside, key: SessionKey) -> usize {
        let peer = self.connections[&key].peer;
        match outside.receive(peer, usize::MAX) {
            Ok(bytes) if !bytes.is_empty() => {
                self.make_ready(key);
                return bytes.len();
            }
            Err(std::io::ErrorKind::WouldBlock) => {}
            _ => self.close_connection(outside, key),
        }
        0
    }

    fn close_connection(&mut self, outside: &mut Outside, key: SessionKey) {
        if let Some(connection) = self.connections.remove(&key) {
            outside.peers[connection.peer].socket.close();
            self.shard.reaped(key);
            outside.model.forget(connection.number);
            self.retire(key);
        }
    }

    pub(super) fn retire(&mut self, key: SessionKey) {
        if self.retired.len() == RETIRED_MAX {
            self.retired.remove(0);
        }
        self.retired.push(key);
    }

    // ---- the end of all

    pub(super) fn stop(&mut self, outside: &Outside) {
        if self.stopping.is_none() {
            let deadline = outside.now + outside.config.drain_timeout;
            self.stopping = Some(deadline);
            for (due, _) in &mut self.lingering {
                *due = (*due).min(deadline);
            }
        }
    }

    pub(crate) const fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether its thread has ended.
    pub(crate) fn is_finished(&self, outside: &Outside) -> bool {
        let is_over = |deadline| self.has_all || deadline <= outside.now;
        self.shard.session_count() == 0 && self.stopping.is_some_and(is_over)
    }

    pub(super) fn wind_down(&mut self, outside: &mut Outside) {
        if self.stopping.is_none() {
            return;
        }
        if !self.shard.is_draining() {
            self.shard.stop_reading();
            outside.model.stop_reading(self.id);
        }
        let is_silent = !self.shard.has_any_held() && self.shard.is_handed_over();
        if !self.is_quiet && is_silent {
            self.is_quiet = true;
            outside.quiet += 1;
        }
        self.has_all |= outside.quiet == outside.reactors && self.shard.is_delivered();
        if self.has_all {
            self.shard.drain();
            self.observe(outside, Moment::Drain);
        }
    }
}
