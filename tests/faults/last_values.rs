//! Last values: over several reactors, beside publishers, within bounds. How they are kept is
//! tested with the register.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hvlp::outbound::SlowConsumer;
use hvlp::shard::SendOutcome;

use crate::cluster::{Cluster, Place};
use crate::support::memory::{World, whole};
use crate::support::{Peer, Prng, start, wire};

const SHARDS: usize = 3;
const TOPICS: [&str; 4] = ["s/a", "s/b", "s/c/d", "t"];
const FILTERS: [&str; 4] = ["s/+", "s/#", "#", "s/a"];

/// Whether messages on the topic come with one of these, which are topics or `FILTERS`.
fn covers(held: &BTreeSet<&str>, topic: &str) -> bool {
    held.iter().any(|one| match *one {
        "s/+" => topic == "s/a" || topic == "s/b",
        "s/#" => topic != "t",
        "#" => true,
        exact => exact == topic,
    })
}

/// A session, what it holds, and what it has heard so far.
struct Listener {
    place: Place,
    held: BTreeSet<&'static str>,
    /// By topic: the last number, and whether the next one is the first of a subscription.
    heard: BTreeMap<&'static str, (u32, bool)>,
    /// By topic: what was published when its subscription was executed; the first is no older.
    least: BTreeMap<&'static str, u32>,
}

impl Listener {
    fn check(&mut self, bytes: &[u8], schedule: u32) {
        let mut rest = bytes;
        while let Some((frame, behind)) = wire::split(rest) {
            rest = behind;
            if frame[0] != 5 {
                continue;
            }
            let (topic, data) = frame[3..].split_at(usize::from(frame[2]));
            let topic = *TOPICS.iter().find(|one| one.as_bytes() == topic).unwrap();
            let number = u32::from_be_bytes(data.try_into().unwrap());
            let (last, is_first) = self.heard.get(topic).copied().unwrap_or((0, true));
            if is_first {
                let least = self.least.get(topic).copied().unwrap_or(0).max(last);
                assert!(
                    number >= least,
                    "{schedule}: {topic} {number}, {least} is older"
                );
            } else {
                assert_eq!(
                    number,
                    last + 1,
                    "{schedule}: {topic}, one each and in order"
                );
            }
            self.heard.insert(topic, (number, false));
        }
    }
}

#[test]
fn j15_no_value_is_lost_doubled_or_older_in_any_order_of_turns_and_subscriptions() {
    let mut dice = Prng::new(15);
    let mut first_values = 0;
    for schedule in 0..3_000 {
        let mut cluster = Cluster::new(SHARDS as u8, &["last_value=s/,t"]);
        let publishers: Vec<_> = (0..TOPICS.len())
            .map(|n| cluster.connected(n % SHARDS, &wire::CONNECT))
            .collect();
        let mut published = [0_u32; TOPICS.len()];
        let mut listeners: Vec<_> = (0..4)
            .map(|n| Listener {
                place: cluster.connected(n % SHARDS, &wire::hello(wire::WILD, 0)),
                held: BTreeSet::new(),
                heard: BTreeMap::new(),
                least: BTreeMap::new(),
            })
            .collect();
        for _ in 0..60 {
            match dice.below(3) {
                0 => {
                    let n = dice.below(TOPICS.len());
                    let mut bytes = Vec::new();
                    for _ in 0..1 + dice.below(3) {
                        published[n] += 1;
                        bytes.extend(wire::publish(TOPICS[n], published[n].to_be_bytes()));
                    }
                    cluster.receive(publishers[n], &bytes);
                }
                1 => {
                    let listener = &mut listeners[dice.below(4)];
                    // What it was given before is its own.
                    cluster.turn(listener.place.0);
                    listener.check(&cluster.take(listener.place), schedule);
                    if cluster.is_idle(listener.place) {
                        change(&mut cluster, listener, &mut dice, published);
                    }
                }
                _ => {}
            }
            cluster.turn(dice.below(SHARDS));
            for listener in &mut listeners {
                let heard = cluster.take(listener.place);
                listener.check(&heard, schedule);
            }
        }
        cluster.settle();
        for listener in &mut listeners {
            let heard = cluster.take(listener.place);
            listener.check(&heard, schedule);
            for (topic, published) in TOPICS.into_iter().zip(published) {
                if covers(&listener.held, topic) && published > 0 {
                    let heard = listener.heard.get(topic).copied();
                    assert_eq!(heard, Some((published, false)), "{schedule}: {topic}");
                }
            }
        }
        let counters = cluster.nodes.iter().map(|(shard, _)| shard.counters());
        first_values += counters.map(|all| all.deliveries_replayed).sum::<u64>();
    }
    assert!(first_values > 10_000, "{first_values} values were sent");
}

