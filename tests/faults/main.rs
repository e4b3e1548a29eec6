//! The rows of the catalogue of faults (`tests/FAULTS-COVERAGE.md`), each as a claim with its id in
//! front.
//!
//! Over real sockets on ports of their own, beside a canary that must lose nothing; what is about
//! time or about every offset drives a shard in memory. The tests read `/proc`.
#![cfg(all(feature = "broker", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that panics has failed, which is what it is for; numbers here are small"
)]

mod barrier;
mod budgets;
mod cluster;
mod connections;
mod delivery;
mod endings;
mod extensions;
mod handler;
mod in_process;
mod kernel;
mod last_values;
mod lifetimes;
mod limits;
mod load;
mod malformed;
mod overload;
mod pace;
mod pause;
#[cfg(feature = "cli")]
mod process;
mod reactors;
#[cfg(feature = "cli")]
mod restarts;
mod shapes;
mod slow;
mod state;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "cli")]
mod syscalls;
mod transports;
#[cfg(feature = "uring")]
mod uring;
mod wildcards;
