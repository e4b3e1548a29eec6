//! What a subscription takes of memory. A program of its own: nothing else takes or returns any.
#![cfg(all(feature = "broker", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

use std::fs;

use hvlp::register::Register;
use hvlp::session::SessionKey;

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kilobytes.parse::<u64>().unwrap() * 1024
}

/// Subscribes `sessions` sessions from `first` on to a hundred topics each; returns what a
/// subscription takes.
fn fill(register: &mut Register, first: u32, sessions: u32) -> u64 {
    let before = resident();
    for session in 0..sessions {
        let topics = (0..100).map(|topic| format!("plant/7/sensor/{}", session * 100 + topic));
        register.subscribe(SessionKey::new(first + session, 0), topics);
    }
    (resident() - before) / u64::from(sessions * 100)
}

#[test]
fn e8_a_subscription_with_a_topic_of_its_own_takes_at_most_240_bytes_and_another_120() {
    for (sessions, topics) in [(1_000, "100 k"), (10_000, "1 M")] {
        let mut register = Register::new();
        let first = fill(&mut register, 0, sessions);
        let second = fill(&mut register, sessions, sessions);
        println!("{topics} topics: {first} bytes for the first of each, {second} for the second");
        assert_eq!(register.topic_count() * 2, register.subscription_count());
        assert!((8..=240).contains(&first), "{first} bytes");
        assert!((8..=120).contains(&second), "{second} bytes");
    }
}
