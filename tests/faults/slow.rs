//! Subscribers that do not keep up: what each policy does to them, and nothing to anybody else.

use std::time::Duration;

use hvlp::Broker;
use hvlp::config::Listen;
use hvlp::handler::Open;
use hvlp::metrics::DropReason;
use hvlp::outbound::SlowConsumer;
use hvlp::session::{CloseReason, SessionKey};
use hvlp::shard::SendOutcome;

use crate::support::memory::World;
use crate::support::{Peer, TestBroker, start, wait_until, wire};

/// Topics that are published in turn.
const TOPICS: [&str; 4] = ["a", "b", "c", "d"];

/// A message of 250 bytes on one of the topics in turn, which says its number.
fn message(number: u32) -> Vec<u8> {
    let topic = TOPICS[number as usize % TOPICS.len()];
    wire::publish(topic, [&number.to_be_bytes()[..], &[0; 243]].concat())
}

fn messages(numbers: std::ops::Range<u32>) -> Vec<u8> {
    numbers.flat_map(message).collect()
}

/// The numbers of whole messages.
fn numbers(mut bytes: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some((frame, rest)) = wire::split(bytes) {
        numbers.push(u32::from_be_bytes(frame[4..8].try_into().unwrap()));
        bytes = rest;
    }
    assert_eq!(bytes, b"", "no torn frame");
    numbers
}

/// Reads until the message `last`, and returns the numbers of all.
fn read_until(peer: &mut Peer, last: u32) -> Vec<u32> {
    let mut bytes = Vec::new();
    loop {
        let frame = peer.next_frame().unwrap();
        let is_last = numbers(&frame) == [last];
        bytes.extend(frame);
        if is_last {
            return numbers(&bytes);
        }
    }
}

/// Stalled and healthy subscribers of all topics, on a broker with this policy, and how many
/// messages were published until `done`.
struct Crowd {
    broker: TestBroker,
    stalled: Vec<Peer>,
    healthy: Vec<Peer>,
    publisher: Peer,
    published: u32,
}

impl Crowd {
    fn new(stalled: usize, healthy: usize, settings: &[&str]) -> Self {
        let small = [
            "listener.outbound_max=64KiB",
            "listener.sndbuf=4KiB",
            "listener.progress_timeout=5m",
        ];
        let broker = start(&[&small, settings].concat());
        let subscribed = |mut peer: Peer| {
            peer.subscribe(&TOPICS);
            peer
        };
        let narrow = (0..stalled).map(|_| Peer::connect_narrow(broker.address()));
        let stalled: Vec<_> = narrow.map(subscribed).collect();
        let healthy: Vec<_> = (0..healthy).map(|_| subscribed(broker.connect())).collect();
        let all = (stalled.len() + healthy.len()) as u64 * TOPICS.len() as u64;
        broker.await_counters("all are subscribed", |counters| {
            counters.subscriptions == all + 1
        });
        let publisher = broker.connect();
        Self {
            broker,
            stalled,
            healthy,
            publisher,
            published: 0,
        }
    }

    /// Publishes, and the healthy ones get everything, until the counters say so.
    fn publish_until(&mut self, is_done: impl Fn(&hvlp::metrics::Counters) -> bool) {
        while !is_done(&self.broker.counters()) {
            assert!(self.published < 1_000_000, "it never comes");
            let frames = messages(self.published..self.published + 100);
            self.publisher.send(&frames);
            for peer in &mut self.healthy {
                peer.expect(&frames);
            }
            self.published += 100;
        }
    }

    fn finish(self) {
        let Self {
            broker,
            stalled,
            healthy,
            publisher,
            ..
        } = self;
        drop((stalled, healthy, publisher));
        broker.finish();
    }
}

