//! New connections: taken from the listeners, and given to the reactor with the fewest sessions.

use std::sync::Arc;

use crate::handler::SessionHandler;
use crate::metrics::RefuseReason;
use crate::reactor::connections::Connection;
use crate::reactor::journal::Journal;
use crate::reactor::listener::Accepted;
use crate::reactor::mio::{Reactor, token};
use crate::reactor::transport::Transport;
use crate::session::{ListenerId, Peer};

impl<H: SessionHandler> Reactor<H> {
    pub(super) fn accept(&mut self) {
        let mut budget = self.config.limits.accept_per_turn;
        let count = self.listeners.len();
        // Another one goes first each turn, so that none can use up the budget for ever.
        let first = (self.first_listener + 1) % count.max(1);
        self.first_listener = first;
        for index in (0..count).map(|offset| (first + offset) % count) {
            while budget > 0 && self.listeners[index].is_due(self.now) {
                budget -= 1;
                match self.listeners[index].accept(self.now) {
                    Accepted::Connection(transport, peer) => {
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

    pub(super) fn adopt(&mut self, mut transport: Transport, peer: Peer, listener: ListenerId) {
        if self.stopping.is_some() {
            self.shard.refuse(RefuseReason::Stopping);
            return self.peers.unplace(self.id, peer);
        }
        let Ok(key) = self.shard.open_at(self.now, peer, listener) else {
            return self.peers.unplace(self.id, peer);
        };
        if let Err(error) = transport.configure(&self.listener_configs[listener.index()]) {
            self.journal.option_refused(&error);
        }
        if transport
            .register(self.poll.registry(), token(key))
            .is_err()
        {
            self.shard.forget(key, RefuseReason::RegisterFailed);
            return self.peers.unplace(self.id, peer);
        }
        if let Some(pipe) = transport.pipe() {
            pipe.attach(Arc::clone(&self.mailbox), key);
        }
        Journal::opened(self.shard.number(key), peer);
        self.connections.insert(Connection::new(key, transport));
    }
}
