//! A shard driven by hand: the turn of a reactor with sockets, clock and peers in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc;
use std::time::Duration;

use hvlp::arena::{Arena, Piece};
use hvlp::config::Config;
use hvlp::deadline::Timestamp;
use hvlp::handler::{Open, Resolution, Resolver, SessionHandler};
use hvlp::metrics::Counters;
use hvlp::register::last_values::LastValues;
use hvlp::session::{CloseReason, Peer, SessionKey};
use hvlp::shard::{Gone, Outgoing, SendOutcome, Shard};

/// How many bytes of an offer of that length the socket of a session takes.
pub(crate) type Socket<'a> = &'a mut dyn FnMut(SessionKey, usize) -> SendOutcome;

pub(crate) struct World<H> {
    pub(crate) shard: Shard<H>,
    pub(crate) arena: Arena,
    pub(crate) now: Timestamp,
    /// What each session's socket has taken.
    pub(crate) taken: BTreeMap<SessionKey, Vec<u8>>,
    /// Why each session ended that has.
    pub(crate) ended: BTreeMap<SessionKey, CloseReason>,
    /// How many deliveries each of them did not get.
    pub(crate) lost: BTreeMap<SessionKey, u64>,
    /// What was parsed, in order: whole frames, and all input of a session that has ended over it.
    pub(crate) executed: Vec<(SessionKey, Vec<u8>)>,
    /// Sessions that go on with what they hold.
    ready: VecDeque<SessionKey>,
    resolutions: mpsc::Receiver<Resolution>,
}

impl World<Open> {
    pub(crate) fn new(settings: &[&str]) -> Self {
        Self::with(Open, settings)
    }
}

impl<H: SessionHandler> World<H> {
    pub(crate) fn with(handler: H, settings: &[&str]) -> Self {
        let mut config = Config::default();
        for setting in settings {
            config.set(setting).unwrap();
        }
        let (sender, resolutions) = mpsc::channel();
        let resolver = Resolver::new(move |resolution| {
            // A ticket may outlive the world.
            let _ = sender.send(resolution);
        });
        Self {
            shard: Shard::new(0, 1, &config, handler, resolver)
                .with_last_values(LastValues::of(&config)),
            arena: Arena::new(),
            now: Timestamp::default(),
            taken: BTreeMap::new(),
            ended: BTreeMap::new(),
            lost: BTreeMap::new(),
            executed: Vec::new(),
            ready: VecDeque::new(),
            resolutions,
        }
    }

    pub(crate) fn open(&mut self) -> SessionKey {
        self.shard.open(self.now, Peer::Memory).unwrap()
    }

    /// A session that has sent CONNECT and these bytes, in one turn.
    pub(crate) fn connected(&mut self, more: impl AsRef<[u8]>) -> SessionKey {
        let key = self.open();
        self.receive(key, [&[1, 0], more.as_ref()].concat());
        self.turn();
        key
    }

    /// All of these bytes arrive, in as many turns as they take: most often within this one.
    pub(crate) fn receive(&mut self, key: SessionKey, bytes: impl AsRef<[u8]>) {
        let mut bytes = bytes.as_ref();
        loop {
            let taken = self.receive_with(key, bytes, &mut whole);
            bytes = &bytes[taken..];
            let is_held = self.shard.has_held(key);
            if !is_held && (bytes.is_empty() || !self.shard.wants_input(key)) {
                break;
            }
            self.turn();
        }
    }

    /// As many of these bytes arrive as this turn takes; returns how many. `socket` is for the
    /// flushes of a turn that cannot put anything off.
    pub(crate) fn receive_with(
        &mut self,
        key: SessionKey,
        bytes: impl AsRef<[u8]>,
        socket: Socket<'_>,
    ) -> usize {
        let bytes = bytes.as_ref();
        let mut taken = 0;
        while taken < bytes.len() && self.shard.wants_input(key) && !self.shard.has_held(key) {
            let head = self.shard.remainder(key);
            let room = self.arena.reserve(head);
            let len = room.len().min(bytes.len() - taken);
            room[..len].copy_from_slice(&bytes[taken..taken + len]);
            taken += len;
            let piece = self.arena.commit(head.len() + len);
            self.receive_piece(key, piece, socket);
        }
        taken
    }

