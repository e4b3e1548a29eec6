//! The paths in memory, each a fixed number of times, for a tool that counts instructions.
//!
//! `scripts/instructions` runs them one by one under callgrind, which counts what happens inside
//! `measured` and nothing else, and compares with `instructions.txt`. Seconds say less on a machine
//! that is shared: these counts do not know what runs beside them.
//!
//! Without arguments every path runs once; `--list` prints their names and units; with the name of
//! a path that one runs, and how many items it did is printed.

use std::env;
use std::hint::black_box;
use std::process::ExitCode;

use hvlp::arena::{Arena, Piece};
use hvlp::outbound::{Bound, Outbound, Pieces, SlowConsumer, Spares};
use hvlp::packet::{Frame, FrameBuf};

use world::{HandOver, Workload, World};

#[allow(dead_code, reason = "the other benches use the rest")]
mod world;

/// A path that is counted.
struct Path {
    name: &'static str,
    /// What its count is divided by.
    item: &'static str,
    prepare: fn() -> Prepared,
}

/// A path, ready to be walked.
struct Prepared {
    /// How many items one walk does.
    items: u64,
    walk: Box<dyn FnMut()>,
}

const PATHS: [Path; 12] = [
    path("frames", "frame", frames),
    path("one", "message", || shard(1, 1)),
    path("fanout", "message", || fanout(100)),
    path("spread", "delivery", || shard(100, 1)),
    path("mesh", "delivery", || shard(100, 10)),
    path("wild", "delivery", || counted(Workload::wild(100, 10))),
    path("spread-beside-filters", "delivery", || {
        counted(Workload::new(100, 1).beside_filters(10_000))
    }),
    path("churn", "change", churn),
    path("hand-over-one-run", "message", || hand_over(1)),
    path("hand-over-many-runs", "message", || hand_over(100)),
    path("backlog-push", "frame", backlog_push),
    path("backlog-advance", "frame", backlog_advance),
];

const WALKS: usize = 10;
/// Walks before those: what grows has grown, what is reused is there.
const WARMUP_WALKS: usize = 2;

const fn path(name: &'static str, item: &'static str, prepare: fn() -> Prepared) -> Path {
    Path {
        name,
        item,
        prepare,
    }
}

fn main() -> ExitCode {
    // `cargo bench` adds an option of its own.
    let argument = env::args().skip(1).find(|argument| argument != "--bench");
    let Some(argument) = argument else {
        for path in PATHS {
            run(&path);
        }
        return ExitCode::SUCCESS;
    };
    if argument == "--list" {
        for Path { name, item, .. } in PATHS {
            println!("{name} {item}");
        }
        return ExitCode::SUCCESS;
    }
    let Some(path) = PATHS.iter().find(|path| path.name == argument) else {
        eprintln!("there is no path {argument}; --list shows all");
        return ExitCode::FAILURE;
    };
    println!("{}", run(path));
    ExitCode::SUCCESS
}

/// Walks a path; returns how many items were counted.
fn run(path: &Path) -> u64 {
    let Prepared { items, mut walk } = (path.prepare)();
    for _ in 0..WARMUP_WALKS {
        walk();
    }
    measured(&mut *walk);
    items * WALKS as u64
}

/// Where instructions are counted. Not generic, and never inlined: it is found by its name.
#[inline(never)]
fn measured(walk: &mut dyn FnMut()) {
    for _ in 0..WALKS {
        walk();
    }
}

/// Splits and decodes frames, with the check that topics are UTF-8.
fn frames() -> Prepared {
    const COUNT: usize = 1_000;
    let frame = FrameBuf::publish("host/cpu0/load", &[7; 64]).expect("it fits");
    let bytes = frame.bytes().repeat(COUNT);
    let walk = move || {
        let mut rest = black_box(&bytes[..]);
        while let Some((frame, behind)) = Frame::split_first(rest) {
            let _ = black_box(frame.packet());
            rest = behind;
        }
    };
    Prepared {
        items: COUNT as u64,
        walk: Box::new(walk),
    }
}

