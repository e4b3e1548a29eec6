//! Section B: the right frames at the wrong time, and the right ones in unusual company.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hvlp::handler::{ConnectAnswer, ConnectRequest, Refusal, SessionHandler, SessionView, Ticket};
use hvlp::metrics::DiscardCause;
use hvlp::session::{CloseReason, SessionState};

use crate::support::memory::World;
use crate::support::{Peer, start, wait_until, wire};

#[test]
fn b1_frames_before_connect_leave_no_trace_and_are_charged() {
    let broker = start(&[]);
    let mut witness = broker.subscriber(&["a"]);
    let mut early = broker.open();
    let topics_before = broker.counters().topics;
    for round in 0..21 {
        early.send(wire::subscribe(&["a", "never"]));
        early.send(wire::unsubscribe(&["a"]));
        early.send(wire::publish("a", [round]));
    }
    broker.await_counters("63 are discarded", |counters| {
        counters.discarded(DiscardCause::BeforeConnect) == 63
    });
    let counters = broker.counters();
    assert_eq!(
        (counters.topics, counters.subscriptions),
        (topics_before, 2)
    );
    assert!(broker.handle().register().sessions().iter().any(|session| {
        session.state == SessionState::WaitConnect && session.topics.is_empty()
    }));
    let mut marker = broker.connect();
    marker.publish("a", "marker");
    witness.expect_nothing_before(wire::publish("a", "marker"));
    // CONNECT does not undo the charge: one more is the 64th.
    early.send([&wire::CONNECT[..], &wire::frame(99, &[])].concat());
    early.expect_end();
    assert_eq!(
        broker.counters().closed(CloseReason::ProtocolErrorBudget),
        1
    );
    drop((witness, marker, early));
    broker.finish();
}

#[test]
fn b2_silence_after_accept_ends_with_the_connect_timeout() {
    let mut world = World::new(&[]);
    let silent = world.open();
    let chatty = world.open();
    world.pass(Duration::from_micros(29_999_999));
    assert_eq!(world.shard.session_count(), 2);
    assert_eq!(
        world.shard.register().sessions().count(),
        0,
        "a slot and nothing else"
    );
    world.receive(chatty, wire::CONNECT);
    world.pass(Duration::from_micros(1));
    assert_eq!(world.ended.get(&silent), Some(&CloseReason::ConnectTimeout));
    world.pass(Duration::from_secs(86_400));
    assert!(
        world.shard.is_open(chatty),
        "a subscriber is silent by nature"
    );

    let broker = start(&["listener.connect_timeout=200ms"]);
    broker.open().expect_end();
    // Discarded frames are no CONNECT.
    let mut early = broker.open();
    early.publish("a", "");
    early.expect_end();
    assert_eq!(broker.counters().closed(CloseReason::ConnectTimeout), 2);
    broker.finish();
}

#[test]
fn b3_a_thousand_connects_change_nothing_and_are_not_charged() {
    let broker = start(&[]);
    let mut subscriber = broker.subscriber(&["a"]);
    for round in 0..1000_usize {
        let payload = match round % 3 {
            0 => vec![],
            1 => vec![b'x'; round % 256],
            _ => b"\xFFH+\x07\x00".to_vec(),
        };
        subscriber.send(wire::frame(1, &payload));
    }
    let mut publisher = broker.connect();
    publisher.publish("a", "still");
    subscriber.expect_nothing_before(wire::publish("a", "still"));
    broker.await_counters("all are accepted", |counters| {
        counters.accepted(1) == 1000 + 4
    });
    let counters = broker.counters();
    assert_eq!(counters.frames_discarded.total(), 0);
    assert_eq!(broker.subscribers("a"), 1);
    drop((subscriber, publisher));
    broker.finish();
}

#[test]
fn b4_disconnect_first_or_twice_ends_the_session_once() {
    let broker = start(&[]);
    for frames in [&[wire::DISCONNECT][..], &[wire::DISCONNECT; 2]] {
        for greeting in [&[][..], &wire::CONNECT] {
            let mut peer = broker.open();
            peer.send([greeting, frames.concat().as_slice()].concat());
            peer.expect_end();
        }
    }
    let counters = broker.counters();
    assert_eq!(counters.closed(CloseReason::ClientDisconnect), 4);
    assert_eq!(counters.sessions_closed.total(), 4);
    assert_eq!(counters.accepted(2), 4);
    broker.finish();
}

