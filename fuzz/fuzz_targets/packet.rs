//! Any bytes into the codec.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/packet.rs"]
mod packet;

fuzz_target!(|input: &[u8]| packet::check(input));
