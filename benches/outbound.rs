//! Outbound: pushing pieces, and what a socket that takes only a part of them costs.
#![allow(
    missing_docs,
    reason = "the macros of criterion make public items without any"
)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use hvlp::arena::{Arena, Piece};
use hvlp::outbound::{Bound, Outbound, Pieces, SlowConsumer, Spares};
use hvlp::packet::FrameBuf;

const FRAMES: usize = 1_000;
const OWED_MAX: Bound = Bound {
    bytes_max: 8 << 20,
    policy: SlowConsumer::Disconnect,
};

/// Frames of 64 bytes of data, each its own piece; neighbours touch.
fn frames(arena: &mut Arena) -> Vec<Piece> {
    let frame = FrameBuf::publish("host/cpu0/load", &[7; 64]).expect("it fits");
    (0..FRAMES).map(|_| arena.push(frame.bytes())).collect()
}

/// Every second frame, so that no two pieces touch.
fn apart(pieces: &[Piece]) -> Vec<Piece> {
    pieces.iter().copied().step_by(2).collect()
}

fn outbound(criterion: &mut Criterion) {
    let mut arena = Arena::new();
    let neighbours = frames(&mut arena);
    let scattered = apart(&neighbours);
    let mut group = criterion.benchmark_group("outbound");
    for (name, given) in [
        ("push_neighbours", &neighbours),
        ("push_scattered", &scattered),
    ] {
        group.throughput(Throughput::Elements(given.len() as u64));
        group.bench_function(name, |bencher| {
            let mut pieces = Pieces::default();
            bencher.iter(|| {
                let mut outbound = Outbound::default();
                for piece in given {
                    outbound
                        .push(&mut pieces, *piece, 1)
                        .expect("there is memory");
                }
                black_box(outbound.take_pieces());
                pieces.clear();
            });
        });
    }

    let owed = |given: &[Piece]| {
        let (mut pieces, mut outbound) = (Pieces::default(), Outbound::default());
        for piece in given {
            outbound
                .push(&mut pieces, *piece, 1)
                .expect("there is memory");
        }
        (pieces, outbound)
    };
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function("keep_rest", |bencher| {
        bencher.iter_batched(
            || owed(&neighbours),
            |(pieces, mut outbound)| {
                black_box(outbound.keep_rest(
                    &pieces,
                    &arena,
                    100,
                    OWED_MAX,
                    &mut Spares::default(),
                ));
                outbound
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("advance", |bencher| {
        bencher.iter_batched(
            || {
                let (pieces, mut outbound) = owed(&neighbours);
                outbound.keep_rest(&pieces, &arena, 0, OWED_MAX, &mut Spares::default());
                outbound
            },
            |mut outbound| {
                black_box(outbound.advance(FRAMES / 2 * 81 + 40, &mut Spares::default()));
                outbound
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, outbound);
criterion_main!(benches);
