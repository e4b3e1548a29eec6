//! A running broker, seen from other threads.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use crate::address::Address;
use crate::broker::BrokerError;
use crate::handler::SessionHandler;
use crate::metrics::Counters;
use crate::reactor::{Command, Mailbox, Reactor};
use crate::session::SessionInfo;

/// A broker that runs on a thread of its own. Dropping the handle stops it and waits for its end.
#[derive(Debug)]
pub struct BrokerHandle {
    addresses: Vec<Address>,
    mailbox: Arc<Mailbox>,
    /// `None` once it was joined.
    thread: Option<JoinHandle<io::Result<Counters>>>,
}

impl BrokerHandle {
    pub(super) fn start<H: SessionHandler>(
        reactor: Reactor<H>,
        addresses: Vec<Address>,
    ) -> Result<Self, BrokerError> {
        let mailbox = reactor.mailbox();
        let thread = thread::Builder::new()
            .name("hvlp-reactor-0".into())
            .spawn(|| reactor.run())
            .map_err(BrokerError::Start)?;
        Ok(Self {
            addresses,
            mailbox,
            thread: Some(thread),
        })
    }

    /// The first address that it listens on, with the port that the kernel chose.
    pub fn local_addr(&self) -> &Address {
        &self.addresses[0]
    }

    /// Every address that it listens on, in the order in which they were given.
    pub fn local_addrs(&self) -> &[Address] {
        &self.addresses
    }

    /// Whether it still serves.
    pub fn is_alive(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// All sessions and what they are subscribed to, whole per session. Empty if it has ended.
    pub fn register(&self) -> RegisterSnapshot {
        RegisterSnapshot {
            sessions: self.ask(Command::Sessions).unwrap_or_default(),
        }
    }

    /// What it has counted so far. All zero if it has ended: `join` returns the last count.
    pub fn counters(&self) -> Counters {
        self.ask(Command::Count).unwrap_or_default()
    }

    /// Accepts no more, writes what sessions are owed within `drain_timeout`, and ends. Returns at
    /// once; calling it again, or on a broker that has ended, changes nothing.
    pub fn stop(&self) {
        self.stopper().stop();
    }

    /// Ends without waiting for anybody: what sessions are owed and their sockets do not take at
    /// once is dropped.
    pub fn stop_at_once(&self) {
        self.stopper().end();
    }

    /// Waits until the broker has ended and returns what it counted.
    ///
    /// # Errors
    /// Its loop failed or panicked.
    pub fn join(mut self) -> Result<Counters, BrokerError> {
        self.wait()
    }

    pub(super) fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.mailbox))
    }

    fn wait(&mut self) -> Result<Counters, BrokerError> {
        let Some(thread) = self.thread.take() else {
            return Ok(Counters::default());
        };
        match thread.join() {
            Ok(ended) => ended.map_err(BrokerError::Reactor),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                Err(BrokerError::Panicked(
                    text.unwrap_or_else(|| "for no stated reason".into()),
                ))
            }
        }
    }

    /// `None` if the reactor has ended.
    fn ask<T>(&self, question: impl FnOnce(mpsc::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = mpsc::channel();
        if !self.is_alive() {
            return None;
        }
        self.mailbox.post(question(reply)).ok()?;
        // A reactor that ends leaves its mailbox, and the question in it, to this handle: the
        // sender is never dropped, hence the look at the thread.
        loop {
            match answer.recv_timeout(ALIVE_EVERY) {
                Ok(answered) => return Some(answered),
                Err(mpsc::RecvTimeoutError::Timeout) if self.is_alive() => {}
                Err(_) => return answer.try_recv().ok(),
            }
        }
    }
}

/// How often a question that waits looks whether the reactor still runs.
const ALIVE_EVERY: Duration = Duration::from_millis(20);

impl Drop for BrokerHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
            // Nobody is left to be told how it ended.
            let _ = self.wait();
        }
    }
}

/// The right to stop a broker, from any thread.
#[derive(Clone, Debug)]
pub(super) struct Stopper(Arc<Mailbox>);

impl Stopper {
    pub(super) fn stop(&self) {
        // A reactor that cannot be woken has ended.
        let _ = self.0.post(Command::Stop);
    }

    pub(super) fn end(&self) {
        // As above.
        let _ = self.0.post(Command::End);
    }
}

/// Sessions and subscriptions as they were when the snapshot was taken.
#[derive(Clone, Debug, Default)]
pub struct RegisterSnapshot {
    sessions: Vec<SessionInfo>,
}

impl RegisterSnapshot {
    /// Every session that had not ended.
    pub fn sessions(&self) -> &[SessionInfo] {
        &self.sessions
    }

    /// The sessions that were subscribed to `topic`.
    pub fn subscribers<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a SessionInfo> {
        self.sessions
            .iter()
            .filter(move |session| session.topics.iter().any(|held| held == topic))
    }

    /// The topics of the session with this number; none if it is not there.
    pub fn topics(&self, number: u64) -> &[String] {
        let session = self
            .sessions
            .iter()
            .find(|session| session.number == number);
        session.map_or(&[], |session| &session.topics)
    }
}
