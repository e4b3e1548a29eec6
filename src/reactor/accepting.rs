//! New connections: taken from the listeners, and given to the reactor with the fewest sessions.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Limits;
use crate::deadline::Timestamp;
use crate::handler::SessionHandler;
use crate::metrics::RefuseReason;
use crate::reactor::connections::Connection;
use crate::reactor::journal::Journal;
use crate::reactor::listener::Accepted;
use crate::reactor::transport::Transport;
use crate::reactor::turn::Reactor;
use crate::session::{ListenerId, Peer, SessionKey};

/// How soon connections are taken: `limits.accepts_per_second`, of which a tenth may come at once.
#[derive(Debug)]
pub(super) struct AcceptRate {
    interval: Duration,
    burst: Duration,
    /// When a whole burst may come again, since the start.
    restored: Duration,
    is_resting: bool,
}

impl AcceptRate {
    pub(super) fn new(limits: &Limits) -> Self {
        let per_second = u32::try_from(limits.accepts_per_second).unwrap_or(u32::MAX);
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self {
            interval,
            burst: interval.max(Duration::from_millis(100)),
            restored: Duration::ZERO,
            is_resting: false,
        }
    }

    /// From `now` to the next connection that may be taken.
    pub(super) fn rest(&self, now: Timestamp) -> Duration {
        let owed = self.restored.saturating_sub(now.since_start());
        (owed + self.interval).saturating_sub(self.burst)
    }

    fn spend(&mut self, now: Timestamp) {
        self.restored = self.restored.max(now.since_start()) + self.interval;
    }

    /// Whether a rest begins at `now`, or there is none.
    fn begins_to_rest(&mut self, now: Timestamp) -> bool {
        let is_resting = !self.rest(now).is_zero();
        let was_resting = std::mem::replace(&mut self.is_resting, is_resting);
        is_resting && !was_resting
    }
}

impl<H: SessionHandler> Reactor<H> {
    pub(super) fn accept(&mut self) {
        let mut budget = self.config.limits.accept_per_turn;
        let count = self.listeners.len();
        // Another one goes first each turn, so that none can use up the budget for ever.
        let first = (self.first_listener + 1) % count.max(1);
        self.first_listener = first;
        for index in (0..count).map(|offset| (first + offset) % count) {
            while budget > 0 && self.listeners[index].is_due(self.now) {
                if self.accept_rate.begins_to_rest(self.now) {
                    self.shard.count_accept_rest();
                }
                if self.accept_rate.is_resting {
                    return;
                }
                budget -= 1;
                match self.listeners[index].accept(self.now) {
                    Accepted::Connection(transport, peer) => {
                        self.accept_rate.spend(self.now);
                        self.place(transport, peer, ListenerId::of(index));
                    }
                    Accepted::Lost | Accepted::None => {}
                    Accepted::NoDescriptors { error, refused } => {
                        if refused {
                            self.shard.refuse(RefuseReason::NoDescriptors);
                        }
                        self.journal.no_descriptors(self.now, &error);
                    }
                }
            }
        }
    }

    /// Gives a connection to the reactor with the fewest sessions.
    fn place(&mut self, transport: Transport, peer: Peer, listener: ListenerId) {
        let reactor = match self.peers.place(peer, self.config.limits.sessions_max) {
            Ok(reactor) => reactor,
            Err(reason) => return self.shard.refuse(reason),
        };
        if reactor == self.id {
            self.adopt(transport, peer, listener);
        } else if !self.peers.mailboxes[reactor].post_connection(transport, peer, listener) {
            self.peers.unplace(reactor, peer);
            self.shard.refuse(RefuseReason::Overload);
        }
    }

    /// Makes a session of a connection, for the engine to watch.
    pub(super) fn adopt(&mut self, transport: Transport, peer: Peer, listener: ListenerId) {
        if self.stopping.is_some() {
            self.shard.refuse(RefuseReason::Stopping);
            return self.peers.unplace(self.id, peer);
        }
        let Ok(key) = self.shard.open_at(self.now, peer, listener) else {
            return self.peers.unplace(self.id, peer);
        };
        if let Err(error) =
            transport.configure(&self.listener_configs[listener.index()], key.slot())
        {
            self.journal.option_refused(&error);
        }
        if let Some(pipe) = transport.pipe() {
            pipe.attach(Arc::clone(&self.mailbox), key);
        }
        Journal::opened(self.shard.number(key), peer);
        self.connections.insert(Connection::new(key, transport));
        self.unwatched.push(key);
    }

    /// Takes `adopt` back: the connection cannot be watched.
    pub(super) fn reject(&mut self, key: SessionKey) {
        if let Some(peer) = self.shard.peer(key) {
            self.peers.unplace(self.id, peer);
        }
        self.shard.forget(key, RefuseReason::RegisterFailed);
        self.connections.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d1_a_tenth_of_a_second_may_come_at_once_and_then_one_at_a_time() {
        for per_second in [1, 3, 10, 700, 10_000, 300_000] {
            let mut rate = AcceptRate::new(&Limits {
                accepts_per_second: per_second,
                ..Limits::default()
            });
            let start = Timestamp::from(Duration::from_secs(7));
            let mut burst = 0;
            while rate.rest(start).is_zero() {
                rate.spend(start);
                burst += 1;
            }
            assert!(rate.begins_to_rest(start) && !rate.begins_to_rest(start));
            let tenth = (per_second / 10).max(1);
            assert!((tenth..=tenth + tenth / 1000).contains(&burst), "{burst}");
            let mut now = start;
            for _ in 0..3 * per_second {
                // Timers tell whole microseconds.
                now = now + rate.rest(now) + Duration::from_micros(1);
                assert!(rate.rest(now).is_zero());
                rate.spend(now);
            }
            let took = now.since(start).as_secs_f64();
            assert!(
                (2.99..3.01).contains(&took),
                "{per_second} a second: {took} s"
            );
        }
    }
}
