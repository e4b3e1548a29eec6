//! The far end of a session of the fuzz target: a socket that takes little, nothing, or fails.

use std::io::ErrorKind;

use hvlp::session::SessionKey;
use hvlp::shard::SendOutcome;

/// The far end of a connection: what its socket still takes, and what its next send comes to.
pub(crate) struct Client {
    pub(crate) key: SessionKey,
    pub(crate) room: usize,
    pub(crate) refusal: Option<Refusal>,
    /// A send has found no memory, and was not made again.
    pub(crate) is_starved: bool,
}

/// What a socket answers to an offer, instead of taking what it has room for.
#[derive(Clone, Copy)]
pub(crate) enum Refusal {
    NoBuffers,
    Failed(ErrorKind),
}

impl Client {
    /// What its socket makes of an offer, and how much of it it takes.
    pub(crate) fn take(&mut self, offer: &[u8]) -> (SendOutcome, usize) {
        let taken = offer.len().min(self.room);
        match self.refusal.take() {
            Some(Refusal::Failed(kind)) => return (SendOutcome::Failed(kind), 0),
            Some(Refusal::NoBuffers) => {
                let taken = taken / 2;
                self.use_room(taken);
                self.is_starved = true;
                return (SendOutcome::NoBuffers(taken), taken);
            }
            None => {}
        }
        self.use_room(taken);
        self.is_starved = false;
        match taken == offer.len() {
            true => (SendOutcome::Whole(taken), taken),
            false => (SendOutcome::Short(taken), taken),
        }
    }

    const fn use_room(&mut self, taken: usize) {
        if self.room != usize::MAX {
            self.room -= taken;
        }
    }
}

pub(crate) fn refusal(argument: u8) -> Refusal {
    match argument % 6 {
        0 | 1 => Refusal::NoBuffers,
        2 => Refusal::Failed(ErrorKind::ConnectionReset),
        3 => Refusal::Failed(ErrorKind::TimedOut),
        4 => Refusal::Failed(ErrorKind::WriteZero),
        _ => Refusal::Failed(ErrorKind::HostUnreachable),
    }
}
