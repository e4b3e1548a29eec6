//! Register: looking a topic up, adding and removing subscriptions, with 1 k, 100 k and 1 M topics.
#![allow(
    missing_docs,
    reason = "the macros of criterion make public items without any"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

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

fn register(criterion: &mut Criterion) {
    for topics in TOPIC_COUNTS {
        let mut register = filled(topics);
        let names = scattered(topics);
        let mut group = criterion.benchmark_group("register");
        group.throughput(Throughput::Elements(names.len() as u64));
        group.bench_function(BenchmarkId::new("route", topics), |bencher| {
            bencher.iter(|| {
                for name in &names {
                    black_box(register.route(black_box(name.as_bytes())));
                }
            });
        });
        let newcomer = SessionKey::new(topics, 0);
        group.bench_function(
            BenchmarkId::new("subscribe_unsubscribe", topics),
            |bencher| {
                bencher.iter(|| {
                    register.subscribe(newcomer, &names);
                    register.unsubscribe(newcomer, &names);
                });
            },
        );
        group.finish();
    }
}

criterion_group!(benches, register);
criterion_main!(benches);
