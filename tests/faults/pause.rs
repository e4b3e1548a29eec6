//! `pause`: a subscriber that does not keep up holds whoever publishes to it, and nothing is lost.

use std::io::ErrorKind;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hvlp::handler::Open;
use hvlp::packet::id;
use hvlp::session::{CloseReason, SessionKey};
use hvlp::shard::SendOutcome;

use crate::support::memory::World;
use crate::support::{End, Peer, TestBroker, start, wire};

/// Enough for what is read before publishers are held: a megabyte a turn of each reactor.
const SETTINGS: [&str; 3] = [
    "listener.slow_consumer=pause",
    "listener.outbound_max=4MiB",
    "listener.sndbuf=4KiB",
];
const REACTORS: [&str; 2] = ["reactors=1", "reactors=3"];
/// Some ten megabytes: more than the bound from each publisher.
const MESSAGES: u32 = 40_000;

fn broker(reactors: &str, more: &[&str]) -> TestBroker {
    start(&[&SETTINGS, &[reactors][..], more].concat())
}

/// A subscriber that does not read, known to be subscribed.
fn stopped(broker: &TestBroker, topic: &str) -> Peer {
    let before = broker.subscribers(topic);
    let mut peer = Peer::connect_narrow(broker.address());
    peer.subscribe(&[topic]);
    crate::support::wait_until("it is subscribed", || broker.subscribers(topic) > before);
    peer
}

fn messages(topic: &str) -> Vec<u8> {
    let message = |n: u32| wire::publish(topic, [&n.to_be_bytes()[..], &[0; 244]].concat());
    (0..MESSAGES).flat_map(message).collect()
}

/// Publishes everything, however long the broker takes it.
fn publish(mut peer: Peer, topic: &str) -> JoinHandle<Peer> {
    let frames = messages(topic);
    thread::spawn(move || {
        peer.send(frames);
        peer
    })
}

fn await_paused(broker: &TestBroker, publishers: u64) {
    broker.await_counters("its publishers are held", |counters| {
        counters.publishers_paused == publishers
    });
}

#[test]
fn i6_i8_publishers_of_a_stopped_reader_are_held_and_nobody_loses_anything() {
    for reactors in REACTORS {
        let broker = broker(reactors, &[]);
        let mut slow = stopped(&broker, "slow");
        let mut beside = broker.subscriber(&["slow"]);
        let publishers: Vec<_> = (0..2).map(|_| publish(broker.connect(), "slow")).collect();
        // A second subscriber of the topic waits with them; it reads all the time.
        let reader = thread::spawn(move || {
            let frames = (0..2 * MESSAGES).map(|_| beside.next_frame().unwrap());
            (frames.map(|frame| frame.len()).sum::<usize>(), beside)
        });
        await_paused(&broker, 2);
        let counters = broker.counters();
        assert!(
            counters.accepted(id::PUBLISH) < u64::from(2 * MESSAGES),
            "they are not read"
        );

        // Others are as quick as ever.
        let mut other = broker.subscriber(&["other"]);
        let mut quick = broker.connect();
        for frames in messages("other").chunks(400 * 256) {
            quick.send(frames);
            other.expect(frames);
        }

        let len = messages("slow").len();
        let mut next = [0_u32; 2];
        for _ in 0..2 * MESSAGES {
            let frame = slow.next_frame().unwrap();
            let number = u32::from_be_bytes(frame[7..11].try_into().unwrap());
            let whose = next.iter().position(|expected| *expected == number);
            next[whose.expect("each publisher's are in order")] += 1;
        }
        assert_eq!(next, [MESSAGES; 2]);
        let (beside_len, beside) = reader.join().unwrap();
        assert_eq!(beside_len, 2 * len);
        let publishers: Vec<_> = publishers.into_iter().map(|p| p.join().unwrap()).collect();
        await_paused(&broker, 0);
        drop((slow, beside, other, quick, publishers));
        let counters = broker.finish();
        assert!(counters.pauses > 0);
        assert_eq!(counters.deliveries_dropped.total(), 0);
    }
}

#[test]
fn i7_two_who_publish_to_each_other_and_do_not_read_end_after_pause_max() {
    for reactors in REACTORS {
        let broker = broker(reactors, &["listener.pause_max=500ms"]);
        let pair = [stopped(&broker, "a"), stopped(&broker, "b")];
        let pair: Vec<_> = ["b", "a"]
            .into_iter()
            .zip(pair)
            .map(|(topic, mut peer)| {
                let frames = messages(topic);
                thread::spawn(move || {
                    // As much as it takes: in the end the broker resets the connection.
                    while peer.try_send(&frames) {}
                    peer
                })
            })
            .collect();
        broker.await_counters("both are closed", |counters| {
            counters.closed(CloseReason::SlowConsumerPaused)
                + counters.closed(CloseReason::SlowConsumerBytes)
                == 2
        });
        assert!(broker.counters().closed(CloseReason::SlowConsumerPaused) > 0);
        pair.into_iter().for_each(|peer| drop(peer.join().unwrap()));
        broker.finish();
    }
}

