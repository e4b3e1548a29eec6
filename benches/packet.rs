//! The codec alone: nanoseconds per frame, and bytes per second, for split, decode and encode.
#![allow(
    missing_docs,
    reason = "the macros of criterion make public items without any"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use hvlp::packet::{Frame, FrameBuf, TOPIC_LEN_MAX};

const TOPIC: &str = "host/cpu0/load";
/// What one read brings in: as much of one kind of frame as fits.
const BUFFER_LEN: usize = 64 * 1024;

/// Sizes of data: a flag, a reading, 64 bytes to be compared with other brokers, the most.
fn data_sizes() -> [usize; 4] {
    [1, 8, 64, TOPIC_LEN_MAX - TOPIC.len()]
}

/// Finds the ends of frames: all that the broker does with one of the same topic as the last.
fn split(criterion: &mut Criterion) {
    each_size(criterion, "split", |mut rest| {
        let mut total = 0;
        while let Some((frame, behind)) = Frame::split_first(rest) {
            total += usize::from(frame.id());
            rest = behind;
        }
        black_box(total);
    });
}

/// Splits and decodes, with the check that topics are UTF-8.
fn packet(criterion: &mut Criterion) {
    each_size(criterion, "packet", |mut rest| {
        while let Some((frame, behind)) = Frame::split_first(rest) {
            let _ = black_box(frame.packet());
            rest = behind;
        }
    });
}

/// Runs `walk` over a buffer of whole frames, for each size of data.
fn each_size(criterion: &mut Criterion, name: &str, walk: impl Fn(&[u8])) {
    let mut group = criterion.benchmark_group(name);
    for data_len in data_sizes() {
        let frame = FrameBuf::publish(TOPIC, &vec![0x5A; data_len]).expect("it fits");
        let count = BUFFER_LEN / frame.bytes().len();
        let buffer = frame.bytes().repeat(count);
        group.throughput(Throughput::ElementsAndBytes {
            elements: u64::try_from(count).expect("a small number"),
            bytes: u64::try_from(buffer.len()).expect("a small number"),
        });
        group.bench_function(BenchmarkId::from_parameter(data_len), |bencher| {
            bencher.iter(|| walk(black_box(&buffer)));
        });
    }
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_publish");
    group.throughput(Throughput::Elements(1));
    for data_len in data_sizes() {
        let data = vec![0x5A; data_len];
        group.bench_with_input(
            BenchmarkId::from_parameter(data_len),
            &data,
            |bencher, data| {
                bencher.iter(|| FrameBuf::publish(black_box(TOPIC), black_box(data)));
            },
        );
    }
    group.finish();

    let topics: Vec<_> = (0..20).map(|number| format!("host/cpu{number}")).collect();
    let mut group = criterion.benchmark_group("encode_subscribe");
    group.throughput(Throughput::Elements(1));
    group.bench_function("20 topics", |bencher| {
        bencher.iter(|| FrameBuf::subscribe(black_box(&topics)));
    });
}

fn decode_list(criterion: &mut Criterion) {
    let topics: Vec<_> = (0..20).map(|number| format!("host/cpu{number}")).collect();
    let frame = FrameBuf::subscribe(topics).expect("it fits");
    let mut group = criterion.benchmark_group("packet_subscribe");
    group.throughput(Throughput::Elements(1));
    group.bench_function("20 topics", |bencher| {
        bencher.iter(|| black_box(frame.as_frame()).packet());
    });
}

criterion_group!(benches, split, packet, encode, decode_list);
criterion_main!(benches);
