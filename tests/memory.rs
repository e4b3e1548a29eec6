//! What stays resident of messages that nobody wants. A program of its own: nothing else takes or
//! returns memory.
#![cfg(all(feature = "broker", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

use std::fs;

use support::{start, wire};

#[allow(dead_code, unused_imports, reason = "the rows of faults use the rest")]
mod support;

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kilobytes.parse::<u64>().unwrap() * 1024
}

#[test]
fn e5_a_million_topics_that_nobody_holds_leave_no_memory_behind() {
    const WARM_UP: u32 = 100_000;
    const TOPICS: u32 = 1_000_000;
    const GROWTH_MAX: u64 = 8 << 20;
    let broker = start(&["reactors=2"]);
    // One on each reactor, each with every other block of topics.
    let mut publishers = [broker.connect(), broker.connect()];
    let mut publish = |topics: std::ops::Range<u32>| {
        let end = u64::from(topics.end);
        let topics: Vec<_> = topics.collect();
        for (block, publisher) in topics.chunks(1_000).zip([0, 1].into_iter().cycle()) {
            let frames = block
                .iter()
                .map(|number| wire::publish(format!("nobody/{number}"), b""));
            publishers[publisher].send(frames.flatten().collect::<Vec<_>>());
        }
        drop(topics);
        broker.await_counters("all are read", |counters| {
            counters.publishes_unmatched >= end
        });
    };
    publish(0..WARM_UP);
    let before = resident();
    publish(WARM_UP..WARM_UP + TOPICS);
    let growth = resident().saturating_sub(before);
    println!("{growth} bytes more after {TOPICS} topics");
    assert!(
        growth < GROWTH_MAX,
        "{growth} bytes are more than {GROWTH_MAX}"
    );
    assert_eq!(broker.counters().topics, 1, "the canary's");
    drop(publishers);
    broker.finish();
}