/// Subscribes to something, or unsubscribes.
fn change(cluster: &mut Cluster, listener: &mut Listener, dice: &mut Prng, published: [u32; 4]) {
    let before = listener.held.clone();
    let mut words = BTreeSet::new();
    for _ in 0..1 + dice.below(2) {
        let all = [&FILTERS[..], &TOPICS[..]].concat();
        words.insert(all[dice.below(all.len())]);
    }
    let words: Vec<_> = words.into_iter().collect();
    if dice.below(3) == 0 {
        cluster.receive(listener.place, &wire::unsubscribe(&words));
        listener.held.retain(|held| !words.contains(held));
    } else {
        cluster.receive(listener.place, &wire::subscribe(&words));
        listener.held.extend(&words);
    }
    for (topic, published) in TOPICS.into_iter().zip(published) {
        let (was, is) = (covers(&before, topic), covers(&listener.held, topic));
        if was != is {
            let last = listener.heard.get(topic).map_or(0, |heard| heard.0);
            listener.heard.insert(topic, (last, true));
            listener.least.insert(topic, published);
        }
    }
}

#[test]
fn j15_a_subscriber_gets_the_newest_first_and_none_that_was_cleared_or_is_not_kept() {
    let broker = start(&["last_value=state/", "reactors=2"]);
    let mut publisher = broker.open();
    publisher.send(wire::hello(wire::ACK, 0));
    publisher.expect(wire::hello_answer(wire::ACK, 0));
    for (topic, data) in [
        ("state/a", "1"),
        ("state/b", "1"),
        ("state/a", "2"),
        ("other", "1"),
        ("state/b", ""),
    ] {
        publisher.publish(topic, data);
    }
    publisher.send(wire::PING);
    publisher.expect(wire::pong(0));
    // On both reactors, and once more on one where somebody has the topic already.
    for _ in 0..4 {
        let mut subscriber = broker.connect();
        subscriber.subscribe(&["state/b", "other", "state/a", "end"]);
        subscriber.expect(wire::publish("state/a", "2"));
        publisher.publish("end", "");
        subscriber.expect(wire::publish("end", ""));
        // It has it: there is no second first time.
        subscriber.subscribe(&["state/a"]);
        publisher.publish("end", "");
        subscriber.expect(wire::publish("end", ""));
        subscriber.send(wire::unsubscribe(&["state/a"]));
        subscriber.subscribe(&["state/a"]);
        subscriber.expect(wire::publish("state/a", "2"));
    }
    let counters = broker.counters();
    assert_eq!(
        (counters.deliveries_replayed, counters.last_value_topics),
        (8, 1)
    );
    drop(publisher);
    broker.finish();
}

