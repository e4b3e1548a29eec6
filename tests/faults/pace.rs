//! Section C: peers that are slow, half gone, or gone without a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hvlp::handler::{SessionHandler, SessionView, Verdict};
use hvlp::metrics::DropReason;
use hvlp::packet::Packet;
use hvlp::session::CloseReason;
use hvlp::shard::SendOutcome;

use crate::support::memory::World;
use crate::support::{Peer, TestBroker, start, wait_until, wire};

/// Counts how often the parser has found a packet.
#[derive(Clone, Default)]
struct Steps(Arc<AtomicU64>);

impl SessionHandler for Steps {
    fn on_packet(&mut self, _: SessionView, _: &Packet<'_>) -> Verdict {
        self.0.fetch_add(1, Ordering::Relaxed);
        Verdict::Allow
    }
}

#[test]
fn c1_ten_thousand_senders_of_single_bytes_are_served_and_parsed_once() {
    let steps = Steps::default();
    let mut world = World::with(steps.clone(), &[]);
    let subscriber = world.connected(wire::subscribe(&["a"]));
    let senders: Vec<_> = (0..10_000).map(|_| world.connected([])).collect();
    let before = steps.0.load(Ordering::Relaxed);
    let frame = wire::publish("a", "0123456789");
    for byte in &frame {
        for sender in &senders {
            world.receive(*sender, [*byte]);
        }
        world.pass(Duration::from_millis(1));
    }
    assert!(world.take(subscriber) == frame.repeat(senders.len()));
    assert_eq!(
        steps.0.load(Ordering::Relaxed) - before,
        senders.len() as u64
    );
    assert!(world.ended.is_empty());
}

#[test]
fn c1_two_hundred_senders_of_single_bytes_are_served_over_sockets() {
    let broker = start(&[]);
    let mut subscriber = broker.subscriber(&["a"]);
    let mut senders: Vec<_> = (0..200).map(|_| broker.open()).collect();
    let frame = wire::publish("a", "0123456789");
    for byte in [&wire::CONNECT[..], &frame].concat() {
        senders.iter_mut().for_each(|sender| sender.send([byte]));
    }
    subscriber.expect(frame.repeat(senders.len()));
    drop((subscriber, senders));
    broker.finish();
}

#[test]
fn c2_a_frame_that_trickles_is_closed_ten_seconds_after_its_first_byte() {
    let mut world = World::new(&[]);
    let key = world.connected([]);
    let frame = wire::publish("a", "never whole");
    world.receive(key, &frame[..1]);
    world.pass(Duration::from_millis(9_900));
    world.receive(key, &frame[1..2]);
    world.pass(Duration::from_millis(99));
    assert_eq!(world.ended.get(&key), None);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.ended.get(&key), Some(&CloseReason::FrameTimeout));

    // Each frame has its own ten seconds: a slow but steady sender lives.
    let steady = world.connected([]);
    for _ in 0..20 {
        world.receive(steady, [5]);
        world.pass(Duration::from_millis(9_900));
        world.receive(steady, [&frame[1..], &[5]].concat());
        world.pass(Duration::from_millis(9_900));
        world.receive(steady, &frame[1..]);
        world.turn();
    }
    assert_eq!(world.ended.get(&steady), None);
}

#[test]
fn c2_a_slow_loris_is_closed_over_a_socket() {
    let broker = start(&["listener.frame_timeout=300ms"]);
    let mut peer = broker.connect();
    let mut sent = 0;
    // A byte whenever a while has passed without an end, 255 of them at most.
    peer.send([5, 255, 1]);
    while !peer.has_ended(Duration::from_millis(50)) {
        assert!(peer.try_send([b'a']) || peer.has_ended(Duration::from_secs(30)));
        sent += 1;
        assert!(sent < 200, "each byte has put the deadline off");
    }
    assert_eq!(broker.counters().closed(CloseReason::FrameTimeout), 1);
    drop(peer);
    broker.finish();
}

#[test]
fn c10_a_half_closed_client_has_its_frames_executed_and_its_last_flush() {
    let broker = start(&[]);
    let mut subscriber = broker.subscriber(&["a"]);
    let mut peer = broker.subscriber(&["b"]);
    peer.send(wire::numbered("a", 1000));
    peer.half_close();
    subscriber.expect(wire::numbered("a", 1000));
    peer.expect_end();
    assert_eq!(broker.counters().closed(CloseReason::Eof), 1);
    wait_until("its topic is gone", || broker.subscribers("b") == 0);
    drop((subscriber, peer));
    broker.finish();
}

