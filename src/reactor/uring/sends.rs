//! What is owed to the dirty sessions of a flush, offered in as few system calls as there is room.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::handler::SessionHandler;
use crate::reactor::turn::Reactor;
use crate::reactor::uring::ring::{Completion, Ring};
use crate::reactor::uring::{About, InFlight};
use crate::session::SessionKey;
use crate::shard::{Outgoing, SendOutcome};

/// The sends of one flush. What they read lies in the arena or in here until the kernel has it.
#[derive(Debug)]
pub(super) struct Sends {
    /// Pieces that lie apart are copied together here. Reserved once, never moved.
    staged: Vec<u8>,
    offers: Vec<Offer>,
}

#[derive(Clone, Copy, Debug)]
struct Offer {
    key: SessionKey,
    outcome: SendOutcome,
}

/// An enter costs more than a send: fewer than this are sent one by one (measured).
const TOGETHER_MIN: usize = 4;
const STAGED_LEN: usize = 256 * 1024;
/// More than this of scattered pieces is sent by a system call of its own, from where it lies.
const GATHERED_LEN_MAX: usize = 8 * 1024;

impl Sends {
    pub(super) fn new() -> Self {
        Self {
            staged: Vec::with_capacity(STAGED_LEN),
            offers: Vec::new(),
        }
    }

    /// Offers every dirty session's socket what it is owed, and tells the shard what became of it.
    /// What else completes meanwhile comes behind `completions`.
    pub(super) fn flush<H: SessionHandler>(
        &mut self,
        ring: &mut Ring,
        reactor: &mut Reactor<H>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let are_few = reactor.shard.dirty_count() < TOGETHER_MIN;
        let offered = self.offer_all(ring, reactor, completions, are_few);
        // Whatever failed: what is queued must not wait until its memory is used again.
        let submitted = self.submit(ring, completions);
        offered
            .and(submitted)
            .and_then(|()| self.settle(ring, reactor))
    }

    /// As `flush`, except that what is offered leaves with the next enter, whatever that is for;
    /// then `hear` and `settle` are to be called. If they `are_few`, they leave one by one and now.
    pub(super) fn offer_all<H: SessionHandler>(
        &mut self,
        ring: &mut Ring,
        reactor: &mut Reactor<H>,
        completions: &mut Vec<Completion>,
        are_few: bool,
    ) -> io::Result<()> {
        let mut offered = Ok(());
        while offered.is_ok()
            && let Some(key) = reactor.shard.next_dirty()
        {
            offered = match are_few {
                true => send_alone(ring, reactor, key),
                false => self.offer(ring, reactor, completions, key),
            };
        }
        offered
    }

    fn offer<H: SessionHandler>(
        &mut self,
        ring: &mut Ring,
        reactor: &mut Reactor<H>,
        completions: &mut Vec<Completion>,
        key: SessionKey,
    ) -> io::Result<()> {
        let connection = reactor.connections.get(key);
        let socket = connection.and_then(|connection| connection.transport.descriptor());
        let Some(socket) = socket else {
            return Ok(());
        };
        if STAGED_LEN - self.staged.len() < GATHERED_LEN_MAX {
            self.submit(ring, completions)?;
        }
        match reactor.shard.outgoing(reactor.now, key, &reactor.arena) {
            Outgoing::Nothing => return Ok(()),
            Outgoing::Run(piece) => {
                let bytes = reactor.arena.bytes(piece);
                return queue(&mut self.offers, ring, socket, key, bytes);
            }
            Outgoing::Scattered(pieces) => {
                let start = self.staged.len();
                let fits = pieces.map(|piece| reactor.arena.bytes(piece)).all(|bytes| {
                    let fits = self.staged.len() - start + bytes.len() <= GATHERED_LEN_MAX;
                    if fits {
                        self.staged.extend_from_slice(bytes);
                    }
                    fits
                });
                if fits {
                    let bytes = &self.staged[start..];
                    return queue(&mut self.offers, ring, socket, key, bytes);
                }
                self.staged.truncate(start);
            }
            Outgoing::Backlog(_) | Outgoing::Ahead(_) => {}
        }
        // A backlog and answers may be dropped before the kernel has looked at them, and of much at
        // once the system call is the smallest part.
        send_alone(ring, reactor, key)
    }

