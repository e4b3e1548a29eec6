//! Random operations of several sessions, compared with a naive broker: the same deliveries in the
//! same order.
//!
//! `MODEL_SEED=n` replays one seed, `MODEL_SEEDS=n` tries that many.
#![cfg(feature = "broker")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

use std::collections::{BTreeMap, BTreeSet};

use hvlp::session::SessionKey;
use hvlp::shard::{Gone, SendOutcome};

use memory::World;
use prng::Prng;

#[allow(dead_code, reason = "the rows of faults use the rest")]
#[path = "support/memory.rs"]
mod memory;
#[path = "support/prng.rs"]
mod prng;
#[allow(dead_code, reason = "the rows of faults use the rest")]
#[path = "support/wire.rs"]
mod wire;

/// What the protocol says, as simply as it can be written; time does not pass for it.
#[derive(Default)]
struct NaiveBroker {
    sessions: BTreeMap<SessionKey, NaiveSession>,
}

#[derive(Default)]
struct NaiveSession {
    input: Vec<u8>,
    connected: bool,
    closed: bool,
    discards: usize,
    topics: BTreeSet<String>,
    output: Vec<u8>,
}

impl NaiveBroker {
    fn receive(&mut self, from: SessionKey, bytes: &[u8]) {
        self.session(from).input.extend_from_slice(bytes);
        while !self.session(from).closed
            && let Some((frame, rest)) = wire::split(&self.session(from).input.clone())
        {
            self.session(from).input = rest.to_vec();
            if self.execute(from, frame).is_none() {
                self.session(from).discards += 1;
                self.session(from).closed = self.session(from).discards == 64;
            }
        }
    }

