//! Section D: what the kernel does to a broker.

use hvlp::metrics::DropReason;
use hvlp::session::{CloseReason, Peer as PeerName, SessionKey};
use hvlp::shard::{Gone, SendOutcome};

use crate::support::memory::World;
use crate::support::{Peer, start_stallable, wire};

#[test]
fn d5_connections_that_are_gone_before_they_are_accepted_do_not_end_the_loop() {
    let (broker, stall) = start_stallable(&[]);
    stall.during(&broker, || {
        for round in 0..200 {
            let mut peer = broker.open();
            if round % 2 == 0 {
                peer.send(wire::CONNECT);
            }
            peer.reset();
        }
    });
    broker.await_counters("all are gone", |counters| {
        counters.closed(CloseReason::Reset) == 200
    });
    let mut subscriber = broker.subscriber(&["a"]);
    let mut publisher = broker.connect();
    publisher.publish("a", "served");
    subscriber.expect(wire::publish("a", "served"));
    drop((subscriber, publisher));
    broker.finish();
}

#[test]
fn a17_what_lies_behind_urgent_data_when_it_is_read_is_not_forgotten() {
    let (broker, stall) = start_stallable(&[]);
    let mut subscriber = broker.subscriber(&["a"]);
    let frame = wire::publish("a", "0123456789");
    for mark in 1..=frame.len() {
        let mut peer = broker.connect();
        peer.publish("a", "it is served");
        subscriber.expect(wire::publish("a", "it is served"));
        // A receive stops short at the mark, and no edge tells of what is behind it.
        stall.during(&broker, || {
            peer.send_urgent(&frame[..mark]);
            peer.send([&frame[mark..], &frame].concat());
        });
        subscriber.expect(frame.repeat(2));
    }
    drop(subscriber);
    broker.finish();
}

#[test]
fn b6_frames_and_the_end_of_the_stream_in_one_turn_are_both_seen() {
    let (broker, stall) = start_stallable(&[]);
    let mut subscriber = broker.subscriber(&["a"]);
    let frames = wire::numbered("a", 1000);
    for behind in [&[][..], &wire::DISCONNECT] {
        let mut leaver = broker.connect();
        stall.during(&broker, || {
            leaver.send([&frames, behind].concat());
            leaver.half_close();
        });
        subscriber.expect(&frames);
        leaver.expect_end();
    }
    drop(subscriber);
    broker.finish();
}

#[test]
fn d11_a_short_write_at_every_offset_continues_at_that_byte() {
    let frames = [
        wire::publish("a", ""),
        wire::publish("a", [1; 100]),
        wire::publish("a", [2; 253]),
        wire::publish("a", "last"),
    ];
    let bytes = frames.concat();
    let later = wire::publish("a", "behind the backlog");
    let ends = |taken: usize| {
        let ends = frames.iter().scan(0, |at, frame| {
            *at += frame.len();
            Some(*at)
        });
        ends.filter(|end| *end <= taken).count() as u64
    };
    for first in 0..bytes.len() {
        // The second short write: at once, one byte on, in the middle, shortly before the end.
        let left = bytes.len() - first;
        for second in [0, 1, left / 2, left - 1] {
            let mut world = World::new(&[]);
            let subscriber = world.connected(wire::subscribe(&["a"]));
            let publisher = world.connected([]);
            world.receive(publisher, &bytes);
            world.turn_with(&mut |_, _| SendOutcome::Short(first));
            assert_eq!(world.counters().deliveries_written, ends(first));
            // More comes while the socket is full: it waits behind, and nothing is offered.
            world.receive(publisher, &later);
            world.turn_with(&mut |_, _| panic!("the socket is full"));
            world.shard.writable(subscriber);
            world.turn_with(&mut |_, _| SendOutcome::Short(second));
            assert_eq!(world.counters().deliveries_written, ends(first + second));
            world.shard.writable(subscriber);
            world.turn();
            assert_eq!(world.take(subscriber), [&bytes[..], &later].concat());
            let counters = world.counters();
            assert_eq!(
                (counters.deliveries_written, counters.deliveries_owed),
                (5, 0)
            );
        }
    }
}

#[test]
fn d11_a_socket_that_takes_one_byte_at_a_time_gets_every_byte() {
    let mut world = World::new(&[]);
    let subscriber = world.connected(wire::subscribe(&["a"]));
    let publisher = world.connected([]);
    let bytes = wire::numbered("a", 2000);
    world.receive(publisher, &bytes);
    for _ in 0..bytes.len() {
        world.turn_with(&mut |_, _| SendOutcome::Short(1));
        world.shard.writable(subscriber);
    }
    assert!(world.take(subscriber) == bytes);
    assert_eq!(world.counters().deliveries_written, 2000);
}

