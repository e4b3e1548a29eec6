//! Bytes in: who is read, in which order, and how much of it in one turn.

use std::io::ErrorKind;

use hvlp::arena::Piece;
use hvlp::session::SessionKey;
use hvlp::shard::Gone;

use crate::faults::Mark;
use crate::outside::Outside;
use crate::reactor::Reactor;

/// Whether a budget stopped the reading of a session.
#[derive(PartialEq, Eq)]
enum Left {
    Nothing,
    More,
}

impl Reactor {
    pub(super) fn read_ready(&mut self, outside: &mut Outside) {
        let mut budget = outside.config.limits.read_per_turn;
        loop {
            for _ in 0..self.ready.len() {
                if budget == 0 || self.shard.is_spent() {
                    break;
                }
                self.read_next(outside, &mut budget);
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

    fn read_next(&mut self, outside: &mut Outside, turn_budget: &mut usize) {
        let Some(key) = self.ready.pop_front() else {
            return;
        };
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        connection.is_ready = false;
        if connection.is_lingering {
            *turn_budget = turn_budget.saturating_sub(self.linger(outside, key));
        } else if self.read_session(outside, key, turn_budget) == Left::More {
            self.make_ready(key);
        }
    }

    fn read_session(
        &mut self,
        outside: &mut Outside,
        key: SessionKey,
        turn_budget: &mut usize,
    ) -> Left {
        let mut budget = outside.config.limits.read_per_session.min(*turn_budget);
        if self.shard.has_held(key) && !self.shard.is_stopped(key) {
            let held = self.arena.push(self.shard.remainder(key));
            budget = budget.saturating_sub(held.len());
            *turn_budget = turn_budget.saturating_sub(held.len());
            self.receive(outside, key, held, true);
        }
        while self.shard.wants_input(key) && !self.shard.has_held(key) {
            let Some(connection) = self.connections.get_mut(&key) else {
                break;
            };
            if !connection.is_readable {
                break;
            }
            if budget == 0 || self.shard.is_spent() {
                return Left::More;
            }
            let number = connection.number;
            let head = self.shard.remainder(key);
            let room = self.arena.reserve(head);
            let room_len = room.len().min(budget);
            match outside.receive(connection.peer, room_len) {
                Ok(bytes) if bytes.is_empty() => self.gone(outside, key, number, Gone::Eof),
                Ok(bytes) => {
                    room[..bytes.len()].copy_from_slice(&bytes);
                    if bytes.len() < room_len && !connection.is_read_closed {
                        connection.is_readable = false;
                    }
                    budget -= bytes.len();
                    *turn_budget -= bytes.len();
                    let piece = self.arena.commit(head.len() + bytes.len());
                    outside.model.received(number, &bytes);
                    self.receive(outside, key, piece, false);
                }
                Err(ErrorKind::WouldBlock) => {
                    connection.is_readable = false;
                    if self.shard.is_broken(key) {
                        let gone = Gone::Failed(ErrorKind::ConnectionReset);
                        self.gone(outside, key, number, gone);
                    }
                }
                Err(ErrorKind::Interrupted) => {}
                Err(kind) => self.gone(outside, key, number, Gone::Failed(kind)),
            }
        }
        Left::Nothing
    }

    fn gone(&mut self, outside: &mut Outside, key: SessionKey, number: u64, gone: Gone) {
        match gone {
            Gone::Eof => outside.model.ended(number),
            Gone::Failed(kind) => outside.model.failed(number, kind),
        }
        self.shard.gone(key, gone);
    }

    /// Executes a piece, in as many parts as its turn's shares allow, each told to the model before
    /// anything else happens.
    fn receive(&mut self, outside: &mut Outside, key: SessionKey, piece: Piece, was_held: bool) {
        let number = self.connections[&key].number;
        let now = outside.now;
        outside.model.check_read(number);
        outside.model.read(number, now);
        let had_begun = !was_held && !self.shard.remainder(key).is_empty();
        let mut bytes = self.arena.bytes(piece).to_vec();
        let mut rest = self.shard.receive(now, key, &mut self.arena, piece);
        let mut executed = 0;
        loop {
            let kept = match rest {
                Some(part) => part.len(),
                None => self.shard.remainder(key).len(),
            };
            let len = bytes.len() - kept;
            outside.model.execute(number, &bytes[..len], now);
            bytes.drain(..len);
            executed += len;
            let Some(part) = rest else { break };
            outside.faults.mark(Mark::RestExecuted, true);
            self.flush(outside);
            rest = self.shard.receive_rest(now, key, &mut self.arena, part);
        }
        let is_same = had_begun && executed == 0;
        let is_held = self.shard.has_held(key);
        outside.model.kept(number, is_held, is_same, now);
        self.note_stopped(outside);
        if self.shard.is_closing(key) {
            outside.model.not_held(number);
        }
        let is_open = outside.model.session(number).is_open();
        assert_eq!(
            is_open,
            !self.shard.is_closing(key),
            "session {number} ends as it should"
        );
    }
}
