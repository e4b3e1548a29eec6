//! One shard or two against a naive broker, driven by a script that any bytes are. The fuzz target
//! calls it, and so does the test that replays the corpus.
//!
//! 1. The first byte chooses the limits: turns of few pieces, or sessions that may owe little; one
//!    shard or two; and what becomes of slow consumers, the same for all or of each client its own.
//! 2. Each further byte is an operation on one of four clients: bytes into its socket, the end of
//!    its stream, room in its socket, a send that fails or finds no memory, an event that comes too
//!    late; or time passes, a turn ends, or shards take what others have for them. Operations on a
//!    client that has no session open one.
//! 3. The naive broker executes the same input frame by frame, with code of its own. What a client
//!    has read is what it would have sent, with the gaps that its policy leaves and no others, and
//!    all of it while the socket has room; sessions end for the reason it knows, as slow consumers
//!    or by a deadline that is over; the register holds what it holds.
//! 4. After every turn each frame and each delivery is accounted for. When all sessions have ended,
//!    nothing of them is left.

use std::io::ErrorKind;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hvlp::arena::{Arena, Piece};
use hvlp::config::Config;
use hvlp::deadline::Timestamp;
use hvlp::handler::{Open, Resolver};
use hvlp::mesh::{Doorbell, Mesh};
use hvlp::outbound::SlowConsumer;
use hvlp::register::directory::Directory;
use hvlp::session::{CloseReason, ListenerId, Peer, SessionKey};
use hvlp::shard::{Gone, Outgoing, SendOutcome, Shard};

mod extended;
mod naive;
mod script;
mod socket;

use naive::{CLIENT_COUNT, Naive, NaiveBroker, flushes};
use script::{Script, connect, list, publish};
use socket::{Client, refusal};

const POLICIES: &[SlowConsumer] = SlowConsumer::ALL.as_slice();

static CONFIGS: LazyLock<[Config; 4]> = LazyLock::new(|| {
    let mut config = Config::default();
    for policy in POLICIES {
        let listen = format!("127.0.0.1:1?slow_consumer={policy}");
        config.listen.push(listen.parse().expect("a listener"));
    }
    let (mut short_turns, mut small_backlogs) = (config.clone(), config);
    short_turns.limits.pieces_per_turn = 3;
    short_turns.limits.deliver_per_turn = 600;
    small_backlogs.listener.outbound_max = 8 * 1024;
    small_backlogs.limits.outbound_total_max = 12 * 1024;
    let (mut both, mut roomy) = (short_turns.clone(), small_backlogs.clone());
    both.listener.outbound_max = small_backlogs.listener.outbound_max;
    // Room enough for two generations of the newest of each topic, and for all together.
    roomy.listener.outbound_max = 64 * 1024;
    roomy.limits.outbound_total_max = 1024 * 1024;
    roomy.limits.mesh_spill_max = 0;
    [short_turns, small_backlogs, both, roomy]
});

/// As long as a shard waits before it makes a send again that found no memory.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// How far time passes: to just before and just at the ends of what is waited for.
const MILLIS: [u64; 8] = [1, 9, 10, 1_000, 9_999, 10_000, 29_999, 30_000];

pub(crate) fn check(input: &[u8]) {
    let mut script = Script(input);
    let Some(choice) = script.byte() else {
        return;
    };
    let mut world = World::new(usize::from(choice));
    while let Some(operation) = script.byte() {
        world.step(operation, &mut script);
    }
    world.finish();
}

struct Reactor {
    shard: Shard<Open>,
    arena: Arena,
}

struct World {
    now: Timestamp,
    reactors: Vec<Reactor>,
    policy: usize,
    clients: [Option<Client>; CLIENT_COUNT],
    /// Keys of sessions that have ended.
    stale: [Option<SessionKey>; CLIENT_COUNT],
    naive: NaiveBroker,
    written: u64,
}

impl World {
    fn new(choice: usize) -> Self {
        let count = 1 + choice / 4 % 2;
        let config = match count {
            1 => &CONFIGS[choice % 4],
            // What a turn cuts short would be delivered in an order that the naive one cannot know.
            _ => &CONFIGS[[1, 3][choice % 2]],
        };
        let number = |value: usize| u8::try_from(value).expect("at most two");
        let shard = |id| {
            Shard::new(
                number(id),
                number(count),
                config,
                Open,
                Resolver::new(|_| {}),
            )
        };
        let mut shards: Vec<_> = (0..count).map(shard).collect();
        if count > 1 {
            let directory = Arc::new(Directory::new());
            let doorbells = [(); 2].map(|()| Doorbell::new(|| ()));
            let ends = Mesh::between(&doorbells);
            let with_peers = |(shard, end): (Shard<_>, _)| shard.with_peers(directory.clone(), end);
            shards = shards.into_iter().zip(ends).map(with_peers).collect();
        }
        let arena = Arena::new;
        Self {
            now: Timestamp::default(),
            reactors: shards
                .into_iter()
                .map(|shard| Reactor {
                    shard,
                    arena: arena(),
                })
                .collect(),
            policy: choice / 8 % (1 + POLICIES.len()),
            clients: [const { None }; CLIENT_COUNT],
            stale: [None; CLIENT_COUNT],
            naive: NaiveBroker::default(),
            written: 0,
        }
    }

