//! Section A: frames that are cut, wrong, hostile or not HVLP at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hvlp::metrics::DiscardCause;
use hvlp::packet::PacketError;
use hvlp::session::CloseReason;

use crate::support::memory::World;
use crate::support::{End, Prng, start, wire};

const LENS: [u8; 7] = [0, 1, 2, 127, 128, 254, 255];

fn cut_points(len: usize) -> impl Iterator<Item = usize> {
    [1, 2, 3, len / 2, len - 1]
        .into_iter()
        .filter(move |cut| *cut < len)
}

#[test]
fn a1_a_cut_frame_of_any_id_and_length_is_no_frame() {
    let mut world = World::new(&[]);
    let mut cuts = 0;
    for id in 0..=255 {
        for len in 0..=255 {
            let frame = wire::frame(id, &vec![0; len]);
            for cut in cut_points(frame.len()) {
                let key = world.connected(&frame[..cut]);
                world.eof(key);
                world.turn();
                assert_eq!(world.ended.remove(&key), Some(CloseReason::EofMidFrame));
                cuts += 1;
            }
        }
    }
    assert_eq!(world.counters().frames_read, cuts);
    assert_eq!(
        world.counters().accepted(1),
        cuts,
        "CONNECT, and nothing else"
    );
    assert_eq!(world.shard.session_count(), 0);
}

#[test]
fn a1_a_cut_frame_and_fin_end_the_session_and_invent_nothing() {
    let broker = start(&[]);
    let (mut cut_streams, mut whole_streams) = (0, 0);
    let mut witness = broker.subscriber(&["a"]);
    for id in [0, 1, 2, 3, 4, 5, 6, 255] {
        for len in LENS {
            let frame = wire::frame(id, &vec![1; usize::from(len)]);
            for cut in cut_points(frame.len()) {
                let mut peer = broker.connect();
                peer.send(&frame[..cut]);
                peer.half_close();
                assert_eq!(peer.expect_end(), End::Eof);
                cut_streams += 1;
            }
        }
        let mut peer = broker.connect();
        peer.half_close();
        assert_eq!(peer.expect_end(), End::Eof);
        whole_streams += 1;
    }
    let mut marker = broker.connect();
    marker.publish("a", "marker");
    witness.expect_nothing_before(wire::publish("a", "marker"));
    let counters = broker.counters();
    assert_eq!(counters.closed(CloseReason::EofMidFrame), cut_streams);
    assert_eq!(counters.closed(CloseReason::Eof), whole_streams);
    assert_eq!(counters.frames_discarded.total(), 0);
    drop((witness, marker));
    broker.finish();
}

#[test]
fn a2_a_cut_frame_and_silence_are_closed_ten_seconds_after_its_first_byte() {
    let mut world = World::new(&[]);
    for id in [0, 1, 2, 3, 4, 5, 6, 255] {
        for len in LENS {
            let frame = wire::frame(id, &vec![1; usize::from(len)]);
            for cut in cut_points(frame.len()) {
                let key = world.connected(&frame[..cut]);
                world.pass(Duration::from_micros(9_999_999));
                assert_eq!(world.ended.get(&key), None, "one microsecond is left");
                world.pass(Duration::from_micros(1));
                assert_eq!(world.ended.remove(&key), Some(CloseReason::FrameTimeout));
            }
        }
    }
}

#[test]
fn a2_a_cut_frame_and_silence_are_closed_over_a_socket() {
    let broker = start(&["listener.frame_timeout=200ms"]);
    let mut peers: Vec<_> = LENS
        .map(|len| wire::frame(5, &vec![1; usize::from(len)]))
        .iter()
        .flat_map(|frame| cut_points(frame.len()).map(|cut| frame[..cut].to_vec()))
        .map(|cut| {
            let mut peer = broker.connect();
            peer.send(cut);
            peer
        })
        .collect();
    for peer in &mut peers {
        peer.expect_end();
    }
    let closed = broker.counters().closed(CloseReason::FrameTimeout);
    assert_eq!(closed, peers.len() as u64);
    broker.finish();
}

#[test]
fn a3_every_payload_and_topic_length_is_forwarded_byte_for_byte_or_discarded() {
    let broker = start(&["limits.error_budget=65536", "listener.outbound_max=64MiB"]);
    let topics: Vec<String> = (0..=254).map(|len| "x".repeat(len)).collect();
    let mut subscriber = broker.connect();
    for topic in &topics {
        subscriber.send(wire::subscribe(&[topic]));
    }
    broker.await_counters("all topics are held", |counters| {
        counters.subscriptions == 256
    });

    let mut publisher = broker.connect();
    let (mut forwarded, mut discarded) = (Vec::new(), 0);
    let mut sent = Vec::new();
    for payload_len in 0..=255 {
        for topic_len in 0..=255_u8 {
            let mut payload = vec![b'x'; payload_len];
            if let Some(first) = payload.first_mut() {
                *first = topic_len;
            }
            if payload_len > usize::from(topic_len) {
                // Data that tells one frame from the other.
                payload[1 + usize::from(topic_len)..].fill(topic_len ^ payload_len as u8);
                forwarded.extend(wire::frame(5, &payload));
            } else {
                discarded += 1;
            }
            sent.extend(wire::frame(5, &payload));
        }
    }
    let writer = thread::spawn(move || {
        publisher.send(sent);
        publisher
    });
    subscriber.expect(&forwarded);
    let publisher = writer.join().unwrap();
    broker.await_counters("all are read", |counters| {
        counters.frames_discarded.total() == discarded
    });
    let counters = broker.counters();
    let cause = |error: PacketError| counters.discarded(error.into());
    assert_eq!(cause(PacketError::EmptyPublish), 256);
    assert_eq!(cause(PacketError::TopicOverrun), discarded - 256);
    drop((subscriber, publisher));
    broker.finish();
}

