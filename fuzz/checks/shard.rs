//! A shard against a naive broker, driven by a script that any bytes are. The fuzz target calls it,
//! and so does the test that replays the corpus.
//!
//! 1. The first byte chooses the limits: turns of few pieces, or sessions that may owe little.
//! 2. Each further byte is an operation on one of four clients: bytes into its socket, the end of
//!    its stream, room in its socket, or the end of the turn. Operations on a client that has no
//!    session open one.
//! 3. The naive broker executes the same input frame by frame, with code of its own. What a client
//!    has read is a prefix of what it would have sent, and all of it while the socket has room;
//!    sessions end for the reason it knows, or as slow consumers; the register holds what it holds.
//! 4. After every turn each frame and each delivery is accounted for. When all sessions have ended,
//!    nothing of them is left.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use hvlp::arena::{Arena, Piece};
use hvlp::config::Config;
use hvlp::deadline::Timestamp;
use hvlp::handler::{Open, Resolver};
use hvlp::session::{CloseReason, Peer, SessionKey};
use hvlp::shard::{Gone, Outgoing, SendOutcome, Shard};

const CLIENT_COUNT: usize = 4;
const ERROR_BUDGET: usize = 64;

static CONFIGS: LazyLock<[Config; 2]> = LazyLock::new(|| {
    let (mut short_turns, mut small_backlogs) = (Config::default(), Config::default());
    short_turns.limits.pieces_per_turn = 3;
    short_turns.limits.deliver_per_turn = 600;
    small_backlogs.listener.outbound_max = 8 * 1024;
    small_backlogs.limits.outbound_total_max = 12 * 1024;
    [short_turns, small_backlogs]
});

pub(crate) fn check(input: &[u8]) {
    let mut script = Script(input);
    let Some(choice) = script.byte() else {
        return;
    };
    let mut world = World::new(&CONFIGS[usize::from(choice % 2)]);
    while let Some(operation) = script.byte() {
        world.step(operation, &mut script);
    }
    world.finish();
}

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn bytes(&mut self, count: u8) -> Vec<u8> {
        let (bytes, rest) = self.0.split_at(usize::from(count).min(self.0.len()));
        self.0 = rest;
        bytes.to_vec()
    }
}

/// The far end of a connection: what its socket still takes, and all that it took.
struct Client {
    key: SessionKey,
    room: usize,
    read: Vec<u8>,
}

struct World {
    shard: Shard<Open>,
    arena: Arena,
    clients: [Option<Client>; CLIENT_COUNT],
    naive: [Naive; CLIENT_COUNT],
}

impl World {
    fn new(config: &Config) -> Self {
        Self {
            shard: Shard::new(0, 1, config, Open, Resolver::new(|_| {})),
            arena: Arena::new(),
            clients: [const { None }; CLIENT_COUNT],
            naive: Default::default(),
        }
    }

    fn step(&mut self, operation: u8, script: &mut Script<'_>) {
        let who = usize::from(operation) % CLIENT_COUNT;
        if self.clients[who].is_none() {
            let key = self
                .shard
                .open(Timestamp::default(), Peer::Memory)
                .expect("there is room for four sessions");
            let client = Client {
                key,
                room: usize::MAX,
                read: Vec::new(),
            };
            (self.clients[who], self.naive[who]) = (Some(client), Naive::default());
        }
        let argument = script.byte().unwrap_or(0);
        let topic = [argument % 4];
        match operation / 4 % 12 {
            0 => self.receive(who, &script.bytes(argument)),
            1 => self.receive(who, &[1, 0]),
            2 => self.receive(who, &list(3, argument)),
            3 => self.receive(who, &list(4, argument)),
            4 => self.receive(who, &publish(&topic, argument)),
            5 => self.receive(who, &publish(&topic, 9).repeat(usize::from(argument))),
            6 => self.receive(who, &[2, 0]),
            7 => self.gone(who, Gone::Eof),
            8 => self.gone(who, Gone::Failed(std::io::ErrorKind::ConnectionReset)),
            9 => self.client(who).room = usize::from(argument),
            10 => self.make_room(who),
            _ => self.turn(),
        }
    }

    fn client(&mut self, who: usize) -> &mut Client {
        self.clients[who].as_mut().expect("a step has opened it")
    }