    fn step(&mut self, operation: u8, script: &mut Script<'_>) {
        let who = usize::from(operation) % CLIENT_COUNT;
        if self.clients[who].is_none() {
            self.open(who);
        }
        let argument = script.byte().unwrap_or(0);
        let topic = [argument % 4];
        match operation / 4 % 16 {
            0 => self.receive(who, &script.bytes(argument)),
            1 => self.receive(who, &connect(argument)),
            2 => self.receive(who, &list(3, argument)),
            3 => self.receive(who, &list(4, argument)),
            4 => self.receive(who, &publish(&topic, argument)),
            5 => self.receive(who, &publish(&topic, 9).repeat(usize::from(argument))),
            6 => self.receive(who, &[2, 0]),
            7 => self.gone(who, Gone::Eof),
            8 => self.gone(who, Gone::Failed(ErrorKind::ConnectionReset)),
            9 => self.client(who).room = usize::from(argument),
            10 => self.make_room(who),
            11 => self.turn(false),
            12 => self.now = self.now + Duration::from_millis(MILLIS[usize::from(argument % 8)]),
            13 => self.client(who).refusal = Some(refusal(argument)),
            14 => self.turn(true),
            _ => self.stale_event(who, argument),
        }
    }

    fn open(&mut self, who: usize) {
        let (policy, listener) = match self.policy.checked_sub(POLICIES.len()) {
            None => (POLICIES[self.policy], ListenerId::of(self.policy)),
            Some(_) => (POLICIES[who + 1], ListenerId::of(who + 1)),
        };
        let at = self.at(who);
        let opened = self.reactors[at]
            .shard
            .open_at(self.now, Peer::Memory, listener);
        let client = Client {
            key: opened.expect("there is room for four sessions"),
            room: usize::MAX,
            refusal: None,
            is_starved: false,
        };
        self.clients[who] = Some(client);
        self.naive.sessions[who] = Some(Naive::open(at, policy, self.now));
    }

    /// The shard of a client.
    const fn at(&self, who: usize) -> usize {
        who % self.reactors.len()
    }

    fn client(&mut self, who: usize) -> &mut Client {
        self.clients[who].as_mut().expect("a step has opened it")
    }

    fn receive(&mut self, who: usize, bytes: &[u8]) {
        let key = self.client(who).key;
        let at = self.at(who);
        let Reactor { shard, arena } = &mut self.reactors[at];
        if !shard.wants_input(key) || shard.has_held(key) || shard.is_spilling() {
            return;
        }
        let head = shard.remainder(key);
        let room = arena.reserve(head);
        room[..bytes.len()].copy_from_slice(bytes);
        let piece = arena.commit(head.len() + bytes.len());
        self.naive.session(who).unexecuted.extend_from_slice(bytes);
        self.receive_piece(who, piece);
    }

    /// The shard executes what its turn allows, and the naive broker the same frames.
    fn receive_piece(&mut self, who: usize, piece: Piece) {
        let key = self.client(who).key;
        let (at, now) = (self.at(who), self.now);
        let Reactor { shard, arena } = &mut self.reactors[at];
        let rest = shard.receive(now, key, arena, piece);
        assert!(rest.is_none(), "there is room to hold what is put off");
        let kept = shard.remainder(key).to_vec();
        let session = self.naive.session(who);
        session.extended.heard = now;
        let mut executed = std::mem::replace(&mut session.unexecuted, kept);
        assert!(executed.ends_with(&session.unexecuted));
        executed.truncate(executed.len() - session.unexecuted.len());
        self.naive.execute(who, &executed, now);
    }

    fn owner(&self, at: usize, key: SessionKey) -> usize {
        let is_it = |who: &usize| {
            let client = self.clients[*who].as_ref();
            self.at(*who) == at && client.is_some_and(|client| client.key == key)
        };
        let who = (0..CLIENT_COUNT).find(is_it);
        who.expect("a session that is not reaped yet")
    }

