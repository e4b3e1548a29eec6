//! A running broker, seen from other threads.

#[cfg(feature = "control")]
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::{io, thread};

use crate::address::Address;
use crate::broker::process::{ProcessError, Publisher, Subscription};
use crate::broker::{BrokerError, cpus};
#[cfg(feature = "control")]
use crate::config::Config;
use crate::config::MemoryBound;
#[cfg(feature = "control")]
use crate::control::{Control, Endpoint, Facts};
use crate::handler::{Open, SessionHandler};
use crate::metrics::Counters;
use crate::reactor::{Command, Engine, Peers, Reactor, Reply};
use crate::session::SessionInfo;

/// Reactors that do not run yet.
pub(super) struct Reactors<H> {
    pub(super) reactors: Vec<(Engine, Reactor<H>)>,
    /// Serves the process itself; nobody asks it who it is.
    pub(super) process: Option<(Engine, Reactor<Open>)>,
    pub(super) peers: Arc<Peers>,
    pub(super) engine: &'static str,
    /// Whether each is kept on a CPU of its own.
    pub(super) pin: bool,
}

/// A broker that runs on threads of its own. Dropping the handle stops it and waits for its end.
#[derive(Debug)]
pub struct BrokerHandle {
    addresses: Vec<Address>,
    memory: MemoryBound,
    peers: Arc<Peers>,
    engine: &'static str,
    publisher: Publisher,
    /// Empty once they were joined.
    threads: Vec<JoinHandle<io::Result<Counters>>>,
    /// Outlives the reactors, so that their drain can be watched.
    #[cfg(feature = "control")]
    control: Option<Control>,
}

impl BrokerHandle {
    pub(super) fn start<H: SessionHandler>(
        reactors: Reactors<H>,
        addresses: Vec<Address>,
        memory: MemoryBound,
    ) -> Result<Self, BrokerError> {
        let Reactors {
            reactors,
            process,
            peers,
            engine,
            pin,
        } = reactors;
        let mut handle = Self {
            addresses,
            memory,
            peers,
            engine,
            publisher: Publisher::default(),
            threads: Vec::new(),
            #[cfg(feature = "control")]
            control: None,
        };
        for (id, reactor) in reactors.into_iter().enumerate() {
            handle.start_one(format!("hvlp-reactor-{id}"), pin.then_some(id), reactor)?;
        }
        if let Some(reactor) = process {
            handle.start_one("hvlp-process".into(), None, reactor)?;
        }
        Ok(handle)
    }

    /// What the process may take at most, by what takes it: the sum of the limits in force.
    pub const fn memory_bound(&self) -> &MemoryBound {
        &self.memory
    }

