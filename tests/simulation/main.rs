//! Whole brokers of one to three shards in memory, over a network, a clock and a scheduler that
//! misbehave by a seed.
//!
//! 1. A seed draws the settings, most of them near their limits, and which faults are possible.
//! 2. Each step a peer acts, a reactor runs one turn, time passes, or the broker is told something.
//! 3. A naive broker executes what each shard has executed. After every turn the shard has counted,
//!    kept, written and closed what follows from that, and is within its bounds.
//! 4. Now and then nothing goes wrong for a while: then everything that can be done is done, woken
//!    by nothing but what would wake a real reactor. In the end everybody leaves, or the broker
//!    stops, and nothing is left.
//!
//! `SIM_SEED=n` replays one seed. `SIM_SEEDS=n` tries that many, `SIM_MINUTES=n` goes on for so
//! long: from `SIM_FIRST=n` on, and with `SIM_STEPS=n` steps each.
#![cfg(feature = "broker")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that panics has failed, which is what it is for; numbers here are small"
)]

mod account;
mod faults;
mod filters;
mod guard;
mod invariants;
mod ledger;
mod model;
mod network;
mod outside;
mod peer;
#[path = "../support/prng.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod prng;
mod reactor;

mod seeds;
mod values;
#[path = "../support/wire.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod wire;
mod world;
