//! The broker, in memory: sessions, who wants what, and what everyone is owed.
//!
//! A shard is handed bytes, keys and the time, and hands back work. It knows no socket, clock or
//! thread, so an engine, a simulator, a fuzzer or a test can drive it. The calls of one turn:
//!
//! ```text
//! open, then per receive   remainder -> receive (receive_rest), until the turn `is_spent`
//! end of stream, errors    gone
//! what was held            begin_turn, resolve -> next_resumed
//! other shards             begin_delivering, deliver until the turn `is_spent`; hand_over
//! per dirty session        next_dirty -> outgoing -> sent; then end_flush
//! a socket has room        writable
//! time                     expire, deadline
//! end of the turn          next_closed -> reaped; end_turn
//! ```
//!
//! Nothing flows back up: `receive` never writes, and a session that must end is only marked, so no
//! list is changed while it is walked.

use std::collections::VecDeque;

use thin_vec::ThinVec;

use crate::arena::Arena;
use crate::config::{Config, Limits, ListenerConfig};
use crate::deadline::Timestamp;
use crate::handler::{Resolution, Resolver, SessionHandler};
use crate::metrics::{Counters, RefuseReason};
use crate::outbound::{Bound, Pieces, Spares};
use crate::packet::Extensions;
use crate::register::Register;
use crate::register::wildcard::{Matched, Wildcards};
use crate::session::{CloseReason, ListenerId, Peer, Session, SessionKey, SessionState, Sessions};

mod account;
mod answers;
mod barrier;
mod budget;
mod closing;
mod deadlines;
mod drain;
mod fan_out;
mod flush;
mod inspect;
mod overload;
mod parse;
mod pause;
mod receive;
mod remote;
mod replay;
mod requests;
mod run;

use account::Account;
pub use account::Accounts;
pub use answers::Parting;
use budget::Budget;
pub use closing::{Closed, Gone};
use deadlines::Deadlines;
pub use flush::{Outgoing, SendOutcome};
pub(crate) use overload::Overloads;
pub use pause::PauseChange;
use pause::Pauses;
use remote::Remote;
use replay::Replays;

/// The sans-I/O state of one reactor.
#[derive(Debug)]
pub struct Shard<H> {
    /// Shard k of n numbers its sessions k + 1, k + 1 + n, k + 1 + 2n, ...: unique over all shards.
    next_number: u64,
    id: u8,
    shard_count: u64,
    /// None if there is one shard: then nothing of it is ever looked at.
    remote: Option<Remote>,
    /// None where nobody asks.
    account: Option<Account>,
    /// Bit k: what is parsed just now has published to shard k.
    forwarded: u64,
    handler: H,
    resolver: Resolver,
    limits: Limits,
    /// What a CONNECT may ask for.
    extensions: Extensions,
    /// By [`ListenerId`].
    bounds: Box<[Bound]>,
    /// By [`ListenerId`]: `listener.answers_max`.
    answers_max: Box<[usize]>,
    register: Register,
    wildcards: Wildcards,
    /// What the topic matches that was looked at last.
    matched: Matched,
    replays: Replays,
    /// Who does not get what is delivered just now: it gets a last value that is as new.
    left_out: Vec<SessionKey>,
    /// Memory for audiences that are no one list.
    listeners: Vec<SessionKey>,
    /// Counts audiences, so that a session is in each of them once.
    marked: u64,
    sessions: Sessions,
    pieces: Pieces,
    /// Sessions with something to send; `dirty[..flushed]` have had their turn.
    dirty: Vec<SessionKey>,
    flushed: usize,
    /// Sessions to be flushed in the next turn, although nothing new comes for them.
    again: Vec<SessionKey>,
    /// Sessions whose last send found no memory, and when they are to be flushed again.
    retries: VecDeque<(Timestamp, SessionKey)>,
    /// Sessions that have ended and are not reaped, the first one in front.
    closing: VecDeque<SessionKey>,
    resumed: Vec<SessionKey>,
    /// Sessions that hold input which the next turn goes on with.
    put_off: Vec<SessionKey>,
    budget: Budget,
    /// Buffers of remainders, for the next session that needs one.
    spare: Vec<ThinVec<u8>>,
    spare_chunks: Spares,
    deadlines: Deadlines,
    /// Of this turn.
    now: Timestamp,
    pauses: Pauses,
    backlog_total: usize,
    held_total: usize,
    /// Nothing is read any more.
    draining: bool,
    /// Nor does anything come from other shards.
    ending: bool,
    overloads: Overloads,
    counters: Counters,
}

