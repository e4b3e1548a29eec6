//! The engine on readiness: epoll or kqueue through mio, edge-triggered, every socket registered
//! once.
//!
//! An edge comes once. Whoever is stopped before the socket is empty (a budget, an answer that is
//! still awaited) is remembered here, because the kernel will not say it again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};
use smallvec::SmallVec;

use crate::arena::Arena;
use crate::config::{Config, ListenerConfig};
use crate::deadline::Timestamp;
use crate::handler::{Resolver, SessionHandler};
use crate::metrics::Counters;
use crate::reactor::clock::Clock;
use crate::reactor::connections::Connections;
use crate::reactor::ending::Ending;
use crate::reactor::journal::Journal;
use crate::reactor::pipe::{Edge, ReactorEnd};
use crate::reactor::staging::Staging;
use crate::reactor::{Command, Listener, Mailbox, Peers};
use crate::session::SessionKey;
use crate::shard::{Gone, Outgoing, Shard};

mod accepting;
mod closing;
mod reading;

use accepting::AcceptRate;

/// One thread's loop and all that it works on.
#[derive(Debug)]
pub(crate) struct Reactor<H> {
    id: usize,
    poll: Poll,
    events: Events,
    mailbox: Arc<Mailbox>,
    peers: Arc<Peers>,
    listeners: Vec<Listener>,
    first_listener: usize,
    accept_rate: AcceptRate,
    shard: Shard<H>,
    arena: Arena,
    connections: Connections,
    /// Sessions whose socket may have more, although no edge will say so.
    ready: VecDeque<SessionKey>,
    /// Connections whose session has ended while the peer still sends, by deadline.
    lingering: BinaryHeap<Reverse<(Timestamp, SessionKey)>>,
    /// Small scattered pieces are copied together here and sent at once.
    staging: Staging,
    journal: Journal,
    config: Config,
    /// By [`ListenerId`](crate::session::ListenerId).
    listener_configs: Box<[ListenerConfig]>,
    clock: Clock,
    now: Timestamp,
    stopping: Option<Timestamp>,
    ending: Ending,
}

/// What a reactor waits with, made before the reactor, because its peers need its mailbox.
#[derive(Debug)]
pub(crate) struct Loop {
    poll: Poll,
    mailbox: Arc<Mailbox>,
}

impl Loop {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let mailbox = Mailbox::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self { poll, mailbox })
    }

    /// Where other threads leave commands for this reactor.
    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }
}

/// What has become possible on a connection.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a bit of what the kernel tells"
)]
struct Readiness {
    is_readable: bool,
    is_writable: bool,
    is_read_closed: bool,
    is_urgent: bool,
    is_error: bool,
}

impl From<&mio::event::Event> for Readiness {
    fn from(event: &mio::event::Event) -> Self {
        Self {
            is_readable: event.is_readable(),
            is_writable: event.is_writable(),
            is_read_closed: event.is_read_closed(),
            is_urgent: event.is_priority(),
            is_error: event.is_error(),
        }
    }
}

impl From<Edge> for Readiness {
    fn from(edge: Edge) -> Self {
        Self {
            is_readable: edge.is_readable,
            is_writable: edge.is_writable,
            is_read_closed: edge.is_read_closed,
            ..Self::default()
        }
    }
}

/// A doorbell is never lost; should it be, its owner looks after this time.
const BACKSTOP: Duration = Duration::from_secs(1);
const WAKER: Token = Token(usize::MAX);
/// Listeners come behind every possible session key.
const LISTENER_BASE: usize = 1 << 62;
const EVENTS_PER_WAIT: usize = 1024;
const BACKLOG_PARTS_MAX: usize = 16;
/// A batch costs its turn at least so many bytes. However many peers leave one of a single frame
/// each, a turn takes at most 16,384: half of what pieces can tell apart.
const BATCH_COST_MIN: usize = 1024;

fn token(key: SessionKey) -> Token {
    Token((key.generation() as usize) << 32 | key.slot() as usize)
}

fn key_of(token: Token) -> SessionKey {
    let low = |value: usize| u32::try_from(value & 0xFFFF_FFFF).expect("masked to 32 bits");
    SessionKey::new(low(token.0), low(token.0 >> 32))
}

impl<H: SessionHandler> Reactor<H> {
    /// Reactor `id` among `peers`, which serves `listeners` too once it runs.
    pub(crate) fn new(
        id: u8,
        base: Loop,
        peers: Arc<Peers>,
        shard: impl FnOnce(Resolver) -> Shard<H>,
        config: &Config,
        mut listeners: Vec<Listener>,
    ) -> io::Result<Self> {
        let Loop { poll, mailbox } = base;
        for (index, listener) in listeners.iter_mut().enumerate() {
            listener.register(poll.registry(), Token(LISTENER_BASE + index))?;
        }
        let resolver = {
            let mailbox = Arc::clone(&mailbox);
            // A reactor that has ended needs no answers.
            Resolver::new(move |resolution| {
                let _ = mailbox.post(Command::Resolve(resolution));
            })
        };
        Ok(Self {
            id: usize::from(id),
            poll,
            events: Events::with_capacity(EVENTS_PER_WAIT),
            mailbox,
            ending: Ending::new(Arc::clone(&peers.quiet)),
            peers,
            listeners,
            first_listener: 0,
            accept_rate: AcceptRate::new(&config.limits),
            shard: shard(resolver),
            arena: Arena::new(),
            connections: Connections::default(),
            ready: VecDeque::new(),
            lingering: BinaryHeap::new(),
            staging: Staging::new(),
            journal: Journal::default(),
            config: config.clone(),
            listener_configs: config.listeners().into(),
            clock: Clock::start(),
            now: Timestamp::default(),
            stopping: None,
        })
    }

