//! Replays the inputs that fuzzing has found worth keeping, and some random ones, on any toolchain.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

#[cfg(feature = "client")]
#[path = "../fuzz/checks/client.rs"]
mod client;
#[path = "../fuzz/checks/packet.rs"]
mod packet;
#[cfg(feature = "broker")]
#[path = "../fuzz/checks/shard.rs"]
mod shard;

#[test]
#[cfg(feature = "client")]
fn the_corpus_of_client_holds() {
    replay("client", client::check);
}

#[test]
fn the_corpus_of_packet_holds() {
    replay("packet", packet::check);
}

#[test]
#[cfg(feature = "broker")]
fn the_corpus_of_shard_holds() {
    replay("shard", shard::check);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_codec_holds_on_random_bytes(input in vec(any::<u8>(), 0..1000)) {
        packet::check(&input);
    }

    #[test]
    #[cfg(feature = "client")]
    fn a_client_takes_random_bytes_as_a_naive_decoder_does(input in vec(any::<u8>(), 0..1000)) {
        client::check(&input);
    }

    #[test]
    #[cfg(feature = "broker")]
    fn a_shard_does_what_a_naive_broker_does(input in vec(any::<u8>(), 0..2000)) {
        shard::check(&input);
    }
}

fn replay(target: &str, check: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // shown if the check fails
        check(&fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "the corpus of {target} is empty");
}