/// Enough for one turn's cut frames; a buffer takes 256 bytes.
const SPARE_MAX: usize = 64;

impl<H: SessionHandler> Shard<H> {
    /// Shard `id`, from 0, of a broker that has `count` of them. Tickets of `handler` answer
    /// through `resolver`.
    ///
    /// # Panics
    /// If `id` is not below `count`.
    pub fn new(id: u8, count: u8, config: &Config, handler: H, resolver: Resolver) -> Self {
        assert!(id < count, "shards are numbered from 0");
        let listeners = config.listeners();
        Self {
            next_number: u64::from(id) + 1,
            id,
            shard_count: u64::from(count),
            remote: None,
            account: None,
            forwarded: 0,
            handler,
            resolver,
            limits: config.limits.clone(),
            extensions: config.extensions,
            bounds: listeners.iter().map(ListenerConfig::bound).collect(),
            answers_max: listeners.iter().map(|one| one.answers_max).collect(),
            register: Register::new(),
            wildcards: Wildcards::new(config.limits.filter_shapes_max),
            matched: Matched::new(),
            replays: Replays::default(),
            left_out: Vec::new(),
            listeners: Vec::new(),
            marked: 0,
            sessions: Sessions::default(),
            pieces: Pieces::default(),
            dirty: Vec::new(),
            flushed: 0,
            again: Vec::new(),
            retries: VecDeque::new(),
            closing: VecDeque::new(),
            resumed: Vec::new(),
            put_off: Vec::new(),
            budget: Budget::of(&config.limits),
            spare: Vec::new(),
            spare_chunks: Spares::default(),
            deadlines: Deadlines::new(&listeners),
            now: Timestamp::default(),
            pauses: Pauses::default(),
            backlog_total: 0,
            held_total: 0,
            draining: false,
            ending: false,
            overloads: Overloads::default(),
            counters: Counters::default(),
        }
    }

    /// A connection exists: gives it a session in `WaitConnect`, under the common settings.
    ///
    /// # Errors
    /// As `open_at`.
    pub fn open(&mut self, now: Timestamp, peer: Peer) -> Result<SessionKey, RefuseReason> {
        self.open_at(now, peer, ListenerId::COMMON)
    }

    /// As `open`, under the settings of a listener.
    ///
    /// # Errors
    /// `SessionsMax` when the table is full; counted here.
    pub fn open_at(
        &mut self,
        now: Timestamp,
        peer: Peer,
        listener: ListenerId,
    ) -> Result<SessionKey, RefuseReason> {
        if self.sessions.len() >= self.limits.sessions_max || self.draining {
            self.refuse(RefuseReason::SessionsMax);
            return Err(RefuseReason::SessionsMax);
        }
        let key = self
            .sessions
            .insert(Session::new(self.next_number, peer, listener, now));
        self.next_number += self.shard_count;
        self.deadlines.connect.arm(key.slot(), listener, now);
        self.counters.sessions_opened += 1;
        Ok(key)
    }

    /// The number by which people know the session `key`.
    pub fn number(&self, key: SessionKey) -> Option<u64> {
        self.sessions.get(key).map(|session| session.number)
    }

    /// Who is at the other end of the session `key`.
    pub fn peer(&self, key: SessionKey) -> Option<Peer> {
        self.sessions.get(key).map(|session| session.peer)
    }

    /// Counts a connection that never got a session.
    pub fn refuse(&mut self, reason: RefuseReason) {
        self.counters.count_refused(reason, 1);
    }

    /// The answer of a ticket: its session is connected, or closed.
    pub fn resolve(&mut self, resolution: Resolution) {
        let key = resolution.key;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.state != SessionState::Verifying || session.closing.is_some() {
            return;
        }
        match resolution.verdict {
            // Nothing is read any more, and what it holds would come behind everybody's end.
            Ok(()) if self.draining => self.close(key, CloseReason::Shutdown),
            Ok(()) => {
                session.state = SessionState::Connected;
                self.deadlines.connect.disarm(key.slot());
                self.grant(self.now, key);
                self.resumed.push(key);
            }
            Err(refusal) => self.close(key, refusal.close_reason()),
        }
    }

    /// The next session that is read again: first what it holds, then its socket.
    pub fn next_resumed(&mut self) -> Option<SessionKey> {
        self.resumed.pop()
    }

    /// Whether `key` is a session of now.
    pub fn is_open(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some()
    }

