//! The whole shard in memory: what the broker itself costs per delivery, without sockets.
#![allow(
    missing_docs,
    reason = "the macros of criterion make public items without any"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use hvlp::arena::Arena;
use hvlp::config::Config;
use hvlp::deadline::Timestamp;
use hvlp::handler::{Open, Resolver};
use hvlp::packet::FrameBuf;
use hvlp::session::{Peer, SessionKey};
use hvlp::shard::{Outgoing, SendOutcome, Shard};

/// What one receive brings in at most.
const RECEIVE_LEN: usize = 256 * 1024;

/// A shard, driven by hand: every send is taken whole.
struct World {
    shard: Shard<Open>,
    arena: Arena,
}

impl World {
    fn new() -> Self {
        let resolver = Resolver::new(|_| ());
        Self {
            shard: Shard::new(0, 1, &Config::default(), Open, resolver),
            arena: Arena::new(),
        }
    }

    fn open(&mut self, topics: &[String]) -> SessionKey {
        let key = self
            .shard
            .open(Timestamp::default(), Peer::Memory)
            .expect("there is room");
        self.turn(key, FrameBuf::connect(b"").expect("it fits").bytes());
        if !topics.is_empty() {
            self.turn(key, FrameBuf::subscribe(topics).expect("they fit").bytes());
        }
        key
    }

    fn turn(&mut self, key: SessionKey, bytes: &[u8]) {
        let now = Timestamp::default();
        let piece = self.arena.push(bytes);
        let mut rest = self.shard.receive(now, key, &mut self.arena, piece);
        self.flush();
        while let Some(piece) = rest {
            rest = self.shard.receive_rest(now, key, &mut self.arena, piece);
            self.flush();
        }
        self.shard.end_turn(&mut self.arena);
    }

    fn flush(&mut self) {
        let now = Timestamp::default();
        while let Some(key) = self.shard.next_dirty() {
            let len = match self.shard.outgoing(now, key, &self.arena) {
                Outgoing::Run(piece) => piece.len(),
                Outgoing::Scattered(pieces) => pieces.map(|piece| piece.len()).sum(),
                Outgoing::Backlog(_) | Outgoing::Nothing => continue,
            };
            self.shard
                .sent(now, key, &self.arena, SendOutcome::Whole(len));
        }
    }
}

/// As many 64-byte messages as one receive holds, on `topics` in turn.
fn burst(topics: &[String]) -> (Vec<u8>, u64) {
    let (mut bytes, mut count) = (Vec::new(), 0);
    for topic in topics.iter().cycle() {
        let frame = FrameBuf::publish(topic, &[7; 64]).expect("it fits");
        if bytes.len() + frame.bytes().len() > RECEIVE_LEN {
            break;
        }
        bytes.extend_from_slice(frame.bytes());
        count += 1;
    }
    (bytes, count)
}

/// A publisher sends bursts on `topic_count` topics, each with `subscribers` sessions of its own.
fn workload(criterion: &mut Criterion, name: &str, topic_count: usize, subscribers: usize) {
    let mut world = World::new();
    let topics: Vec<_> = (0..topic_count).map(|n| format!("bench/{n}")).collect();
    for topic in &topics {
        for _ in 0..subscribers {
            world.open(std::slice::from_ref(topic));
        }
    }
    let publisher = world.open(&[]);
    let (bytes, messages) = burst(&topics);
    let mut group = criterion.benchmark_group("shard");
    group.throughput(Throughput::Elements(messages * subscribers.max(1) as u64));
    group.bench_function(name, |bencher| {
        bencher.iter(|| world.turn(publisher, &bytes));
    });
    group.finish();
    assert!(world.shard.counters().is_conserved());
}

fn shard(criterion: &mut Criterion) {
    workload(criterion, "one", 1, 1);
    workload(criterion, "fanout", 1, 100);
    workload(criterion, "spread", 100, 1);
    workload(criterion, "mesh", 100, 10);
    workload(criterion, "unmatched", 1, 0);
}

criterion_group!(benches, shard);
criterion_main!(benches);