    /// `None`: the frame is discarded.
    fn execute(&mut self, from: SessionKey, frame: &[u8]) -> Option<()> {
        let session = self.session(from);
        match (frame[0], session.connected) {
            (1, _) => session.connected = true,
            (2, _) => session.closed = true,
            (3, true) => session.topics.extend(topics(&frame[2..])?),
            (4, true) => {
                let gone = topics(&frame[2..])?;
                session.topics.retain(|topic| !gone.contains(topic));
            }
            (5, true) => {
                let topic_len = usize::from(*frame.get(2)?);
                let topic = std::str::from_utf8(frame.get(3..3 + topic_len)?).ok()?;
                for (key, session) in &mut self.sessions {
                    if *key != from && !session.closed && session.topics.contains(topic) {
                        session.output.extend_from_slice(frame);
                    }
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn session(&mut self, key: SessionKey) -> &mut NaiveSession {
        self.sessions.entry(key).or_default()
    }
}

fn topics(mut list: &[u8]) -> Option<Vec<String>> {
    let mut topics = Vec::new();
    while let [len, rest @ ..] = list {
        let topic = rest.get(..usize::from(*len))?;
        topics.push(std::str::from_utf8(topic).ok()?.to_owned());
        list = &rest[topic.len()..];
    }
    Some(topics)
}

/// One run: the world, the model, and what the peers have not sent yet.
struct Run {
    prng: Prng,
    world: World<hvlp::handler::Open>,
    model: NaiveBroker,
    unsent: BTreeMap<SessionKey, Vec<u8>>,
    taken: BTreeMap<SessionKey, Vec<u8>>,
    short_sends: bool,
}

const STEPS: usize = 500;
const SESSIONS_MAX: usize = 6;
const TOPICS: [&str; 6] = ["", "a", "b", "ab", "topic/with/levels", "\u{FC}mlaut"];

impl Run {
    fn new(seed: u64, short_sends: bool) -> Self {
        let mut prng = Prng::new(seed);
        // Limits near which a run comes: a turn's pieces among them.
        let pieces = format!("limits.pieces_per_turn={}", 1 + prng.below(40));
        let frames = format!("limits.frames_per_turn={}", 1 + prng.below(100));
        let deliver = format!("limits.deliver_per_turn={}KiB", 4 + prng.below(8));
        Self {
            prng,
            world: World::new(&[&pieces, &frames, &deliver]),
            model: NaiveBroker::default(),
            unsent: BTreeMap::new(),
            taken: BTreeMap::new(),
            short_sends,
        }
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            match self.prng.below(20) {
                0 => self.connect(),
                1..=9 => self.write(),
                10..=15 => self.send(),
                16 => self.leave(),
                _ => self.turn(),
            }
        }
        self.settle();
    }

    fn connect(&mut self) {
        if self.unsent.len() < SESSIONS_MAX {
            let key = self.world.open();
            self.model.session(key);
            let greeting = if self.prng.below(8) == 0 {
                Vec::new()
            } else {
                self.connect_frame()
            };
            self.unsent.insert(key, greeting);
        }
    }

    /// A peer writes a few frames, which wait to be sent.
    fn write(&mut self) {
        let Some(key) = self.any_peer() else { return };
        for _ in 0..=self.prng.below(6) {
            let frame = self.frame();
            self.unsent.entry(key).or_default().extend(frame);
        }
    }

    /// Any number of the bytes that a peer has written arrive in one receive.
    fn send(&mut self) {
        let Some(key) = self.any_peer() else { return };
        let unsent = self.unsent.entry(key).or_default();
        let len = match self.prng.below(3) {
            0 => unsent.len(),
            _ => self.prng.below(unsent.len() + 1),
        };
        let Self {
            world,
            prng,
            short_sends,
            ..
        } = self;
        let taken = world.receive_with(key, &unsent[..len], &mut socket(prng, *short_sends));
        unsent.drain(..taken);
        self.execute();
    }

    /// The model executes what the world has, which may put input off to its next turn.
    fn execute(&mut self) {
        for (key, bytes) in std::mem::take(&mut self.world.executed) {
            self.model.receive(key, &bytes);
        }
    }

    /// A peer ends its stream, or resets it.
    fn leave(&mut self) {
        let Some(key) = self.any_peer() else { return };
        let gone = match self.prng.below(2) {
            0 => Gone::Eof,
            _ => Gone::Failed(std::io::ErrorKind::ConnectionReset),
        };
        self.world.shard.gone(key, gone);
        self.model.session(key).closed = true;
    }

    fn turn(&mut self) {
        let Self {
            world,
            prng,
            short_sends,
            ..
        } = self;
        for key in self.unsent.keys() {
            if prng.below(2) == 0 {
                world.shard.writable(*key);
            }
        }
        world.turn_with(&mut socket(prng, *short_sends));
        self.execute();
        let world = &mut self.world;
        for (key, bytes) in std::mem::take(&mut world.taken) {
            self.taken.entry(key).or_default().extend(bytes);
        }
        self.compare();
    }

    /// Who has ended in the world has ended in the model, and nobody got what it should not.
    fn compare(&mut self) {
        for (key, session) in &self.model.sessions {
            let taken = self.taken.get(key).map_or(&[][..], Vec::as_slice);
            assert_eq!(
                self.world.ended.contains_key(key),
                session.closed,
                "{key:?}"
            );
            assert!(
                session.output.starts_with(taken),
                "what {key:?} got is what it is owed"
            );
            if !session.closed {
                let topics = self.world.shard.register().topics(*key).map(String::from);
                assert_eq!(topics.collect::<BTreeSet<_>>(), session.topics, "{key:?}");
            }
            if !self.short_sends && !session.closed {
                // Whatever the world has executed it has also written.
                assert!(session.output == taken, "{key:?} got all of it");
            }
        }
        self.unsent
            .retain(|key, _| !self.world.ended.contains_key(key));
    }

    /// Every socket takes everything: all that are left have got everything.
    fn settle(&mut self) {
        self.short_sends = false;
        let keys: Vec<_> = self.unsent.keys().copied().collect();
        for key in keys {
            self.world.shard.writable(key);
        }
        self.turn();
        while self.world.has_more() {
            self.turn();
        }
        let counters = self.world.counters();
        assert_eq!(counters.deliveries_owed, 0);
        assert_eq!(counters.sessions.total(), self.unsent.len() as u64);
    }

    fn any_peer(&mut self) -> Option<SessionKey> {
        let shard = &self.world.shard;
        let alive = self
            .unsent
            .keys()
            .filter(|key| shard.wants_input(**key) && !shard.has_held(**key));
        let alive: Vec<_> = alive.copied().collect();
        (!alive.is_empty()).then(|| alive[self.prng.below(alive.len())])
    }

    fn connect_frame(&mut self) -> Vec<u8> {
        wire::frame(1, &vec![0xEE; self.prng.below(4)])
    }

    fn frame(&mut self) -> Vec<u8> {
        let list: Vec<_> = (0..self.prng.below(4))
            .map(|_| TOPICS[self.prng.below(TOPICS.len())])
            .collect();
        let topic = TOPICS[self.prng.below(TOPICS.len())];
        match self.prng.below(40) {
            0 => self.connect_frame(),
            1 if self.prng.below(4) == 0 => wire::frame(2, b"bye"),
            2..=6 => wire::subscribe(&list),
            7..=9 => wire::unsubscribe(&list),
            10..=12 => self.malformed_frame(topic),
            _ => {
                let mut data = vec![0; self.prng.below(60)];
                self.prng.fill(&mut data);
                wire::publish(topic, &data).repeat(1 + self.prng.below(3))
            }
        }
    }

    fn malformed_frame(&mut self, topic: &str) -> Vec<u8> {
        match self.prng.below(5) {
            0 => wire::frame(5, &[]),
            1 => wire::frame(5, &[200, b'a']),
            2 => wire::publish(b"\xFF", topic),
            3 => [wire::subscribe(&[&b"a"[..], b"\xC0\x80"])].concat(),
            _ => wire::frame([0, 6, 255][self.prng.below(3)], topic.as_bytes()),
        }
    }
}

/// A socket that takes everything, or at random less.
fn socket(prng: &mut Prng, short: bool) -> impl FnMut(SessionKey, usize) -> SendOutcome {
    move |_, offered| match prng.below(3) {
        0 if short => SendOutcome::Short(prng.below(offered)),
        _ => SendOutcome::Whole(offered),
    }
}

fn run_seeds(short_sends: bool) {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let seeds = match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MODEL_SEEDS").unwrap_or(1000),
    };
    println!("seeds {seeds:?}");
    for seed in seeds {
        let run = std::panic::catch_unwind(|| Run::new(seed, short_sends).run());
        assert!(
            run.is_ok(),
            "replay it: MODEL_SEED={seed} cargo test --test model"
        );
    }
}

#[test]
fn deliveries_and_their_order_are_those_of_the_naive_broker() {
    run_seeds(false);
}

#[test]
fn deliveries_and_their_order_survive_sockets_that_take_any_part_of_an_offer() {
    run_seeds(true);
}