    /// Whether input of this session would be taken.
    pub fn wants_input(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(|session| {
            session.closing.is_none()
                && session.state != SessionState::Verifying
                && !session.is_stopped()
        }) && !self.draining
    }

    /// Counts an event for a session that has ended.
    pub const fn count_stale_event(&mut self) {
        self.counters.stale_events += 1;
    }

    /// Counts a sleep that a doorbell should have ended.
    pub const fn count_doorbell_missed(&mut self) {
        self.counters.doorbells_missed += 1;
    }

    /// Counts a turn that was late, or long.
    pub const fn count_lag(&mut self) {
        self.counters.lags += 1;
    }

    /// Counts a rest of accepting.
    pub const fn count_accept_rest(&mut self) {
        self.counters.accept_rests += 1;
    }

    /// Counts sessions whose reading goes on in the next turn.
    pub const fn count_read_budget_exhausted(&mut self, sessions: usize) {
        self.counters.read_budget_exhausted += sessions as u64;
    }

    /// Ends every wait that is over at `now`. Called behind reading and flushing, so that a delay
    /// of our own is never taken for the peer's.
    pub fn expire(&mut self, now: Timestamp) {
        self.now = now;
        self.retry(now);
        self.relieve(now);
        while let Some((slot, reason)) = self.deadlines.pop_expired(now) {
            if let Some(key) = self.sessions.key_at(slot) {
                self.close(key, reason);
            }
        }
        self.expire_keepalives(now);
        while let Some(slot) = self.deadlines.farewell.pop_expired(now) {
            if let Some(key) = self.sessions.key_at(slot) {
                self.part(key);
            }
        }
    }

    /// When `expire` is to be called next, if nothing else happens.
    pub fn deadline(&self) -> Option<Timestamp> {
        let retry = self.retries.front().map(|(due, _)| *due);
        self.deadlines.first().into_iter().chain(retry).min()
    }

    /// Whether something is left to be done of sessions that have ended: to take leave of them, or
    /// to give memory of what they were owed back.
    pub fn has_leftovers(&self) -> bool {
        !self.closing.is_empty() || self.spare_chunks.surplus() > 0
    }

    /// Whether the session holds input that is to be parsed before its socket is read again: its
    /// `remainder`, received as it is.
    pub fn has_held(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(Session::has_held)
    }

    /// Whether what the session publishes waits for another shard: it is neither read nor parsed.
    pub fn is_stopped(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(Session::is_stopped)
    }

    /// Whether it ends with this turn.
    pub fn is_closing(&self, key: SessionKey) -> bool {
        self.sessions
            .get(key)
            .is_none_or(|session| session.closing.is_some())
    }

    /// Whether any session does.
    pub fn has_any_held(&self) -> bool {
        self.sessions.iter().any(|(_, session)| session.has_held())
    }

    /// Takes back `open`: the connection could not be watched, so it never was a session.
    pub fn forget(&mut self, key: SessionKey, reason: RefuseReason) {
        self.deadlines.connect.disarm(key.slot());
        self.sessions.remove(key);
        self.counters.sessions_opened -= 1;
        self.refuse(reason);
    }

    /// `end_work` and `void`, where nothing lies between them.
    pub fn end_turn(&mut self, arena: &mut Arena) {
        self.end_work();
        self.void(arena);
    }

    /// The work of this turn is done; its last sends may still be under way.
    pub fn end_work(&mut self) {
        self.counters.turns += 1;
        self.settle_overloads();
        let backlogs_max = self.limits.outbound_total_max;
        self.spare_chunks
            .trim(backlogs_max.saturating_sub(self.backlog_total));
        self.budget = Budget::of(&self.limits);
    }

    /// Nothing of this turn is read by the kernel any more: all pieces are void.
    pub fn void(&mut self, arena: &mut Arena) {
        debug_assert!(self.is_settled(), "every dirty session was flushed");
        if let Some(remote) = &mut self.remote {
            remote.give_back(arena.take_batches());
        }
        arena.end_turn();
    }

    fn keep_spare(&mut self, mut buffer: ThinVec<u8>) {
        // A buffer that held a whole receive is not worth keeping.
        if (1..=SPARE_LEN_MAX).contains(&buffer.capacity()) && self.spare.len() < SPARE_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    fn is_settled(&self) -> bool {
        self.dirty.is_empty() && (self.sessions.len() > 64 || self.counters().is_conserved())
    }
}

/// A remainder is at most 256 bytes; allocators round up.
const SPARE_LEN_MAX: usize = 512;
