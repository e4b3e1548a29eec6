//! Sessions: one peer's protocol state and what it is owed.
//!
//! A session is named by its slot and a generation, so whatever arrives late for a slot's former
//! owner never reaches the next one. The socket is the reactor's business.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use thin_vec::ThinVec;

use crate::deadline::Timestamp;
use crate::label::labels;
use crate::outbound::Outbound;
use crate::packet::Extensions;
use crate::pages::Pages;

mod extended;
mod reason;

pub(crate) use extended::{Ahead, Extended};
pub use reason::CloseReason;

/// The name of a session: a slot, and which of its owners is meant.
///
/// Invariant: `generation` < 2^28; a slot whose generation would wrap is retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    slot: u32,
    generation: u32,
}

impl SessionKey {
    /// Generations are below this.
    pub const GENERATIONS: u32 = 1 << 28;

    /// The key of the `generation`-th owner of `slot`.
    ///
    /// # Panics
    /// If the generation does not fit into 28 bits.
    pub const fn new(slot: u32, generation: u32) -> Self {
        assert!(generation < Self::GENERATIONS, "generations have 28 bits");
        Self { slot, generation }
    }

    /// The key as a number below 2^60, for what the kernel tells back.
    pub(crate) const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The key that `to_bits` made a number of.
    pub(crate) fn of_bits(bits: u64) -> Self {
        let low = |value: u64| u32::try_from(value & 0xFFFF_FFFF).expect("masked to 32 bits");
        Self::new(low(bits), low(bits >> 32))
    }

    /// The index in every table of sessions.
    pub const fn slot(self) -> u32 {
        self.slot
    }

    /// Which owner of the slot.
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

labels! {
    /// How far a session has come.
    pub enum SessionState {
        /// Nothing but CONNECT counts yet.
        WaitConnect = "wait_connect",
        /// CONNECT was read, and the handler's answer is not there yet.
        Verifying = "verifying",
        /// Served.
        Connected = "connected",
    }
}

/// Whose settings hold for a session: a listener, by its place in the configuration, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListenerId(u16);

impl ListenerId {
    /// The settings that hold where a listener has none of its own.
    pub const COMMON: Self = Self(0);

    /// The `index`-th listener, from 0; those behind the 65,535th share the common settings.
    pub fn of(index: usize) -> Self {
        Self(u16::try_from(index + 1).unwrap_or(0))
    }

    /// The index in a table whose first row is the common one.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// A process on this host.
    Unix,
    /// The process that the broker runs in.
    Process,
    /// Whoever drives the shard by hand.
    Memory,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
            Self::Process => f.write_str("process"),
            Self::Memory => f.write_str("memory"),
        }
    }
}

/// What is known of a session, for people and programs outside the data path.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// A number that is never used again while the broker runs; logs show it.
    pub number: u64,
    /// Who is at the other end.
    pub peer: Peer,
    /// How far it has come.
    pub state: SessionState,
    /// Since when the connection exists.
    pub since: Timestamp,
    /// What it is subscribed to.
    pub topics: Vec<String>,
    /// Whole frames read from it.
    pub frames_in: u64,
    /// Frames matched for it: written, dropped or still owed.
    pub deliveries: u64,
    /// Frames that wait for its socket.
    pub owed: u64,
    /// Bytes of memory that its backlog takes, overhead included.
    pub backlog_bytes: usize,
}

/// What a connection that does not speak HVLP seems to speak instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// A browser or an HTTP client.
    Http,
    /// A TLS ClientHello.
    Tls,
    /// An SSH banner.
    Ssh,
    /// An MQTT CONNECT.
    Mqtt,
    /// A NATS or Redis client's `PING`.
    Ping,
}

impl Foreign {
    /// Judges by the first bytes of a stream.
    pub(crate) fn detect(input: &[u8]) -> Option<Self> {
        let starts = |with: &[&[u8]]| with.iter().any(|prefix| input.starts_with(prefix));
        if starts(&[b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS "]) {
            Some(Self::Http)
        } else if starts(&[&[0x16, 0x03]]) {
            Some(Self::Tls)
        } else if starts(&[b"SSH-"]) {
            Some(Self::Ssh)
        } else if input.first() == Some(&0x10) && input.get(2..8) == Some(b"\x00\x04MQTT") {
            Some(Self::Mqtt)
        } else if starts(&[b"PING", b"*1\r\n$4\r\nPING", b"CONNECT {"]) {
            Some(Self::Ping)
        } else {
            None
        }
    }
}

/// What it is, and what whoever runs that client should do.
impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "speaks HTTP: this port serves HVLP, open it with an HVLP client",
            Self::Tls => "speaks TLS on a plain port: connect with hvlp:// instead",
            Self::Ssh => "speaks SSH: this port serves HVLP, check the port number",
            Self::Mqtt => "speaks MQTT: this port serves HVLP, use an HVLP client",
            Self::Ping => "speaks NATS or Redis: this port serves HVLP, check the port number",
        })
    }
}

