//! Section A: frames that are unusual but right, in every shape that a stream can have.

use crate::support::memory::World;
use crate::support::{start, wait_until, wire};

#[test]
fn a4_the_largest_the_emptiest_and_the_most_repetitive_lists_are_served() {
    let broker = start(&[]);
    let many: Vec<Vec<u8>> = (0..127).map(|byte| vec![byte]).collect();
    let long = "l".repeat(254);
    let mut peer = broker.connect();
    peer.send(wire::subscribe(&many));
    peer.send(wire::frame(3, &[0; 255]));
    peer.send(wire::subscribe(&[&long]));
    peer.send(wire::subscribe::<&str>(&[]));
    peer.send(wire::unsubscribe::<&str>(&[]));
    broker.await_counters("all are held", |counters| {
        counters.subscriptions == 127 + 1 + 1 + 1
    });
    assert_eq!(broker.counters().frames_discarded.total(), 0);
    let mut publisher = broker.connect();
    for topic in [&b""[..], &[126], long.as_bytes()] {
        publisher.send(wire::publish(topic, ""));
        peer.expect(wire::publish(topic, ""));
    }
    drop((peer, publisher));
    broker.finish();
}

#[test]
fn a6_a_topic_subscribed_three_times_is_delivered_once_and_removed_at_once() {
    let broker = start(&[]);
    let mut peer = broker.subscriber(&["t", "t", "marker"]);
    peer.subscribe(&["t"]);
    let mut publisher = broker.connect();
    // What the peer publishes comes behind its second SUBSCRIBE.
    let mut witness = broker.subscriber(&["seen"]);
    peer.publish("seen", "");
    witness.expect(wire::publish("seen", ""));
    publisher.publish("t", "1");
    publisher.publish("marker", "1");
    peer.expect_nothing_before([wire::publish("t", "1"), wire::publish("marker", "1")].concat());

    peer.send(wire::unsubscribe(&["t"]));
    wait_until("the topic is given up", || broker.subscribers("t") == 0);
    publisher.publish("t", "2");
    publisher.publish("marker", "2");
    peer.expect_nothing_before(wire::publish("marker", "2"));
    drop((peer, publisher, witness));
    broker.finish();
}

#[test]
fn a8_nasty_but_valid_topics_are_delivered_byte_for_byte() {
    let topics = [
        "nul\0nul",
        "line\nline",
        "\u{1B}[31mred",
        "\u{202E}right to left",
        "\u{FEFF}bom",
        "e\u{301}",
        "\u{10FFFF}",
        &"\u{1F600}".repeat(63),
    ];
    let broker = start(&[]);
    let mut subscriber = broker.subscriber(&topics[..7]);
    subscriber.send(wire::subscribe(&topics[7..]));
    wait_until("the longest is held", || broker.subscribers(topics[7]) == 1);
    let mut publisher = broker.connect();
    for topic in topics {
        publisher.publish(topic, [0, 0xFF]);
        subscriber.expect(wire::publish(topic, [0, 0xFF]));
    }
    drop((subscriber, publisher));
    broker.finish();
}

#[test]
fn a9_topics_that_only_look_the_same_are_different() {
    let broker = start(&[]);
    let (composed, decomposed) = ("caf\u{E9}", "cafe\u{301}");
    let mut one = broker.subscriber(&[composed, "end"]);
    let mut other = broker.subscriber(&[decomposed, "end"]);
    let mut publisher = broker.connect();
    publisher.publish(composed, "1");
    publisher.publish(decomposed, "2");
    publisher.publish("end", "");
    let end = wire::publish("end", "");
    one.expect_nothing_before([wire::publish(composed, "1"), end.clone()].concat());
    other.expect_nothing_before([wire::publish(decomposed, "2"), end].concat());
    drop((one, other, publisher));
    broker.finish();
}

#[test]
fn a10_payloads_of_connect_and_disconnect_are_ignored() {
    let broker = start(&[]);
    let mut subscriber = broker.subscriber(&["a"]);
    for payload in [
        vec![0xAB; 255],
        b"s3cret".to_vec(),
        vec![0; 1],
        wire::CONNECT.to_vec(),
    ] {
        let mut peer = broker.open();
        peer.send(wire::frame(1, &payload));
        peer.publish("a", &payload[..1]);
        subscriber.expect(wire::publish("a", &payload[..1]));
        peer.send(wire::frame(2, &payload));
        peer.expect_end();
    }
    assert_eq!(broker.counters().accepted(2), 4);
    assert_eq!(broker.counters().frames_discarded.total(), 0);
    drop(subscriber);
    broker.finish();
}