    /// Serves until it is stopped and every session has ended; returns what was counted.
    pub(crate) fn run(mut self) -> io::Result<Counters> {
        while !self.is_finished() {
            self.wait()?;
            self.read();
            self.deliver();
            self.flush();
            self.hand_over();
            self.expire();
            self.reap();
        }
        Ok(self.shard.counters())
    }

    fn is_finished(&self) -> bool {
        let is_over = |deadline| self.ending.may_leave() || deadline <= self.now;
        self.shard.session_count() == 0 && self.stopping.is_some_and(is_over)
    }

    // ---- wait

    fn wait(&mut self) -> io::Result<()> {
        if self.has_work() {
            return self.poll(Some(Duration::ZERO), Duration::ZERO);
        }
        if let Some(busy_poll) = self.config.busy_poll {
            let until = self.now + busy_poll;
            let until = self
                .deadline()
                .map_or(until, |deadline| deadline.min(until));
            while self.now < until {
                self.poll(Some(Duration::ZERO), Duration::ZERO)?;
                if !self.events.is_empty() || self.shard.has_mesh_work() {
                    return Ok(());
                }
            }
        }
        let worked = self.clock.since(self.now);
        self.note_lag(worked);
        let deadline = self.deadline().map(|deadline| deadline.since(self.now));
        if self.peers.mailboxes.len() == 1 {
            return self.poll(deadline, worked);
        }
        let doorbell = Arc::clone(&self.peers.doorbells[self.id]);
        let timeout = match doorbell.park(|| self.shard.has_mesh_work()) {
            true => deadline.map_or(BACKSTOP, |deadline| deadline.min(BACKSTOP)),
            false => Duration::ZERO,
        };
        let polled = self.poll(Some(timeout), worked);
        doorbell.unpark();
        if self.events.is_empty() && timeout == BACKSTOP && self.shard.has_mesh_work() {
            self.shard.count_doorbell_missed();
        }
        polled
    }

