//! The hand-over at shutdown: nobody drains before all that was accepted has arrived.

use loom::thread;

use crate::check::check;
use crate::peer::Peer;

/// `reactors` publish `runs` each for every other, then read no more.
pub fn of(reactors: usize, runs: u8, preemptions: usize) {
    check(preemptions, move || {
        let end = move |id: usize, mut peer: Peer| {
            let others = (0..reactors).filter(|other| *other != id);
            for _ in 0..runs {
                others.clone().for_each(|other| peer.publish(other));
                peer.hand_over();
            }
            while !peer.may_leave() {
                peer.turn();
                peer.look_for_the_end();
            }
            others.for_each(|other| peer.assert_received(other, runs));
        };
        let mut peers = Peer::among(reactors);
        let threads: Vec<_> = (1..)
            .zip(peers.drain(1..))
            .map(|(id, peer)| thread::spawn(move || end(id, peer)))
            .collect();
        end(0, peers.remove(0));
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
