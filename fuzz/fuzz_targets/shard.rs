//! A script of four clients into a shard, beside a naive broker.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/shard.rs"]
mod shard;

fuzz_target!(|input: &[u8]| shard::check(input));
