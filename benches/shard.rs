//! The whole shard in memory: what the broker itself costs per delivery, without sockets.
#![allow(
    missing_docs,
    reason = "the macros of criterion make public items without any"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use world::Workload;

#[allow(dead_code, reason = "the other benches use the rest")]
mod world;

/// A publisher sends bursts on `topic_count` topics, each with `subscribers` sessions of its own.
fn workload(criterion: &mut Criterion, name: &str, mut workload: Workload) {
    let mut group = criterion.benchmark_group("shard");
    group.throughput(Throughput::Elements(
        workload.deliveries.max(workload.messages),
    ));
    let mut bursts = 0;
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            workload.turn();
            bursts += 1;
        });
    });
    group.finish();
    assert!(workload.is_delivered(bursts));
}

fn shard(criterion: &mut Criterion) {
    workload(criterion, "one", Workload::new(1, 1));
    workload(criterion, "fanout", Workload::new(1, 100));
    workload(criterion, "spread", Workload::new(100, 1));
    workload(criterion, "mesh", Workload::new(100, 10));
    workload(criterion, "unmatched", Workload::new(1, 0));
    workload(criterion, "wild", Workload::wild(100, 10));
    let beside = Workload::new(100, 1).beside_filters(10_000);
    workload(criterion, "spread-beside-filters", beside);
}

criterion_group!(benches, shard);
criterion_main!(benches);