#[test]
fn d12_a_write_that_takes_nothing_closes_the_session_once() {
    let mut world = World::new(&[]);
    let subscribe = wire::subscribe(&["a"]);
    let (broken, healthy) = (world.connected(&subscribe), world.connected(&subscribe));
    let publisher = world.connected([]);
    let frames = wire::numbered("a", 3);
    world.receive(publisher, &frames);
    let mut offers = 0;
    let mut socket = |key: SessionKey, offered: usize| {
        if key == healthy {
            return SendOutcome::Whole(offered);
        }
        offers += 1;
        SendOutcome::Failed(std::io::ErrorKind::WriteZero)
    };
    world.turn_with(&mut socket);
    world.receive(publisher, &frames);
    world.turn_with(&mut socket);
    assert_eq!(offers, 1, "it is not tried again");
    assert_eq!(world.ended.get(&broken), Some(&CloseReason::WriteZero));
    assert_eq!(world.take(healthy), frames.repeat(2));
    assert_eq!(world.counters().dropped(DropReason::SessionGone), 3);
}

#[test]
fn d8_a_send_that_found_no_memory_is_made_again_although_no_edge_comes() {
    let mut world = World::new(&[]);
    let subscriber = world.connected(wire::subscribe(&["a"]));
    let publisher = world.connected([]);
    let frames = wire::numbered("a", 3);
    for taken in 0..frames.len() {
        world.receive(publisher, &frames);
        world.turn_with(&mut |_, _| SendOutcome::NoBuffers(taken));
        for _ in 0..3 {
            let due = world.shard.deadline().expect("it is tried again");
            world.turn_with(&mut |_, _| panic!("not before that"));
            let wait = due.since(world.now);
            world.pass(wait);
            world.turn_with(&mut |_, _| SendOutcome::NoBuffers(0));
        }
        let wait = world.shard.deadline().unwrap().since(world.now);
        world.pass(wait);
        world.turn();
        assert_eq!(world.take(subscriber), frames);
        assert_eq!(world.shard.deadline(), None, "nothing is left to be tried");
    }
    assert!(world.ended.is_empty());
}

#[test]
fn d14_f1_what_comes_late_for_a_former_owner_reaches_nobody() {
    let mut world = World::new(&[]);
    let former = world.connected(wire::subscribe(&["a"]));
    let publisher = world.connected([]);
    world
        .shard
        .gone(former, Gone::Failed(std::io::ErrorKind::ConnectionReset));
    let beside = world.open();
    assert_ne!(
        beside.slot(),
        former.slot(),
        "its slot is taken until the turn has ended"
    );
    world.turn();
    let heir = world.open();
    assert_eq!(heir.slot(), former.slot());
    assert_ne!(heir, former);

    world.receive(publisher, wire::publish("a", "for the former"));
    world.shard.writable(former);
    world.shard.gone(former, Gone::Eof);
    world.shard.close(former, CloseReason::IoError);
    let piece = world.arena.push(&wire::CONNECT);
    assert_eq!(
        world
            .shard
            .receive(world.now, former, &mut world.arena, piece),
        None
    );
    world.shard.sent(
        world.now,
        former,
        &world.arena,
        SendOutcome::Failed(std::io::ErrorKind::ConnectionReset),
    );
    world.turn();
    assert!(world.shard.is_open(heir));
    assert_eq!(world.take(heir), b"");
    assert_eq!(world.counters().stale_events, 2);
    assert_eq!(
        world.counters().accepted(1),
        2,
        "CONNECT of the first two alone"
    );
    let infos: Vec<_> = world
        .shard
        .sessions()
        .filter(|(key, _)| *key == heir)
        .collect();
    assert!(infos[0].1.topics.is_empty() && infos[0].1.peer == PeerName::Memory);
}

#[test]
fn d14_f1_a_descriptor_reused_in_the_same_turn_inherits_nothing() {
    let (broker, stall) = start_stallable(&[]);
    for round in 0..20_u32 {
        let former = broker.subscriber(&["a"]);
        let mut publisher = broker.connect();
        let mut heir = None;
        stall.during(&broker, || {
            former.reset();
            publisher.send(wire::numbered("a", 50));
            heir = Some(broker.open());
            publisher.send(wire::numbered("a", 50));
        });
        let mut heir: Peer = heir.expect("it was just opened");
        let topic = format!("own/{round}");
        heir.send([&wire::CONNECT[..], &wire::subscribe(&[&topic])].concat());
        crate::support::wait_until("the heir is served", || broker.subscribers(&topic) == 1);
        publisher.publish("a", "nobody");
        publisher.publish(&topic, "mine");
        heir.expect_nothing_before(wire::publish(&topic, "mine"));
    }
    broker.finish();
}
