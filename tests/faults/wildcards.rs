//! Wildcards over several reactors, beside clients that have none. What a filter matches is tested
//! with the register, and as data in `tests/vectors/session/extensions.json`.

use std::time::Duration;

use hvlp::session::CloseReason;

use crate::support::memory::World;
use crate::support::{Peer, TestBroker, start, wire};

/// A session with these extensions.
fn extended(broker: &TestBroker, want: u8) -> Peer {
    let mut peer = broker.open();
    peer.send(wire::hello(want, 0));
    peer.expect(wire::hello_answer(want, 0));
    peer
}

#[test]
fn j6_f4_what_was_acknowledged_is_heard_from_any_reactor_a_hundred_thousand_times() {
    let broker = start(&["reactors=2"]);
    // Sessions go to the reactor with the fewest: one of the two publishers is on the other one.
    let mut subscriber = extended(&broker, wire::ACK | wire::WILD);
    let mut publishers = [broker.connect(), broker.connect()];
    for round in 0..50_000_u32 {
        // Topics and filters are born, retired and born again.
        let topic = format!("t/{}", round % 5);
        let filter = match round % 3 {
            0 => "t/+",
            1 => "t/#",
            _ => &topic,
        };
        subscriber.send(wire::subscribe(&[filter]));
        subscriber.expect(wire::frame(3, &[0]));
        for publisher in &mut publishers {
            let data = round.to_be_bytes();
            publisher.publish(&topic, data);
            subscriber.expect(wire::publish(&topic, data));
        }
        subscriber.send(wire::unsubscribe(&[filter]));
        subscriber.expect(wire::frame(4, &[0]));
    }
    drop((subscriber, publishers));
    broker.finish();
}

#[test]
fn j9_filters_on_several_reactors_get_one_copy_each_and_leave_nothing_behind() {
    let broker = start(&["reactors=3"]);
    let mut subscribers: Vec<_> = (0..6)
        .map(|_| {
            let mut peer = extended(&broker, wire::ACK | wire::WILD);
            peer.send(wire::subscribe(&["a/+", "a/#", "a/b", "+/b"]));
            peer.expect(wire::frame(3, &[0; 4]));
            peer
        })
        .collect();
    let mut base = broker.subscriber(&["a/+"]);
    let mut publisher = broker.connect();
    let messages: Vec<_> = (0..1000_u32)
        .flat_map(|number| {
            let topic = ["a/b", "a/c", "a", "x"][number as usize % 4];
            wire::publish(topic, number.to_be_bytes())
        })
        .collect();
    publisher.send(&messages);
    publisher.publish("a/+", "its own name");
    let wanted: Vec<_> = (0..1000_u32)
        .filter(|number| number % 4 < 3)
        .flat_map(|number| {
            let topic = ["a/b", "a/c", "a"][number as usize % 4];
            wire::publish(topic, number.to_be_bytes())
        })
        .collect();
    let last = wire::publish("a/+", "its own name");
    for subscriber in &mut subscribers {
        subscriber.expect_nothing_before([&wanted[..], &last].concat());
    }
    base.expect_nothing_before(last);
    drop((subscribers, base, publisher));
    broker.finish();
}

#[test]
fn j9_filters_count_as_subscriptions_and_a_shape_too_many_is_refused() {
    let mut world = World::new(&[
        "limits.filter_shapes_max=2",
        "limits.subscriptions_per_session_max=4",
    ]);
    let asked = world.open();
    world.receive(asked, wire::hello(wire::ACK | wire::WILD, 0));
    let request = wire::subscribe(&["+", "#", "+/+", "a/#", "a", "b", "+"]);
    world.receive(asked, request);
    world.turn();
    let statuses = [0, 0, 3, 3, 0, 0, 0];
    let answers = [wire::hello_answer(5, 0), wire::frame(3, &statuses)];
    assert_eq!(world.take(asked), answers.concat());
    world.receive(asked, wire::subscribe(&["c"]));
    world.turn();
    assert_eq!(world.take(asked), wire::frame(3, &[3]));
    let counters = world.counters();
    assert_eq!((counters.subscriptions, counters.topics), (4, 4));
    // Without answers there is no other way to say so.
    let mute = world.open();
    world.receive(mute, wire::hello(wire::WILD, 0));
    world.receive(mute, wire::subscribe(&["+/+"]));
    world.pass(Duration::ZERO);
    assert_eq!(
        world.ended.get(&mute),
        Some(&CloseReason::LimitSubscriptions)
    );
}