    fn gone(&mut self, who: usize, gone: Gone) {
        let (key, at) = (self.client(who).key, self.at(who));
        let shard = &mut self.reactors[at].shard;
        if shard.has_held(key) || shard.is_closing(key) {
            // The end of a stream is read behind what came before.
            return;
        }
        shard.gone(key, gone);
        let session = self.naive.session(who);
        let is_whole = session.unexecuted.is_empty();
        session.end(match gone {
            Gone::Failed(_) => CloseReason::Reset,
            Gone::Eof if session.is_broken => CloseReason::Reset,
            Gone::Eof if is_whole => CloseReason::Eof,
            Gone::Eof => CloseReason::EofMidFrame,
        });
    }

    fn make_room(&mut self, who: usize) {
        let at = self.at(who);
        let client = self.client(who);
        client.room = usize::MAX;
        client.is_starved = false;
        let key = client.key;
        self.reactors[at].shard.writable(key);
    }

    /// What an engine may be told of a session when it has ended, or of one that has nothing to do.
    fn stale_event(&mut self, who: usize, argument: u8) {
        let (at, live) = (self.at(who), self.client(who).key);
        let Some(key) = self.stale[who].filter(|key| *key != live) else {
            return;
        };
        let Reactor { shard, arena } = &mut self.reactors[at];
        match argument % 4 {
            0 => shard.gone(key, Gone::Eof),
            1 => shard.writable(key),
            2 => shard.close(key, CloseReason::Shutdown),
            _ => {
                let piece = arena.push(&[5, 2, 1, b'a']);
                assert_eq!(shard.receive(self.now, key, arena, piece), None);
            }
        }
        assert!(!shard.is_open(key) && shard.remainder(key).is_empty());
    }

    fn flush(&mut self, at: usize) {
        while let Some(key) = self.reactors[at].shard.next_dirty() {
            let Reactor { shard, arena } = &mut self.reactors[at];
            let mut offer = Vec::new();
            match shard.outgoing(self.now, key, arena) {
                Outgoing::Nothing => continue,
                Outgoing::Run(piece) => offer.extend_from_slice(arena.bytes(piece)),
                Outgoing::Ahead(bytes) => offer.extend_from_slice(bytes),
                Outgoing::Scattered(pieces) => {
                    pieces.for_each(|piece| offer.extend_from_slice(arena.bytes(piece)));
                }
                Outgoing::Backlog(chunks) => {
                    chunks.for_each(|chunk| offer.extend_from_slice(chunk));
                }
            }
            assert!(!offer.is_empty(), "an offer of nothing would never end");
            let who = self.owner(at, key);
            let (outcome, taken) = self.client(who).take(&offer);
            let was_closing = self.reactors[at].shard.is_closing(key);
            self.written += self.naive.session(who).read(&offer[..taken]);
            self.naive.check_barrier(who);
            let Reactor { shard, arena } = &mut self.reactors[at];
            shard.sent(self.now, key, arena, outcome);
            let session = self.naive.session(who);
            session.is_broken |= shard.is_broken(key);
            if matches!(outcome, SendOutcome::Failed(_)) {
                let is_broken = session.is_broken;
                session.extended.fail(is_broken);
            }
            if let SendOutcome::Failed(kind) = outcome
                && !was_closing
                && !session.is_broken
            {
                session.end(match kind {
                    ErrorKind::WriteZero => CloseReason::WriteZero,
                    ErrorKind::TimedOut => CloseReason::WriteTimeout,
                    ErrorKind::ConnectionReset => CloseReason::Reset,
                    _ => CloseReason::IoError,
                });
            }
        }
        self.reactors[at].shard.end_flush();
    }

    /// The end of a turn of every shard; `delivers`: in it all take what others have for them.
    fn turn(&mut self, delivers: bool) {
        for at in 0..self.reactors.len() {
            self.reactors[at].shard.begin_turn(self.now);
            while let Some(key) = self.reactors[at].shard.next_resumed() {
                let Reactor { shard, arena } = &mut self.reactors[at];
                if shard.has_held(key) && !shard.is_stopped(key) {
                    let held = arena.push(shard.remainder(key));
                    self.receive_piece(self.owner(at, key), held);
                }
            }
            self.flush(at);
        }
        self.hand_over(delivers);
        for at in 0..self.reactors.len() {
            self.reactors[at].shard.expire(self.now);
            self.reap(at);
            let Reactor { shard, arena } = &mut self.reactors[at];
            shard.end_turn(arena);
            let due = shard.deadline();
            assert!(due.is_none_or(|due| due > self.now), "a wait is over");
        }
        self.tell_of_pauses();
        self.check();
    }

    fn hand_over(&mut self, delivers: bool) {
        if self.reactors.len() == 1 {
            return;
        }
        let is_done = |it: &Reactor| it.shard.is_handed_over() && it.shard.is_delivered();
        loop {
            for reactor in &mut self.reactors {
                reactor.shard.hand_over(self.now);
            }
            if !delivers || self.reactors.iter().all(is_done) {
                break;
            }
            for Reactor { shard, arena } in &mut self.reactors {
                shard.begin_delivering();
                while shard.deliver(arena).is_some() {}
            }
        }
        for at in (0..self.reactors.len()).filter(|_| delivers) {
            self.naive.deliver(at);
            self.flush(at);
        }
    }

