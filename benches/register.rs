//! Register: looking a topic up, adding and removing subscriptions, with 1 k, 100 k and 1 M topics.
//!
//! What a subscription takes of memory is asserted by `tests/memory.rs`.
#![allow(
    missing_docs,
    reason = "the macros of criterion make public items without any"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};

use hvlp::register::Register;
use hvlp::session::SessionKey;

const TOPIC_COUNTS: [u32; 3] = [1_000, 100_000, 1_000_000];
/// Enough to leave the caches, in an order that no prefetcher guesses.
const LOOKUPS: u32 = 1_000;

fn topic(number: u32) -> String {
    format!("plant/7/sensor/{number}")
}

/// One session for every hundred topics.
fn filled(topics: u32) -> Register {
    let mut register = Register::new();
    for number in 0..topics {
        register.subscribe(SessionKey::new(number / 100, 0), [topic(number)]);
    }
    register
}

fn scattered(topics: u32) -> Vec<String> {
    (0..LOOKUPS)
        .map(|n| topic(n.wrapping_mul(2_654_435_761) % topics))
        .collect()
}

/// A session that comes and goes beside what the register holds.
struct Newcomer<'a> {
    register: &'a mut Register,
    key: SessionKey,
    topics: &'a [String],
}

impl Newcomer<'_> {
    fn subscribe(&mut self) -> Duration {
        let begin = Instant::now();
        black_box(self.register.subscribe(self.key, self.topics));
        begin.elapsed()
    }

    fn unsubscribe(&mut self) -> Duration {
        let begin = Instant::now();
        black_box(self.register.unsubscribe(self.key, self.topics));
        begin.elapsed()
    }

    /// Times each of the two alone, although neither can be repeated without the other.
    fn bench(&mut self, group: &mut BenchmarkGroup<'_, WallTime>, kind: &str, topics: u32) {
        group.bench_function(
            BenchmarkId::new(format!("subscribe_{kind}"), topics),
            |bencher| {
                bencher.iter_custom(|rounds| {
                    let round = |_| {
                        let took = self.subscribe();
                        self.unsubscribe();
                        took
                    };
                    (0..rounds).map(round).sum()
                });
            },
        );
        group.bench_function(
            BenchmarkId::new(format!("unsubscribe_{kind}"), topics),
            |bencher| {
                bencher.iter_custom(|rounds| {
                    let round = |_| {
                        self.subscribe();
                        self.unsubscribe()
                    };
                    (0..rounds).map(round).sum()
                });
            },
        );
    }
}

fn register(criterion: &mut Criterion) {
    for topics in TOPIC_COUNTS {
        let mut register = filled(topics);
        let held = scattered(topics);
        let new: Vec<_> = held.iter().map(|topic| format!("{topic}/new")).collect();
        let mut group = criterion.benchmark_group("register");
        group.throughput(Throughput::Elements(u64::from(LOOKUPS)));
        group.bench_function(BenchmarkId::new("route", topics), |bencher| {
            bencher.iter(|| {
                for name in &held {
                    black_box(register.route(black_box(name.as_bytes())));
                }
            });
        });
        // Topics that others hold; and topics that come and go with this session.
        for (kind, topics_of_kind) in [("held", &held), ("new", &new)] {
            let mut newcomer = Newcomer {
                register: &mut register,
                key: SessionKey::new(topics, 0),
                topics: topics_of_kind,
            };
            newcomer.bench(&mut group, kind, topics);
        }
        group.finish();
    }
}

criterion_group!(benches, register);
criterion_main!(benches);
