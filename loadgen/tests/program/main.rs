//! `hvlp-loadgen` as a program, against a relay and against brokers that lose, repeat and reorder.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that cannot go on fails by panicking, and has no outside"
)]

mod compare;
mod conservation;
mod fairness;
mod growth;
mod outside;
mod rivals;
mod run;
mod slow;
mod soak;
mod support;
mod verdict;
