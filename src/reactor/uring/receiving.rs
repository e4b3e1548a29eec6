//! Bytes in: what the receives of the ring have brought, in its order, and what the sockets have
//! beyond that.

use std::io;

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::handler::SessionHandler;
use crate::packet::FRAME_LEN_MAX;
use crate::reactor::connections::Connection;
use crate::reactor::transport::Transport;
use crate::reactor::turn::Reactor;
use crate::reactor::uring::Engine;
use crate::reactor::uring::early::Came;
use crate::reactor::uring::requests::{About, InFlight};
use crate::reactor::uring::ring::Completion;
use crate::session::SessionKey;
use crate::shard::{Gone, Shard};

impl Engine {
    /// Takes note of a receive that has completed; its bytes are left for their turn.
    pub(super) fn notice_receive<H: SessionHandler>(
        &mut self,
        reactor: &mut Reactor<H>,
        key: SessionKey,
        completion: Completion,
    ) {
        let connection = reactor.connections.get_mut(key);
        let is_read = connection.is_some_and(|connection| {
            if !completion.more {
                connection.in_flight.remove(InFlight::RECEIVE);
            }
            !connection.in_flight.has(InFlight::ENDED)
        });
        match (is_read, completion.buffer) {
            (true, _) => self.received.push_back((key, completion)),
            (false, Some(buffer)) => self.ring.give_back(buffer),
            (false, None) => {}
        }
    }

    /// Reads what has come, in its order, until the turn's share is used up.
    pub(super) fn receive<H: SessionHandler>(&mut self, reactor: &mut Reactor<H>) {
        let mut budget = reactor.config.limits.read_per_turn;
        while budget > 0
            && !reactor.shard.is_spilling()
            && !reactor.shard.is_spent()
            && reactor.arena.make_room(FRAME_LEN_MAX)
            && let Some((key, completion)) = self.received.pop_front()
        {
            budget = budget.saturating_sub(self.receive_one(reactor, key, completion));
        }
        for (key, _) in &self.received {
            read_later(reactor, *key);
        }
        self.read_later(reactor, 0);
        self.resume(reactor);
        if !reactor.shard.is_spilling() {
            reactor.read_ready(&mut |reactor| self.flush(reactor));
            self.receive_early(reactor, budget);
        }
    }

    /// Whoever is read again has to be armed again, and what came early goes before its socket.
    fn resume<H>(&mut self, reactor: &mut Reactor<H>) {
        self.unarmed.extend(&reactor.ready);
        for &key in &reactor.ready {
            if self.early.resume(key)
                && let Some(connection) = reactor.connections.get_mut(key)
            {
                connection.is_readable = false;
            }
        }
    }

    /// What sockets have comes behind what completed for them since the ring was looked at: the
    /// completions from `first` on.
    pub(super) fn read_later<H>(&self, reactor: &mut Reactor<H>, first: usize) {
        for completion in &self.completions[first..] {
            if let About::Receive(key) = About::of(completion.user_data) {
                read_later(reactor, key);
            }
        }
    }

    /// Returns how many bytes that were.
    fn receive_one<H: SessionHandler>(
        &mut self,
        reactor: &mut Reactor<H>,
        key: SessionKey,
        completion: Completion,
    ) -> usize {
        let len = self.receive_bytes(reactor, key, &completion);
        if let Some(buffer) = completion.buffer {
            self.ring.give_back(buffer);
        }
        if !completion.more {
            self.unarmed.push(key);
        }
        let Some(connection) = reactor.connections.get_mut(key) else {
            return len;
        };
        // More than the ring takes at once is read from the socket itself, in larger pieces.
        let has_more = completion.nonempty || completion.result == Err(Errno::NOBUFS);
        if has_more && !self.early.has(key) {
            connection.is_readable = true;
            if connection.is_lingering || reactor.shard.wants_input(key) {
                reactor.make_ready(key);
            }
        } else {
            connection.is_readable = false;
        }
        len
    }

    fn receive_bytes<H: SessionHandler>(
        &mut self,
        reactor: &mut Reactor<H>,
        key: SessionKey,
        completion: &Completion,
    ) -> usize {
        let Some(connection) = reactor.connections.get(key) else {
            return 0;
        };
        let is_lingering = connection.is_lingering;
        let came = match completion.result {
            Ok(0) => Err(Gone::Eof),
            Ok(len) => Ok(len),
            // There is more to come, or nobody wants it.
            Err(Errno::NOBUFS | Errno::CANCELED | Errno::INTR | Errno::AGAIN) => return 0,
            Err(errno) => Err(Gone::Failed(io::Error::from(errno).kind())),
        };
        match came {
            _ if is_lingering => {
                if came.is_err() {
                    reactor.ended.push(key);
                }
            }
            _ if self.early.has(key) || !is_read(&reactor.shard, key) => {
                self.keep(reactor, key, completion, came);
            }
            Err(gone) => reactor.shard.gone(key, gone),
            Ok(len) => {
                let buffer = completion.buffer.unwrap_or_default();
                let piece = reactor.copy_in(key, self.ring.received(buffer, len));
                reactor.receive(key, piece, &mut |reactor| self.flush(reactor));
            }
        }
        came.unwrap_or(0)
    }

