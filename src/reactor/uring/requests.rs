//! What requests are about, and which of a connection are in flight.

use crate::reactor::uring::ring::UserData;
use crate::session::SessionKey;

/// What is in flight of a connection, a bit each: every session has one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InFlight(u8);

impl InFlight {
    pub(crate) const NONE: Self = Self(0);
    pub(super) const RECEIVE: Self = Self(1);
    pub(super) const WRITABLE: Self = Self(1 << 1);
    pub(super) const HANGUP: Self = Self(1 << 2);
    /// Nothing itself: the ring was told to end all that.
    pub(super) const ENDED: Self = Self(1 << 3);

    pub(super) const fn is_any(self) -> bool {
        self.0 & !Self::ENDED.0 != 0
    }

    pub(super) const fn has(self, what: Self) -> bool {
        self.0 & what.0 != 0
    }

    /// Returns whether that is new.
    pub(super) const fn add(&mut self, what: Self) -> bool {
        let is_new = !self.has(what);
        self.0 |= what.0;
        is_new
    }

    pub(super) const fn remove(&mut self, what: Self) {
        self.0 &= !what.0;
    }
}

/// What a request is about: four bits of what, and of whom: a session's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    Receive(SessionKey),
    /// A socket takes bytes again.
    Writable(SessionKey),
    /// A peer has gone of whom nothing is read.
    Hangup(SessionKey),
    /// The offer of that index.
    Send(usize),
    /// A listener, whichever, has connections.
    Doors,
    Bell,
    Cancel,
}

impl About {
    const KEY_BITS: u32 = 60;

    pub(super) fn pack(self) -> UserData {
        let (what, whom) = match self {
            Self::Receive(key) => (0, key.to_bits()),
            Self::Writable(key) => (1, key.to_bits()),
            Self::Hangup(key) => (2, key.to_bits()),
            Self::Send(index) => (3, index as u64),
            Self::Doors => (4, 0),
            Self::Bell => (5, 0),
            Self::Cancel => (6, 0),
        };
        UserData(what << Self::KEY_BITS | whom)
    }

    pub(super) fn of(UserData(packed): UserData) -> Self {
        let whom = packed & ((1 << Self::KEY_BITS) - 1);
        let key = || SessionKey::of_bits(whom);
        let index = usize::try_from(whom).unwrap_or(usize::MAX);
        match packed >> Self::KEY_BITS {
            0 => Self::Receive(key()),
            1 => Self::Writable(key()),
            2 => Self::Hangup(key()),
            3 => Self::Send(index),
            4 => Self::Doors,
            5 => Self::Bell,
            _ => Self::Cancel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_tells_what_was_asked_and_for_whom() {
        let keys = [(0, 1), (1, 0), (u32::MAX, (1 << 28) - 1), (7, 1 << 27)];
        for (slot, generation) in keys {
            let key = SessionKey::new(slot, generation);
            for about in [
                About::Receive(key),
                About::Writable(key),
                About::Hangup(key),
            ] {
                assert_eq!(About::of(about.pack()), about);
            }
        }
        for about in [About::Send(4095), About::Doors, About::Bell, About::Cancel] {
            assert_eq!(About::of(about.pack()), about);
        }
    }
}
