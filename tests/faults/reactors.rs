//! Several reactors: what one of them reads reaches the subscribers of all, in order, and nothing
//! is lost between them.

use std::thread;

use hvlp::Broker;
use hvlp::handler::{SessionHandler, SessionView, Verdict};
use hvlp::packet::id;

use crate::support::{Peer, engine, start, wait_until, wire};

#[test]
fn f4_a_subscription_that_was_processed_is_seen_by_every_later_publish_on_any_reactor() {
    let broker = start(&["reactors=3"]);
    let mut publishers: Vec<_> = (0..3).map(|_| broker.connect()).collect();
    for round in 0..200 {
        // The topic is born, retired and born again; what reactors remember of it goes stale.
        let topic = format!("t{}", round % 7);
        for publisher in &mut publishers {
            publisher.publish(&topic, b"to nobody");
        }
        let mut subscribers: Vec<_> = (0..3).map(|_| broker.subscriber(&[&topic])).collect();
        for (number, publisher) in publishers.iter_mut().enumerate() {
            publisher.publish(&topic, format!("{round}.{number}"));
        }
        for subscriber in &mut subscribers {
            let mut frames: Vec<_> = (0..3).map(|_| subscriber.next_frame().unwrap()).collect();
            frames.retain(|frame| !frame.ends_with(b"nobody"));
            while frames.len() < 3 {
                let frame = subscriber.next_frame().unwrap();
                frames.extend((!frame.ends_with(b"nobody")).then_some(frame));
            }
            frames.sort();
            let published = |number| wire::publish(&topic, format!("{round}.{number}"));
            assert_eq!(frames, [published(0), published(1), published(2)]);
        }
        drop(subscribers);
        wait_until("nobody is left", || broker.subscribers(&topic) == 0);
    }
    drop(publishers);
    broker.finish();
}

#[test]
fn order_from_each_publisher_to_each_subscriber_holds_across_topics_and_reactors() {
    let broker = start(&["reactors=4"]);
    let mut subscribers: Vec<_> = (0..8)
        .map(|_| broker.subscriber(&["a", "b", "c"]))
        .collect();
    let senders: Vec<_> = (0..4_u8)
        .map(|sender| {
            let mut peer = broker.connect();
            thread::spawn(move || {
                for number in 0..3000_u32 {
                    let data = [&[sender][..], &number.to_be_bytes()].concat();
                    peer.publish(["a", "b", "c"][number as usize % 3], data);
                }
                peer
            })
        })
        .collect();
    for subscriber in &mut subscribers {
        let mut next = [0_u32; 4];
        for _ in 0..4 * 3000 {
            let frame = subscriber.next_frame().unwrap();
            let [sender, number @ ..] = &frame[4..] else {
                panic!("{frame:?}")
            };
            let expected = &mut next[usize::from(*sender)];
            assert_eq!(number, expected.to_be_bytes());
            *expected += 1;
        }
    }
    drop(
        senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .collect::<Vec<_>>(),
    );
    drop(subscribers);
    broker.finish();
}

#[test]
fn f6_full_rings_hold_up_their_publishers_and_lose_nothing() {
    // Each reactor floods the other: rings and spills fill, and both go on emptying their inboxes.
    let broker = start(&["reactors=2", "limits.mesh_spill_max=64KiB"]);
    let pairs: Vec<_> = (0..4)
        .map(|n| {
            let (own, other) = (format!("t{n}"), format!("t{}", n ^ 1));
            let subscriber = broker.subscriber(&[&own]);
            (subscriber, broker.connect(), other)
        })
        .collect();
    let count = 100_000;
    let flows: Vec<_> = pairs
        .into_iter()
        .map(|(mut subscriber, mut publisher, other)| {
            let sender = thread::spawn(move || {
                publisher.send(wire::numbered(&other, count));
                publisher
            });
            let reader = thread::spawn(move || {
                let frames = (0..count)
                    .map(|_| subscriber.next_frame().unwrap().len())
                    .count();
                (subscriber, frames)
            });
            (sender, reader)
        })
        .collect();
    for (sender, reader) in flows {
        let (subscriber, frames) = reader.join().unwrap();
        assert_eq!(frames, count as usize);
        drop((subscriber, sender.join().unwrap()));
    }
    broker.finish();
}