#[test]
fn i9_a_held_publisher_that_resets_ends_at_once_and_one_that_ends_is_executed_first() {
    for reactors in REACTORS {
        let broker = broker(reactors, &[]);
        let mut slow = stopped(&broker, "slow");
        let [resetting, ending] = ["slow", "slow"].map(|topic| publish(broker.connect(), topic));
        await_paused(&broker, 2);
        let reset = |peer: JoinHandle<Peer>| peer.join().unwrap().reset();
        if resetting.is_finished() {
            reset(resetting);
            broker.await_counters("a reset is noticed", |counters| {
                counters.closed(CloseReason::Reset) == 1
            });
        } else {
            // What its kernel does not take it cannot reset behind.
            thread::spawn(move || reset(resetting));
        }
        let mut got = 0;
        let ended = thread::spawn(move || ending.join().unwrap().half_close());
        while broker.counters().closed(CloseReason::Eof) == 0 || got < MESSAGES {
            slow.next_frame().unwrap();
            got += 1;
        }
        ended.join().unwrap();
        drop(slow);
        let counters = broker.finish();
        assert!(
            counters.accepted(id::PUBLISH) >= u64::from(MESSAGES),
            "all of the second one's"
        );
    }
}

/// A subscriber and a publisher in memory, and what the one sends of which the other takes nothing.
fn pair() -> (World<Open>, [SessionKey; 2], Vec<u8>) {
    let mut world = World::new(&[
        "listener.slow_consumer=pause",
        "listener.outbound_max=64KiB",
    ]);
    let slow = world.connected(wire::subscribe(&["a"]));
    let publisher = world.connected([]);
    let frames = wire::publish("a", [7; 250]).repeat(100);
    (world, [slow, publisher], frames)
}

#[test]
fn i9_a_held_publisher_is_not_late_with_its_frame() {
    let (mut world, [slow, publisher], frames) = pair();
    let mut rounds = 0;
    while world.shard.wants_input(publisher) {
        world.receive_with(publisher, [&frames[..], &[5, 200]].concat(), &mut |_, _| {
            SendOutcome::Short(0)
        });
        world.turn_with(&mut |_, _| SendOutcome::Short(0));
        rounds += 1;
        if world.shard.wants_input(publisher) {
            world.receive(publisher, [0; 200]);
        }
    }
    assert!(rounds > 2, "it was held only when the bound was reached");
    world.now = world.now + Duration::from_secs(29);
    world.turn_with(&mut |_, _| SendOutcome::Short(0));
    assert!(
        world.ended.is_empty(),
        "neither is closed: {:?}",
        world.ended
    );
    // The reader goes on; from then on the frame has its time again.
    world.shard.writable(slow);
    world.turn();
    world.pass(Duration::from_secs(9));
    assert!(world.ended.is_empty() && world.shard.wants_input(publisher));
    world.pass(Duration::from_secs(2));
    assert_eq!(
        world.ended.get(&publisher),
        Some(&CloseReason::FrameTimeout)
    );
    assert_eq!(world.ended.get(&slow), None);
}

#[test]
fn i10_a_reader_whose_socket_has_failed_holds_nobody_while_its_input_is_read() {
    let (mut world, [slow, publisher], frames) = pair();
    while world.shard.wants_input(publisher) {
        world.receive_with(publisher, &frames[..], &mut |_, _| SendOutcome::Short(0));
        world.turn_with(&mut |_, _| SendOutcome::Short(0));
    }
    world.shard.writable(slow);
    world.turn_with(&mut |_, _| SendOutcome::Failed(ErrorKind::ConnectionReset));
    assert!(world.shard.is_broken(slow), "it is read to its end");
    assert!(world.shard.wants_input(publisher));
    world.pass(Duration::from_secs(31));
    assert_eq!(world.ended.get(&slow), None, "it is not slow any more");
}

#[test]
fn i10_publishers_go_on_exactly_once_when_the_one_they_wait_for_goes() {
    for reactors in REACTORS {
        let broker = broker(reactors, &[]);
        for leaves in [Peer::reset as fn(Peer), drop, |mut peer: Peer| {
            peer.send(wire::DISCONNECT);
            let (_, end) = peer.read_to_end();
            assert!(matches!(end, End::Eof | End::Reset));
        }] {
            let slow = stopped(&broker, "slow");
            let mut other = broker.subscriber(&["other"]);
            let publishers: Vec<_> = (0..3).map(|_| publish(broker.connect(), "slow")).collect();
            await_paused(&broker, 3);
            leaves(slow);
            await_paused(&broker, 0);
            for publisher in publishers {
                let mut publisher = publisher.join().unwrap();
                publisher.publish("other", "on");
                other.expect(wire::publish("other", "on"));
            }
        }
        broker.finish();
    }
}

#[test]
fn a_stop_executes_what_a_held_publisher_has_sent() {
    let broker = broker("reactors=2", &["drain_timeout=200ms"]);
    let slow = stopped(&broker, "slow");
    let publisher = publish(broker.connect(), "slow");
    await_paused(&broker, 1);
    let counters = broker.stop();
    assert_eq!(counters.deliveries_owed, 0);
    assert_eq!(counters.publishers_paused, 0);
    drop((slow, publisher));
}