    fn receive(&mut self, who: usize, bytes: &[u8]) {
        let key = self.client(who).key;
        if !self.shard.wants_input(key) || self.shard.has_held(key) {
            return;
        }
        let head = self.shard.remainder(key);
        let room = self.arena.reserve(head);
        room[..bytes.len()].copy_from_slice(bytes);
        let piece = self.arena.commit(head.len() + bytes.len());
        self.naive[who].unexecuted.extend_from_slice(bytes);
        self.receive_piece(who, piece);
    }

    /// The shard executes what its turn allows, and the naive broker the same frames.
    fn receive_piece(&mut self, who: usize, piece: Piece) {
        let key = self.client(who).key;
        let mut rest = self
            .shard
            .receive(Timestamp::default(), key, &mut self.arena, piece);
        while let Some(piece) = rest {
            self.flush();
            rest = self
                .shard
                .receive_rest(Timestamp::default(), key, &mut self.arena, piece);
        }
        let kept = self.shard.remainder(key).to_vec();
        let mut executed = std::mem::replace(&mut self.naive[who].unexecuted, kept);
        assert!(executed.ends_with(&self.naive[who].unexecuted));
        executed.truncate(executed.len() - self.naive[who].unexecuted.len());
        naive_execute(&mut self.naive, who, &executed);
    }

    fn owner(&self, key: SessionKey) -> usize {
        let mut clients = self.clients.iter();
        let who = clients.position(|client| client.as_ref().is_some_and(|it| it.key == key));
        who.expect("a session that is not reaped yet")
    }

    fn gone(&mut self, who: usize, gone: Gone) {
        let key = self.client(who).key;
        if self.shard.has_held(key) {
            // The end of a stream is read behind what came before.
            return;
        }
        self.shard.gone(key, gone);
        let naive = &mut self.naive[who];
        naive.end(match gone {
            Gone::Failed(_) => CloseReason::Reset,
            Gone::Eof if naive.unexecuted.is_empty() => CloseReason::Eof,
            Gone::Eof => CloseReason::EofMidFrame,
        });
    }

    fn make_room(&mut self, who: usize) {
        let client = self.client(who);
        client.room = usize::MAX;
        let key = client.key;
        self.shard.writable(key);
    }

    fn flush(&mut self) {
        while let Some(key) = self.shard.next_dirty() {
            let offer = match self.shard.outgoing(Timestamp::default(), key, &self.arena) {
                Outgoing::Nothing => continue,
                Outgoing::Run(piece) => self.arena.bytes(piece).to_vec(),
                Outgoing::Scattered(pieces) => pieces
                    .flat_map(|piece| self.arena.bytes(piece).to_vec())
                    .collect(),
                Outgoing::Backlog(chunks) => chunks.flat_map(<[u8]>::to_vec).collect(),
            };
            assert!(!offer.is_empty(), "an offer of nothing would never end");
            let mut clients = self.clients.iter_mut().flatten();
            let client = clients
                .find(|client| client.key == key)
                .expect("it is not reaped yet");
            let taken = offer.len().min(client.room);
            if client.room != usize::MAX {
                client.room -= taken;
            }
            client.read.extend_from_slice(&offer[..taken]);
            let outcome = if taken == offer.len() {
                SendOutcome::Whole(taken)
            } else {
                SendOutcome::Short(taken)
            };
            self.shard
                .sent(Timestamp::default(), key, &self.arena, outcome);
        }
    }

    fn turn(&mut self) {
        self.shard.begin_turn();
        while let Some(key) = self.shard.next_resumed() {
            if self.shard.has_held(key) {
                let held = self.arena.push(self.shard.remainder(key));
                self.receive_piece(self.owner(key), held);
            }
        }
        self.flush();
        while let Some(closed) = self.shard.next_closed() {
            let who = self.owner(closed.key);
            match self.naive[who].end {
                Some(reason) => assert_eq!(closed.reason, reason),
                None => {
                    assert!(closed.reason.is_slow(), "{}", closed.reason);
                    self.naive[who].end(closed.reason);
                }
            }
            self.check_read(who, closed.dropped);
            self.clients[who] = None;
            self.shard.reaped(closed.key);
        }
        self.shard.end_turn(&mut self.arena);
        self.check();
    }

    fn check(&self) {
        let counters = self.shard.counters();
        assert!(counters.is_conserved(), "{counters:?}");
        let mut subscriptions = 0;
        for (who, client) in self.clients.iter().enumerate() {
            let Some(client) = client else {
                continue;
            };
            let naive = &self.naive[who];
            assert_eq!(
                naive.end, None,
                "a session that has ended is reaped in its turn"
            );
            assert_eq!(self.shard.remainder(client.key), naive.unexecuted);
            self.check_read(who, 0);
            subscriptions += naive.topics.len();
        }
        assert_eq!(self.shard.register().subscription_count(), subscriptions);
    }