#[test]
fn g1_a_stop_delivers_what_any_reactor_has_accepted() {
    for _ in 0..10 {
        let broker = start(&["reactors=3"]);
        let mut subscribers: Vec<_> = (0..3).map(|_| broker.subscriber(&["y"])).collect();
        let mut publisher = broker.connect();
        publisher.send(wire::numbered("y", 20_000));
        broker.await_counters("some are accepted", |counters| {
            counters.accepted(id::PUBLISH) > 1000
        });
        let readers: Vec<_> = subscribers
            .drain(..)
            .map(|mut subscriber| thread::spawn(move || subscriber.read_to_end().0))
            .collect();
        let before_canaries_left = broker.counters().accepted(id::PUBLISH);
        let counters = broker.stop();
        assert!(counters.accepted(id::PUBLISH) >= before_canaries_left);
        assert_eq!(counters.deliveries_dropped.total(), 0);
        let streams: Vec<_> = readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect();
        assert!(wire::numbered("y", 20_000).starts_with(&streams[0]));
        assert!(streams.iter().all(|stream| *stream == streams[0]));
        drop(publisher);
    }
}

/// Panics at a message on `panic`.
#[derive(Clone)]
struct Fragile;

impl SessionHandler for Fragile {
    fn on_publish(&mut self, _: SessionView, topic: &str, _: &[u8]) -> Verdict {
        assert_ne!(topic, "panic", "a hook has failed");
        Verdict::Allow
    }
}

#[test]
fn f9_f11_a_hook_that_panics_ends_the_broker_with_its_reason() {
    let builder = Broker::builder()
        .handler(Fragile)
        .set("reactors=3")
        .unwrap();
    let builder = engine::chosen(builder.listen("127.0.0.1:0").unwrap());
    let broker = builder.spawn().unwrap();
    let mut peers: Vec<_> = (0..6).map(|_| Peer::connect(broker.local_addr())).collect();
    wait_until("all are there", || broker.counters().sessions.total() == 6);
    peers[4].publish("panic", b"");
    wait_until("it has ended", || !broker.is_alive());
    let error = broker.join().unwrap_err().to_string();
    assert!(
        error.contains("panicked") && error.contains("a hook has failed"),
        "{error}"
    );
    for peer in &mut peers {
        peer.expect_end();
    }
}

#[test]
fn sessions_are_spread_and_each_number_of_reactors_serves() {
    for reactors in [1, 2, 63] {
        let broker = start(&[&format!("reactors={reactors}")]);
        let mut subscribers: Vec<_> = (0..10).map(|_| broker.subscriber(&["a"])).collect();
        let mut publisher = broker.connect();
        publisher.publish("a", b"x");
        for subscriber in &mut subscribers {
            subscriber.expect(wire::publish("a", b"x"));
        }
        drop((subscribers, publisher));
        broker.finish();
    }
    let refused = Broker::builder()
        .set("reactors=64")
        .unwrap_err()
        .to_string();
    assert!(refused.contains("from 1 to 63"), "{refused}");
}

#[test]
fn e5_publishing_to_topics_that_nobody_holds_keeps_nothing() {
    let broker = start(&["reactors=2"]);
    let mut publisher = broker.connect();
    for number in 0..50_000_u32 {
        publisher.publish(&format!("nobody/{number}"), b"");
    }
    broker.await_counters("all are read", |counters| {
        counters.publishes_unmatched >= 50_000
    });
    // The canaries' topics, and no other.
    assert!(broker.counters().topics <= 2);
    drop(publisher);
    broker.finish();
}
