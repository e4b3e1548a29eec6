//! The engine on readiness: epoll or kqueue through mio, edge-triggered, every socket registered
//! once.
//!
//! An edge comes once. Whoever is stopped before the socket is empty (a budget, an answer that is
//! still awaited) is remembered by the reactor, because the kernel will not say it again.

use std::io;
use std::time::Duration;

use mio::{Events, Poll, Token};

use crate::handler::SessionHandler;
use crate::metrics::Counters;
use crate::reactor::turn::{Reactor, Readiness};
use crate::reactor::waker::Waker;
use crate::session::SessionKey;

/// What one reactor waits with.
#[derive(Debug)]
pub(crate) struct Engine {
    poll: Poll,
    events: Events,
}

const WAKER: Token = Token(usize::MAX);
/// Listeners come behind every possible session key.
const LISTENER_BASE: usize = 1 << 62;
const EVENTS_PER_WAIT: usize = 1024;

fn token(key: SessionKey) -> Token {
    Token(usize::try_from(key.to_bits()).expect("a token has 64 bits"))
}

fn key_of(token: Token) -> SessionKey {
    SessionKey::of_bits(token.0 as u64)
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

impl Engine {
    /// One, and what wakes it.
    pub(crate) fn new() -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::Mio(mio::Waker::new(poll.registry(), WAKER)?);
        let events = Events::with_capacity(EVENTS_PER_WAIT);
        Ok((Self { poll, events }, waker))
    }

    /// Serves until the reactor is stopped and every session has ended; returns what was counted.
    pub(crate) fn run<H: SessionHandler>(
        mut self,
        mut reactor: Reactor<H>,
    ) -> io::Result<Counters> {
        for (index, listener) in reactor.listeners.iter_mut().enumerate() {
            listener.register(self.poll.registry(), Token(LISTENER_BASE + index))?;
        }
        while !reactor.is_finished() {
            self.wait(&mut reactor)?;
            self.read(&mut reactor);
            reactor.deliver(Reactor::flush);
            reactor.flush();
            reactor.hand_over();
            reactor.expire();
            self.reap(&mut reactor);
        }
        Ok(reactor.shard.counters())
    }

    fn wait<H: SessionHandler>(&mut self, reactor: &mut Reactor<H>) -> io::Result<()> {
        let Self { poll, events } = self;
        reactor.wait(false, |timeout: Option<Duration>| {
            match poll.poll(events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
                polled => polled?,
            }
            Ok(!events.is_empty())
        })
    }

    fn read<H: SessionHandler>(&self, reactor: &mut Reactor<H>) {
        reactor.shard.begin_turn(reactor.now);
        self.take_events(reactor);
        reactor.resume();
        reactor.accept();
        self.watch(reactor);
        if !reactor.shard.is_spilling() {
            reactor.read_ready(&mut Reactor::flush);
        }
    }

    fn take_events<H: SessionHandler>(&self, reactor: &mut Reactor<H>) {
        for event in &self.events {
            match event.token() {
                WAKER => {
                    reactor.take_commands();
                    drop(reactor.take_stopped_listeners());
                }
                Token(LISTENER_BASE..) => {
                    let index = event.token().0 - LISTENER_BASE;
                    if let Some(listener) = reactor.listeners.get_mut(index) {
                        listener.ready = true;
                    }
                }
                token => reactor.notice(key_of(token), &Readiness::from(event)),
            }
        }
    }

    fn watch<H: SessionHandler>(&self, reactor: &mut Reactor<H>) {
        while let Some(key) = reactor.unwatched.pop() {
            let connection = reactor.connections.get_mut(key);
            let watched = connection.map_or(Ok(()), |connection| {
                connection
                    .transport
                    .register(self.poll.registry(), token(key))
            });
            if watched.is_err() {
                reactor.reject(key);
            }
        }
    }

    fn reap<H: SessionHandler>(&self, reactor: &mut Reactor<H>) {
        reactor.take_leave();
        while let Some(key) = reactor.ended.pop() {
            if let Some(mut connection) = reactor.release(key) {
                // Closing the descriptor would do; saying it keeps no event for a closed one.
                let _ = connection.transport.deregister(self.poll.registry());
            }
        }
        reactor.end_work();
        reactor.void();
    }
}