    /// What the reactors wait with: `mio` or `uring`.
    pub const fn engine(&self) -> &'static str {
        self.engine
    }

    /// Adds the thread of the control plane.
    #[cfg(feature = "control")]
    pub(super) fn start_control(
        &mut self,
        endpoint: Endpoint,
        config: &Config,
    ) -> Result<(), BrokerError> {
        let facts = Facts::new(
            &self.addresses,
            endpoint.address(),
            config,
            self.memory.clone(),
            self.engine,
        );
        let control = Control::start(endpoint, facts, Arc::clone(&self.peers));
        self.control = Some(control.map_err(BrokerError::Start)?);
        Ok(())
    }

    /// Where metrics, health and status are served over HTTP, with the port that the kernel chose;
    /// `None` if they are not.
    #[cfg(feature = "control")]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.control.as_ref().map(Control::address)
    }

    /// Should one not start, dropping the handle ends those that have.
    fn start_one<H: SessionHandler>(
        &mut self,
        name: String,
        cpu: Option<usize>,
        (engine, reactor): (Engine, Reactor<H>),
    ) -> Result<(), BrokerError> {
        let peers = Arc::clone(&self.peers);
        let id = self.threads.len();
        let run = move || {
            let others = EndTogether(peers);
            if let Some(cpu) = cpu {
                cpus::pin(cpu);
            }
            let ended = engine.run(reactor);
            match &ended {
                Ok(counters) => others.0.ended(id, counters),
                Err(_) => others.0.end(),
            }
            ended
        };
        let thread = thread::Builder::new().name(name).spawn(run);
        self.threads.push(thread.map_err(BrokerError::Start)?);
        Ok(())
    }

    /// Publishes from within the process, to every subscriber of the topic: clients, and the
    /// process's own subscriptions. Returns when the message is accepted, having waited while the
    /// broker has too much of them; a stop delivers what was accepted. The messages of one thread
    /// keep their order.
    ///
    /// # Errors
    /// It does not fit into a frame, the process has too many sessions, or the broker is stopping
    /// or has ended.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let broker = hvlp::Broker::builder().listen("127.0.0.1:0")?.spawn()?;
    /// let mut subscription = broker.subscribe(["temperature"])?;
    /// broker.publish("temperature", b"21.5")?;
    /// let message = subscription.receive(Duration::from_secs(5))?.expect("a message");
    /// assert_eq!((message.topic(), message.data()), ("temperature", &b"21.5"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish(&self, topic: &str, data: impl AsRef<[u8]>) -> Result<(), ProcessError> {
        self.publisher.publish(&self.peers, topic, data.as_ref())
    }

    /// Subscribes from within the process. When this returns, whatever is published later is
    /// received, by whomever and on whichever reactor.
    ///
    /// # Errors
    /// A topic is too long, a limit on subscriptions or sessions is met, or the broker has ended.
    pub fn subscribe<T: AsRef<str>>(
        &self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Subscription, ProcessError> {
        Subscription::new(&self.peers, topics)
    }

    /// The first address that it listens on, with the port that the kernel chose.
    pub fn local_addr(&self) -> &Address {
        &self.addresses[0]
    }

    /// Every address that it listens on, in the order in which they were given.
    pub fn local_addrs(&self) -> &[Address] {
        &self.addresses
    }

    /// Whether it still serves, with all its reactors.
    pub fn is_alive(&self) -> bool {
        !self.threads.is_empty() && self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// All sessions and what they are subscribed to, whole per session. Empty if it has ended.
    pub fn register(&self) -> RegisterSnapshot {
        RegisterSnapshot {
            sessions: self.ask(Command::Sessions).into_iter().flatten().collect(),
        }
    }

    /// What it has counted so far. All zero if it has ended: `join` returns the last count.
    pub fn counters(&self) -> Counters {
        self.peers.sum(&self.ask(Command::Count))
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
        Stopper(Arc::clone(&self.peers))
    }

    fn wait(&mut self) -> Result<Counters, BrokerError> {
        let mut sum = Counters::default();
        let mut failure = None;
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(counters)) => sum.add(&counters),
                Ok(Err(error)) => failure = Some(BrokerError::Reactor(error)),
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text =
                        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                    let text = text.unwrap_or_else(|| "for no stated reason".into());
                    failure = Some(BrokerError::Panicked(text));
                }
            }
        }
        #[cfg(feature = "control")]
        drop(self.control.take());
        failure.map_or(Ok(sum), Err)
    }

    /// The answers of all reactors; none if one of them has ended.
    fn ask<T: Send + 'static>(&self, question: impl Fn(Reply<T>) -> Command) -> Vec<T> {
        let (sender, answers) = mpsc::channel();
        let mailboxes = &self.peers.mailboxes;
        for mailbox in mailboxes {
            let sender = sender.clone();
            let reply = Reply::new(move |answer| {
                // Whoever asked may have stopped waiting.
                let _ = sender.send(answer);
            });
            if mailbox.post(question(reply)).is_err() {
                return Vec::new();
            }
        }
        drop(sender);
        // A reactor that ends drops the question, so nobody waits for ever.
        let answers: Vec<_> = answers.iter().collect();
        match answers.len() == mailboxes.len() {
            true => answers,
            false => Vec::new(),
        }
    }
}

/// On the thread of a reactor: when it panics the others end too, because what they share cannot be
/// trusted any more.
struct EndTogether(Arc<Peers>);

impl Drop for EndTogether {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end();
        }
    }
}

impl Drop for BrokerHandle {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.stop();
            // Nobody is left to be told how it ended.
            let _ = self.wait();
        }
    }
}

/// The right to stop a broker, from any thread.
#[derive(Clone, Debug)]
pub(super) struct Stopper(Arc<Peers>);

impl Stopper {
    pub(super) fn stop(&self) {
        self.0.stop();
    }

    pub(super) fn end(&self) {
        self.0.end();
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