/// One session as its shard holds it. At most 160 bytes, and no buffer while it is idle.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) number: u64,
    pub(crate) peer: Peer,
    pub(crate) listener: ListenerId,
    pub(crate) opened: Timestamp,
    pub(crate) state: SessionState,
    /// Set once; the end of the turn acts on it.
    pub(crate) closing: Option<CloseReason>,
    pub(crate) foreign: Option<Foreign>,
    /// What was read and not yet parsed: the cut frame at the end of the last receive, or the rest
    /// of one receive that waits for the handler's answer or for the next turn.
    pub(crate) remainder: ThinVec<u8>,
    /// The remainder is input that was held: it counts as such, and is parsed from its beginning.
    pub(crate) holds: bool,
    /// It has subscribed, and is not read before it has the last values.
    pub(crate) replaying: bool,
    pub(crate) errors: Option<Box<ErrorWindow>>,
    pub(crate) frames_in: u64,
    pub(crate) deliveries: u64,
    /// Of these, how many it did not and will not get.
    pub(crate) dropped: u64,
    /// Bit k: what it published waits for shard k, and until that has gone it is not read.
    pub(crate) stopped_by: u64,
    /// How many consumers that pause it waits for; not read meanwhile either.
    pub(crate) paused_by: u32,
    pub(crate) outbound: Outbound,
    /// What it has asked for beyond the base protocol, if anything.
    pub(crate) extended: Option<Box<Extended>>,
}

const _: () = assert!(
    size_of::<Slot>() <= 160,
    "a slot of at most 160 bytes, so that idle sessions cost little"
);

impl Session {
    pub(crate) fn new(number: u64, peer: Peer, listener: ListenerId, now: Timestamp) -> Self {
        Self {
            number,
            peer,
            listener,
            opened: now,
            state: SessionState::WaitConnect,
            closing: None,
            foreign: None,
            remainder: ThinVec::new(),
            holds: false,
            replaying: false,
            errors: None,
            frames_in: 0,
            deliveries: 0,
            dropped: 0,
            stopped_by: 0,
            paused_by: 0,
            outbound: Outbound::default(),
            extended: None,
        }
    }

    /// Whether all that its socket can be offered is what this turn has brought.
    #[inline]
    pub(crate) const fn is_plain(&self) -> bool {
        !self.outbound.blocked && self.outbound.backlog.is_none() && self.extended.is_none()
    }

    /// The extensions that are in force.
    #[inline]
    pub(crate) fn extensions(&self) -> Extensions {
        match &self.extended {
            Some(extended) if self.state == SessionState::Connected => extended.extensions,
            _ => Extensions::NONE,
        }
    }

    /// Bytes of memory that what it is owed takes, answers included.
    pub(crate) fn owed_bytes(&self) -> usize {
        let answers = self.extended.as_ref();
        let answers = answers.map_or(0, |extended| extended.answers.capacity());
        self.outbound.backlog_bytes() + answers
    }

    /// Whether answers wait for the socket.
    pub(crate) fn has_answers(&self) -> bool {
        self.extended
            .as_ref()
            .is_some_and(|extended| !extended.answers.is_empty())
    }

    /// What is to go ahead of all else, if anything is.
    pub(crate) fn ahead(&self) -> Option<&[u8]> {
        let extended = self.extended.as_ref()?;
        match extended.ahead {
            Ahead::Nothing => None,
            Ahead::Frame => self
                .outbound
                .backlog
                .as_ref()
                .map(|backlog| backlog.begun()),
            Ahead::Answers => Some(&extended.answers),
        }
    }

    /// Whether it has ended and its last answer is still to be written.
    pub(crate) fn is_leaving(&self) -> bool {
        self.extended
            .as_ref()
            .is_some_and(|extended| extended.is_leaving)
    }

    /// Whether what it publishes waits for somebody, or it for its pong or for last values, so
    /// that it is not read.
    pub(crate) fn is_stopped(&self) -> bool {
        let awaits = self.extended.as_ref();
        let awaits = awaits.is_some_and(|extended| extended.awaited != 0);
        self.stopped_by != 0 || self.paused_by != 0 || awaits || self.replaying
    }