#[test]
fn a5_a_list_with_one_bad_entry_changes_nothing() {
    let broker = start(&[]);
    let mut subscriber = broker.subscriber(&["held"]);
    let mut bad = 0;
    let list = |id, entries: &[&[u8]]| {
        let payload: Vec<_> = entries
            .iter()
            .flat_map(|entry| [&[entry.len() as u8], *entry].concat())
            .collect();
        wire::frame(id, &payload)
    };
    for (id, first) in [(3, "new"), (4, "held")] {
        // The last entry cut by 1 to n bytes.
        let whole = list(id, &[first.as_bytes(), b"last"]);
        for cut in 1..=4 {
            let mut frame = whole[..whole.len() - cut].to_vec();
            frame[1] -= cut as u8;
            subscriber.send(frame);
            bad += 1;
        }
        subscriber.send(list(id, &[first.as_bytes(), b"\xC0\x80", b"third"]));
        bad += 1;
    }
    broker.await_counters("all are discarded", |counters| {
        counters.frames_discarded.total() == bad
    });
    assert_eq!(broker.subscribers("new"), 0);
    assert_eq!(broker.subscribers("third"), 0);
    assert_eq!(broker.subscribers("held"), 1);
    let mut publisher = broker.connect();
    for topic in ["new", "last", "third", "held"] {
        publisher.publish(topic, "x");
    }
    subscriber.expect_nothing_before(wire::publish("held", "x"));
    drop((subscriber, publisher));
    broker.finish();
}

/// Topics that are not UTF-8.
fn invalid_topics() -> Vec<Vec<u8>> {
    let mut topics: Vec<Vec<u8>> = [
        &b"\xC0\x80"[..],
        b"\xED\xA0\x80",
        b"\xF4\x90\x80\x80",
        b"ok\xE2\x82",
        b"\xF0\x9F\x98",
        b"a\xFFb",
    ]
    .map(<[u8]>::to_vec)
    .into();
    topics.extend((0x80..=0xFF).map(|byte| vec![byte]));
    topics
}

#[test]
fn a7_topics_that_are_not_utf8_are_discarded_and_never_forwarded() {
    let broker = start(&["limits.error_budget=65536"]);
    let mut subscriber = broker.subscriber(&["a", "ok"]);
    let mut publisher = broker.connect();
    let mut bad = 0;
    for topic in invalid_topics() {
        publisher.send(wire::publish(&topic, "x"));
        publisher.send(wire::subscribe(&[&topic]));
        publisher.send(wire::unsubscribe(&[&topic]));
        // A run of a good topic does not carry the bad one along.
        publisher.send(wire::publish("a", &topic));
        subscriber.expect(wire::publish("a", &topic));
        bad += 3;
    }
    let valid: Vec<u8> = (0..0x80).collect();
    for byte in &valid {
        publisher.send(wire::subscribe(&[[*byte]]));
    }
    broker.await_counters("ASCII is accepted", |counters| {
        counters.topics == 3 - 1 + valid.len() as u64
    });
    let cause = DiscardCause::TopicNotUtf8;
    assert_eq!(broker.counters().discarded(cause), bad);
    drop((subscriber, publisher));
    broker.finish();
}

#[test]
fn a12_sixty_three_discards_keep_the_session_and_one_more_ends_it() {
    for id in [0, 6, 7, 128, 255] {
        let mut world = World::new(&[]);
        let frames = |count| wire::frame(id, &[0xEE; 9]).repeat(count);
        let patient = world.connected(frames(63));
        world.pass(Duration::from_secs(10));
        world.receive(patient, frames(63));
        world.turn();
        assert_eq!(world.ended.get(&patient), None, "the window has slid on");
        world.receive(patient, frames(1));
        world.turn();
        let reason = CloseReason::ProtocolErrorBudget;
        assert_eq!(world.ended.get(&patient), Some(&reason));
        assert_eq!(world.counters().discarded(DiscardCause::UnknownId), 127);

        // A window that slides has no border to sit on: 32, then 32 shortly before they age out.
        let edge = world.connected(frames(32));
        world.pass(Duration::from_micros(9_999_999));
        world.receive(edge, frames(32));
        world.turn();
        assert_eq!(world.ended.get(&edge), Some(&reason));
    }
}

