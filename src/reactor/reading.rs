//! Bytes in: who is read, in which order, and how much of it in one turn.

use std::io;

use crate::arena::Piece;
use crate::handler::SessionHandler;
use crate::reactor::is_empty;
use crate::reactor::turn::Reactor;
use crate::session::SessionKey;
use crate::shard::Gone;

/// What is left to do for a session whose turn to be read has passed.
enum Left {
    Nothing,
    /// A budget stopped it.
    More,
}

impl<H: SessionHandler> Reactor<H> {
    /// Reads whoever has something, in turn, until the turn's share is used up. Who has more than a
    /// session's share is read again if that makes fewer, larger sends. `flush` is called in the
    /// midst when a turn has delivered its share.
    pub(super) fn read_ready(&mut self, flush: &mut impl FnMut(&mut Self)) {
        let mut budget = self.config.limits.read_per_turn;
        loop {
            for _ in 0..self.ready.len() {
                if budget == 0 || self.shard.is_spent() {
                    break;
                }
                self.read_next(&mut budget, flush);
            }
            if budget == 0
                || self.ready.is_empty()
                || self.shard.is_spent()
                || !self.shard.is_worth_filling()
            {
                break;
            }
        }
        self.shard.count_read_budget_exhausted(self.ready.len());
    }

    fn read_next(&mut self, turn_budget: &mut usize, flush: &mut impl FnMut(&mut Self)) {
        let Some(key) = self.ready.pop_front() else {
            return;
        };
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.is_ready = false;
        if connection.is_lingering {
            *turn_budget = turn_budget.saturating_sub(self.linger(key));
        } else if matches!(self.read_session(key, turn_budget, flush), Left::More) {
            self.make_ready(key);
        } else if !self.shard.has_held(key) && !self.shard.is_closing(key) {
            self.settle(key);
        }
    }

    /// All that was received of `key` has been executed; the process may wait for that.
    fn settle(&self, key: SessionKey) {
        let connection = self.connections.get(key);
        if let Some(pipe) = connection.and_then(|connection| connection.transport.pipe()) {
            pipe.settle();
        }
    }

    fn read_session(
        &mut self,
        key: SessionKey,
        turn_budget: &mut usize,
        flush: &mut impl FnMut(&mut Self),
    ) -> Left {
        let mut budget = self.config.limits.read_per_session.min(*turn_budget);
        if self.shard.has_held(key) && !self.shard.is_stopped(key) {
            let held = self.shard.remainder(key);
            if !self.arena.make_room(held.len()) {
                *turn_budget = 0;
                return Left::More;
            }
            let held = self.arena.push(held);
            budget = budget.saturating_sub(held.len());
            *turn_budget = turn_budget.saturating_sub(held.len());
            self.receive(key, held, flush);
        }
        while self.shard.wants_input(key) && !self.shard.has_held(key) {
            let Some(connection) = self.connections.get_mut(key) else {
                break;
            };
            if !connection.is_readable {
                break;
            }
            if budget == 0 || self.shard.is_spent() {
                return Left::More;
            }
            let head = self.shard.remainder(key);
            if !self.arena.make_room(head.len()) {
                *turn_budget = 0;
                return Left::More;
            }
            let room = self.arena.reserve(head);
            let room_len = room.len().min(budget);
            match connection.transport.receive(&mut room[..room_len]) {
                Ok(0) => self.shard.gone(key, Gone::Eof),
                Ok(len) => {
                    // A short receive has emptied the socket, and new bytes make a new edge; except
                    // in front of the end of the stream and at the mark of urgent data.
                    let emptied = len < room_len;
                    if emptied && !connection.is_read_closed && !connection.is_urgent {
                        connection.is_readable = false;
                    }
                    budget -= len;
                    *turn_budget -= len;
                    let piece = self.arena.commit(head.len() + len);
                    self.receive(key, piece, flush);
                }
                Err(error) if is_empty(&error) => {
                    connection.is_readable = false;
                    connection.is_urgent = false;
                    if self.shard.is_broken(key) {
                        self.shard
                            .gone(key, Gone::Failed(io::ErrorKind::ConnectionReset));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.shard.gone(key, Gone::Failed(error.kind())),
            }
        }
        Left::Nothing
    }

    /// Copies what was received of a session behind its remainder, into the arena.
    #[cfg(all(feature = "uring", target_os = "linux"))]
    pub(super) fn copy_in(&mut self, key: SessionKey, bytes: &[u8]) -> Piece {
        let head = self.shard.remainder(key);
        let room = self.arena.reserve(head);
        room[..bytes.len()].copy_from_slice(bytes);
        self.arena.commit(head.len() + bytes.len())
    }

    /// Gives the shard what was received, behind the session's remainder.
    pub(super) fn receive(
        &mut self,
        key: SessionKey,
        piece: Piece,
        flush: &mut impl FnMut(&mut Self),
    ) {
        let mut rest = self.shard.receive(self.now, key, &mut self.arena, piece);
        while let Some(piece) = rest {
            flush(self);
            rest = self
                .shard
                .receive_rest(self.now, key, &mut self.arena, piece);
        }
    }
}