    /// Everything that was queued is with the kernel then, or was refused by it. Requests of other
    /// kinds can wait for the next wait.
    fn submit(&mut self, ring: &mut Ring, completions: &mut Vec<Completion>) -> io::Result<()> {
        if self.offers.is_empty() {
            return Ok(());
        }
        let submitted = ring.submit();
        let before = completions.len();
        ring.take(completions)?;
        self.hear(&completions[before..]);
        self.staged.clear();
        submitted
    }

    /// What the kernel said of the offers, if it did not take them whole.
    pub(super) fn hear(&mut self, completions: &[Completion]) {
        for completion in completions {
            if let About::Send(index) = About::of(completion.user_data)
                && let Some(offer) = self.offers.get_mut(index)
            {
                offer.outcome = outcome(completion.result, offer.outcome);
            }
        }
    }

    /// Tells the shard what became of the offers, which ends the flush.
    pub(super) fn settle<H: SessionHandler>(
        &mut self,
        ring: &mut Ring,
        reactor: &mut Reactor<H>,
    ) -> io::Result<()> {
        let mut settled = Ok(());
        for Offer { key, outcome } in self.offers.drain(..) {
            reactor.sent(key, outcome);
            let awaited = await_room(ring, reactor, key, outcome);
            settled = settled.and(awaited);
        }
        self.staged.clear();
        settled?;
        reactor.shard.end_flush();
        Ok(())
    }
}

/// Sends by a system call.
fn send_alone<H: SessionHandler>(
    ring: &mut Ring,
    reactor: &mut Reactor<H>,
    key: SessionKey,
) -> io::Result<()> {
    match reactor.send(key) {
        Some(outcome) => await_room(ring, reactor, key, outcome),
        None => Ok(()),
    }
}

fn queue(
    offers: &mut Vec<Offer>,
    ring: &mut Ring,
    socket: BorrowedFd<'_>,
    key: SessionKey,
    bytes: &[u8],
) -> io::Result<()> {
    let about = About::Send(offers.len()).pack();
    offers.push(Offer {
        key,
        outcome: SendOutcome::Whole(bytes.len()),
    });
    // SAFETY: `bytes` lie in the arena or in `staged`. Both stay as they are until the flush is
    // settled, behind `submit` or `wait`: what was committed to the arena is written to again by
    // reads of the next turn alone, which come behind that, and `staged` has room reserved, so that
    // it never moves, and is cleared by `submit` and `settle` alone.
    #[expect(unsafe_code, reason = "see above")]
    unsafe {
        ring.send(socket, bytes, about)
    }
}

/// A full socket says when it takes bytes again.
fn await_room<H: SessionHandler>(
    ring: &mut Ring,
    reactor: &mut Reactor<H>,
    key: SessionKey,
    outcome: SendOutcome,
) -> io::Result<()> {
    let connection = reactor.connections.get_mut(key);
    let Some(connection) = connection.filter(|_| matches!(outcome, SendOutcome::Short(_))) else {
        return Ok(());
    };
    match connection.transport.descriptor() {
        Some(socket) if connection.in_flight.add(InFlight::WRITABLE) => {
            ring.poll(socket, PollFlags::OUT, About::Writable(key).pack())
        }
        _ => Ok(()),
    }
}

/// What became of an offer that the kernel did not take whole.
fn outcome(result: Result<usize, Errno>, offered: SendOutcome) -> SendOutcome {
    match result {
        Ok(taken) if offered == SendOutcome::Whole(taken) => offered,
        Ok(0) => SendOutcome::Failed(io::ErrorKind::WriteZero),
        Ok(taken) => SendOutcome::Short(taken),
        Err(Errno::AGAIN | Errno::INTR) => SendOutcome::Short(0),
        Err(Errno::NOBUFS) => SendOutcome::NoBuffers(0),
        Err(errno) => SendOutcome::Failed(io::Error::from(errno).kind()),
    }
}
