//! The engine on completion: io_uring, on Linux 6.1 and later.
//!
//! A receive stays armed on every socket, and what it brings lies in a buffer of the ring; what is
//! owed to all dirty sessions leaves in one system call, most often the one that waits. Bytes that
//! came are copied behind each other into the arena, so that they are neighbours there as with the
//! other engine. What a socket has beyond that is read from it by a system call, in large pieces.
//!
//! Nothing but receives and polls is in flight between turns. A connection is closed when the last
//! of them has completed; until then its descriptor and its slot are nobody else's.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, PollFlags, Timespec, epoll, eventfd};
use rustix::io::retry_on_intr;

use crate::handler::SessionHandler;
use crate::metrics::Counters;
use crate::reactor::turn::{Reactor, Readiness};
use crate::reactor::uring::early::Early;
use crate::reactor::uring::ring::{Completion, Ring};
use crate::reactor::uring::sends::Sends;
use crate::reactor::waker::Waker;
use crate::session::SessionKey;

mod early;
mod probe;
mod receiving;
mod requests;
mod ring;
mod sends;

pub(crate) use probe::probe;
use requests::About;
pub(crate) use requests::InFlight;

const DOORS_PER_LOOK: usize = 64;
const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// What one reactor waits with.
#[derive(Debug)]
pub(crate) struct Engine {
    ring: Ring,
    bell: OwnedFd,
    /// Watches the listeners, in the ring's stead: what a ring polls stays open for a while after
    /// the process has closed it, or was killed, and its port would stay taken.
    doors: OwnedFd,
    sends: Sends,
    /// Of the last look at the ring.
    completions: Vec<Completion>,
    /// Receives that have completed and are not read, oldest first.
    received: VecDeque<(SessionKey, Completion)>,
    /// What came for sessions that are not read.
    early: Early,
    /// Sessions whose receive is to be armed, if they are to be read at all.
    unarmed: Vec<SessionKey>,
    /// The last flush waits for what the next enter says of it, behind so many completions.
    offered: Option<usize>,
    /// What has failed in the midst of a turn, where nobody can be told.
    failure: Option<io::Error>,
}

