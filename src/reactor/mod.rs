//! A reactor: one thread, one shard, and the sockets of its sessions.
//!
//! ```text
//! wait -> read -> deliver -> flush -> hand over -> expire -> reap        one turn
//! ```
//!
//! What a turn does is in `turn.rs` and its neighbours; what it waits with, and how bytes come and
//! go, is an engine's: `mio.rs` on readiness, `uring.rs` on completion. A reactor is told what to
//! do through its mailbox and never waits for anybody.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::config::Config;
use crate::handler::Resolution;
use crate::mesh::Doorbell;
use crate::metrics::{Counters, RefuseReason};
use crate::reactor::addresses::Addresses;
use crate::reactor::ending::Quiet;
use crate::reactor::pipe::Edge;
use crate::reactor::transport::Transport;
use crate::reactor::waker::Waker;
use crate::register::directory::Directory;
use crate::register::last_values::LastValues;
use crate::session::{ListenerId, Peer, SessionInfo, SessionKey};
use crate::shard::{Accounts, PauseChange};

mod accepting;
mod addresses;
mod clock;
mod closing;
mod connections;
mod ending;
mod engine;
mod journal;
mod listener;
mod mio;
mod pipe;
mod reading;
mod socket_file;
mod staging;
mod transport;
mod turn;
#[cfg(all(feature = "uring", target_os = "linux"))]
mod uring;
mod waker;

pub(crate) use engine::{Chosen, Engine};
pub(crate) use listener::Listener;
pub(crate) use pipe::{Ended as PipeEnded, ProcessEnd, pipe};
pub(crate) use turn::Reactor;

/// What a reactor can be asked to do by other threads.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve a connection that another reactor has accepted.
    Adopt(Transport, Peer, ListenerId),
    /// What has become possible on a connection inside the process.
    Edge(SessionKey, Edge),
    /// What another reactor's shard says about a slow subscriber of its own.
    Pause(u8, PauseChange),
    /// A ticket's answer.
    Resolve(Resolution),
    /// Send what was counted.
    Count(Reply<Counters>),
    /// Send what is known of every session.
    Sessions(Reply<Vec<SessionInfo>>),
    /// Accept no more, write what is owed within `drain_timeout`, end.
    Stop,
    /// End at once.
    End,
}

