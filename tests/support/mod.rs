//! What the tests of faults stand on: brokers, peers that misbehave, canaries, a world in memory.

use std::time::{Duration, Instant};

mod broker;
mod canary;
pub(crate) mod engine;
pub(crate) mod memory;
mod peer;
mod prng;
#[cfg(feature = "cli")]
mod process;
mod stall;
pub(crate) mod wire;

pub(crate) use broker::{TestBroker, spawn, start, start_with};
pub(crate) use canary::Canary;
pub(crate) use peer::{End, Peer};
pub(crate) use prng::Prng;
#[cfg(feature = "cli")]
pub(crate) use process::{Process, command};
pub(crate) use stall::start_stallable;

/// Long enough for a machine that is busy with something else; nothing is judged by it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for a condition.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} within {DEADLINE:?}");
        rest();
    }
}

/// Between two looks at a condition.
fn rest() {
    std::thread::sleep(Duration::from_millis(2));
}
