//! What a reactor works on, and the parts of its turn that are the same whatever it waits with.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::arena::Arena;
use crate::config::{Config, ListenerConfig};
use crate::deadline::Timestamp;
use crate::handler::{Resolver, SessionHandler};
use crate::reactor::accepting::AcceptRate;
use crate::reactor::clock::Clock;
use crate::reactor::connections::Connections;
use crate::reactor::ending::Ending;
use crate::reactor::journal::Journal;
use crate::reactor::pipe::{Edge, ReactorEnd};
use crate::reactor::staging::Staging;
use crate::reactor::{Command, Listener, Mailbox, Peers};
use crate::session::SessionKey;
use crate::shard::{Gone, Outgoing, SendOutcome, Shard};

/// One thread's shard, its sockets and all else that its loop works on.
#[derive(Debug)]
pub(crate) struct Reactor<H> {
    pub(super) id: usize,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) peers: Arc<Peers>,
    pub(super) listeners: Vec<Listener>,
    pub(super) first_listener: usize,
    pub(super) accept_rate: AcceptRate,
    pub(super) shard: Shard<H>,
    pub(super) arena: Arena,
    pub(super) connections: Connections,
    /// Connections that the engine is to watch from this turn on.
    pub(super) unwatched: Vec<SessionKey>,
    /// Sessions whose socket may have more, although no edge will say so.
    pub(super) ready: VecDeque<SessionKey>,
    /// Connections whose session has ended while the peer still sends, by deadline.
    pub(super) lingering: BinaryHeap<Reverse<(Timestamp, SessionKey)>>,
    /// Connections that the engine is to close in this turn.
    pub(super) ended: Vec<SessionKey>,
    /// Small scattered pieces are copied together here and sent at once.
    staging: Staging,
    pub(super) journal: Journal,
    pub(super) config: Config,
    /// By [`ListenerId`](crate::session::ListenerId).
    pub(super) listener_configs: Box<[ListenerConfig]>,
    clock: Clock,
    pub(super) now: Timestamp,
    pub(super) stopping: Option<Timestamp>,
    ending: Ending,
}

/// What has become possible on a connection.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a bit of what the kernel tells"
)]
pub(super) struct Readiness {
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
    pub(super) is_read_closed: bool,
    pub(super) is_urgent: bool,
    pub(super) is_error: bool,
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
/// Without anything to do there is no turn either, and only turns give memory back: one comes after
/// this time as long as there is some.
const SURPLUS_TICK: Duration = Duration::from_millis(1);
const BACKLOG_PARTS_MAX: usize = 16;
/// A batch costs its turn at least so many bytes. However many peers leave one of a single frame
/// each, a turn takes at most 16,384: half of what pieces can tell apart.
const BATCH_COST_MIN: usize = 1024;

impl<H: SessionHandler> Reactor<H> {
    /// Reactor `id` among `peers`, which takes commands from `mailbox` and serves `listeners` too
    /// once it runs.
    pub(crate) fn new(
        id: u8,
        mailbox: Arc<Mailbox>,
        peers: Arc<Peers>,
        shard: impl FnOnce(Resolver) -> Shard<H>,
        config: &Config,
        listeners: Vec<Listener>,
    ) -> Self {
        let resolver = {
            let mailbox = Arc::clone(&mailbox);
            // A reactor that has ended needs no answers.
            Resolver::new(move |resolution| {
                let _ = mailbox.post(Command::Resolve(resolution));
            })
        };
        Self {
            id: usize::from(id),
            mailbox,
            ending: Ending::new(Arc::clone(&peers.quiet)),
            peers,
            listeners,
            first_listener: 0,
            accept_rate: AcceptRate::new(&config.limits),
            shard: shard(resolver),
            arena: Arena::new(),
            connections: Connections::default(),
            unwatched: Vec::new(),
            ready: VecDeque::new(),
            lingering: BinaryHeap::new(),
            ended: Vec::new(),
            staging: Staging::new(),
            journal: Journal::default(),
            config: config.clone(),
            listener_configs: config.listeners().into(),
            clock: Clock::start(),
            now: Timestamp::default(),
            stopping: None,
        }
    }

    /// Whether it was stopped and every session has ended.
    pub(super) fn is_finished(&self) -> bool {
        let is_over = |deadline| self.ending.may_leave() || deadline <= self.now;
        self.shard.session_count() == 0 && self.stopping.is_some_and(is_over)
    }

    // ---- wait

