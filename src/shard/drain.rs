//! The end of a shard: it stops reading, then every session ends with nothing owed to it.

use crate::handler::SessionHandler;
use crate::session::{CloseReason, Session, SessionKey};
use crate::shard::Shard;

impl<H: SessionHandler> Shard<H> {
    /// Whether it takes no more input.
    pub const fn is_draining(&self) -> bool {
        self.draining
    }

    /// Takes no more input, for ever. Nothing is read any more, so nobody can be late with it.
    pub fn stop_reading(&mut self) {
        self.draining = true;
        let keys: Vec<_> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.deadlines.connect.disarm(key.slot());
            self.deadlines.frame.disarm(key.slot());
        }
        self.release_all(self.now);
        self.stop_replays();
    }

    /// Nothing new will come, from no shard: each session ends as soon as nothing is owed to it.
    pub fn drain(&mut self) {
        self.ending = true;
        let keys: Vec<_> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.close_if_drained(key);
        }
    }

    /// Ends every session, whatever it is owed.
    pub fn close_all(&mut self) {
        let keys: Vec<_> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.close(key, CloseReason::Shutdown);
            self.part(key);
        }
    }

    pub(super) fn close_if_drained(&mut self, key: SessionKey) {
        let drained = |session: &Session| session.outbound.owed() == 0 && !session.has_answers();
        if self.ending && self.sessions.get(key).is_some_and(drained) {
            self.close(key, CloseReason::Shutdown);
        }
    }
}
