//! The ping of a session: its pong says that all it has sent before is in effect on every shard.
//!
//! What it has asked for is in effect once it is executed, and so is what it has published to
//! sessions here. What went to other shards is followed by a word to each of them, down the same
//! rings, and their words back are awaited; until then the session's further input is held.

use crate::handler::SessionHandler;
use crate::packet::Answer;
use crate::session::SessionKey;
use crate::shard::Shard;
use crate::shard::parse::Next;

impl<H: SessionHandler> Shard<H> {
    pub(super) fn ping(&mut self, key: SessionKey) -> Next {
        let extended = self.sessions.get_mut(key);
        let Some(extended) = extended.and_then(|session| session.extended.as_mut()) else {
            return Next::Go;
        };
        extended.published_to |= std::mem::take(&mut self.forwarded);
        extended.awaited = std::mem::take(&mut extended.published_to);
        let mut shards = extended.awaited;
        if shards == 0 {
            self.pong(key);
            return self.next(key);
        }
        while shards != 0 {
            let to = shards.trailing_zeros() as usize;
            if let Some(remote) = &mut self.remote {
                remote.mesh.ask(to, key);
            }
            shards &= shards - 1;
        }
        Next::Hold
    }

    /// All that `key` has published to shard `from` before its ping is in effect there.
    pub(super) fn barrier_passed(&mut self, from: usize, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(extended) = &mut session.extended else {
            return;
        };
        let awaited = std::mem::take(&mut extended.awaited);
        extended.awaited = awaited & !(1 << from);
        // Who has ended a wait for last values early still gets the words that it waited for.
        if awaited == extended.awaited || extended.awaited != 0 {
            return;
        }
        let is_stopped = session.is_stopped();
        self.pong(key);
        if !is_stopped {
            self.read_again(self.now, key);
        }
    }

    fn pong(&mut self, key: SessionKey) {
        let dropped = self.sessions.get(key).map_or(0, |session| session.dropped);
        let dropped = u32::try_from(dropped).unwrap_or(u32::MAX);
        self.answer(key, &Answer::Pong { dropped });
    }
}
