//! A reactor: one thread, one shard, and the sockets of its sessions.
//!
//! ```text
//! wait -> read -> flush -> reap        one turn
//! ```
//!
//! The loop is in `mio.rs`; this is what it works on. A reactor is told what to do through its
//! mailbox and never waits for anybody.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use ::mio::Waker;

use crate::handler::Resolution;
use crate::mesh::Doorbell;
use crate::metrics::Counters;
use crate::reactor::transport::Transport;
use crate::register::directory::Directory;
use crate::session::{Peer, SessionInfo};

mod connections;
mod journal;
mod listener;
mod mio;
mod socket_file;
mod staging;
mod transport;

pub(crate) use self::mio::{Loop, Reactor};
pub(crate) use listener::Listener;

/// What a reactor can be asked to do by other threads.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve a connection that another reactor has accepted.
    Adopt(Transport, Peer),
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
/// Bounded by its senders: one answer per session, one question per caller that waits for it, and
/// `ADOPTIONS_MAX` connections.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// None once the reactor has ended: whoever waits for an answer learns it, and no connection
    /// waits here for ever.
    commands: Mutex<Option<VecDeque<Command>>>,
    waker: Waker,
}

/// Connections that wait to be adopted by one reactor.
const ADOPTIONS_MAX: usize = 1024;

/// The reactor has ended, or cannot be woken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended;

impl Mailbox {
    pub(crate) fn new(waker: Waker) -> Arc<Self> {
        Arc::new(Self {
            commands: Mutex::new(Some(VecDeque::new())),
            waker,
        })
    }

    /// Leaves a command and wakes the reactor.
    pub(crate) fn post(&self, command: Command) -> Result<(), Ended> {
        self.lock().as_mut().ok_or(Ended)?.push_back(command);
        self.waker.wake().map_err(|_| Ended)
    }

    /// Leaves a connection, unless too many wait already; then it is closed.
    fn post_connection(&self, transport: Transport, peer: Peer) -> bool {
        let mut commands = self.lock();
        let waiting = commands.as_mut();
        let Some(waiting) = waiting.filter(|waiting| waiting.len() < ADOPTIONS_MAX) else {
            return false;
        };
        waiting.push_back(Command::Adopt(transport, peer));
        drop(commands);
        self.waker.wake().is_ok()
    }

    pub(crate) fn wake(&self) {
        // One that cannot be woken has ended.
        let _ = self.waker.wake();
    }

    fn take(&self) -> VecDeque<Command> {
        self.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The reactor takes no more commands; those that wait are dropped.
    fn close(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Command>>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All reactors of a broker, as each of them sees the others.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) doorbells: Vec<Arc<Doorbell>>,
    pub(crate) directory: Arc<Directory>,
    /// Sessions of each, those on their way to it included.
    loads: Vec<AtomicUsize>,
    /// Reactors that read no more and have handed over everything.
    quiet: AtomicUsize,
}

impl Peers {
    pub(crate) fn new(mailboxes: Vec<Arc<Mailbox>>) -> Arc<Self> {
        let bell = |mailbox: &Arc<Mailbox>| {
            let mailbox = Arc::clone(mailbox);
            Doorbell::new(move || mailbox.wake())
        };
        Arc::new(Self {
            doorbells: mailboxes.iter().map(bell).collect(),
            directory: Arc::new(Directory::new()),
            loads: mailboxes.iter().map(|_| AtomicUsize::new(0)).collect(),
            quiet: AtomicUsize::new(0),
            mailboxes,
        })
    }

    /// The reactor with the fewest sessions; one more is counted for it. `None` if all together
    /// have `sessions_max`.
    fn place(&self, sessions_max: usize) -> Option<usize> {
        // Relaxed: only the acceptor adds; one that has just ended may count a moment more.
        let load = |reactor: &usize| self.loads[*reactor].load(Ordering::Relaxed);
        let reactors = 0..self.loads.len();
        if reactors
            .clone()
            .map(|reactor| load(&reactor))
            .sum::<usize>()
            >= sessions_max
        {
            return None;
        }
        let least = reactors.min_by_key(load)?;
        self.loads[least].fetch_add(1, Ordering::Relaxed);
        Some(least)
    }

    fn unplace(&self, reactor: usize) {
        // Relaxed: see `place`.
        self.loads[reactor].fetch_sub(1, Ordering::Relaxed);
    }

    /// One more reactor will publish nothing any more. The last one wakes all.
    fn become_quiet(&self) {
        if self.quiet.fetch_add(1, Ordering::SeqCst) + 1 == self.mailboxes.len() {
            for mailbox in &self.mailboxes {
                mailbox.wake();
            }
        }
    }

    fn are_quiet(&self) -> bool {
        self.quiet.load(Ordering::SeqCst) == self.mailboxes.len()
    }

    /// Tells every reactor to accept no more and to write what is owed.
    pub(crate) fn stop(&self) {
        for mailbox in &self.mailboxes {
            // One that cannot be woken has ended.
            let _ = mailbox.post(Command::Stop);
        }
    }

    /// Tells every reactor to end at once.
    pub(crate) fn end(&self) {
        for mailbox in &self.mailboxes {
            // As above.
            let _ = mailbox.post(Command::End);
        }
    }
}
