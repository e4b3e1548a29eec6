//! From shard to shard: what a message costs that is read by one and delivered by another. Both
//! shards whole and in memory, one after the other on one thread: no wake-up is in it.
#![allow(
    missing_docs,
    reason = "the macros of criterion make public items without any"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use world::HandOver;

#[allow(dead_code, reason = "the other benches use the rest")]
mod world;

/// Bursts of 64-byte messages on `topic_count` topics in turn, each with one subscriber.
fn hand_over(criterion: &mut Criterion, name: &str, topic_count: usize) {
    let mut shards = HandOver::new(topic_count);
    let mut group = criterion.benchmark_group("hand_over");
    group.throughput(Throughput::Elements(shards.messages));
    let mut bursts = 0;
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            shards.turns();
            bursts += 1;
        });
    });
    group.finish();
    assert!(shards.is_delivered(bursts));
}

fn mesh(criterion: &mut Criterion) {
    // All messages of a burst are one run; or each is a run of its own.
    hand_over(criterion, "one_run", 1);
    hand_over(criterion, "many_runs", 100);
}

criterion_group!(benches, mesh);
criterion_main!(benches);
