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
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Send what is known of every session, and the counters.
    Snapshot(std::sync::mpsc::Sender<Snapshot>),
    /// Accept no more, write what is owed, end. A second one ends at once.
    Stop,
}

/// A reactor's sessions and counters at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) sessions: Vec<SessionInfo>,
    pub(crate) counters: Counters,
}

/// Commands to one reactor. Taken only when its waker fired, so the data path never sees the lock.
///
/// Bounded by its senders: one answer per session, one snapshot per caller that waits for it.
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
