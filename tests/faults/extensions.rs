//! Who asks for more in CONNECT: answers, last words, keepalive. What is about bytes alone is in
//! `tests/vectors/session/extensions.json`.

use std::sync::mpsc;
use std::time::Duration;

use hvlp::handler::{ConnectAnswer, ConnectRequest, Refusal, SessionHandler, SessionView, Ticket};
use hvlp::session::{CloseReason, SessionKey};
use hvlp::shard::SendOutcome;

use crate::support::memory::World;
use crate::support::{DEADLINE, start, start_with, wire};

/// A session with answers, which has read the first of them.
fn with_answers(world: &mut World<hvlp::handler::Open>) -> SessionKey {
    let key = world.open();
    world.receive(key, wire::hello(wire::ACK, 0));
    world.turn();
    assert_eq!(world.take(key), wire::hello_answer(wire::ACK, 0));
    key
}

/// Refuses who has no right name, at once.
#[derive(Clone)]
struct Doorman;

impl SessionHandler for Doorman {
    fn on_connect(&mut self, _: SessionView, request: ConnectRequest<'_>) -> ConnectAnswer {
        match request.hello().map(|hello| (hello.user, hello.secret)) {
            None | Some((Some("alice"), Some(b"s3cret"))) => ConnectAnswer::Accept,
            Some((Some(_), _)) => ConnectAnswer::Refuse(Refusal::NotAuthorised),
            Some((None, _)) => ConnectAnswer::Refuse(Refusal::Limit),
        }
    }
}

#[test]
fn j4_a_refusal_arrives_although_input_lies_unread_behind_it() {
    let broker = start_with(Doorman, &[]);
    let fields = |user: &str, secret: &str| {
        let lens = [user.len() as u8, secret.len() as u8];
        let head = &[0xFF, b'H', b'+', wire::ACK, 0, lens[0]][..];
        wire::frame(
            1,
            &[head, user.as_bytes(), &lens[1..], secret.as_bytes()].concat(),
        )
    };
    let mut alice = broker.open();
    alice.send(fields("alice", "s3cret"));
    alice.expect(wire::hello_answer(wire::ACK, 0));
    for (hello, status, reason) in [
        (fields("alice", "wrong"), 1, CloseReason::AuthFailed),
        (fields("mallory", "s3cret"), 1, CloseReason::AuthFailed),
        (wire::hello(wire::ACK, 0), 3, CloseReason::LimitConnect),
    ] {
        let before = broker.counters().closed(reason);
        let mut peer = broker.open();
        peer.send([hello, wire::numbered("unread", 1000)].concat());
        peer.expect(wire::hello_answer(0, status));
        peer.half_close();
        peer.expect_end();
        broker.await_counters("it is closed for that", |counters| {
            counters.closed(reason) == before + 1
        });
    }
    drop(alice);
    broker.finish();
}

/// Lets whoever asks for more wait for a ticket.
#[derive(Clone)]
struct Patient {
    tickets: mpsc::Sender<Ticket>,
}

impl SessionHandler for Patient {
    fn on_connect(&mut self, _: SessionView, request: ConnectRequest<'_>) -> ConnectAnswer {
        if request.hello().is_none() {
            return ConnectAnswer::Accept;
        }
        let (ticket, answer) = request.later();
        self.tickets.send(ticket).unwrap();
        answer
    }
}

#[test]
fn j4_an_answer_that_comes_later_holds_for_what_was_sent_meanwhile() {
    let (sender, tickets) = mpsc::channel();
    let broker = start_with(Patient { tickets: sender }, &[]);
    let request = [
        wire::hello(wire::ACK, 0),
        wire::PING.to_vec(),
        wire::subscribe(&["a"]),
    ];
    let peers = [(); 2].map(|()| {
        let mut peer = broker.open();
        peer.send(request.concat());
        (peer, tickets.recv_timeout(DEADLINE).unwrap())
    });
    let [(mut accepted, yes), (mut refused, no)] = peers;
    yes.accept();
    accepted.expect([wire::hello_answer(wire::ACK, 0), wire::pong(0)].concat());
    accepted.expect(wire::frame(3, &[0]));
    no.refuse(Refusal::NotAuthorised);
    refused.expect(wire::hello_answer(0, 1));
    refused.expect_end();
    drop((accepted, refused));
    broker.finish();
}

#[test]
fn j5_answers_that_nobody_reads_close_their_session_at_their_bound() {
    let mut world = World::new(&["listener.answers_max=4KiB"]);
    let key = with_answers(&mut world);
    let mut full = |_: SessionKey, _| SendOutcome::Short(0);
    let pings = wire::PING.repeat(500);
    world.receive_with(key, &pings, &mut full);
    world.turn_with(&mut full);
    assert!(!world.ended.contains_key(&key), "3,500 bytes of 4,096");
    assert!(world.counters().backlog_bytes >= 3_500);
    world.receive_with(key, &pings, &mut full);
    world.turn_with(&mut full);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.ended.get(&key), Some(&CloseReason::SlowConsumerBytes));
    assert_eq!(world.counters().backlog_bytes, 0);
}