#[test]
fn b5_bytes_behind_disconnect_are_neither_executed_nor_counted() {
    let broker = start(&[]);
    let mut witness = broker.subscriber(&["a"]);
    let mut peer = broker.connect();
    let behind = [
        wire::publish("a", "late"),
        wire::subscribe(&["late"]),
        vec![200, 0, 5],
    ];
    peer.send(
        [
            &wire::publish("a", "last"),
            &wire::DISCONNECT[..],
            &behind.concat(),
        ]
        .concat(),
    );
    witness.expect(wire::publish("a", "last"));
    peer.expect_end();
    assert_eq!(broker.subscribers("late"), 0);
    let mut marker = broker.connect();
    marker.publish("a", "marker");
    witness.expect_nothing_before(wire::publish("a", "marker"));
    assert_eq!(broker.counters().frames_discarded.total(), 0);
    drop((witness, marker, peer));
    broker.finish();
}

#[test]
fn b6_connect_subscribe_publish_disconnect_in_one_segment_are_executed_in_order() {
    let broker = start(&[]);
    let mut witness = broker.subscriber(&["a"]);
    let subscribe = wire::subscribe(&["a", "own"]);
    let publish = wire::publish("a", "1");
    let script = [&wire::CONNECT[..], &subscribe, &publish, &wire::DISCONNECT].concat();
    for _ in 0..100 {
        let mut peer = broker.open();
        peer.send(&script);
        peer.half_close();
        witness.expect(&publish);
        peer.expect_end();
    }
    drop(witness);
    let counters = broker.finish();
    assert_eq!(counters.closed(CloseReason::ClientDisconnect), 100);
}

/// How a publisher takes its leave.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Fin,
    DisconnectAndFin,
    HalfClose,
}

#[test]
fn b6_a_thousand_frames_are_delivered_however_their_publisher_leaves() {
    let broker = start(&[]);
    let mut subscriber = broker.subscriber(&["a"]);
    let frames = wire::numbered("a", 1000);
    for _ in 0..10 {
        for leave in [Leave::Fin, Leave::DisconnectAndFin, Leave::HalfClose] {
            let mut publisher = broker.open();
            match leave {
                Leave::Fin => publisher.send([&wire::CONNECT[..], &frames].concat()),
                Leave::DisconnectAndFin => {
                    publisher.send([&wire::CONNECT[..], &frames, &wire::DISCONNECT].concat());
                }
                Leave::HalfClose => {
                    publisher.send([&wire::CONNECT[..], &frames].concat());
                    publisher.half_close();
                    publisher.expect_end();
                }
            }
            drop(publisher);
            subscriber.expect(&frames);
        }
    }
    drop(subscriber);
    let counters = broker.finish();
    assert_eq!(counters.closed(CloseReason::ClientDisconnect), 10);
}

/// Answers a CONNECT with "later" as payload later, or never.
#[derive(Clone, Default)]
struct Verifier {
    tickets: Arc<Mutex<Vec<Ticket>>>,
}

impl SessionHandler for Verifier {
    fn on_connect(&mut self, _: SessionView, request: ConnectRequest<'_>) -> ConnectAnswer {
        if request.payload() != b"later" {
            return ConnectAnswer::Accept;
        }
        let (ticket, answer) = request.later();
        self.tickets.lock().unwrap().push(ticket);
        answer
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    WaitConnect,
    VerifyingThenAccepted,
    VerifyingThenRefused,
    Connected,
    Closing,
}

/// What a session has come to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    accepted: u64,
    discarded: u64,
    subscriptions: usize,
    ended: Option<CloseReason>,
}

fn outcome_of(at: At, packet: u8, times: u64) -> Outcome {
    use CloseReason::{AuthFailed, ClientDisconnect};
    let served = matches!(at, At::Connected | At::VerifyingThenAccepted);
    let (accepted, discarded, subscriptions, ended) = match (at, packet) {
        (At::Closing, _) => (0, 0, 0, Some(ClientDisconnect)),
        (At::VerifyingThenRefused, _) => (0, 0, 0, Some(AuthFailed)),
        (_, 2) => (1, 0, 0, Some(ClientDisconnect)),
        (_, 1) => (times, 0, 0, None),
        (_, 3..=5) if served => (times, 0, usize::from(packet == 3), None),
        (_, _) => (0, times, 0, None),
    };
    Outcome {
        accepted,
        discarded,
        subscriptions,
        ended,
    }
}

