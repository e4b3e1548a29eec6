//! The doorbell: a sleeper against those who push.

use loom::thread;

use crate::check::check;
use crate::peer::Peer;

/// One sleeps until each of `pushers` has pushed once.
pub fn of(pushers: usize, preemptions: usize) {
    check(preemptions, move || {
        let mut peers = Peer::among(1 + pushers);
        let threads: Vec<_> = peers
            .drain(1..)
            .map(|mut peer| {
                thread::spawn(move || {
                    peer.publish(0);
                    peer.hand_over();
                })
            })
            .collect();
        let mut sleeper = peers.remove(0);
        while sleeper.received_count() < pushers {
            sleeper.wait();
            sleeper.deliver();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
