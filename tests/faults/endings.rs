//! The end of sessions and of brokers: what was sent before it counts, and nobody else pays for it.

use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hvlp::handler::{SessionHandler, SessionView, Verdict};
use hvlp::packet::id;
use hvlp::session::CloseReason;
use hvlp::shard::SendOutcome;

use crate::support::memory::{World, whole};
use crate::support::{start, start_with, wait_until, wire};

/// Keeps the reactor waiting at each message on `gate`, until the test opens it.
#[derive(Clone)]
struct Gate {
    reached: Sender<()>,
    opened: Arc<Mutex<Receiver<()>>>,
}

impl Gate {
    fn new() -> (Self, Receiver<()>, Sender<()>) {
        let ((reached, at_gate), (open, opened)) = (channel(), channel());
        (
            Self {
                reached,
                opened: Arc::new(Mutex::new(opened)),
            },
            at_gate,
            open,
        )
    }
}

impl SessionHandler for Gate {
    fn on_publish(&mut self, _: SessionView, topic: &str, _: &[u8]) -> Verdict {
        if topic == "gate" {
            self.reached.send(()).unwrap();
            self.opened.lock().unwrap().recv().unwrap();
        }
        Verdict::Allow
    }
}

#[test]
fn c12_what_was_sent_before_fin_counts_although_deliveries_to_its_sender_fail() {
    let (gate, at_gate, open) = Gate::new();
    // Little is read at once, so that deliveries fail while input is still unread.
    let broker = start_with(gate, &["limits.read_per_session=4KiB"]);
    let mut subscriber = broker.subscriber(&["y"]);
    let mut publisher = broker.subscriber(&["x"]);
    let mut other = broker.connect();
    other.publish("gate", b"");
    at_gate.recv().unwrap();
    // All of this is there before the reactor goes on.
    publisher.send(wire::numbered("y", 1000));
    drop(publisher);
    other.send(wire::publish("x", b"1").repeat(4000));
    open.send(()).unwrap();
    subscriber.expect(wire::numbered("y", 1000));
    broker.await_counters("one reason", |counters| {
        counters.closed(CloseReason::Reset) + counters.closed(CloseReason::Eof) == 1
    });
    drop((subscriber, other));
    broker.finish();
}

#[test]
fn c12_a_session_whose_socket_failed_is_read_to_its_end_and_then_has_been_reset() {
    let mut world = World::new(&[]);
    let leaving = world.connected(wire::subscribe(&["x"]));
    let other = world.connected(wire::subscribe(&["y"]));
    world.receive(other, wire::publish("x", b"1"));
    world.turn_with(&mut |key, offered| match key {
        key if key == leaving => SendOutcome::Failed(ErrorKind::ConnectionReset),
        key => whole(key, offered),
    });
    assert!(world.shard.wants_input(leaving) && world.shard.is_broken(leaving));
    world.receive(leaving, wire::publish("y", b"last words"));
    world.receive(other, wire::publish("x", b"2"));
    world.eof(leaving);
    world.turn();
    assert_eq!(world.take(other), wire::publish("y", b"last words"));
    assert_eq!(world.ended[&leaving], CloseReason::Reset);
    assert_eq!(world.lost[&leaving], 1);
}

#[test]
fn a_delay_of_our_own_is_not_charged_to_a_frame_that_was_complete_in_time() {
    let (gate, at_gate, open) = Gate::new();
    let broker = start_with(gate, &["listener.frame_timeout=50ms"]);
    let mut blocker = broker.connect();
    blocker.publish("gate", b"");
    at_gate.recv().unwrap();
    let mut slow = broker.connect();
    open.send(()).unwrap();
    let (front, back) = (&wire::subscribe(&["q"])[..1], &wire::subscribe(&["q"])[1..]);
    slow.send(front);
    blocker.publish("gate", b"");
    at_gate.recv().unwrap();
    slow.send(back);
    // The reactor stands still for longer than the frame may take.
    let (_never, wait) = channel::<()>();
    wait.recv_timeout(Duration::from_millis(200)).unwrap_err();
    open.send(()).unwrap();
    wait_until("it is subscribed", || broker.subscribers("q") == 1);
    assert_eq!(broker.counters().closed(CloseReason::FrameTimeout), 0);
    drop((blocker, slow));
    broker.finish();
}

#[test]
fn a_slow_consumer_is_told_of_with_all_that_it_lost() {
    let mut world = World::new(&["listener.outbound_max=64KiB"]);
    let slow = world.connected(wire::subscribe(&["a"]));
    let publisher = world.connected([]);
    world.receive(publisher, wire::publish("a", [0; 200]).repeat(1000));
    world.turn_with(&mut |_, _| SendOutcome::Short(0));
    assert_eq!(world.ended[&slow], CloseReason::SlowConsumerBytes);
    assert_eq!(world.lost[&slow], 1000);
    assert_eq!(world.counters().deliveries_dropped.total(), 1000);
}

#[test]
fn a_backlog_that_is_leaving_makes_room_before_others_are_evicted() {
    let mut world = World::new(&["limits.outbound_total_max=1MiB"]);
    let topics = ["large", "small", "new"];
    let readers = topics.map(|topic| world.connected(wire::subscribe(&[topic])));
    let publisher = world.connected([]);
    let mut full = |_, _| SendOutcome::Short(0);
    let owe = |world: &mut World<_>, topic: &str, frames| {
        world.receive(publisher, wire::publish(topic, [0; 200]).repeat(frames));
    };
    for (topic, frames) in [
        ("large", 1100),
        ("large", 1100),
        ("large", 1100),
        ("small", 1000),
    ] {
        owe(&mut world, topic, frames);
        world.turn_with(&mut full);
    }
    assert!(world.ended.is_empty());
    world.eof(readers[0]);
    owe(&mut world, "new", 1000);
    world.turn_with(&mut full);
    assert_eq!(
        world.ended.into_iter().collect::<Vec<_>>(),
        [(readers[0], CloseReason::Eof)]
    );
}

#[test]
fn a_broker_that_is_stopped_and_let_go_of_writes_what_it_owes() {
    // The smallest buffer that the kernel gives: most of it waits in the broker.
    let broker = start(&["listener.sndbuf=4KiB"]);
    let mut subscriber = broker.subscriber(&["y"]);
    let mut publisher = broker.connect();
    publisher.send(wire::numbered("y", 200_000));
    broker.await_counters("all is accepted", |counters| {
        counters.accepted(id::PUBLISH) >= 200_000 && counters.deliveries_owed > 0
    });
    let reader = std::thread::spawn(move || subscriber.read_to_end().0);
    broker.let_go();
    let received = reader.join().unwrap();
    assert!(
        received == wire::numbered("y", 200_000),
        "{} bytes",
        received.len()
    );
}

#[test]
fn a_peer_that_lingers_in_silence_makes_no_stop_spin() {
    let broker = start(&["drain_timeout=50ms"]);
    let mut leaving = broker.connect();
    // With unread bytes behind it, the connection is kept for a moment.
    leaving.send([&wire::DISCONNECT[..], &[0; 300_000]].concat());
    broker.await_counters("it has left", |counters| {
        counters.closed(CloseReason::ClientDisconnect) == 1
    });
    let before = broker.counters().turns;
    let turns = broker.stop().turns - before;
    assert!(turns < 10_000, "{turns} turns");
    drop(leaving);
}
