//! A reactor: one thread, one shard, and the sockets of its sessions.
//!
//! ```text
//! wait -> read -> flush -> reap        one turn
//! ```
//!
//! The loop is in `mio.rs`; this is what it works on. A reactor is told what to do through its
//! mailbox and never waits for anybody.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use ::mio::Waker;

use crate::handler::Resolution;
use crate::metrics::Counters;
use crate::session::SessionInfo;

mod connections;
mod journal;
mod listener;
mod mio;
mod socket_file;
mod staging;
mod transport;

pub(crate) use self::mio::Reactor;
pub(crate) use listener::Listener;

/// What a reactor can be asked to do by other threads.
#[derive(Debug)]
pub(crate) enum Command {
    /// A ticket's answer.
    Resolve(Resolution),
    /// Send what was counted.
    Count(mpsc::Sender<Counters>),
    /// Send what is known of every session.
    Sessions(mpsc::Sender<Vec<SessionInfo>>),
    /// Accept no more, write what is owed within `drain_timeout`, end.
    Stop,
    /// End at once.
    End,
}

/// Commands to one reactor. Taken only when its waker fired, so the data path never sees the lock.
///
/// Bounded by its senders: one answer per session, one question per caller that waits for it.
#[derive(Debug)]
pub(crate) struct Mailbox {
    commands: Mutex<VecDeque<Command>>,
    waker: Waker,
}

impl Mailbox {
    pub(crate) fn new(waker: Waker) -> Arc<Self> {
        Arc::new(Self {
            commands: Mutex::default(),
            waker,
        })
    }

    /// Leaves a command and wakes the reactor.
    pub(crate) fn post(&self, command: Command) -> io::Result<()> {
        self.commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(command);
        self.waker.wake()
    }

    fn take(&self) -> VecDeque<Command> {
        std::mem::take(&mut self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