    /// Whether it holds input that may be parsed.
    pub(crate) fn has_held(&self) -> bool {
        self.holds && self.state != SessionState::Verifying && self.closing.is_none()
    }
}

/// When the last frames were discarded: a window that slides.
#[derive(Debug, Default)]
pub(crate) struct ErrorWindow {
    discards: VecDeque<Timestamp>,
}

impl ErrorWindow {
    /// Counts one; true if it is the `budget`-th within `window`.
    pub(crate) fn charge(&mut self, now: Timestamp, budget: usize, window: Duration) -> bool {
        while self
            .discards
            .front()
            .is_some_and(|&first| now.since(first) >= window)
        {
            self.discards.pop_front();
        }
        self.discards.push_back(now);
        self.discards.len() >= budget
    }
}

/// All sessions of a shard, by slot.
///
/// Invariant: a free slot's generation is that of its next owner, and a slot is free, taken or
/// retired, never two of these.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    slots: Pages<Slot>,
    /// How many slots were ever taken.
    used: u32,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    session: Option<Session>,
}

impl Sessions {
    pub(crate) fn insert(&mut self, session: Session) -> SessionKey {
        self.len += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.used += 1;
            self.used - 1
        });
        let entry = self.slots.reach(slot as usize);
        entry.session = Some(session);
        SessionKey::new(slot, entry.generation)
    }

    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<Session> {
        let entry = self.slots.get_mut(key.slot() as usize)?;
        if entry.generation != key.generation() {
            return None;
        }
        let session = entry.session.take()?;
        self.len -= 1;
        entry.generation += 1;
        if entry.generation < SessionKey::GENERATIONS {
            self.free.push(key.slot());
        }
        Some(session)
    }

    #[inline]
    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session> {
        let entry = self.slots.get(key.slot() as usize)?;
        entry
            .session
            .as_ref()
            .filter(|_| entry.generation == key.generation())
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        let entry = self.slots.get_mut(key.slot() as usize)?;
        entry
            .session
            .as_mut()
            .filter(|_| entry.generation == key.generation())
    }

    /// The key of whoever owns `slot` now.
    pub(crate) fn key_at(&self, slot: u32) -> Option<SessionKey> {
        let entry = self.slots.get(slot as usize)?;
        entry
            .session
            .is_some()
            .then(|| SessionKey::new(slot, entry.generation))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionKey, &Session)> {
        (0..).zip(self.slots.iter()).filter_map(|(slot, entry)| {
            // First: a retired slot has no owner, and a generation that no key can have.
            let session = entry.session.as_ref()?;
            Some((SessionKey::new(slot, entry.generation), session))
        })
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new(0, Peer::Memory, ListenerId::COMMON, Timestamp::default())
    }

    #[test]
    fn f1_f3_a_key_of_a_former_owner_reaches_nobody() {
        let mut sessions = Sessions::default();
        let first = sessions.insert(session());
        assert!(sessions.remove(first).is_some());
        let second = sessions.insert(session());
        assert_eq!(second, SessionKey::new(first.slot(), 1));
        assert!(sessions.get(first).is_none() && sessions.get_mut(first).is_none());
        assert!(sessions.remove(first).is_none());
        assert_eq!((sessions.len(), sessions.key_at(0)), (1, Some(second)));
    }

    #[test]
    fn f3_a_slot_whose_generation_would_wrap_is_retired() {
        let mut sessions = Sessions::default();
        let first = sessions.insert(session());
        sessions.slots.reach(0).generation = SessionKey::GENERATIONS - 1;
        let last = SessionKey::new(first.slot(), SessionKey::GENERATIONS - 1);
        assert!(sessions.remove(last).is_some());
        assert_eq!(sessions.insert(session()), SessionKey::new(1, 0));
        let keys: Vec<_> = sessions.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [SessionKey::new(1, 0)]);
    }

    #[test]
    fn the_error_window_slides() {
        let second = |n: u64| Timestamp::from(Duration::from_secs(n));
        let mut errors = ErrorWindow::default();
        let mut charge = |at| errors.charge(second(at), 3, Duration::from_secs(10));
        assert!(!charge(0));
        assert!(!charge(1));
        assert!(!charge(10), "the first has left the window");
        assert!(charge(10));
    }

    #[test]
    fn close_reasons_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> = CloseReason::ALL.map(CloseReason::name).into();
        assert_eq!(names.len(), CloseReason::ALL.len());
    }
}
