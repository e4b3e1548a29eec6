//! Bounds: what happens at each of them, to whom, and by which name it is counted.

use std::io::ErrorKind;
use std::time::Duration;

use hvlp::metrics::{DropReason, RefuseReason};
use hvlp::session::{CloseReason, SessionKey};
use hvlp::shard::{Gone, SendOutcome};

use crate::support::memory::World;
use crate::support::{start, wire};

#[test]
fn d3_a_connection_above_sessions_max_is_refused_and_a_freed_slot_is_used_again() {
    // Two of them are the canary's.
    let broker = start(&["limits.sessions_max=3"]);
    for round in 1..=20 {
        let mut subscriber = broker.subscriber(&["a"]);
        let mut refused = broker.open();
        refused.expect_end();
        let counters = broker.counters();
        assert_eq!(counters.refused(RefuseReason::SessionsMax), round);
        subscriber.send(wire::DISCONNECT);
        subscriber.expect_end();
        broker.await_counters("the slot is free", |counters| {
            counters.sessions.total() == 2
        });
    }
    assert_eq!(broker.finish().sessions_opened, 22);
}

#[test]
fn e1_e2_a_session_that_subscribes_beyond_a_limit_is_closed_and_holds_nothing() {
    for limit in [
        "limits.subscriptions_per_session_max=3",
        "limits.subscriptions_max=4",
        "limits.topics_max=4",
    ] {
        let mut world = World::new(&[limit]);
        let modest = world.connected(wire::subscribe(&["a"]));
        let greedy = world.connected(wire::subscribe(&["b", "c", "d"]));
        // What is held already is no further subscription.
        world.receive(greedy, wire::subscribe(&["d", "c"]));
        world.turn();
        assert_eq!(world.ended.get(&greedy), None, "{limit}");
        world.receive(greedy, wire::subscribe(&["e"]));
        world.turn();
        assert_eq!(
            world.ended.get(&greedy),
            Some(&CloseReason::LimitSubscriptions),
            "{limit}"
        );
        assert_eq!(
            world.shard.register().topics(modest).collect::<Vec<_>>(),
            ["a"]
        );
        assert_eq!(world.counters().subscriptions, 1);
    }
}

/// A subscriber whose socket takes nothing, one that takes everything, and a publisher.
fn slow_world(settings: &[&str]) -> (World<hvlp::handler::Open>, [SessionKey; 3]) {
    let mut world = World::new(settings);
    let subscribe = wire::subscribe(&["a"]);
    let keys = [
        world.connected(&subscribe),
        world.connected(&subscribe),
        world.connected([]),
    ];
    (world, keys)
}

fn publish(world: &mut World<hvlp::handler::Open>, publisher: SessionKey, healthy: SessionKey) {
    let frames = wire::publish("a", [7; 253]).repeat(20);
    world.receive(publisher, &frames);
    world.turn_with(&mut |key, offered| match key {
        key if key == healthy => SendOutcome::Whole(offered),
        _ => SendOutcome::Short(0),
    });
    assert!(
        world.take(healthy) == frames,
        "a slow one takes nothing from the others"
    );
}

#[test]
fn c9_a_backlog_without_progress_is_closed_after_the_progress_timeout() {
    let (mut world, [slow, healthy, publisher]) = slow_world(&[]);
    publish(&mut world, publisher, healthy);
    world.pass(Duration::from_secs(9));
    // A single byte is progress.
    world.shard.writable(slow);
    world.turn_with(&mut |_, _| SendOutcome::Short(1));
    world.pass(Duration::from_micros(9_999_999));
    publish(&mut world, publisher, healthy);
    assert_eq!(world.ended.get(&slow), None);
    world.pass(Duration::from_micros(1));
    assert_eq!(
        world.ended.get(&slow),
        Some(&CloseReason::SlowConsumerStalled)
    );
    assert_eq!(world.counters().dropped(DropReason::SlowClose), 40);
}

#[test]
fn a_backlog_at_outbound_max_is_closed() {
    let (mut world, [slow, healthy, publisher]) = slow_world(&["listener.outbound_max=64KiB"]);
    while world.ended.is_empty() {
        publish(&mut world, publisher, healthy);
        let backlogs = world
            .shard
            .sessions()
            .map(|(_, session)| session.backlog_bytes);
        assert!(backlogs.sum::<usize>() <= 64 * 1024);
    }
    assert_eq!(
        world.ended.get(&slow),
        Some(&CloseReason::SlowConsumerBytes)
    );
}

#[test]
fn the_largest_backlog_goes_first_when_all_together_are_too_large() {
    let settings = [
        "limits.outbound_total_max=256KiB",
        "listener.outbound_max=1MiB",
    ];
    let (mut world, [largest, healthy, publisher]) = slow_world(&settings);
    // A head start of several chunks: memory is what counts, and it comes in chunks.
    for _ in 0..30 {
        publish(&mut world, publisher, healthy);
    }
    let smaller = world.connected(wire::subscribe(&["a"]));
    while world.ended.is_empty() {
        publish(&mut world, publisher, healthy);
    }
    assert_eq!(
        world.ended.get(&largest),
        Some(&CloseReason::SlowConsumerEvicted)
    );
    assert!(world.shard.is_open(smaller));
    let counters = world.counters();
    assert_eq!(
        counters.deliveries_dropped.total(),
        counters.dropped(DropReason::Evicted)
    );
}

#[test]
fn c8_c9_each_failure_of_a_socket_has_its_own_reason() {
    for (kind, reason) in [
        (ErrorKind::ConnectionReset, CloseReason::Reset),
        (ErrorKind::ConnectionAborted, CloseReason::Reset),
        (ErrorKind::BrokenPipe, CloseReason::Reset),
        (ErrorKind::TimedOut, CloseReason::WriteTimeout),
        (ErrorKind::WriteZero, CloseReason::WriteZero),
        (ErrorKind::OutOfMemory, CloseReason::NoMemory),
        (ErrorKind::HostUnreachable, CloseReason::IoError),
    ] {
        let mut world = World::new(&[]);
        let key = world.connected([]);
        world.shard.gone(key, Gone::Failed(kind));
        world.turn();
        assert_eq!(world.ended.get(&key), Some(&reason));
        assert_eq!(world.counters().closed(reason), 1);
    }
}

#[test]
fn d2_who_opens_all_it_can_is_refused_and_gets_in_again_when_it_lets_go() {
    for reactors in ["reactors=1", "reactors=3"] {
        let broker = start(&[
            reactors,
            "limits.count_this_host=true",
            "limits.sessions_per_address_max=6",
        ]);
        // The canary has two of them.
        let held: Vec<_> = (0..4).map(|_| broker.connect()).collect();
        let mut refused = broker.open();
        refused.expect_end();
        broker.await_counters("it is counted", |counters| {
            counters.refused(RefuseReason::PerAddress) == 1
        });
        drop(held);
        broker.await_counters("they have gone", |counters| counters.sessions.total() == 2);
        let again: Vec<_> = (0..4).map(|_| broker.subscriber(&["a"])).collect();
        drop(again);
        broker.finish();
    }
}