#[test]
fn c4_i1_stalled_subscribers_are_closed_and_their_memory_returns_at_once() {
    let mut crowd = Crowd::new(100, 3, &["listener.slow_consumer=disconnect"]);
    crowd.publish_until(|counters| counters.closed(CloseReason::SlowConsumerBytes) == 100);
    crowd
        .broker
        .await_counters("their backlogs are gone", |counters| {
            counters.dropped(DropReason::SlowClose) > 0 && counters.deliveries_owed == 0
        });
    let register = crowd.broker.handle().register();
    let sessions = register.sessions();
    assert!(sessions.iter().all(|session| session.backlog_bytes == 0));
    crowd.finish();
}

#[test]
fn i1_i2_drop_newest_keeps_the_beginning_and_goes_on_behind_the_gap() {
    let mut crowd = Crowd::new(100, 3, &["listener.slow_consumer=drop_newest"]);
    crowd.publish_until(|counters| counters.dropped(DropReason::QueueFull) > 20_000);
    let gap_ends = crowd.published;
    for mut peer in std::mem::take(&mut crowd.stalled).into_iter().take(5) {
        let before = crowd.published;
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            while got.last().is_none_or(|&last| last < gap_ends) {
                got.extend(numbers(&peer.next_frame().unwrap()));
            }
            got
        });
        while !reader.is_finished() {
            crowd
                .publisher
                .send(messages(crowd.published..crowd.published + 10));
            for healthy in &mut crowd.healthy {
                healthy.expect(messages(crowd.published..crowd.published + 10));
            }
            crowd.published += 10;
        }
        let got = reader.join().unwrap();
        let prefix = got.iter().zip(0..).take_while(|(got, n)| *got == n).count();
        assert!(prefix > 100 && prefix < before as usize, "{prefix}");
        assert!(got.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(
            got[prefix] as usize > prefix,
            "a gap, then the continuation"
        );
    }
    let counters = crowd.broker.counters();
    assert_eq!(counters.closed(CloseReason::SlowConsumerBytes), 0);
    crowd.finish();
}

#[test]
fn i1_i3_drop_oldest_has_only_whole_frames_in_order_and_always_the_newest() {
    let mut crowd = Crowd::new(100, 3, &["listener.slow_consumer=drop_oldest"]);
    crowd.publish_until(|counters| counters.dropped(DropReason::Displaced) > 20_000);
    let last = crowd.published - 1;
    for peer in &mut crowd.stalled {
        let got = read_until(peer, last);
        assert!(got.windows(2).all(|pair| pair[0] < pair[1]));
        let newest = got.iter().rev().zip((0..=last).rev());
        assert!(newest.take_while(|(got, n)| *got == n).count() > 100);
    }
    let counters = crowd.broker.counters();
    assert_eq!(
        counters.deliveries_dropped.total(),
        counters.dropped(DropReason::Displaced)
    );
    crowd.finish();
}

#[test]
fn i1_i4_conflate_leaves_the_newest_of_each_topic_and_nothing_older_behind_it() {
    let mut crowd = Crowd::new(100, 3, &["listener.slow_consumer=conflate"]);
    crowd.publish_until(|counters| counters.dropped(DropReason::Conflated) > 20_000);
    let last = crowd.published - 1;
    for peer in &mut crowd.stalled {
        let got = read_until(peer, last);
        assert!(got.windows(2).all(|pair| pair[0] < pair[1]));
        let newest: Vec<_> = (last - 3..=last).collect();
        assert!(got.ends_with(&newest), "{:?}", &got[got.len() - 8..]);
    }
    crowd.finish();
}

#[test]
fn i5_conflate_with_more_topics_than_fit_closes_the_session() {
    let mut world = World::new(&[
        "listener.slow_consumer=conflate",
        "listener.outbound_max=64KiB",
    ]);
    let topics: Vec<_> = (0..2_000).map(|n| format!("topic/{n}")).collect();
    let slow = world.connected(
        topics
            .chunks(20)
            .flat_map(wire::subscribe)
            .collect::<Vec<_>>(),
    );
    let publisher = world.connected([]);
    for topic in topics {
        world.receive(publisher, wire::publish(topic, "state"));
        world.turn_with(&mut |_, _| SendOutcome::Short(0));
    }
    assert_eq!(
        world.ended.get(&slow),
        Some(&CloseReason::SlowConsumerBytes)
    );
}