/// Takes the answer to a question, on the thread of the reactor: it must not wait. Dropped instead,
/// it lets go of whoever waits.
pub(crate) struct Reply<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Reply<T> {
    pub(crate) fn new(take: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(take))
    }

    fn send(self, answer: T) {
        (self.0)(answer);
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// Commands to one reactor. Taken only when its waker fired: a message between sockets never meets
/// the lock, one of the process itself does when its pipe was empty.
///
/// Bounded by its senders: one answer per session, one question per caller that waits for it,
/// `ADOPTIONS_MAX` connections, and two edges per pipe that the reactor has not looked at.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// None once the reactor has ended: whoever waits for an answer learns it, and no connection
    /// waits here for ever.
    commands: Mutex<Option<Commands>>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Commands {
    waiting: VecDeque<Command>,
    /// A stop is among them, or was taken.
    is_stopping: bool,
}

/// Connections that wait to be adopted by one reactor.
const ADOPTIONS_MAX: usize = 1024;

/// The reactor has ended, or cannot be woken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended;

impl Mailbox {
    pub(crate) fn new(waker: Waker) -> Arc<Self> {
        Arc::new(Self {
            commands: Mutex::new(Some(Commands::default())),
            waker,
        })
    }

    /// Leaves a command and wakes the reactor.
    pub(crate) fn post(&self, command: Command) -> Result<(), Ended> {
        let mut commands = self.lock();
        let Commands {
            waiting,
            is_stopping,
        } = commands.as_mut().ok_or(Ended)?;
        *is_stopping |= matches!(command, Command::Stop | Command::End);
        waiting.push_back(command);
        drop(commands);
        self.waker.wake().map_err(|_| Ended)
    }

    /// Leaves a connection, unless too many wait already; then it is closed. One of the process is
    /// refused behind a stop as well: what it takes would be a promise that nobody keeps.
    fn post_connection(&self, transport: Transport, peer: Peer, listener: ListenerId) -> bool {
        let mut commands = self.lock();
        let Some(Commands {
            waiting,
            is_stopping,
        }) = commands.as_mut()
        else {
            return false;
        };
        if waiting.len() >= ADOPTIONS_MAX || *is_stopping && transport.pipe().is_some() {
            return false;
        }
        waiting.push_back(Command::Adopt(transport, peer, listener));
        drop(commands);
        self.waker.wake().is_ok()
    }

    pub(crate) fn wake(&self) {
        // One that cannot be woken has ended.
        let _ = self.waker.wake();
    }

    /// Whether connections may wait here, or the reactor has ended.
    fn has_room(&self) -> bool {
        let commands = self.lock();
        let waiting = commands.as_ref().map(|commands| commands.waiting.len());
        waiting.is_none_or(|waiting| waiting < ADOPTIONS_MAX)
    }

    fn take(&self) -> VecDeque<Command> {
        let mut commands = self.lock();
        let waiting = commands.as_mut().map(|commands| &mut commands.waiting);
        waiting.map(std::mem::take).unwrap_or_default()
    }

    /// The reactor takes no more commands; those that wait are dropped.
    fn close(&self) {
        let commands = self.lock().take();
        // Behind the lock: an end of a pipe has one of its own.
        drop(commands);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Commands>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the process gets no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPipe {
    /// There is no reactor for these, it is stopping or has ended.
    Ended,
    /// It has as many as it may have, or too many are on their way to it.
    Full,
}

/// All reactors of a broker, as each of them sees the others.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) doorbells: Vec<Arc<Doorbell>>,
    pub(crate) directory: Arc<Directory>,
    /// None if no topic is kept.
    pub(crate) last_values: Option<Arc<LastValues>>,
    /// Sessions of each, those on their way to it included.
    loads: Vec<AtomicUsize>,
    addresses: Addresses,
    /// What all of them take of the memory.
    pub(crate) accounts: Arc<Accounts>,
    /// So many reactors, the first ones, have sockets; the one behind them, if there is one, has
    /// what the process itself publishes and subscribes to.
    serving: usize,
    /// `sessions_max` of the process's own reactor.
    process_sessions_max: usize,
    /// Reactors that read no more and have handed over everything.
    quiet: Arc<Quiet>,
    /// What each had counted when it ended in order.
    last_counts: Vec<OnceLock<Counters>>,
}

impl Peers {
    /// Reactors with these mailboxes, of which the first `serving` have sockets.
    pub(crate) fn new(
        mailboxes: Vec<Arc<Mailbox>>,
        serving: usize,
        config: &Config,
        accounts: Arc<Accounts>,
    ) -> Arc<Self> {
        let limits = &config.limits;
        let bell = |mailbox: &Arc<Mailbox>| {
            let mailbox = Arc::clone(mailbox);
            Doorbell::new(move || mailbox.wake())
        };
        let all = mailboxes.clone();
        let wake_all = move || all.iter().for_each(|mailbox| mailbox.wake());
        Arc::new(Self {
            serving,
            addresses: Addresses::new(limits),
            accounts,
            process_sessions_max: limits.sessions_max,
            doorbells: mailboxes.iter().map(bell).collect(),
            directory: Arc::new(Directory::new()),
            last_values: LastValues::of(config),
            loads: mailboxes.iter().map(|_| AtomicUsize::new(0)).collect(),
            last_counts: mailboxes.iter().map(|_| OnceLock::new()).collect(),
            quiet: Quiet::new(mailboxes.len(), wake_all),
            mailboxes,
        })
    }

    /// What all of them together have counted, from the counters of each.
    pub(crate) fn sum<'a>(&self, counters: impl IntoIterator<Item = &'a Counters>) -> Counters {
        let mut sum = Counters::default();
        counters.into_iter().for_each(|each| sum.add(each));
        if self.mailboxes.len() > 1 {
            // One that two reactors have subscribers for is one topic all the same.
            sum.topics = self.directory.topic_count() as u64;
        }
        sum
    }

    /// Reactor `id` has ended in order, and this is what it has counted.
    pub(crate) fn ended(&self, id: usize, counters: &Counters) {
        // A reactor ends once.
        let _ = self.last_counts[id].set(counters.clone());
    }

    /// What reactor `id` had counted when it ended in order; `None` if it has not.
    #[cfg(feature = "control")]
    pub(crate) fn last_count(&self, id: usize) -> Option<&Counters> {
        self.last_counts[id].get()
    }

    /// So many reactors, the first ones, have sockets.
    #[cfg(feature = "control")]
    pub(crate) const fn serving(&self) -> usize {
        self.serving
    }

    /// The reactor with the fewest sessions; one more of `peer` is counted for it. Refused if all
    /// together have `sessions_max` or take nearly all of the memory, or the peer's address has its
    /// share.
    fn place(&self, peer: Peer, sessions_max: usize) -> Result<usize, RefuseReason> {
        // Relaxed: only the acceptor adds; one that has just ended may count a moment more.
        let load = |reactor: &usize| self.loads[*reactor].load(Ordering::Relaxed);
        let reactors = 0..self.serving;
        let all: usize = reactors.clone().map(|reactor| load(&reactor)).sum();
        let least = reactors.min_by_key(load).filter(|_| all < sessions_max);
        let least = least.ok_or(RefuseReason::SessionsMax)?;
        if self.accounts.is_full() {
            return Err(RefuseReason::Overload);
        }
        if !self.addresses.enter(peer) {
            return Err(RefuseReason::PerAddress);
        }
        self.loads[least].fetch_add(1, Ordering::Relaxed);
        Ok(least)
    }

    /// Opens a connection inside the process.
    pub(crate) fn open_pipe(&self) -> Result<ProcessEnd, NoPipe> {
        let mailbox = self.mailboxes.get(self.serving).ok_or(NoPipe::Ended)?;
        // Relaxed: see `place`.
        if self.loads[self.serving].fetch_add(1, Ordering::Relaxed) >= self.process_sessions_max {
            self.unplace(self.serving, Peer::Process);
            return Err(NoPipe::Full);
        }
        let (process_end, reactor_end) = pipe();
        let transport = Transport::Process(reactor_end);
        if mailbox.post_connection(transport, Peer::Process, ListenerId::COMMON) {
            return Ok(process_end);
        }
        self.unplace(self.serving, Peer::Process);
        match mailbox.has_room() {
            true => Err(NoPipe::Ended),
            false => Err(NoPipe::Full),
        }
    }

    fn unplace(&self, reactor: usize, peer: Peer) {
        self.addresses.leave(peer);
        // Relaxed: see `place`.
        self.loads[reactor].fetch_sub(1, Ordering::Relaxed);
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

/// Whether a receive found nothing, which is no fault.
fn is_empty(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, MemoryBound};

    #[test]
    fn e7_a_connection_goes_to_the_reactor_with_the_fewest_and_cannot_choose() {
        let mut engines: Vec<_> = (0..3).map(|_| Engine::new(Chosen::Mio).unwrap()).collect();
        let mailboxes = engines
            .iter_mut()
            .map(|(_, mailbox)| Arc::clone(mailbox))
            .collect();
        let config = Config::default();
        let accounts = Accounts::new(&MemoryBound::of(&config, false), false);
        let peers = Peers::new(mailboxes, 2, &config, accounts);
        let place = |count: usize| {
            (0..count)
                .map(|_| peers.place(Peer::Unix, 7).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(place(6), [0, 1, 0, 1, 0, 1]);
        // All sessions that stay are on one reactor: who comes next is not.
        (0..3).for_each(|_| peers.unplace(0, Peer::Unix));
        assert_eq!(place(4), [0, 0, 0, 0]);
        let full = peers.place(Peer::Unix, 7);
        assert_eq!(full, Err(RefuseReason::SessionsMax), "that is all of them");
    }
}
