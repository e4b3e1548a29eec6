//! A whole turn in memory: bytes in, frames split, routed and offered to sockets that take all.
//!
//! What the kernel costs comes on top; what is measured here is what the broker adds to it.
#![allow(
    missing_docs,
    reason = "the macros of criterion make public items without any"
)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use hvlp::arena::Arena;
use hvlp::config::Config;
use hvlp::deadline::Timestamp;
use hvlp::handler::{Open, Resolver};
use hvlp::packet::FrameBuf;
use hvlp::session::{Peer, SessionKey};
use hvlp::shard::{Outgoing, SendOutcome, Shard};

const DATA_LEN: usize = 64;
/// Frames that one receive brings in.
const BURST: usize = 256;

struct Turns {
    shard: Shard<Open>,
    arena: Arena,
    now: Timestamp,
}

impl Turns {
    fn new() -> Self {
        Self {
            shard: Shard::new(0, &Config::default(), Open, Resolver::new(|_| {})),
            arena: Arena::new(),
            now: Timestamp::default(),
        }
    }

    fn connected(&mut self, topics: &[&str]) -> SessionKey {
        let key = self
            .shard
            .open(self.now, Peer::Memory)
            .expect("there is room");
        let connect = FrameBuf::connect(&[]).expect("it fits");
        let subscribe = FrameBuf::subscribe(topics).expect("it fits");
        self.turn(key, &[connect.bytes(), subscribe.bytes()].concat());
        key
    }

    /// Receives `bytes` from `key` and sends all that is then owed; returns how many bytes those
    /// are.
    fn turn(&mut self, key: SessionKey, bytes: &[u8]) -> usize {
        self.shard.begin_turn();
        let piece = self.arena.push(bytes);
        let mut rest = self.shard.receive(self.now, key, &mut self.arena, piece);
        let mut sent = self.flush();
        while let Some(piece) = rest {
            rest = self
                .shard
                .receive_rest(self.now, key, &mut self.arena, piece);
            sent += self.flush();
        }
        self.shard.end_turn(&mut self.arena);
        sent
    }

    fn flush(&mut self) -> usize {
        let mut sent = 0;
        while let Some(key) = self.shard.next_dirty() {
            let len = match self.shard.outgoing(self.now, key, &self.arena) {
                Outgoing::Nothing => continue,
                Outgoing::Run(piece) => piece.len(),
                Outgoing::Scattered(pieces) => pieces.map(|piece| piece.len()).sum(),
                Outgoing::Backlog(chunks) => chunks.map(<[u8]>::len).sum(),
            };
            self.shard
                .sent(self.now, key, &self.arena, SendOutcome::Whole(len));
            sent += len;
        }
        sent
    }
}

/// One topic, many subscribers.
fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan_out");
    let frame = FrameBuf::publish("fan/out", &[0x5A; DATA_LEN]).expect("it fits");
    for subscriber_count in [1, 10, 100, 1000] {
        for burst in [1, BURST] {
            let mut turns = Turns::new();
            for _ in 0..subscriber_count {
                turns.connected(&["fan/out"]);
            }
            let publisher = turns.connected(&[]);
            let bytes = frame.bytes().repeat(burst);
            let deliveries = u64::try_from(subscriber_count * burst).expect("a small number");
            group.throughput(Throughput::Elements(deliveries));
            let id = BenchmarkId::new(format!("{burst} frames"), subscriber_count);
            group.bench_function(id, |bencher| {
                bencher.iter(|| turns.turn(publisher, &bytes));
            });
        }
    }
}

/// Every frame has another topic, so that each is a lookup and a piece of its own.
fn wide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wide");
    for topic_count in [10, 1000] {
        let topics: Vec<_> = (0..topic_count)
            .map(|number| format!("wide/{number}"))
            .collect();
        let mut turns = Turns::new();
        for some in topics.chunks(10) {
            turns.connected(&some.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let publisher = turns.connected(&[]);
        let publish = |topic| FrameBuf::publish(topic, &[0x5A; DATA_LEN]).expect("it fits");
        let frames = topics
            .iter()
            .cycle()
            .take(BURST)
            .map(|topic| publish(topic));
        let bytes: Vec<u8> = frames.flat_map(|frame| frame.bytes().to_vec()).collect();
        group.throughput(Throughput::Elements(
            u64::try_from(BURST).expect("a small number"),
        ));
        group.bench_function(BenchmarkId::new("topics", topic_count), |bencher| {
            bencher.iter(|| turns.turn(publisher, &bytes));
        });
    }
}

/// Nobody wants it: what a publisher costs that nobody listens to.
fn unmatched(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmatched");
    let mut turns = Turns::new();
    turns.connected(&["something/else"]);
    let publisher = turns.connected(&[]);
    let frame = FrameBuf::publish("nobody/listens", &[0x5A; DATA_LEN]).expect("it fits");
    let bytes = frame.bytes().repeat(BURST);
    group.throughput(Throughput::Elements(
        u64::try_from(BURST).expect("a small number"),
    ));
    group.bench_function("frames", |bencher| {
        bencher.iter(|| turns.turn(publisher, &bytes));
    });
}

criterion_group!(benches, fan_out, wide, unmatched);
criterion_main!(benches);
