//! The end of connections: what was sent still arrives, and nobody waits for a peer for long.

use std::cmp::Reverse;
use std::io;
use std::time::Duration;

use crate::handler::SessionHandler;
use crate::reactor::connections::Connection;
use crate::reactor::turn::Reactor;
use crate::reactor::{Command, is_empty};
use crate::session::{CloseReason, SessionKey};
use crate::shard::{Closed, Parting};

/// Closing a socket frees what is in its queue, for a slow consumer a tenth of a millisecond. Those
/// who stalled together are closed together, by the thousand, and nobody else is to wait for all of
/// them.
const REAPED_PER_TURN: usize = 16;
/// How long input of a closed session that keeps coming is thrown away.
const LINGER: Duration = Duration::from_secs(1);
/// How long a stop waits for input under way from peers that were silent.
const FAREWELL: Duration = Duration::from_millis(100);

impl<H: SessionHandler> Reactor<H> {
    /// Takes leave of sessions that have ended; the engine closes the connections of those that
    /// are `ended` then.
    pub(super) fn take_leave(&mut self) {
        for _ in 0..REAPED_PER_TURN {
            let Some(closed) = self.shard.next_closed() else {
                break;
            };
            self.journal.closed(self.now, &closed);
            self.end_connection(&closed);
        }
        while let Some(&Reverse((due, key))) = self.lingering.peek() {
            if due > self.now && self.connections.get(key).is_some() {
                break;
            }
            self.lingering.pop();
            self.ended.push(key);
        }
        self.tell_of_pauses();
    }

    /// The work of this turn is done, and what it has changed is told.
    pub(super) fn end_work(&mut self) {
        self.shard.end_work();
        self.journal.overloads(self.now, self.shard.overloads());
    }

    /// Nothing of this turn is read by the kernel any more.
    pub(super) fn void(&mut self) {
        self.shard.void(&mut self.arena);
    }

    /// Whoever waited for a session that has ended is read again, here and on other reactors.
    fn tell_of_pauses(&mut self) {
        self.resume();
        while let Some((to, change)) = self.shard.next_pause_change() {
            let from = u8::try_from(self.id).expect("at most 64 reactors");
            // One that has ended holds nobody.
            let _ = self.peers.mailboxes[usize::from(to)].post(Command::Pause(from, change));
        }
    }

    fn end_connection(&mut self, closed: &Closed) {
        let key = closed.key;
        let Some(connection) = self.connections.get_mut(key) else {
            return self.shard.reaped(key);
        };
        if closed.parting == Parting::Reset {
            connection.transport.reset_on_close();
        }
        // What is in a pipe stays there.
        if closed.parting != Parting::Lingering || connection.transport.pipe().is_some() {
            return self.ended.push(key);
        }
        connection.transport.shut_down_writing();
        connection.is_lingering = true;
        // Unread input would turn the close into a reset, which destroys what was just sent.
        let wait = match self.discard_input(key) {
            Ok(1..) => LINGER,
            // Who sent DISCONNECT sends no more; whom we leave may be about to.
            Err(error) if is_empty(&error) && closed.reason != CloseReason::ClientDisconnect => {
                FAREWELL
            }
            _ => return self.ended.push(key),
        };
        let due = self.now + wait;
        let due = self.stopping.map_or(due, |deadline| due.min(deadline));
        self.lingering.push(Reverse((due, key)));
        self.make_ready(key);
    }

    /// Throws input away until its end has come, or nothing is there for now; returns how much.
    pub(super) fn linger(&mut self, key: SessionKey) -> usize {
        match self.discard_input(key) {
            Ok(len @ 1..) => {
                self.make_ready(key);
                return len;
            }
            Err(error) if is_empty(&error) => {}
            Ok(0) | Err(_) => self.ended.push(key),
        }
        0
    }

    fn discard_input(&mut self, key: SessionKey) -> io::Result<usize> {
        if !self.arena.make_room(0) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let connection = self.connections.get(key);
        let room = self.arena.reserve(&[]);
        connection.map_or(Ok(0), |connection| connection.transport.receive(room))
    }

    /// Nothing of the connection is in flight any more: its slot is free, and to drop it closes it.
    pub(super) fn release(&mut self, key: SessionKey) -> Option<Connection> {
        let connection = self.connections.remove(key)?;
        if let Some(peer) = self.shard.peer(key) {
            self.peers.unplace(self.id, peer);
        }
        self.shard.reaped(key);
        Some(connection)
    }
}