    fn tell_of_pauses(&mut self) {
        for from in 0..self.reactors.len() {
            while let Some((to, change)) = self.reactors[from].shard.next_pause_change() {
                let from = u8::try_from(from).expect("at most two");
                let shard = &mut self.reactors[usize::from(to)].shard;
                shard.apply_pause(self.now, from, change);
            }
        }
    }

    fn reap(&mut self, at: usize) {
        while let Some(closed) = self.reactors[at].shard.next_closed() {
            let who = self.owner(at, closed.key);
            let now = self.now;
            let session = self.naive.session(who);
            if session.end.is_none() {
                assert!(session.may_end(closed.reason, now), "{}", closed.reason);
                session.end = Some(closed.reason);
            }
            assert_eq!(session.end, Some(closed.reason));
            session.check_last_words(closed.reason);
            if flushes(closed.reason) && closed.dropped == 0 && !session.hears() {
                self.check_settled(who);
            }
            self.clients[who] = None;
            self.naive.forget(who);
            self.stale[who] = Some(closed.key);
            self.reactors[at].shard.reaped(closed.key);
        }
    }

    fn check(&mut self) {
        let (mut subscriptions, mut matched, mut written) = (0, 0, 0);
        for reactor in &self.reactors {
            let counters = reactor.shard.counters();
            assert!(counters.is_conserved(), "{counters:?}");
            subscriptions += reactor.shard.register().subscription_count();
            let filters = reactor.shard.wildcards().filters();
            subscriptions += filters.subscription_count();
            matched += counters.deliveries_matched;
            written += counters.deliveries_written;
        }
        assert_eq!(subscriptions, self.naive.subscription_count());
        assert_eq!(written, self.written, "frames whose last byte was read");
        assert!(matched <= self.naive.matched_max);
        for who in 0..CLIENT_COUNT {
            let (Some(client), Some(session)) = (&self.clients[who], &self.naive.sessions[who])
            else {
                continue;
            };
            let shard = &self.reactors[self.at(who)].shard;
            if shard.is_closing(client.key) {
                assert!(session.hears(), "who has ended is reaped in that turn");
                continue;
            }
            assert_eq!(session.end, None, "who has ended is closing");
            assert!(!session.is_late_with_connect(self.now));
            assert_eq!(shard.remainder(client.key), session.unexecuted);
            if !shard.is_dirty() {
                self.check_settled(who);
            }
        }
    }

    /// With room in its socket a client has read all that it will get for now.
    fn check_settled(&mut self, who: usize) {
        let client = self.client(who);
        let has_room = client.room == usize::MAX && !client.is_starved;
        let session = self.naive.session(who);
        if has_room && !session.is_broken {
            session.check_settled();
        }
    }

    fn finish(&mut self) {
        for who in 0..CLIENT_COUNT {
            let Some(client) = &mut self.clients[who] else {
                continue;
            };
            client.refusal = None;
            client.room = usize::MAX;
            // No event tells when there is memory again: the shard has to try by itself.
            if !client.is_starved {
                self.make_room(who);
            }
        }
        self.turn(true);
        self.now = self.now + RETRY_AFTER;
        self.turn(true);
        self.turn(true);
        for who in 0..CLIENT_COUNT {
            let is_starved = self.clients[who].as_ref().is_some_and(|it| it.is_starved);
            assert!(
                !is_starved || self.naive.session(who).is_broken,
                "not sent again"
            );
        }
        let has_work = |it: &Reactor| {
            let shard = &it.shard;
            shard.has_put_off() || shard.is_dirty() || shard.has_pauses() || shard.has_mesh_work()
        };
        let mut turns = 0;
        while self.reactors.iter().any(has_work) {
            self.turn(true);
            turns += 1;
            assert!(turns < 10_000, "it goes on for ever");
        }
        for reactor in &mut self.reactors {
            assert_eq!(reactor.shard.wait_count(), 0, "somebody is still held");
            reactor.shard.close_all();
        }
        for session in self.naive.sessions.iter_mut().flatten() {
            session.end(CloseReason::Shutdown);
        }
        self.turn(true);
        for reactor in &self.reactors {
            assert_eq!(reactor.shard.session_count(), 0);
            assert_eq!(reactor.shard.register().topic_count(), 0);
            let counters = reactor.shard.counters();
            assert_eq!((counters.deliveries_owed, counters.backlog_bytes), (0, 0));
        }
    }
}
