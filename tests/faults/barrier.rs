//! The ping as a barrier: at the pong, all that the session sent before is in effect everywhere.

use crate::cluster::{Cluster, Place};
use crate::support::{Prng, start, wire};

const SHARDS: usize = 3;

/// A speaker with answers on shard 0, and a subscriber of `t` and its own topic on each other.
fn speaker_and_subscribers() -> (Cluster, Place) {
    let mut cluster = Cluster::new(SHARDS as u8, &[]);
    for at in 1..SHARDS {
        let topics = wire::subscribe(&["t".to_owned(), format!("{at}")]);
        cluster.connected(at, &[&wire::CONNECT, &topics[..]].concat());
    }
    let speaker = cluster.connected(0, &wire::hello(wire::ACK, 0));
    assert_eq!(cluster.take(speaker), wire::hello_answer(wire::ACK, 0));
    (cluster, speaker)
}

#[test]
fn j6_at_the_pong_everything_sent_before_is_in_effect_in_any_order_of_turns() {
    let mut dice = Prng::new(6);
    let mut waited = 0;
    for schedule in 0..2_000 {
        let (mut cluster, speaker) = speaker_and_subscribers();
        // Deliveries that are to have been made at each pong, and all.
        let (mut owed, mut wanted) = (Vec::new(), 0);
        for _ in 0..50 {
            // Until then what it sends lies in its socket.
            waited += usize::from(!cluster.is_idle(speaker));
            if cluster.is_idle(speaker) {
                let mut bytes = Vec::new();
                for _ in 0..1 + dice.below(6) {
                    match dice.below(5) {
                        0 => {
                            bytes.extend(wire::PING);
                            owed.push(wanted);
                        }
                        topic => {
                            let topic = ["t", "1", "2", "nobody"][topic - 1];
                            bytes.extend(wire::publish(topic, "x"));
                            wanted += match topic {
                                "t" => 2,
                                "nobody" => 0,
                                _ => 1,
                            };
                        }
                    }
                }
                cluster.receive(speaker, &bytes);
            }
            for _ in 0..dice.below(6) {
                cluster.turn(dice.below(SHARDS));
                let pongs = cluster.heard(speaker).len() / wire::pong(0).len();
                let before = pongs.checked_sub(1).map_or(0, |last| owed[last]);
                assert!(
                    cluster.delivered() >= before,
                    "{schedule}: pong {pongs} is early"
                );
            }
        }
        while cluster.heard(speaker).len() < 7 * owed.len() || cluster.has_work() {
            (0..SHARDS).for_each(|at| cluster.turn(at));
        }
        let pongs = wire::pong(0).repeat(owed.len());
        assert_eq!(cluster.take(speaker), pongs, "{schedule}");
        assert_eq!(cluster.delivered(), wanted, "{schedule}");
    }
    assert!(
        waited > 10_000,
        "pings waited for other shards {waited} times"
    );
}

#[test]
fn j6_over_sockets_a_pong_of_one_reactor_holds_on_all() {
    let broker = start(&["reactors=3"]);
    // Sessions go to the reactor with the fewest, so these three are on three.
    let subscribers = [0, 1, 2].map(|_| broker.subscriber(&["t"]));
    let mut speaker = broker.open();
    speaker.send(wire::hello(wire::ACK, 0));
    speaker.expect(wire::hello_answer(wire::ACK, 0));
    for round in 1..=1_000 {
        speaker.publish("t", "x");
        speaker.send(wire::PING);
        speaker.expect(wire::pong(0));
        if round % 100 == 0 {
            let counters = broker.counters();
            assert!(counters.deliveries_matched >= 3 * round, "{round}");
        }
    }
    drop((speaker, subscribers));
    broker.finish();
}
