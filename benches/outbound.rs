//! What one session is owed: pieces of a turn, and the backlog of a socket that is full.
#![allow(
    missing_docs,
    reason = "the macros of criterion make public items without any"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use hvlp::arena::{Arena, Piece};
use hvlp::outbound::{Outbound, Pieces};
use hvlp::packet::FrameBuf;

const PIECE_COUNT: u32 = 1000;
const BACKLOG_BYTES_MAX: usize = 64 << 20;

fn frame(data_len: usize) -> FrameBuf {
    FrameBuf::publish("host/load", &vec![0x5A; data_len]).expect("it fits")
}

/// Pieces of one frame each, neighbours or apart.
fn pieces(arena: &mut Arena, data_len: usize, apart: bool) -> Vec<Piece> {
    let frame = frame(data_len);
    (0..PIECE_COUNT)
        .map(|_| {
            if apart {
                arena.push(&[0]);
            }
            arena.push(frame.bytes())
        })
        .collect()
}

/// One push per subscriber and run: the innermost loop of a fan-out.
fn push(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("push");
    group.throughput(Throughput::Elements(u64::from(PIECE_COUNT)));
    for (name, apart) in [("neighbours, merged", false), ("apart", true)] {
        let mut arena = Arena::new();
        let owed = pieces(&mut arena, 64, apart);
        let mut nodes = Pieces::default();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut outbound = Outbound::default();
                for piece in &owed {
                    let pushed = outbound.push(&mut nodes, black_box(*piece), 1);
                    debug_assert!(pushed.is_ok());
                }
                let frames = outbound.take_pieces();
                nodes.clear();
                frames
            });
        });
    }
}

/// The socket took half a frame: the rest of the turn is copied, then written by and by.
fn backlog(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("backlog");
    for data_len in [1, 64, 245] {
        let mut arena = Arena::new();
        let owed = pieces(&mut arena, data_len, false);
        let bytes: usize = owed.iter().map(|piece| piece.len()).sum();
        group.throughput(Throughput::ElementsAndBytes {
            elements: u64::from(PIECE_COUNT),
            bytes: u64::try_from(bytes).expect("a small number"),
        });
        group.bench_function(BenchmarkId::new("keep and drain", data_len), |bencher| {
            bencher.iter(|| {
                let (mut nodes, mut outbound) = (Pieces::default(), Outbound::default());
                for piece in &owed {
                    let pushed = outbound.push(&mut nodes, *piece, 1);
                    debug_assert!(pushed.is_ok());
                }
                let kept = outbound.keep_rest(&nodes, &arena, 5, BACKLOG_BYTES_MAX);
                let mut backlog = outbound.backlog.take().expect("the socket took 5 bytes");
                let mut written = kept.written;
                while !backlog.is_empty() {
                    let first = backlog.chunks().next().map_or(0, <[u8]>::len);
                    written += backlog.advance(first.min(16 * 1024));
                }
                written
            });
        });
    }
}

criterion_group!(benches, push, backlog);
criterion_main!(benches);