    /// With room in its socket a client has read all that it is owed, unless its session was cut,
    /// or `dropped` frames that were more than it may be owed when it left.
    fn check_read(&self, who: usize, dropped: u64) {
        let (Some(client), naive) = (&self.clients[who], &self.naive[who]) else {
            return;
        };
        assert!(
            naive.owed.starts_with(&client.read),
            "what was read is what was sent"
        );
        let is_cut = naive
            .end
            .is_some_and(|reason| reason.is_slow() || matches!(reason, CloseReason::Reset));
        if client.room == usize::MAX && !is_cut && dropped == 0 {
            assert_eq!(client.read.len(), naive.owed.len());
        }
    }

    fn finish(&mut self) {
        for who in 0..CLIENT_COUNT {
            if self.clients[who].is_some() {
                self.make_room(who);
            }
        }
        self.turn();
        while self.shard.has_put_off() {
            self.turn();
        }
        self.shard.close_all();
        for naive in &mut self.naive {
            naive.end(CloseReason::Shutdown);
        }
        self.turn();
        assert_eq!(self.shard.session_count(), 0);
        assert_eq!(self.shard.register().topic_count(), 0);
        assert_eq!(self.shard.counters().deliveries_owed, 0);
    }
}

/// SUBSCRIBE or UNSUBSCRIBE: one topic, or two.
fn list(id: u8, argument: u8) -> Vec<u8> {
    let (first, second) = (argument % 4, argument / 4 % 4);
    match argument / 16 % 2 {
        0 => vec![id, 2, 1, first],
        _ => vec![id, 4, 1, first, 1, second],
    }
}

fn publish(topic: &[u8], data_len: u8) -> Vec<u8> {
    let data = vec![0xD5; usize::from(data_len).min(253)];
    let payload_len = u8::try_from(2 + data.len()).expect("it fits");
    [&[5, payload_len, 1], topic, &data].concat()
}

/// One session of a broker as simple as can be: no turn, no arena, no queue.
#[derive(Default)]
struct Naive {
    connected: bool,
    /// What the shard was given and has kept: a cut frame, or what it has put off.
    unexecuted: Vec<u8>,
    topics: BTreeSet<Vec<u8>>,
    discarded: usize,
    owed: Vec<u8>,
    end: Option<CloseReason>,
}

impl Naive {
    fn end(&mut self, reason: CloseReason) {
        if self.end.is_none() {
            self.end = Some(reason);
        }
    }

    fn discard(&mut self) {
        self.discarded += 1;
        if self.discarded == ERROR_BUDGET {
            self.end(CloseReason::ProtocolErrorBudget);
        }
    }
}

/// Whole frames, and what followed them in a session that ended over them.
fn naive_execute(all: &mut [Naive], who: usize, mut bytes: &[u8]) {
    while all[who].end.is_none() && !bytes.is_empty() {
        let (frame, rest) = bytes.split_at(2 + usize::from(bytes[1]));
        bytes = rest;
        let topics = naive_topics(frame);
        match (frame[0], topics) {
            (1, _) => all[who].connected = true,
            (2, _) => all[who].end(CloseReason::ClientDisconnect),
            _ if !all[who].connected => all[who].discard(),
            (3, Some(topics)) => all[who].topics.extend(topics),
            (4, Some(topics)) => all[who].topics.retain(|topic| !topics.contains(topic)),
            (5, Some(topics)) => {
                for (other, session) in all.iter_mut().enumerate() {
                    let wants = session.topics.contains(&topics[0]);
                    if other != who && wants && session.end.is_none() {
                        session.owed.extend_from_slice(frame);
                    }
                }
            }
            _ => all[who].discard(),
        }
    }
}

/// The topics of a frame: all of a list, the first of a PUBLISH; `None` if it is malformed.
fn naive_topics(frame: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (id, mut rest) = (frame[0], &frame[2..]);
    let mut topics = Vec::new();
    while !rest.is_empty() && (id != 5 || topics.is_empty()) {
        let topic = rest.get(1..1 + usize::from(rest[0]))?;
        topics.push(String::from_utf8(topic.to_vec()).ok()?.into_bytes());
        rest = &rest[1 + topic.len()..];
    }
    (matches!(id, 3 | 4) || !topics.is_empty()).then_some(topics)
}