    fn receive_piece(&mut self, key: SessionKey, piece: Piece, socket: Socket<'_>) {
        let mut executed = self.arena.bytes(piece).to_vec();
        let mut rest = self.shard.receive(self.now, key, &mut self.arena, piece);
        while let Some(piece) = rest {
            self.flush(socket);
            rest = self
                .shard
                .receive_rest(self.now, key, &mut self.arena, piece);
        }
        let kept = self.shard.remainder(key);
        assert!(executed.ends_with(kept), "what is kept is the end of it");
        executed.truncate(executed.len() - kept.len());
        self.executed.push((key, executed));
    }

    pub(crate) fn eof(&mut self, key: SessionKey) {
        self.shard.gone(key, Gone::Eof);
    }

    /// The end of a turn in which every socket takes everything.
    pub(crate) fn turn(&mut self) {
        self.turn_with(&mut whole);
    }

    pub(crate) fn turn_with(&mut self, socket: Socket<'_>) {
        self.shard.begin_turn(self.now);
        self.resolve();
        self.flush(socket);
        self.shard.expire(self.now);
        while let Some(closed) = self.shard.next_closed() {
            let before = self.ended.insert(closed.key, closed.reason);
            assert_eq!(before, None, "a session ends once");
            self.lost.insert(closed.key, closed.dropped);
            self.shard.reaped(closed.key);
        }
        self.shard.end_turn(&mut self.arena);
        assert!(self.shard.counters().is_conserved());
    }

    /// Lets time pass and ends the turn.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.turn();
    }

    /// What the session's socket has taken since the last look.
    pub(crate) fn take(&mut self, key: SessionKey) -> Vec<u8> {
        self.taken.remove(&key).unwrap_or_default()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.shard.counters()
    }

    pub(crate) fn flush(&mut self, socket: Socket<'_>) {
        while let Some(key) = self.shard.next_dirty() {
            let arena = &self.arena;
            let offer = match self.shard.outgoing(self.now, key, arena) {
                Outgoing::Nothing => continue,
                Outgoing::Run(piece) => arena.bytes(piece).to_vec(),
                Outgoing::Ahead(bytes) => bytes.to_vec(),
                Outgoing::Scattered(pieces) => pieces
                    .flat_map(|piece| arena.bytes(piece).to_vec())
                    .collect(),
                Outgoing::Backlog(chunks) => chunks.flat_map(<[u8]>::to_vec).collect(),
            };
            let outcome = socket(key, offer.len());
            if let SendOutcome::Whole(len) | SendOutcome::Short(len) | SendOutcome::NoBuffers(len) =
                outcome
            {
                self.taken
                    .entry(key)
                    .or_default()
                    .extend_from_slice(&offer[..len]);
            }
            self.shard.sent(self.now, key, &self.arena, outcome);
        }
        self.shard.end_flush();
    }

    /// Takes the answers of tickets, and what waited for them.
    fn resolve(&mut self) {
        while let Ok(resolution) = self.resolutions.try_recv() {
            self.shard.resolve(resolution);
        }
        while let Some(key) = self.shard.next_resumed() {
            self.ready.push_back(key);
        }
        for _ in 0..self.ready.len() {
            if self.shard.is_spent() {
                break;
            }
            let Some(key) = self.ready.pop_front() else {
                break;
            };
            if self.shard.has_held(key) {
                let held = self.arena.push(self.shard.remainder(key));
                self.receive_piece(key, held, &mut whole);
            }
        }
    }

    /// Whether the next turn has something to parse or to send already.
    pub(crate) fn has_more(&self) -> bool {
        self.shard.is_dirty() || self.shard.has_put_off() || !self.ready.is_empty()
    }
}

/// A socket that takes everything.
pub(crate) fn whole(_: SessionKey, offered: usize) -> SendOutcome {
    SendOutcome::Whole(offered)
}