#[test]
fn c10_the_flush_of_the_turn_with_the_end_is_the_last_one() {
    let mut world = World::new(&[]);
    let leaver = world.connected(wire::subscribe(&["a"]));
    let publisher = world.connected([]);
    let frames = wire::numbered("a", 3);
    world.receive(publisher, &frames);
    world.eof(leaver);
    world.receive(publisher, wire::publish("a", "too late"));
    // The socket takes the first frame and one byte.
    let taken = frames.len() / 3 + 1;
    world.turn_with(&mut |_, _| SendOutcome::Short(taken));
    assert_eq!(world.take(leaver), frames[..taken]);
    assert_eq!(world.ended.get(&leaver), Some(&CloseReason::Eof));
    let counters = world.counters();
    assert_eq!(counters.deliveries_written, 1);
    assert_eq!(counters.dropped(DropReason::SessionGone), 2);
    assert_eq!(
        counters.publishes_unmatched, 1,
        "it was gone for what came behind"
    );
}

#[test]
fn c10_what_is_more_than_a_leaver_may_be_owed_is_dropped_because_it_left() {
    let mut world = World::new(&["listener.outbound_max=64KiB"]);
    let leaver = world.connected(wire::subscribe(&["a"]));
    let publisher = world.connected([]);
    world.receive(publisher, wire::publish("a", [0; 200]).repeat(1000));
    world.eof(leaver);
    world.turn_with(&mut |_, _| SendOutcome::Short(0));
    assert_eq!(world.ended[&leaver], CloseReason::Eof);
    let counters = world.counters();
    assert_eq!(counters.dropped(DropReason::SessionGone), 1000);
    assert_eq!(counters.dropped(DropReason::SlowClose), 0);
}

fn await_resets(broker: &TestBroker, count: u64) {
    broker.await_counters("all are reset", |counters| {
        counters.closed(CloseReason::Reset) == count
    });
    assert_eq!(
        broker.counters().sessions_closed.total(),
        count,
        "and nothing else"
    );
}

#[test]
fn c11_a_reset_releases_session_topic_and_descriptor() {
    let broker = start(&[]);
    // As soon as the connection stands, after CONNECT, and in the middle of a frame.
    let subscribe = wire::subscribe(&["one", "two"]);
    let scripts = [
        &[][..],
        &wire::CONNECT,
        &[&wire::CONNECT[..], &subscribe, &[5, 9]].concat(),
    ];
    for _ in 0..1000 {
        for script in scripts {
            let mut peer = broker.open();
            peer.send(script);
            peer.reset();
        }
    }
    await_resets(&broker, 3000);
    assert_eq!(broker.subscribers("one"), 0);
    wait_until("only the canary's are left", || broker.connections() == 2);
    broker.finish();
}

#[test]
fn c11_a_thousand_clients_that_subscribe_and_reset_at_once_leave_nothing() {
    let broker = start(&[]);
    let peers: Vec<_> = (0..1000)
        .map(|number| {
            let mut peer = broker.connect();
            peer.subscribe(&["shared", &format!("own/{number}")]);
            peer
        })
        .collect();
    broker.await_counters("all are subscribed", |counters| {
        counters.subscriptions == 2001
    });
    wait_until("the table shows them all", || broker.connections() == 1002);
    peers.into_iter().for_each(Peer::reset);
    await_resets(&broker, 1000);
    wait_until("only the canary's are left", || broker.connections() == 2);
    let counters = broker.finish();
    assert_eq!(counters.sessions_opened, 1002);
}

#[test]
fn c11_a_reset_with_frames_queued_drops_and_counts_them() {
    let broker = start(&["listener.sndbuf=4KiB"]);
    let mut healthy = broker.subscriber(&["a"]);
    let mut publisher = broker.connect();
    let frames = wire::publish("a", [7; 253]).repeat(1000);
    for round in 1..=10 {
        let stuck = broker.subscriber(&["a"]);
        stuck.shrink_window();
        while broker.counters().deliveries_owed == 0 {
            publisher.send(&frames);
            healthy.expect(&frames);
        }
        stuck.reset();
        await_resets(&broker, round);
    }
    let counters = broker.counters();
    assert!(counters.dropped(DropReason::SessionGone) >= 10);
    assert_eq!(
        counters.deliveries_dropped.total(),
        counters.dropped(DropReason::SessionGone)
    );
    drop((healthy, publisher));
    broker.finish();
}