#[test]
fn i15_each_session_follows_its_own_listener() {
    let small = "outbound_max=64KiB&sndbuf=4KiB";
    let mut builder = Broker::builder();
    let dropping = SlowConsumer::NAMES.iter().filter(|name| **name != "pause");
    for policy in dropping {
        let listen = format!("127.0.0.1:0?slow_consumer={policy}&{small}");
        builder = builder.listen(&listen).unwrap();
    }
    let broker = crate::support::spawn(builder, &[]);
    let addresses = broker.handle().local_addrs().to_vec();
    let stalled: Vec<_> = addresses
        .iter()
        .map(|address| {
            let mut peer = Peer::connect_narrow(address);
            peer.subscribe(&["a", "b"]);
            peer
        })
        .collect();
    wait_until("all are subscribed", || broker.subscribers("a") == 4);
    let mut publisher = Peer::connect(&addresses[0]);
    let dropped = [
        DropReason::SlowClose,
        DropReason::QueueFull,
        DropReason::Displaced,
        DropReason::Conflated,
    ];
    let mut number = 0;
    let is_done = |broker: &TestBroker| {
        let counters = broker.counters();
        dropped.iter().all(|reason| counters.dropped(*reason) > 0)
    };
    while !is_done(&broker) {
        assert!(number < 1_000_000, "{:?}", broker.counters());
        publisher.send(messages(number..number + 100));
        number += 100;
    }
    let counters = broker.counters();
    assert_eq!(counters.sessions_closed.total(), 1);
    assert_eq!(counters.closed(CloseReason::SlowConsumerBytes), 1);
    drop((stalled, publisher));
    broker.finish();
}

#[test]
fn a_listener_with_a_setting_that_cannot_be_is_refused_with_what_would_be_right() {
    for (listen, lesson) in [
        (
            "127.0.0.1:0?slow_consumer=drop",
            "drop_oldest, conflate or pause",
        ),
        (
            "127.0.0.1:0?slow_consumr=conflate",
            "listener.slow_consumer",
        ),
        ("127.0.0.1:0?outbound_max=1", "8MiB"),
        ("127.0.0.1:0?outbound_max", "KEY=VALUE"),
    ] {
        let error = listen.parse::<Listen>().unwrap_err().to_string();
        assert!(error.contains(lesson), "{listen}: {error}");
    }
}

/// A subscriber to "a" in memory, and its publisher.
fn pair(settings: &[&str]) -> (World<Open>, [SessionKey; 2]) {
    let mut world = World::new(settings);
    let slow = world.connected(wire::subscribe(&["a"]));
    let publisher = world.connected([]);
    (world, [slow, publisher])
}

#[test]
fn c5_i12_something_taken_every_nine_seconds_is_progress_and_eleven_without_are_not() {
    for policy in SlowConsumer::NAMES {
        let (mut world, [slow, publisher]) = pair(&[&format!("listener.slow_consumer={policy}")]);
        world.receive(publisher, wire::publish("a", [7; 200]).repeat(10));
        world.turn_with(&mut |_, _| SendOutcome::Short(3));
        for _ in 0..20 {
            world.now = world.now + Duration::from_secs(9);
            world.shard.writable(slow);
            world.turn_with(&mut |_, _| SendOutcome::Short(1));
        }
        assert_eq!(world.ended.get(&slow), None, "{policy}");
        world.pass(Duration::from_secs(11));
        let reason = match policy {
            // Only `pause_max` counts there, and nothing has paused.
            "pause" => None,
            _ => Some(&CloseReason::SlowConsumerStalled),
        };
        assert_eq!(world.ended.get(&slow), reason, "{policy}");
    }
    // With nothing owed, silence is no fault.
    let (mut world, [slow, _]) = pair(&[]);
    world.pass(Duration::from_secs(1000));
    assert_eq!(world.ended.get(&slow), None);
}

