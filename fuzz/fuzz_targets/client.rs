//! Any bytes, read in any parts, into the decoder of a client.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/client.rs"]
mod client;

fuzz_target!(|input: &[u8]| client::check(input));