    /// Waits until something has come, or is to be done, which is now if the engine `is_busy`.
    /// `poll` looks for what has come, for at most as long as it is told, and returns whether there
    /// is anything.
    pub(super) fn wait(
        &mut self,
        is_busy: bool,
        mut poll: impl FnMut(Option<Duration>) -> io::Result<bool>,
    ) -> io::Result<()> {
        if is_busy || self.has_work() {
            return self
                .poll(&mut poll, Some(Duration::ZERO), Duration::ZERO)
                .map(drop);
        }
        if let Some(busy_poll) = self.config.busy_poll {
            let until = self.now + busy_poll;
            let until = self
                .deadline()
                .map_or(until, |deadline| deadline.min(until));
            while self.now < until {
                let has_come = self.poll(&mut poll, Some(Duration::ZERO), Duration::ZERO)?;
                if has_come || self.shard.has_mesh_work() {
                    return Ok(());
                }
            }
        }
        let worked = self.clock.since(self.now);
        self.note_lag(worked);
        let deadline = self.deadline().map(|deadline| deadline.since(self.now));
        if self.peers.mailboxes.len() == 1 {
            return self.poll(&mut poll, deadline, worked).map(drop);
        }
        let doorbell = Arc::clone(&self.peers.doorbells[self.id]);
        let timeout = match doorbell.park(|| self.shard.has_mesh_work()) {
            true => deadline.map_or(BACKSTOP, |deadline| deadline.min(BACKSTOP)),
            false => Duration::ZERO,
        };
        let polled = self.poll(&mut poll, Some(timeout), worked);
        doorbell.unpark();
        let has_come = polled?;
        if !has_come && timeout == BACKSTOP && self.shard.has_mesh_work() {
            self.shard.count_doorbell_missed();
        }
        Ok(())
    }

    /// `worked`: how much of the time since the turn began was noted already.
    fn poll(
        &mut self,
        poll: &mut impl FnMut(Option<Duration>) -> io::Result<bool>,
        timeout: Option<Duration>,
        worked: Duration,
    ) -> io::Result<bool> {
        let has_come = poll(timeout)?;
        let (now, late) = self.clock.tell(self.now, timeout);
        self.now = now;
        self.note_lag(late.saturating_sub(worked));
        Ok(has_come)
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
            .chain(self.arena.has_surplus().then(|| self.now + SURPLUS_TICK))
            .min()
    }

    /// Whether what the last flush offers can wait for its answers until the next wait: until then
    /// nobody is closed, nobody leaves, and no peer waits for its batches.
    #[cfg(all(feature = "uring", target_os = "linux"))]
    pub(super) fn is_at_rest(&self) -> bool {
        self.stopping.is_none()
            && self.ended.is_empty()
            && !self.shard.has_leftovers()
            && !self.arena.has_batches()
            && self.deadline().is_none_or(|deadline| deadline > self.now)
    }

    // ---- read

    /// What has become possible on a connection.
    pub(super) fn notice(&mut self, key: SessionKey, readiness: &Readiness) {
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

    pub(super) fn take_commands(&mut self) {
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

    /// Listeners that nobody shall reach any more.
    pub(super) fn take_stopped_listeners(&mut self) -> Vec<Listener> {
        match self.stopping {
            Some(_) => std::mem::take(&mut self.listeners),
            None => Vec::new(),
        }
    }

    /// Puts those back on the ready list that are read again.
    pub(super) fn resume(&mut self) {
        while let Some(key) = self.shard.next_resumed() {
            self.make_ready(key);
        }
    }

    pub(super) fn make_ready(&mut self, key: SessionKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.is_ready
        {
            connection.is_ready = true;
            self.ready.push_back(key);
        }
    }

    // ---- deliver, flush and hand over

    /// Takes what other reactors have for the sessions here; `flush` as for `read_ready`.
    pub(super) fn deliver(&mut self, flush: impl FnOnce(&mut Self)) {
        if !self.shard.has_mesh_work() {
            return;
        }
        if self.shard.is_spent() {
            flush(self);
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

    /// Offers every dirty session's socket what it is owed, in a system call each.
    pub(super) fn flush(&mut self) {
        while let Some(key) = self.shard.next_dirty() {
            self.send(key);
        }
        self.shard.end_flush();
    }

    /// Offers the socket of `key` what it is owed, and tells what became of it; `None` if that is
    /// nothing now.
    pub(super) fn send(&mut self, key: SessionKey) -> Option<SendOutcome> {
        let connection = self.connections.get(key)?;
        let transport = &connection.transport;
        let outcome = match self.shard.outgoing(self.now, key, &self.arena) {
            Outgoing::Nothing => return None,
            Outgoing::Run(piece) => transport.send(self.arena.bytes(piece)),
            Outgoing::Ahead(bytes) => transport.send(bytes),
            Outgoing::Scattered(pieces) => self
                .staging
                .send(transport, pieces.map(|piece| self.arena.bytes(piece))),
            Outgoing::Backlog(chunks) => {
                let parts: SmallVec<[IoSlice<'_>; BACKLOG_PARTS_MAX]> =
                    chunks.take(BACKLOG_PARTS_MAX).map(IoSlice::new).collect();
                transport.send_vectored(&parts)
            }
        };
        self.sent(key, outcome);
        Some(outcome)
    }

    /// What became of an offer, while the pieces are still valid.
    pub(super) fn sent(&mut self, key: SessionKey, outcome: SendOutcome) {
        self.shard.sent(self.now, key, &self.arena, outcome);
        if self.shard.is_broken(key) {
            self.read_to_the_end(key);
        }
    }

    /// The peer has gone; what it sent before may still be there, and no edge will say so.
    fn read_to_the_end(&mut self, key: SessionKey) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.is_readable = true;
            connection.is_read_closed = true;
        }
        self.make_ready(key);
    }

    pub(super) fn hand_over(&mut self) {
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

    pub(super) fn expire(&mut self) {
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