#[test]
fn a11_unsubscribing_from_what_is_not_held_changes_nothing_for_others() {
    let broker = start(&[]);
    let mut holder = broker.subscriber(&["theirs"]);
    let mut peer = broker.subscriber(&["mine"]);
    let mut witness = broker.subscriber(&["seen"]);
    peer.send(wire::unsubscribe(&["nobody's", "theirs"]));
    peer.publish("seen", "");
    witness.expect(wire::publish("seen", ""));
    assert_eq!(broker.counters().frames_discarded.total(), 0);
    let mut publisher = broker.connect();
    publisher.publish("theirs", "1");
    publisher.publish("mine", "2");
    holder.expect(wire::publish("theirs", "1"));
    peer.expect_nothing_before(wire::publish("mine", "2"));
    drop((holder, peer, witness, publisher));
    broker.finish();
}

#[test]
fn a17_urgent_bytes_stay_at_their_place_in_the_stream() {
    let broker = start(&[]);
    let mut subscriber = broker.subscriber(&["a"]);
    let frame = wire::publish("a", "0123456789");
    // The urgent byte between two frames, inside one, and last in one; more data right behind it.
    for mark in [1, 2, 3, 7, frame.len()] {
        let mut peer = broker.connect();
        for round in 0..20 {
            peer.send_urgent(&frame[..mark]);
            peer.send(&frame[mark..]);
            peer.publish("a", [round]);
            subscriber.expect(&frame);
            subscriber.expect(wire::publish("a", [round]));
        }
    }
    drop(subscriber);
    broker.finish();
}

#[test]
fn a18_a_longest_frame_arrives_whole_however_it_is_cut() {
    let broker = start(&[]);
    let mut subscriber = broker.subscriber(&["a"]);
    let data: Vec<u8> = (0..253).collect();
    let frame = wire::publish("a", &data);
    assert_eq!(frame.len(), 257);
    let mut peer = broker.connect();
    for at in [1, 2, 3, 4, 128, 255, 256] {
        peer.send(&frame[..at]);
        // A marker of another session shows that the first part was read by itself.
        let mut other = broker.connect();
        other.publish("a", "between");
        subscriber.expect(wire::publish("a", "between"));
        peer.send(&frame[at..]);
        subscriber.expect(&frame);
    }
    peer.send_bytewise(&frame);
    subscriber.expect(&frame);
    drop((subscriber, peer));
    broker.finish();
}

#[test]
fn a18_frames_at_the_edges_of_an_arena_segment_arrive_whole() {
    let mut world = World::new(&["listener.outbound_max=64MiB"]);
    let subscriber = world.connected(wire::subscribe(&["a"]));
    let publisher = world.connected([]);
    let room = world.arena.reserve(&[]).len();
    for behind_the_edge in [0, 1, 2, 3, 128, 256] {
        let mut bytes = frames_of(room + behind_the_edge);
        for byte in [0xFE, 0xFF] {
            bytes.extend(wire::publish("a", [byte]));
        }
        world.receive(publisher, &bytes);
        world.turn();
        assert!(
            world.take(subscriber) == bytes,
            "byte-exact at {behind_the_edge}"
        );
    }
    assert_eq!(world.counters().frames_discarded.total(), 0);
}

/// Frames of topic "a" that are so many bytes together.
fn frames_of(mut len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    while len > 0 {
        // The last two share what is left, so that neither is too short to be a frame.
        let next = match len {
            514.. => 257,
            258.. => len / 2,
            _ => len,
        };
        bytes.extend(wire::publish("a", vec![len as u8; next - 4]));
        len -= next;
    }
    bytes
}

#[test]
fn a18_any_split_of_a_stream_gives_the_same_frames() {
    let stream = [
        wire::numbered("one", 3),
        wire::publish("b", vec![7; 252]),
        wire::frame(200, &[1, 2, 3]),
        wire::numbered("b", 2),
    ]
    .concat();
    let mut world = World::new(&["limits.error_budget=65536"]);
    let subscriber = world.connected(wire::subscribe(&["one", "b"]));
    let unknown = wire::frame(200, &[1, 2, 3]);
    let at = stream
        .windows(5)
        .position(|window| window == unknown)
        .unwrap();
    let expected = [&stream[..at], &stream[at + 5..]].concat();
    for first in 1..stream.len() {
        let publisher = world.connected([]);
        for part in [&stream[..first], &stream[first..]] {
            world.receive(publisher, part);
            world.turn();
        }
        assert_eq!(world.take(subscriber), expected, "split at {first}");
        world.eof(publisher);
        world.turn();
    }
}