#[test]
fn b7_every_packet_in_every_state_once_and_twice_does_what_the_table_says() {
    let packets = [
        (1, wire::CONNECT.to_vec()),
        (2, wire::DISCONNECT.to_vec()),
        (3, wire::subscribe(&["a"])),
        (4, wire::unsubscribe(&["a"])),
        (5, wire::publish("a", "x")),
        (0, wire::frame(0, b"unknown")),
        (255, wire::frame(5, &[])),
    ];
    let states = [
        (At::WaitConnect, vec![]),
        (At::VerifyingThenAccepted, wire::frame(1, b"later")),
        (At::VerifyingThenRefused, wire::frame(1, b"later")),
        (At::Connected, wire::CONNECT.to_vec()),
        (At::Closing, wire::DISCONNECT.to_vec()),
    ];
    for (at, greeting) in &states {
        for (packet, frame) in &packets {
            for times in [1, 2] {
                let verifier = Verifier::default();
                let mut world = World::with(verifier.clone(), &[]);
                let key = world.open();
                world.receive(key, [&greeting[..], &frame.repeat(times)].concat());
                world.turn();
                for ticket in verifier.tickets.lock().unwrap().drain(..) {
                    assert_eq!(
                        world.counters().frames_read,
                        1,
                        "CONNECT, and the rest waits"
                    );
                    match at {
                        At::VerifyingThenAccepted => ticket.accept(),
                        _ => ticket.refuse(Refusal::NotAuthorised),
                    }
                }
                world.turn();
                let counters = world.counters();
                let got = Outcome {
                    accepted: counters.packets_accepted.total() - u64::from(!greeting.is_empty()),
                    discarded: counters.frames_discarded.total(),
                    subscriptions: world.shard.register().subscription_count(),
                    ended: world.ended.get(&key).copied(),
                };
                let expected = outcome_of(*at, *packet, times as u64);
                assert_eq!(got, expected, "packet {packet} x {times} {at:?}");
            }
        }
    }
}

#[test]
fn b8_a_publisher_does_not_get_its_own_messages_and_all_others_do() {
    let broker = start(&[]);
    let mut ends = [broker.subscriber(&["a"]), broker.subscriber(&["a"])];
    for round in 0..2000_u32 {
        let [one, other] = &mut ends;
        let (from, to) = if round % 2 == 0 {
            (one, other)
        } else {
            (other, one)
        };
        from.publish("a", round.to_be_bytes());
        to.expect_nothing_before(wire::publish("a", round.to_be_bytes()));
    }
    drop(ends);
    broker.finish();
}

#[test]
fn b8_a_pair_swaps_roles_a_million_times() {
    let mut world = World::new(&[]);
    let subscribe = wire::subscribe(&["a"]);
    let ends = [world.connected(&subscribe), world.connected(&subscribe)];
    for round in 0..1_000_000_u32 {
        let (from, to) = (ends[round as usize % 2], ends[(round as usize + 1) % 2]);
        let frame = wire::publish("a", round.to_be_bytes());
        world.receive(from, &frame);
        world.turn();
        assert_eq!(world.take(to), frame);
    }
    assert!(world.taken.is_empty(), "nobody got a message of its own");
    assert_eq!(world.counters().deliveries_written, 1_000_000);
}

#[test]
fn b9_two_clients_that_echo_each_other_for_ever_are_not_amplified() {
    const ECHOES: usize = 2000;
    let broker = start(&[]);
    let mut one = broker.subscriber(&["ping"]);
    let other = broker.subscriber(&["pong"]);
    let echo = |mut peer: Peer, answer: &'static str| {
        thread::spawn(move || {
            for _ in 0..ECHOES {
                peer.next_frame().unwrap();
                peer.publish(answer, "x");
            }
            peer
        })
    };
    // Several balls in the air at once.
    let balls = 8;
    for _ in 0..balls {
        one.publish("pong", "x");
    }
    let threads = [echo(one, "pong"), echo(other, "ping")];
    let peers = threads.map(|thread| thread.join().unwrap());
    wait_until("the last is read", || {
        broker.counters().accepted(5) >= (2 * ECHOES + balls) as u64
    });
    let counters = broker.counters();
    assert!(
        counters.deliveries_matched <= counters.accepted(5),
        "one delivery for each"
    );
    drop(peers);
    broker.finish();
}
