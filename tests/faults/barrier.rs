//! The ping as a barrier: at the pong, all that the session sent before is in effect everywhere.

use std::sync::Arc;

use hvlp::arena::Arena;
use hvlp::config::Config;
use hvlp::deadline::Timestamp;
use hvlp::handler::{Open, Resolver};
use hvlp::mesh::{Doorbell, Mesh};
use hvlp::register::directory::Directory;
use hvlp::session::{Peer, SessionKey};
use hvlp::shard::{Outgoing, SendOutcome, Shard};

use crate::support::{Prng, start, wire};

const SHARDS: usize = 3;

/// Shards in memory whose turns come in any order.
struct Cluster {
    nodes: Vec<(Shard<Open>, Arena)>,
    /// What the session that pings has been sent.
    heard: Vec<u8>,
    speaker: SessionKey,
}

impl Cluster {
    /// A speaker with answers on shard 0, and a subscriber of `t` and its own topic on each other.
    fn new() -> Self {
        let directory = Arc::new(Directory::new());
        let doorbells: Vec<_> = (0..SHARDS).map(|_| Doorbell::new(|| ())).collect();
        let ends = Mesh::with_rings_of(2, &doorbells);
        let nodes = (0..).zip(ends).map(|(id, mesh)| {
            let count = u8::try_from(SHARDS).unwrap();
            let shard = Shard::new(id, count, &Config::default(), Open, Resolver::new(|_| ()));
            (shard.with_peers(Arc::clone(&directory), mesh), Arena::new())
        });
        let mut cluster = Self {
            nodes: nodes.collect(),
            heard: Vec::new(),
            speaker: SessionKey::new(0, 0),
        };
        for at in 1..SHARDS {
            let topics = wire::subscribe(&["t".to_owned(), format!("{at}")]);
            cluster.connected(at, &[&wire::CONNECT, &topics[..]].concat());
        }
        cluster.speaker = cluster.connected(0, &wire::hello(wire::ACK, 0));
        assert_eq!(cluster.heard, wire::hello_answer(wire::ACK, 0));
        cluster.heard.clear();
        cluster
    }

    fn connected(&mut self, at: usize, bytes: &[u8]) -> SessionKey {
        let key = self.nodes[at].0.open(now(), Peer::Memory).unwrap();
        self.receive(at, key, bytes);
        self.turn(at);
        key
    }

    fn receive(&mut self, at: usize, key: SessionKey, bytes: &[u8]) {
        let (shard, arena) = &mut self.nodes[at];
        let piece = arena.push(bytes);
        assert!(shard.receive(now(), key, arena, piece).is_none());
    }

    fn turn(&mut self, at: usize) {
        let (shard, arena) = &mut self.nodes[at];
        shard.begin_turn();
        while let Some(key) = shard.next_resumed() {
            if shard.has_held(key) && !shard.is_stopped(key) {
                let held = arena.push(shard.remainder(key));
                assert!(shard.receive(now(), key, arena, held).is_none());
            }
        }
        shard.begin_delivering();
        while shard.deliver(arena).is_some() {}
        while let Some(key) = shard.next_dirty() {
            let bytes: Vec<u8> = match shard.outgoing(now(), key, arena) {
                Outgoing::Run(piece) => arena.bytes(piece).to_vec(),
                Outgoing::Ahead(bytes) => bytes.to_vec(),
                Outgoing::Scattered(pieces) => pieces
                    .flat_map(|piece| arena.bytes(piece).to_vec())
                    .collect(),
                Outgoing::Backlog(_) | Outgoing::Nothing => continue,
            };
            shard.sent(now(), key, arena, SendOutcome::Whole(bytes.len()));
            if at == 0 {
                self.heard.extend(bytes);
            }
        }
        shard.end_flush();
        shard.hand_over(now());
        shard.end_turn(arena);
    }

    fn has_work(&self) -> bool {
        let mut shards = self.nodes.iter().map(|(shard, _)| shard);
        shards.any(|shard| !shard.is_handed_over() || !shard.is_delivered() || shard.has_any_held())
    }

    fn delivered(&self) -> u64 {
        let counters = self.nodes.iter().map(|(shard, _)| shard.counters());
        counters.map(|counters| counters.deliveries_matched).sum()
    }
}

fn now() -> Timestamp {
    Timestamp::default()
}

#[test]
fn j6_at_the_pong_everything_sent_before_is_in_effect_in_any_order_of_turns() {
    let mut dice = Prng::new(6);
    let mut waited = 0;
    for schedule in 0..2_000 {
        let mut cluster = Cluster::new();
        let speaker = cluster.speaker;
        // Deliveries that are to have been made at each pong, and all.
        let (mut owed, mut wanted) = (Vec::new(), 0);
        for _ in 0..50 {
            // Until then what it sends lies in its socket.
            let is_read = cluster.nodes[0].0.wants_input(speaker);
            waited += usize::from(!is_read);
            if is_read && !cluster.nodes[0].0.has_held(speaker) {
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
                cluster.receive(0, speaker, &bytes);
            }
            for _ in 0..dice.below(6) {
                cluster.turn(dice.below(SHARDS));
                let pongs = cluster.heard.len() / wire::pong(0).len();
                let before = pongs.checked_sub(1).map_or(0, |last| owed[last]);
                assert!(
                    cluster.delivered() >= before,
                    "{schedule}: pong {pongs} is early"
                );
            }
        }
        while cluster.heard.len() < 7 * owed.len() || cluster.has_work() {
            (0..SHARDS).for_each(|at| cluster.turn(at));
        }
        assert_eq!(
            cluster.heard,
            wire::pong(0).repeat(owed.len()),
            "{schedule}"
        );
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