/// Parse, route, fan out and flush, counted by deliveries.
fn shard(topic_count: usize, subscribers: usize) -> Prepared {
    counted(Workload::new(topic_count, subscribers))
}

fn counted(mut workload: Workload) -> Prepared {
    Prepared {
        items: workload.deliveries,
        walk: Box::new(move || workload.turn()),
    }
}

/// The same on one topic, counted by messages: a delivery alone is less than one instruction.
fn fanout(subscribers: usize) -> Prepared {
    let mut workload = Workload::new(1, subscribers);
    Prepared {
        items: workload.messages,
        walk: Box::new(move || workload.turn()),
    }
}

/// A session subscribes and unsubscribes, on topics of its own and on those of others in turn.
fn churn() -> Prepared {
    const TOPICS: usize = 1_000;
    const TOPICS_PER_FRAME: usize = 10;
    let topics: Vec<_> = (0..TOPICS)
        .map(|number| format!("churn/{number}"))
        .collect();
    let mut world = World::alone();
    for topic in topics.iter().step_by(2) {
        world.open(std::slice::from_ref(topic));
    }
    let key = world.open(&[]);
    let lists = || topics.chunks(TOPICS_PER_FRAME);
    let subscribe = lists().map(FrameBuf::subscribe);
    let changes = subscribe.chain(lists().map(FrameBuf::unsubscribe));
    let bytes: Vec<_> = changes
        .flat_map(|frame| frame.expect("ten topics fit").bytes().to_vec())
        .collect();
    Prepared {
        items: 2 * TOPICS as u64,
        walk: Box::new(move || world.turn(key, &bytes)),
    }
}

/// A burst that one shard reads and another delivers.
fn hand_over(topic_count: usize) -> Prepared {
    let mut shards = HandOver::new(topic_count);
    Prepared {
        items: shards.messages,
        walk: Box::new(move || shards.turns()),
    }
}

const OWED_FRAMES: usize = 1_000;
const OWED_MAX: Bound = Bound {
    bytes_max: 8 << 20,
    policy: SlowConsumer::Disconnect,
};

/// What a socket refused is copied.
fn backlog_push() -> Prepared {
    let mut arena = Arena::new();
    let owed = owed(&mut arena);
    let mut spares = Spares::default();
    let walk = move || {
        let (pieces, mut outbound) = push(owed);
        black_box(outbound.keep_rest(&pieces, &arena, 100, OWED_MAX, &mut spares));
    };
    Prepared {
        items: OWED_FRAMES as u64,
        walk: Box::new(walk),
    }
}

/// A socket takes a backlog, and cuts it anywhere.
fn backlog_advance() -> Prepared {
    const STEP_LEN: usize = 10_000;
    let mut arena = Arena::new();
    let owed = owed(&mut arena);
    let ready = || {
        let (pieces, mut outbound) = push(owed);
        outbound.keep_rest(&pieces, &arena, 0, OWED_MAX, &mut Spares::default());
        outbound
    };
    let mut backlogs: Vec<_> = (0..WARMUP_WALKS + WALKS).map(|_| ready()).collect();
    let len = owed.len();
    let mut spares = Spares::default();
    let walk = move || {
        let mut outbound = backlogs.pop().expect("one for each walk");
        let mut left = len;
        while left > 0 {
            let taken = left.min(STEP_LEN);
            black_box(outbound.advance(taken, &mut spares));
            left -= taken;
        }
    };
    Prepared {
        items: OWED_FRAMES as u64,
        walk: Box::new(walk),
    }
}

/// Frames of 64 bytes of data, one piece.
fn owed(arena: &mut Arena) -> Piece {
    let frame = FrameBuf::publish("host/cpu0/load", &[7; 64]).expect("it fits");
    arena.push(&frame.bytes().repeat(OWED_FRAMES))
}

fn push(owed: Piece) -> (Pieces, Outbound) {
    let (mut pieces, mut outbound) = (Pieces::default(), Outbound::default());
    let frames = u32::try_from(OWED_FRAMES).expect("a small number");
    let pushed = outbound.push(&mut pieces, owed, frames);
    pushed.expect("there is memory");
    (pieces, outbound)
}
