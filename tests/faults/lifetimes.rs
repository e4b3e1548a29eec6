//! Section F: sessions that come and go while others are served, and reactors that stand still.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hvlp::address::Address;
use hvlp::metrics::DropReason;
use hvlp::session::CloseReason;
use hvlp::shard::Gone;

use crate::support::memory::World;
use crate::support::{Peer, Prng, start, start_stallable, wait_until, wire};

#[test]
fn f2_who_leaves_in_the_midst_of_a_fan_out_is_counted_and_its_heir_gets_nothing() {
    let mut world = World::new(&[]);
    let subscribe = wire::subscribe(&["a"]);
    let (leaver, stayer) = (world.connected(&subscribe), world.connected(&subscribe));
    let publisher = world.connected([]);
    let frames = wire::numbered("a", 3);
    world.receive(publisher, &frames);
    world
        .shard
        .gone(leaver, Gone::Failed(ErrorKind::ConnectionReset));
    world.turn();
    assert_eq!(world.ended.get(&leaver), Some(&CloseReason::Reset));
    assert_eq!(
        (world.take(leaver), world.take(stayer)),
        (Vec::new(), frames)
    );
    assert_eq!(world.counters().dropped(DropReason::SessionGone), 3);
    let heir = world.open();
    world.turn();
    assert_eq!(heir.slot(), leaver.slot());
    assert_eq!(world.take(heir), b"");
}

/// Sessions that hold one topic each, hear a little and leave in any way. Each message is its
/// topic's name: it says for whom it is.
fn churn(address: &Address, seed: u64, rounds: u32) {
    let mut prng = Prng::new(seed);
    for _ in 0..rounds {
        let topic = format!("t{}", prng.below(10));
        let mut peer = Peer::connect(address);
        peer.subscribe(&[&topic]);
        let mine = wire::publish(&topic, &topic);
        for _ in 0..prng.below(4) {
            assert_eq!(peer.next_frame().unwrap(), mine, "for somebody else");
        }
        peer.publish(&topic, &topic);
        match prng.below(3) {
            0 => peer.reset(),
            1 => peer.send(wire::DISCONNECT),
            _ => drop(peer),
        }
    }
}

#[test]
fn f2_f5_sessions_that_come_and_go_during_a_fan_out_get_their_own_and_leave_nothing() {
    let broker = start(&["reactors=2"]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut publisher = broker.connect();
                while !stop.load(Ordering::SeqCst) {
                    for topic in 0..10 {
                        let topic = format!("t{topic}");
                        publisher.send(wire::publish(&topic, &topic).repeat(5));
                    }
                    thread::yield_now();
                }
            });
        }
        let churns: Vec<_> = (0..4)
            .map(|seed| {
                let address = broker.address();
                scope.spawn(move || churn(address, seed, 400))
            })
            .collect();
        let ended: Vec<_> = churns
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        stop.store(true, Ordering::SeqCst);
        assert!(ended.iter().all(Result::is_ok));
    });
    let counters = broker.finish();
    assert!(counters.sessions_opened >= 1600);
}

#[test]
fn f7_f11_a_reactor_that_stands_still_holds_up_nobody_but_its_own_sessions() {
    // Whichever of the two stands still: each has a subscriber and a publisher.
    for extra in 0..2 {
        let (broker, stall) = start_stallable(&["reactors=2"]);
        let mut subscribers = [broker.subscriber(&["a"]), broker.subscriber(&["a"])];
        let mut publishers = [broker.connect(), broker.connect()];
        let beside: Vec<_> = (0..extra).map(|_| broker.open()).collect();
        wait_until("they are there", || {
            broker.counters().sessions.total() == 6 + extra as u64
        });
        let frames = wire::numbered("a", 1000);
        stall.during(&broker, || {
            for publisher in &mut publishers {
                publisher.send(&frames);
            }
            // One of them is served, and gets what its own reactor reads.
            let served = || {
                let waits = Duration::from_millis(20);
                subscribers
                    .iter()
                    .any(|subscriber| subscriber.has_bytes(waits))
            };
            wait_until("the other reactor goes on", served);
        });
        for subscriber in &mut subscribers {
            let mut got: Vec<_> = (0..2000)
                .map(|_| subscriber.next_frame().unwrap())
                .collect();
            got.sort();
            let numbers = (0..1000_u32).flat_map(|n| [n, n]);
            let expected = numbers.map(|n| wire::publish("a", n.to_be_bytes()));
            assert!(
                got.into_iter().eq(expected),
                "each message once from each publisher"
            );
        }
        drop((subscribers, publishers, beside));
        broker.finish();
    }
}

#[test]
fn f7_a_reactor_that_stands_still_is_counted() {
    let (broker, stall) = start_stallable(&["limits.lag_warn=1ms", "reactors=1"]);
    let before = broker.counters().lags;
    stall.during(&broker, || {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(2) {}
    });
    broker.await_counters("it is counted", |counters| counters.lags > before);
    // The canary's frames cost no turn a minute.
    let broker_with_time = start(&["limits.lag_warn=1m"]);
    assert_eq!(broker_with_time.finish().lags, 0);
    broker.finish();
}

#[test]
fn e4_a_topic_that_is_subscribed_and_unsubscribed_at_line_rate_leaves_nothing() {
    let broker = start(&["reactors=2"]);
    let mut witness = broker.subscriber(&["done"]);
    let flip = [wire::subscribe(&["flip"]), wire::unsubscribe(&["flip"])].concat();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (mut peer, flips) = (broker.connect(), flip.repeat(50_000));
            thread::spawn(move || {
                peer.send(flips);
                peer.publish("done", "x");
                peer
            })
        })
        .collect();
    let peers: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    witness.expect(wire::publish("done", "x").repeat(2));
    assert_eq!(broker.subscribers("flip"), 0);
    let counters = broker.counters();
    assert_eq!(
        (counters.accepted(4), counters.topics),
        (100_000, 2),
        "the canary's and one"
    );
    drop((peers, witness));
    broker.finish();
}