    /// Keeps what came for a session that is not to be read, and stops receiving.
    fn keep<H: SessionHandler>(
        &mut self,
        reactor: &mut Reactor<H>,
        key: SessionKey,
        completion: &Completion,
        came: Result<usize, Gone>,
    ) {
        let is_over = reactor.shard.is_closing(key) || reactor.shard.is_draining();
        match came {
            _ if is_over => {}
            Err(gone @ Gone::Failed(_)) if !reactor.shard.has_held(key) => {
                // As when its socket tells of an error: nobody will read it.
                self.forget_early(reactor, key);
                return reactor.shard.gone(key, gone);
            }
            Err(gone) => self.early.end(key, gone),
            Ok(len) => {
                let buffer = completion.buffer.unwrap_or_default();
                if reactor.shard.hold_early(key, len) {
                    self.early.push(key, self.ring.received(buffer, len));
                }
            }
        }
        if completion.more {
            let receive = About::Receive(key).pack();
            let canceled = self.ring.cancel(receive, About::Cancel.pack());
            self.note(canceled);
        }
    }

    /// Nobody will read what came for the session.
    pub(super) fn forget_early<H: SessionHandler>(
        &mut self,
        reactor: &mut Reactor<H>,
        key: SessionKey,
    ) {
        let len = self.early.forget(key);
        reactor.shard.release_early(len);
    }

    /// Reads what came for sessions that are read again: a piece at least, so that a turn whose
    /// share is used up by others leaves nobody behind for ever.
    fn receive_early<H: SessionHandler>(&mut self, reactor: &mut Reactor<H>, mut budget: usize) {
        while reactor.arena.make_room(FRAME_LEN_MAX)
            && let Some((key, came)) = self.early.next(&reactor.shard)
        {
            match came {
                Came::Bytes(bytes) => {
                    reactor.shard.release_early(bytes.len());
                    budget = budget.saturating_sub(bytes.len());
                    self.unarmed.push(key);
                    let piece = reactor.copy_in(key, &bytes);
                    reactor.receive(key, piece, &mut |reactor| self.flush(reactor));
                }
                Came::End(gone) => reactor.shard.gone(key, gone),
            }
            if budget == 0 || reactor.shard.is_spent() || reactor.shard.is_spilling() {
                break;
            }
        }
    }

    /// Arms the receives of those that are to be read, and watches over the others.
    pub(super) fn arm<H: SessionHandler>(&mut self, reactor: &mut Reactor<H>) -> io::Result<()> {
        while let Some(key) = self.unarmed.pop() {
            let is_stopped = !is_read(&reactor.shard, key) || self.early.has(key);
            let Some(connection) = reactor.connections.get_mut(key) else {
                continue;
            };
            let Connection {
                transport,
                in_flight,
                ..
            } = connection;
            let Some(socket) = transport.descriptor() else {
                continue;
            };
            if in_flight.has(InFlight::ENDED) || in_flight.has(InFlight::RECEIVE) {
                continue;
            }
            if is_stopped && !connection.is_lingering {
                if !reactor.shard.is_closing(key) && in_flight.add(InFlight::HANGUP) {
                    self.ring
                        .poll(socket, PollFlags::empty(), About::Hangup(key).pack())?;
                }
                continue;
            }
            in_flight.add(InFlight::RECEIVE);
            let about = About::Receive(key).pack();
            match transport {
                // Kernels before 2026 could lose the end of a stream to a repeated one.
                Transport::Unix(_) => self.ring.receive_once(socket, about)?,
                Transport::Tcp(_) | Transport::Process(_) => self.ring.receive(socket, about)?,
            }
        }
        Ok(())
    }
}

/// What is in its socket comes behind what the ring has brought.
fn read_later<H>(reactor: &mut Reactor<H>, key: SessionKey) {
    if let Some(connection) = reactor.connections.get_mut(key) {
        connection.is_readable = false;
    }
}

/// Whether input of the session is wanted, and none waits to be parsed before it.
pub(super) fn is_read<H: SessionHandler>(shard: &Shard<H>, key: SessionKey) -> bool {
    shard.wants_input(key) && !shard.has_held(key)
}