#[test]
fn a12_unknown_ids_of_every_length_are_discarded_within_the_budget() {
    let broker = start(&["limits.error_budget=65536"]);
    let mut subscriber = broker.subscriber(&["a"]);
    let mut peer = broker.connect();
    let ids = || std::iter::once(0).chain(6..=255_u8);
    let mut sent = 0;
    for len in [0, 1, 2, 254, 255] {
        for id in ids() {
            peer.send(wire::frame(id, &vec![5; len]));
            sent += 1;
        }
    }
    peer.publish("a", "served");
    subscriber.expect_nothing_before(wire::publish("a", "served"));
    assert_eq!(broker.counters().discarded(DiscardCause::UnknownId), sent);
    drop((subscriber, peer));
    broker.finish();
}

#[test]
fn a12_a_million_unknown_frames_end_the_session_at_the_sixty_fourth() {
    let broker = start(&[]);
    let mut peer = broker.connect();
    let frames = wire::frame(9, &[]).repeat(10_000);
    for _ in 0..100 {
        if !peer.try_send(&frames) {
            break;
        }
    }
    assert_eq!(peer.read_to_end().0, b"");
    let counters = broker.counters();
    assert_eq!(counters.discarded(DiscardCause::UnknownId), 64);
    assert_eq!(counters.closed(CloseReason::ProtocolErrorBudget), 1);
    drop(peer);
    broker.finish();
}

#[test]
fn a13_bytes_behind_a_frame_begin_the_next_one() {
    let broker = start(&["listener.frame_timeout=200ms"]);
    let mut subscriber = broker.subscriber(&["a"]);
    for (trailing, reason) in [
        (&b"\x05"[..], CloseReason::EofMidFrame),
        (b"\x05\x04\x01a", CloseReason::EofMidFrame),
    ] {
        let mut peer = broker.connect();
        peer.send([wire::publish("a", "1"), trailing.to_vec()].concat());
        subscriber.expect(wire::publish("a", "1"));
        peer.half_close();
        peer.expect_end();
        assert!(broker.counters().closed(reason) > 0);
    }
    let mut peer = broker.connect();
    peer.send([wire::publish("a", "2"), vec![3]].concat());
    subscriber.expect(wire::publish("a", "2"));
    peer.expect_end();
    let counters = broker.counters();
    assert_eq!(counters.closed(CloseReason::FrameTimeout), 1);
    assert_eq!(counters.closed(CloseReason::EofMidFrame), 2);
    drop((subscriber, peer));
    broker.finish();
}

#[test]
fn a14_ten_million_random_bytes_on_fifty_connections_hurt_nobody_else() {
    let broker = start(&["listener.frame_timeout=1s"]);
    let enough = AtomicBool::new(false);
    let address = broker.address();
    thread::scope(|scope| {
        for seed in 0..50 {
            let enough = &enough;
            scope.spawn(move || {
                let mut prng = Prng::new(seed);
                let mut bytes = [0; 4096];
                while !enough.load(Ordering::Relaxed) {
                    let mut peer = crate::support::Peer::open(address);
                    if prng.below(2) == 0 {
                        peer.try_send(wire::CONNECT);
                    }
                    prng.fill(&mut bytes);
                    while peer.try_send(bytes) && !enough.load(Ordering::Relaxed) {
                        prng.fill(&mut bytes);
                    }
                }
            });
        }
        let is_enough = || broker.counters().bytes_in >= 10_000_000;
        let deadline = std::time::Instant::now() + 2 * crate::support::DEADLINE;
        while !is_enough() && std::time::Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        enough.store(true, Ordering::Relaxed);
        assert!(is_enough(), "ten million bytes were read");
    });
    let counters = broker.finish();
    assert!(counters.closed(CloseReason::ProtocolErrorBudget) > 50);
}

/// What other protocols say first.
pub(crate) const FOREIGN: [(&str, &[u8]); 5] = [
    (
        "HTTP",
        b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n",
    ),
    (
        "TLS",
        b"\x16\x03\x01\x00\xC8\x01\x00\x00\xC4\x03\x03\x11\x22\x33\x44\x55\x66\x77",
    ),
    ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n"),
    ("MQTT", b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3C\x00\x04test"),
    ("NATS or Redis", b"PING\r\n"),
];

#[test]
fn a15_other_protocols_are_closed_by_a_deadline() {
    let broker = start(&[
        "listener.frame_timeout=200ms",
        "listener.connect_timeout=400ms",
    ]);
    let mut peers: Vec<_> = FOREIGN
        .iter()
        .map(|(_, hello)| {
            let mut peer = broker.open();
            peer.send(hello);
            peer
        })
        .collect();
    for peer in &mut peers {
        peer.expect_end();
    }
    let counters = broker.counters();
    let timeouts =
        counters.closed(CloseReason::FrameTimeout) + counters.closed(CloseReason::ConnectTimeout);
    assert_eq!(timeouts, FOREIGN.len() as u64);
    assert_eq!(counters.subscriptions, 1, "the canary's");
    broker.finish();
}