#[test]
fn c7_a_reader_that_drains_as_fast_as_it_is_filled_stays_at_its_bound() {
    let (mut world, [slow, publisher]) = pair(&[]);
    let burst = wire::publish("a", [7; 250]).repeat(8);
    let owed = |world: &World<Open>| {
        let mut sessions = world.shard.sessions();
        sessions
            .find(|(key, _)| *key == slow)
            .unwrap()
            .1
            .backlog_bytes
    };
    let mut blocked = true;
    let bound = 8 << 20;
    while owed(&world) < bound / 100 * 98 {
        world.receive(publisher, &burst);
        world.turn_with(&mut |_, _| SendOutcome::Short(0));
    }
    for _ in 0..300 {
        world.shard.writable(slow);
        world.receive(publisher, &burst);
        world.turn_with(&mut |_, offered| {
            blocked = offered > burst.len();
            SendOutcome::Short(burst.len().min(offered))
        });
    }
    assert!(blocked, "it was at its bound to the end");
    assert_eq!(world.ended.get(&slow), None);
    assert_eq!(world.counters().deliveries_dropped.total(), 0);
}

#[test]
fn c6_i11_the_largest_backlogs_go_down_to_nine_tenths_and_nobody_without_one() {
    const STOPPED: usize = 2_000;
    let mut world = World::new(&["limits.outbound_total_max=32MiB"]);
    let subscribe = wire::subscribe(&["a"]);
    let stopped: Vec<_> = (0..STOPPED).map(|_| world.connected(&subscribe)).collect();
    let healthy: Vec<_> = (0..50).map(|_| world.connected(&subscribe)).collect();
    let publisher = world.connected([]);
    let frames = wire::publish("a", [7; 250]).repeat(40);
    let mut received = Vec::new();
    while world.ended.is_empty() {
        world.receive(publisher, &frames);
        world.turn_with(&mut |key, offered| match healthy.contains(&key) {
            true => SendOutcome::Whole(offered),
            false => SendOutcome::Short(0),
        });
        received.extend_from_slice(&frames);
    }
    let held = || {
        let sessions = world.shard.sessions();
        sessions
            .map(|(_, session)| session.backlog_bytes)
            .sum::<usize>()
    };
    // Down to nine tenths; who had its turn behind that added its own.
    let (bound, held) = (32 << 20, held());
    assert!(held <= bound && held > bound / 10 * 8, "{held}");
    assert!(
        world
            .ended
            .values()
            .all(|reason| *reason == CloseReason::SlowConsumerEvicted)
    );
    assert!(world.ended.keys().all(|key| stopped.contains(key)));
    for key in healthy {
        assert!(world.take(key) == received, "the healthy ones lost nothing");
    }
}

#[test]
fn c15_i13_the_smallest_frames_stay_within_the_bounds_with_all_that_holds_them() {
    let bound = 256 * 1024;
    for policy in SlowConsumer::NAMES {
        // Under `pause` what was read before its publishers are held comes on top.
        let bound = if policy == "pause" { 2 * bound } else { bound };
        let policy = format!("listener.slow_consumer={policy}");
        let (mut world, [slow, publisher]) = pair(&[&policy, "listener.outbound_max=256KiB"]);
        for _ in 0..200 {
            world.receive(publisher, wire::publish("a", []).repeat(1000));
            world.turn_with(&mut |_, _| SendOutcome::Short(0));
            let mut sessions = world.shard.sessions();
            let session = sessions.find(|(key, _)| *key == slow);
            let owed = session.map_or(0, |(_, session)| session.backlog_bytes);
            assert!(owed <= bound, "{owed}");
            drop(sessions);
        }
        let counters = world.counters();
        assert_eq!(
            counters.deliveries_matched,
            200_000_u64.min(counters.deliveries_matched)
        );
        assert!(counters.is_conserved());
    }
}