    /// `worked`: how much of the time since the turn began was noted already.
    fn poll(&mut self, timeout: Option<Duration>, worked: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            polled => polled?,
        }
        let (now, late) = self.clock.tell(self.now, timeout);
        self.now = now;
        self.note_lag(late.saturating_sub(worked));
        Ok(())
    }

    /// A turn took so long, or began so much later than it should have.
    fn note_lag(&mut self, lag: Duration) {
        if lag > self.config.limits.lag_warn {
            self.shard.count_lag();
            self.journal.lag(self.now, lag);
        }
    }

    fn has_work(&self) -> bool {
        (!self.ready.is_empty() && !self.shard.is_spilling())
            || self.shard.is_dirty()
            || self.shard.has_put_off()
            || self.shard.has_mesh_work()
            || self.shard.has_leftovers()
            || self.accepts_in().is_some_and(|rest| rest.is_zero())
    }

    /// From now to when a connection may be taken, if one may be waiting.
    fn accepts_in(&self) -> Option<Duration> {
        let is_due = |listener: &Listener| listener.is_due(self.now);
        let is_any = self.listeners.iter().any(is_due);
        is_any.then(|| self.accept_rate.rest(self.now))
    }

    fn deadline(&self) -> Option<Timestamp> {
        let accept = self.listeners.iter().filter(|listener| listener.ready);
        accept
            .filter_map(|listener| listener.resume)
            .chain(self.accepts_in().map(|rest| self.now + rest))
            .chain(self.shard.deadline())
            .chain(self.lingering.peek().map(|Reverse((due, _))| *due))
            .chain(self.stopping)
            .min()
    }

    // ---- read

    fn read(&mut self) {
        self.shard.begin_turn();
        self.take_events();
        self.resume();
        self.accept();
        if !self.shard.is_spilling() {
            self.read_ready();
        }
    }

    fn take_events(&mut self) {
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                WAKER => self.take_commands(),
                Token(LISTENER_BASE..) => {
                    if let Some(listener) = self.listeners.get_mut(event.token().0 - LISTENER_BASE)
                    {
                        listener.ready = true;
                    }
                }
                token => self.notice(key_of(token), &Readiness::from(event)),
            }
        }
        self.events = events;
    }

    fn notice(&mut self, key: SessionKey, readiness: &Readiness) {
        let Some(connection) = self.connections.get_mut(key) else {
            return self.shard.count_stale_event();
        };
        if readiness.is_writable {
            self.shard.writable(key);
        }
        if readiness.is_readable || readiness.is_read_closed || readiness.is_urgent {
            connection.is_readable = true;
            connection.is_read_closed |= readiness.is_read_closed;
            connection.is_urgent |= readiness.is_urgent;
        }
        if readiness.is_error && !self.shard.wants_input(key) && !self.shard.has_held(key) {
            // Nobody will read it, so nobody would find out.
            let error = connection.transport.take_error();
            let kind = error.map_or(io::ErrorKind::ConnectionReset, |error| error.kind());
            self.shard.gone(key, Gone::Failed(kind));
        }
        if connection.is_readable && (connection.is_lingering || self.shard.wants_input(key)) {
            self.make_ready(key);
        }
    }

    fn take_commands(&mut self) {
        for command in self.mailbox.take() {
            match command {
                Command::Adopt(transport, peer, listener) => {
                    self.adopt(transport, peer, listener);
                }
                Command::Edge(key, edge) => self.notice(key, &Readiness::from(edge)),
                Command::Pause(from, change) => self.shard.apply_pause(self.now, from, change),
                Command::Resolve(resolution) => self.shard.resolve(resolution),
                Command::Count(reply) => reply.send(self.shard.counters()),
                Command::Sessions(reply) => {
                    let sessions = self.shard.sessions().map(|(_, info)| info).collect();
                    reply.send(sessions);
                }
                Command::Stop => self.stop(),
                Command::End => {
                    self.stop();
                    self.stop_until(self.now);
                }
            }
        }
    }

    fn stop(&mut self) {
        if self.stopping.is_none() {
            self.listeners.clear();
            self.stop_until(self.now + self.config.drain_timeout);
            self.connections.pipes().for_each(ReactorEnd::stop);
        }
    }

    fn stop_until(&mut self, deadline: Timestamp) {
        self.stopping = Some(deadline);
        let lingering = std::mem::take(&mut self.lingering).into_iter();
        self.lingering = lingering
            .map(|Reverse((due, key))| Reverse((due.min(deadline), key)))
            .collect();
    }

    /// Puts those back on the ready list that are read again.
    fn resume(&mut self) {
        while let Some(key) = self.shard.next_resumed() {
            self.make_ready(key);
        }
    }

    fn make_ready(&mut self, key: SessionKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.is_ready
        {
            connection.is_ready = true;
            self.ready.push_back(key);
        }
    }

    // ---- flush

    fn flush(&mut self) {
        while let Some(key) = self.shard.next_dirty() {
            let Some(connection) = self.connections.get(key) else {
                continue;
            };
            let transport = &connection.transport;
            let outcome = match self.shard.outgoing(self.now, key, &self.arena) {
                Outgoing::Nothing => continue,
                Outgoing::Run(piece) => transport.send(self.arena.bytes(piece)),
                Outgoing::Scattered(pieces) => self
                    .staging
                    .send(transport, pieces.map(|piece| self.arena.bytes(piece))),
                Outgoing::Backlog(chunks) => {
                    let parts: SmallVec<[IoSlice<'_>; BACKLOG_PARTS_MAX]> =
                        chunks.take(BACKLOG_PARTS_MAX).map(IoSlice::new).collect();
                    transport.send_vectored(&parts)
                }
            };
            self.shard.sent(self.now, key, &self.arena, outcome);
            if self.shard.is_broken(key) {
                self.read_to_the_end(key);
            }
        }
        self.shard.end_flush();
    }

    /// The peer has gone; what it sent before may still be there, and no edge will say so.
    fn read_to_the_end(&mut self, key: SessionKey) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.is_readable = true;
            connection.is_read_closed = true;
        }
        self.make_ready(key);
    }

    // ---- deliver and hand over

    fn deliver(&mut self) {
        if !self.shard.has_mesh_work() {
            return;
        }
        if self.shard.is_spent() {
            self.flush();
        }
        self.shard.begin_delivering();
        let mut budget = self.config.limits.read_per_turn;
        while budget > 0 {
            let Some(len) = self.shard.deliver(&mut self.arena) else {
                break;
            };
            budget = budget.saturating_sub(len.max(BATCH_COST_MIN));
        }
    }

    fn hand_over(&mut self) {
        self.shard.hand_over(self.now);
        // Before the loop asks whether it may sleep: nothing else will say that they can be read.
        self.resume();
        if self.stopping.is_none() {
            return;
        }
        let shard = &mut self.shard;
        // What comes from sockets now is nobody's promise; what the process has published is.
        if !shard.is_draining() && self.connections.pipes().all(ReactorEnd::is_empty) {
            shard.stop_reading();
        }
        if !shard.is_draining() {
            return;
        }
        let is_silent = !shard.has_any_held() && shard.is_handed_over();
        if self.ending.all_arrived(is_silent, || shard.is_delivered()) {
            shard.drain();
        }
    }

    fn expire(&mut self) {
        self.shard.expire(self.now);
        if self.stopping.is_some_and(|deadline| deadline <= self.now) {
            self.shard.close_all();
        }
    }
}

impl<H> Drop for Reactor<H> {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}

/// Whether a receive found nothing, which is no fault.
fn is_empty(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