#[test]
fn j5_answers_go_ahead_of_a_backlog_but_not_into_a_frame_and_no_policy_drops_them() {
    for policy in [
        "drop_newest",
        "drop_oldest",
        "conflate",
        "pause",
        "disconnect",
    ] {
        let mut world = World::new(&[
            &format!("listener.slow_consumer={policy}"),
            "listener.outbound_max=64KiB",
        ]);
        let key = with_answers(&mut world);
        let publisher = world.connected("");
        world.receive(key, wire::subscribe(&["t"]));
        world.turn();
        world.take(key);
        // The socket takes a frame and the beginning of another.
        let frame_len = wire::numbered("t", 1).len();
        let mut begun = |_: SessionKey, _| SendOutcome::Short(frame_len + 3);
        world.receive_with(publisher, wire::numbered("t", 100), &mut begun);
        world.turn_with(&mut begun);
        let mut full = |_: SessionKey, _| SendOutcome::Short(0);
        let requests = [wire::subscribe(&["u", "v"]), wire::PING.to_vec()].concat();
        world.receive_with(key, requests, &mut full);
        world.turn_with(&mut full);
        world.shard.writable(key);
        while !world.shard.sessions().all(|(_, info)| info.owed == 0) {
            world.turn();
        }
        let taken = world.take(key);
        let messages = wire::numbered("t", 100);
        let (ahead, behind) = taken.split_at(2 * frame_len);
        assert_eq!(ahead, &messages[..2 * frame_len], "{policy}");
        let dropped = if policy == "conflate" { 97 } else { 0 };
        let answers = [wire::frame(3, &[0, 0]), wire::pong(dropped)].concat();
        assert_eq!(behind[..answers.len()], answers, "{policy}");
        assert!(messages.ends_with(&behind[answers.len()..]), "{policy}");
        assert!(behind.len() > answers.len(), "{policy}");
    }
}

#[test]
fn j7_a_million_pings_are_answered_from_the_same_memory_and_without_ack_they_are_nothing() {
    let mut world = World::new(&[]);
    let (asked, base) = (with_answers(&mut world), world.connected(""));
    let pings = wire::PING.repeat(10_000);
    for round in 0..100 {
        // Ten thousand answers would pass their bound: a socket that takes them is what bounds.
        for some in pings.chunks(8_000) {
            world.receive(asked, some);
            world.turn();
        }
        world.receive(base, &pings);
        world.turn();
        let taken = world.take(asked);
        assert_eq!(taken.len(), 7 * 10_000, "round {round}");
        assert!(taken.chunks(7).all(|pong| pong == wire::pong(0)));
        assert_eq!(world.take(base), b"");
        assert_eq!(world.counters().backlog_bytes, 0);
    }
}

#[test]
fn j11_a_session_that_is_not_read_is_not_silent_by_its_own_doing() {
    let mut world = World::new(&[
        "listener.slow_consumer=pause",
        "listener.outbound_max=64KiB",
    ]);
    let consumer = world.connected(wire::subscribe(&["t"]));
    let publisher = world.open();
    world.receive(publisher, wire::hello(wire::ACK, 1));
    world.turn();
    let mut stuck = |key: SessionKey, len| match key == consumer {
        true => SendOutcome::Short(0),
        false => SendOutcome::Whole(len),
    };
    world.receive_with(publisher, wire::numbered("t", 8_000), &mut stuck);
    world.turn_with(&mut stuck);
    world.receive_with(publisher, wire::publish("t", "held"), &mut stuck);
    assert!(world.shard.is_stopped(publisher), "its consumer pauses");
    for _ in 0..10 {
        world.now = world.now + Duration::from_secs(1);
        world.turn_with(&mut stuck);
    }
    assert!(!world.ended.contains_key(&publisher));
    world.shard.writable(consumer);
    while !world.shard.sessions().all(|(_, info)| info.owed == 0) {
        world.turn();
    }
    assert!(!world.shard.is_stopped(publisher));
    world.pass(Duration::from_millis(1_499));
    assert!(!world.ended.contains_key(&publisher));
    world.pass(Duration::from_millis(2));
    world.turn();
    assert_eq!(world.ended.get(&publisher), Some(&CloseReason::Keepalive));
}