#[test]
fn j15_while_values_change_every_subscriber_on_any_reactor_sees_a_gapless_sequence() {
    let broker = start(&["last_value=all", "reactors=2"]);
    let mut publishers = [broker.connect(), broker.connect()];
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (publisher, topic) in publishers.iter_mut().zip(["a/x", "a/y"]) {
            let stop = &stop;
            scope.spawn(move || {
                for n in 1..=u32::MAX {
                    publisher.publish(topic, n.to_be_bytes());
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    std::thread::sleep(Duration::from_micros(50));
                }
            });
        }
        for round in 0..500 {
            let mut subscriber = broker.open();
            subscriber.send(wire::hello(wire::WILD, 0));
            subscriber.expect(wire::hello_answer(wire::WILD, 0));
            let topics = if round % 2 == 0 {
                &["a/#"][..]
            } else {
                &["a/x", "a/y"]
            };
            subscriber.subscribe(topics);
            gapless(&mut subscriber, 20);
            subscriber.send(wire::DISCONNECT);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    drop(publishers);
    broker.finish();
}

/// Reads so many messages of `a/x` and `a/y`: after the first of each, one after the other.
fn gapless(subscriber: &mut Peer, count: usize) {
    let mut last = BTreeMap::new();
    for _ in 0..count {
        let frame = subscriber.next_frame().unwrap();
        let number = u32::from_be_bytes(frame[6..].try_into().unwrap());
        if let Some(before) = last.insert(frame[5], number) {
            assert_eq!(number, before + 1);
        }
    }
}

#[test]
fn j15_a_million_topics_stay_within_the_bounds_and_a_slow_subscriber_of_all_is_not_closed() {
    let settings = [
        "last_value=s/",
        "last_value_topics_max=50_000",
        "listener.outbound_max=1MiB",
    ];
    let broker = start(&settings);
    let mut publisher = broker.open();
    publisher.send(wire::hello(wire::ACK, 0));
    publisher.expect(wire::hello_answer(wire::ACK, 0));
    let data = [7; 100];
    for thousand in 0..1000 {
        let frames = (0..1000).map(|n| wire::publish(format!("s/{thousand}/{n}"), data));
        publisher.send(frames.flatten().collect::<Vec<u8>>());
        publisher.send(wire::PING);
        publisher.expect(wire::pong(0));
    }
    let counters = broker.counters();
    assert_eq!(
        (counters.last_value_topics, counters.last_values_evicted),
        (50_000, 950_000)
    );
    // Five times what a session may be owed, and it reads nothing for a while.
    let mut subscriber = broker.open();
    subscriber.send(wire::hello(wire::WILD, 0));
    subscriber.expect(wire::hello_answer(wire::WILD, 0));
    subscriber.subscribe(&["s/#"]);
    broker.await_counters("much of it is sent", |counters| counters.backlog_bytes > 0);
    publisher.publish("s/999/999", "newest");
    let mut seen = BTreeSet::new();
    let mut newest = Vec::new();
    while seen.len() < 50_000 || !newest.ends_with(b"newest") {
        let frame = subscriber.next_frame().unwrap();
        let topic = frame[3..3 + usize::from(frame[2])].to_vec();
        if topic == b"s/999/999" {
            newest = frame;
        } else {
            assert!(seen.insert(topic), "each once");
            assert_eq!(frame.len(), 3 + usize::from(frame[2]) + 100);
        }
        if seen.len() == 49_999 {
            seen.insert(b"s/999/999".to_vec());
        }
    }
    drop((publisher, subscriber));
    broker.finish();
}

#[test]
fn j15_values_are_bounded_in_bytes_and_sessions_that_end_leave_no_trace() {
    let settings = ["last_value=all", "last_value_bytes_max=64KiB"];
    let mut world = World::new(&settings);
    let publisher = world.connected([]);
    for n in 0..2000 {
        world.receive(publisher, wire::publish(format!("{n}"), [7; 200]));
        world.turn();
        assert!(world.counters().last_value_bytes <= 64 * 1024);
    }
    let topics = world.counters().last_value_topics;
    assert!((200..220).contains(&topics), "{topics}");
    let subscriber = world.connected(wire::subscribe(&["1999", "1998", "0"]));
    world.turn();
    world.turn();
    let both = [
        wire::publish("1999", [7; 200]),
        wire::publish("1998", [7; 200]),
    ];
    assert_eq!(world.take(subscriber), both.concat());
    let gone = world.connected([]);
    world.receive_with(gone, wire::subscribe(&["1997"]), &mut whole);
    world.eof(gone);
    world.turn();
    world.turn();
    assert_eq!(world.counters().deliveries_replayed, 2);
}

#[test]
fn j15_whatever_the_policy_and_however_small_the_bound_every_value_arrives() {
    for policy in SlowConsumer::NAMES {
        for (max, data_len) in [("64KiB", 245), ("64KiB", 20), ("512KiB", 20)] {
            let settings = [
                "last_value=all",
                &format!("listener.outbound_max={max}"),
                &format!("listener.slow_consumer={policy}"),
            ];
            let mut world = World::new(&settings);
            let publisher = world.connected([]);
            for n in 0..5000 {
                world.receive(publisher, wire::publish(format!("{n}"), vec![7; data_len]));
            }
            let subscriber = world.open();
            world.receive(subscriber, wire::hello(wire::WILD, 0));
            world.turn();
            world.take(subscriber);
            world.receive_with(subscriber, wire::subscribe(&["#"]), &mut whole);
            // A socket that takes little, each turn.
            while world.shard.is_stopped(subscriber) || world.has_more() {
                world.shard.writable(subscriber);
                world.turn_with(&mut |_, len| match len {
                    0..3000 => SendOutcome::Whole(len),
                    _ => SendOutcome::Short(3000),
                });
                assert!(world.shard.is_open(subscriber), "{policy} {max} {data_len}");
            }
            while world.counters().deliveries_owed > 0 {
                world.shard.writable(subscriber);
                world.turn();
            }
            let counters = world.counters();
            assert_eq!(counters.deliveries_replayed, 5000, "{policy} {max}");
            assert_eq!(counters.deliveries_written, 5000, "{policy} {max}");
        }
    }
}

#[test]
fn j15_the_process_itself_gets_more_values_than_its_pipe_holds() {
    let broker = start(&["last_value=all", "reactors=1"]);
    let topics: Vec<_> = (0..8000).map(|n| format!("topic {n}")).collect();
    for topic in &topics {
        broker.handle().publish(topic, [7; 200]).unwrap();
    }
    broker.await_counters("they are kept", |counters| {
        counters.last_value_topics >= 8000
    });
    let mut subscription = broker.handle().subscribe(&topics).unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < topics.len() {
        let delivery = subscription.receive(crate::support::DEADLINE).unwrap();
        let topic = delivery.unwrap().topic().to_owned();
        assert!(seen.insert(topic), "each once");
    }
    drop(subscription);
    // The session that the process publishes with stays to the end.
    broker.stop();
}

#[test]
fn j15_who_reads_no_values_does_not_hold_up_the_end_of_the_broker() {
    // Longer than the test has.
    let settings = [
        "last_value=s/",
        "drain_timeout=1h",
        "listener.progress_timeout=1h",
    ];
    for reactors in ["reactors=1", "reactors=2"] {
        let broker = start(&[&settings[..], &[reactors]].concat());
        let mut publisher = broker.open();
        publisher.send(wire::hello(wire::ACK, 0));
        publisher.expect(wire::hello_answer(wire::ACK, 0));
        let frames = (0..80_000).map(|n| wire::publish(format!("s/{n}"), [7; 200]));
        publisher.send(frames.flatten().collect::<Vec<u8>>());
        publisher.send(wire::PING);
        publisher.expect(wire::pong(0));
        let mut bystander = broker.open();
        bystander.send(wire::hello(wire::ACK, 0));
        bystander.send(wire::subscribe(&["behind"]));
        bystander.expect([wire::hello_answer(wire::ACK, 0), wire::frame(3, &[0])].concat());
        let mut stuck = broker.open();
        stuck.shrink_window();
        stuck.send(wire::hello(wire::WILD, 0));
        stuck.send(wire::subscribe(&["s/#"]));
        // Read together with the SUBSCRIBE, or not at all.
        stuck.publish("behind", "x");
        broker.await_counters("it stands still", |counters| counters.backlog_bytes > 0);
        std::thread::scope(|scope| {
            // It ends with the one that is stuck, and nobody else waits for that.
            scope.spawn(|| broker.let_go());
            let mut rest = bystander.read_to_end().0;
            let last = wire::publish("behind", "x");
            if rest.starts_with(&last) {
                rest.drain(..last.len());
            }
            assert_eq!(rest, wire::frame(2, b"\0shutdown"), "{reactors}");
            drop((publisher, stuck));
        });
    }
}
