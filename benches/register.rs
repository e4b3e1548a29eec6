//! The register: what a lookup and a change cost, by how much is in it.
#![allow(
    missing_docs,
    reason = "the macros of criterion make public items without any"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use hvlp::register::Register;
use hvlp::session::SessionKey;

/// From what stays in the nearest cache to what does not.
const TOPIC_COUNTS: [usize; 4] = [1, 100, 10_000, 1_000_000];

fn topics(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("plant/line{}/sensor{number}", number % 100))
        .collect()
}

fn filled(topics: &[String]) -> Register {
    let mut register = Register::new();
    for (slot, topic) in (0..1000).cycle().zip(topics) {
        register.subscribe(SessionKey::new(slot, 0), [topic]);
    }
    register
}

/// One lookup per run: the path of every message.
fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    group.throughput(Throughput::Elements(1));
    for count in TOPIC_COUNTS {
        let topics = topics(count);
        let register = filled(&topics);
        let mut at = 0;
        group.bench_function(BenchmarkId::new("found", count), |bencher| {
            bencher.iter(|| {
                // A stride that no prefetcher follows, and that visits every topic.
                at = (at + 7919) % topics.len();
                register.route(black_box(topics[at].as_bytes())).is_some()
            });
        });
        group.bench_function(BenchmarkId::new("unknown", count), |bencher| {
            bencher.iter(|| register.route(black_box(b"plant/line7/nobody")).is_some());
        });
    }
}

fn change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subscribe_and_unsubscribe");
    group.throughput(Throughput::Elements(1));
    let newcomer = SessionKey::new(5000, 0);
    for count in TOPIC_COUNTS {
        let topics = topics(count);
        let mut register = filled(&topics);
        let mut at = 0;
        group.bench_function(BenchmarkId::new("topics", count), |bencher| {
            bencher.iter(|| {
                at = (at + 7919) % topics.len();
                register.subscribe(newcomer, [&topics[at]]);
                register.unsubscribe(newcomer, [&topics[at]])
            });
        });
    }
    for count in [1, 1000, 10_000] {
        let mut register = Register::new();
        for slot in 0..count {
            register.subscribe(SessionKey::new(slot, 0), ["popular"]);
        }
        let newcomer = SessionKey::new(count, 0);
        group.bench_function(BenchmarkId::new("subscribers", count), |bencher| {
            bencher.iter(|| {
                register.subscribe(newcomer, ["popular"]);
                register.unsubscribe(newcomer, ["popular"])
            });
        });
    }
}

/// A session that ends takes all its subscriptions with it.
fn remove(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("remove_session");
    for count in [1, 100, 10_000] {
        let topics = topics(count);
        let mut register = filled(&topics);
        let leaving = SessionKey::new(5000, 0);
        group.throughput(Throughput::Elements(
            u64::try_from(count).expect("a small number"),
        ));
        group.bench_function(
            BenchmarkId::new("subscribe, then remove", count),
            |bencher| {
                bencher.iter(|| {
                    register.subscribe(leaving, &topics);
                    register.remove_session(leaving);
                });
            },
        );
    }
}

criterion_group!(benches, route, change, remove);
criterion_main!(benches);