#[test]
fn j12_the_pong_says_how_many_messages_the_session_did_not_get() {
    let mut world = World::new(&[
        "listener.slow_consumer=drop_newest",
        "listener.outbound_max=64KiB",
    ]);
    let key = with_answers(&mut world);
    let other = with_answers(&mut world);
    let publisher = world.connected("");
    world.receive(key, wire::subscribe(&["t"]));
    world.turn();
    let mut full = |_: SessionKey, _| SendOutcome::Short(0);
    world.receive_with(publisher, wire::numbered("t", 10_000), &mut full);
    world.turn_with(&mut full);
    let dropped = u32::try_from(world.counters().deliveries_dropped.total()).unwrap();
    assert!(dropped > 100 && dropped < 10_000, "{dropped}");
    world.shard.writable(key);
    world.receive(key, wire::PING);
    world.receive(other, wire::PING);
    world.turn();
    assert!(
        world
            .take(key)
            .windows(7)
            .any(|it| it == wire::pong(dropped))
    );
    assert_eq!(world.take(other), wire::pong(0));
    // Of five topics, the answer is as long as a pong.
    world.receive(other, wire::unsubscribe(&["a", "b", "c", "d", "e"]));
    world.turn();
    assert_eq!(world.take(other), [4, 5, 0, 0, 0, 0, 0]);
}

#[test]
fn j13_extensions_that_are_switched_off_are_not_granted_and_change_nothing() {
    let broker = start(&["extensions=none"]);
    let mut peer = broker.open();
    peer.send(wire::hello(0xFF, 1));
    peer.expect(wire::hello_answer(0, 0));
    peer.send([wire::subscribe(&["t"]), wire::PING.to_vec()].concat());
    peer.publish("t", "own");
    let mut publisher = broker.connect();
    broker.await_counters("all is read", |counters| counters.subscriptions >= 2);
    publisher.publish("t", "other");
    peer.expect_nothing_before(wire::publish("t", "other"));
    drop((peer, publisher));
    broker.finish();
}

#[test]
fn j14_last_words_follow_the_frame_under_way_and_the_backlog_is_dropped_and_counted() {
    let message = wire::publish("t", [7; 200]);
    for taken in 0..=2 * message.len() {
        let mut world = World::new(&["listener.outbound_max=64KiB"]);
        let key = with_answers(&mut world);
        let publisher = world.connected("");
        world.receive(key, wire::subscribe(&["t"]));
        world.turn();
        world.take(key);
        let mut cut = |_: SessionKey, _| SendOutcome::Short(taken);
        world.receive_with(publisher, message.repeat(400), &mut cut);
        world.turn_with(&mut cut);
        assert!(!world.ended.contains_key(&key), "its last words wait");
        world.shard.writable(key);
        // A byte at a time, until it is blocked for ever but for that.
        let mut trickle = |_: SessionKey, len: usize| match len {
            0 | 1 => SendOutcome::Whole(len),
            _ => SendOutcome::Short(1),
        };
        for _ in 0..2 * message.len() {
            world.turn_with(&mut trickle);
            world.shard.writable(key);
        }
        let whole_frames = taken.div_ceil(message.len());
        let farewell = wire::frame(2, b"\x04slow consumer");
        let expected = [message.repeat(whole_frames), farewell].concat();
        assert!(world.take(key) == expected, "cut at {taken}");
        assert_eq!(
            world.ended.get(&key),
            Some(&CloseReason::SlowConsumerBytes),
            "cut at {taken}"
        );
        let counters = world.counters();
        assert_eq!(counters.deliveries_written, whole_frames as u64);
        assert_eq!(counters.backlog_bytes, 0);
    }
}

#[test]
fn j14_last_words_that_nobody_reads_take_a_second() {
    let mut world = World::new(&["listener.outbound_max=64KiB"]);
    let key = with_answers(&mut world);
    let publisher = world.connected("");
    world.receive(key, wire::subscribe(&["t"]));
    world.turn();
    let mut full = |_: SessionKey, _| SendOutcome::Short(0);
    world.receive_with(
        publisher,
        wire::publish("t", [7; 200]).repeat(400),
        &mut full,
    );
    world.turn_with(&mut full);
    world.now = world.now + Duration::from_millis(999);
    world.turn_with(&mut full);
    assert!(!world.ended.contains_key(&key));
    world.now = world.now + Duration::from_millis(1);
    world.turn_with(&mut full);
    assert_eq!(world.ended.get(&key), Some(&CloseReason::SlowConsumerBytes));
    assert_eq!(world.lost[&key], 400);
}

#[test]
fn j14_who_asked_for_answers_hears_why_the_broker_leaves() {
    let broker = start(&["listener.frame_timeout=20ms"]);
    let mut cut = broker.open();
    cut.send([&wire::hello(wire::ACK, 0)[..], &[5]].concat());
    cut.expect(wire::hello_answer(wire::ACK, 0));
    cut.expect(wire::frame(2, b"\x02protocol"));
    cut.expect_end();
    let mut stays = broker.open();
    stays.send(wire::hello(wire::ACK, 0));
    stays.expect(wire::hello_answer(wire::ACK, 0));
    broker.stop();
    assert_eq!(stays.read_to_end().0, wire::frame(2, b"\x00shutdown"));
}