impl Engine {
    /// One, and what wakes it.
    ///
    /// # Errors
    /// The kernel has no such ring, or refuses it.
    pub(crate) fn new() -> io::Result<(Self, Waker)> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let waker = Waker::Event(bell.try_clone()?);
        let engine = Self {
            ring: Ring::new()?,
            bell,
            doors: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            sends: Sends::new(),
            completions: Vec::new(),
            received: VecDeque::new(),
            early: Early::default(),
            unarmed: Vec::new(),
            offered: None,
            failure: None,
        };
        Ok((engine, waker))
    }

    /// Serves until the reactor is stopped and every session has ended; returns what was counted.
    pub(crate) fn run<H: SessionHandler>(
        mut self,
        mut reactor: Reactor<H>,
    ) -> io::Result<Counters> {
        self.ring.enable()?;
        let served = self.serve(&mut reactor);
        self.ring.end();
        served.map(|()| reactor.shard.counters())
    }

    fn serve<H: SessionHandler>(&mut self, reactor: &mut Reactor<H>) -> io::Result<()> {
        self.ring.watch(self.bell.as_fd(), About::Bell.pack())?;
        self.ring.watch(self.doors.as_fd(), About::Doors.pack())?;
        for (index, listener) in reactor.listeners.iter().enumerate() {
            let data = epoll::EventData::new_u64(index as u64);
            let events = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&self.doors, listener.as_fd(), data, events)?;
        }
        while !reactor.is_finished() {
            self.wait(reactor)?;
            self.read(reactor)?;
            reactor.deliver(|reactor| self.flush(reactor));
            self.flush_last(reactor);
            self.failure.take().map_or(Ok(()), Err)?;
            reactor.hand_over();
            reactor.expire();
            self.reap(reactor)?;
        }
        Ok(())
    }

    // ---- wait

    fn wait<H: SessionHandler>(&mut self, reactor: &mut Reactor<H>) -> io::Result<()> {
        let Self {
            ring, completions, ..
        } = self;
        let has_more = !self.received.is_empty() || self.early.is_awaited();
        let is_busy = has_more && !reactor.shard.is_spilling() || !completions.is_empty();
        reactor.wait(is_busy, |timeout| {
            ring.wait(timeout)?;
            ring.take(completions)?;
            Ok(!completions.is_empty())
        })?;
        if let Some(first) = self.offered.take() {
            self.sends.hear(&self.completions[first..]);
            self.sends.settle(&mut self.ring, reactor)?;
            reactor.void();
        }
        Ok(())
    }

    // ---- read

    fn read<H: SessionHandler>(&mut self, reactor: &mut Reactor<H>) -> io::Result<()> {
        reactor.shard.begin_turn(reactor.now);
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.notice(reactor, completion)?;
        }
        self.completions = completions;
        reactor.resume();
        reactor.accept();
        self.watch(reactor);
        self.receive(reactor);
        self.arm(reactor)
    }

    /// Takes note of a completion; what was received is left for its turn.
    fn notice<H: SessionHandler>(
        &mut self,
        reactor: &mut Reactor<H>,
        completion: Completion,
    ) -> io::Result<()> {
        match About::of(completion.user_data) {
            About::Receive(key) => self.notice_receive(reactor, key, completion),
            About::Writable(key) => {
                if let Some(connection) = reactor.connections.get_mut(key) {
                    connection.in_flight.remove(InFlight::WRITABLE);
                }
                notice_poll(reactor, key, completion);
            }
            About::Hangup(key) => {
                if let Some(connection) = reactor.connections.get_mut(key) {
                    connection.in_flight.remove(InFlight::HANGUP);
                }
                notice_poll(reactor, key, completion);
            }
            About::Doors => {
                self.notice_doors(reactor)?;
                if !completion.more {
                    self.ring.watch(self.doors.as_fd(), completion.user_data)?;
                }
            }
            About::Bell => {
                reactor.take_commands();
                drop(reactor.take_stopped_listeners());
                if !completion.more {
                    self.ring.watch(self.bell.as_fd(), completion.user_data)?;
                }
            }
            // Told while they were submitted, or too late to matter.
            About::Send(_) | About::Cancel => {}
        }
        Ok(())
    }

    fn notice_doors<H: SessionHandler>(&self, reactor: &mut Reactor<H>) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(DOORS_PER_LOOK);
        loop {
            retry_on_intr(|| epoll::wait(&self.doors, spare_capacity(&mut events), Some(&NOW)))?;
            if events.is_empty() {
                return Ok(());
            }
            for event in events.drain(..) {
                let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                if let Some(listener) = reactor.listeners.get_mut(index) {
                    listener.ready = true;
                }
            }
        }
    }

    /// Sessions are watched as soon as they are there.
    fn watch<H: SessionHandler>(&mut self, reactor: &mut Reactor<H>) {
        while let Some(key) = reactor.unwatched.pop() {
            let connection = reactor.connections.get(key);
            let blocking = connection.and_then(|connection| connection.transport.descriptor());
            // A receive on a socket that does not block would fail instead of waiting.
            match blocking.map(|socket| rustix::io::ioctl_fionbio(socket, false)) {
                Some(Ok(())) => self.unarmed.push(key),
                Some(Err(_)) | None => reactor.reject(key),
            }
        }
    }

    // ---- flush

    /// Offers every dirty session's socket what it is owed, many in one system call.
    fn flush<H: SessionHandler>(&mut self, reactor: &mut Reactor<H>) {
        if self.failure.is_some() {
            // The loop ends with this turn.
            return;
        }
        let before = self.completions.len();
        let flushed = self
            .sends
            .flush(&mut self.ring, reactor, &mut self.completions);
        self.read_later(reactor, before);
        self.note(flushed);
    }

    /// As `flush`, once a turn has read and delivered all it will: it leaves with the wait, in one
    /// system call, unless something is to be done before that needs to know what became of it.
    fn flush_last<H: SessionHandler>(&mut self, reactor: &mut Reactor<H>) {
        // Of much at once the system call is the smallest part, and what comes meanwhile makes the
        // next turn a larger one.
        if !reactor.shard.is_worth_filling() || !reactor.is_at_rest() || self.failure.is_some() {
            return self.flush(reactor);
        }
        let before = self.completions.len();
        let offered = self
            .sends
            .offer_all(&mut self.ring, reactor, &mut self.completions, false);
        self.offered = Some(before);
        // What was offered by itself may have closed its session.
        match offered {
            Ok(()) if reactor.is_at_rest() => {}
            offered => {
                self.offered = None;
                self.note(offered);
                self.flush(reactor);
            }
        }
    }

    fn note(&mut self, done: io::Result<()>) {
        if let Err(error) = done {
            self.failure.get_or_insert(error);
        }
    }

    // ---- reap

    fn reap<H: SessionHandler>(&mut self, reactor: &mut Reactor<H>) -> io::Result<()> {
        reactor.take_leave();
        let mut waiting = Vec::new();
        while let Some(key) = reactor.ended.pop() {
            let Some(connection) = reactor.connections.get_mut(key) else {
                continue;
            };
            if !connection.in_flight.is_any() {
                self.forget_early(reactor, key);
                drop(reactor.release(key));
                continue;
            }
            if connection.in_flight.add(InFlight::ENDED)
                && let Some(socket) = connection.transport.descriptor()
            {
                self.ring.cancel_all(socket, About::Cancel.pack())?;
            }
            // Looked at again when the next completions have come.
            waiting.push(key);
        }
        reactor.ended = waiting;
        reactor.end_work();
        if self.offered.is_none() {
            reactor.void();
        }
        Ok(())
    }
}

fn notice_poll<H: SessionHandler>(
    reactor: &mut Reactor<H>,
    key: SessionKey,
    completion: Completion,
) {
    let events = completion.result.unwrap_or_default();
    let events = PollFlags::from_bits_retain(u16::try_from(events).unwrap_or_default());
    let readiness = Readiness {
        is_writable: events.intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP),
        is_error: events.intersects(PollFlags::ERR | PollFlags::HUP),
        ..Readiness::default()
    };
    if reactor
        .connections
        .get(key)
        .is_some_and(|connection| !connection.in_flight.has(InFlight::ENDED))
    {
        reactor.notice(key, &readiness);
    }
}
