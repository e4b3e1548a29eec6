//! The spill of an outbox against the consumer that makes room.

use loom::thread;

use crate::check::check;
use crate::peer::Peer;

/// `publishers` publish `runs` each, and hand over every one alone; a ring has room for one.
pub fn of(publishers: usize, runs: u8, preemptions: usize) {
    check(preemptions, move || {
        let mut peers = Peer::among(1 + publishers);
        let threads: Vec<_> = peers
            .drain(1..)
            .map(|mut peer| {
                thread::spawn(move || {
                    for _ in 0..runs {
                        peer.publish(0);
                        peer.hand_over();
                    }
                    while !peer.is_handed_over() {
                        peer.turn();
                    }
                })
            })
            .collect();
        let mut consumer = peers.remove(0);
        while consumer.received_count() < publishers * usize::from(runs) {
            consumer.turn();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        for from in 1..=publishers {
            consumer.assert_received(from, runs);
        }
    });
}

/// Two that publish `runs` each for the other, and consume only between their own turns.
pub fn of_two_that_are_full(runs: u8, preemptions: usize) {
    check(preemptions, move || {
        let exchange = move |mut peer: Peer, other: usize| {
            for _ in 0..runs {
                peer.publish(other);
                peer.hand_over();
            }
            while !peer.is_handed_over() || peer.received_count() < usize::from(runs) {
                peer.turn();
            }
            peer.assert_received(other, runs);
        };
        let mut peers = Peer::among(2);
        let second = peers.remove(1);
        let thread = thread::spawn(move || exchange(second, 0));
        exchange(peers.remove(0), 1);
        thread.join().unwrap();
    });
}
