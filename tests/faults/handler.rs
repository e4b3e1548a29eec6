//! `SessionHandler`: what an answer to CONNECT does to the session and to what came behind it.

use std::sync::mpsc;
use std::thread;

use hvlp::handler::{
    ConnectAnswer, ConnectRequest, Refusal, SessionHandler, SessionView, Ticket, Verdict,
};
use hvlp::metrics::DiscardCause;
use hvlp::session::CloseReason;

use crate::support::memory::World;
use crate::support::{DEADLINE, Peer, TestBroker, start_with, wait_until, wire};

/// The payload of CONNECT says what to answer.
#[derive(Clone)]
struct Obedient {
    tickets: mpsc::Sender<Ticket>,
}

impl SessionHandler for Obedient {
    fn on_connect(&mut self, _: SessionView, request: ConnectRequest<'_>) -> ConnectAnswer {
        match request.payload() {
            b"refuse" => ConnectAnswer::Refuse(Refusal::NotAuthorised),
            b"limit" => ConnectAnswer::Refuse(Refusal::Limit),
            b"later" => {
                let (ticket, answer) = request.later();
                self.tickets.send(ticket).unwrap();
                answer
            }
            _ => ConnectAnswer::Accept,
        }
    }

    fn on_subscribe(&mut self, _: SessionView, topic: &str) -> Verdict {
        allow_unless_secret(topic)
    }

    fn on_publish(&mut self, _: SessionView, topic: &str, _: &[u8]) -> Verdict {
        allow_unless_secret(topic)
    }
}

fn allow_unless_secret(topic: &str) -> Verdict {
    if topic.starts_with("secret") {
        Verdict::Discard
    } else {
        Verdict::Allow
    }
}

pub(crate) fn start_obedient(settings: &[&str]) -> (TestBroker, mpsc::Receiver<Ticket>) {
    let (sender, tickets) = mpsc::channel();
    (start_with(Obedient { tickets: sender }, settings), tickets)
}

/// A session whose CONNECT waits for the ticket, with these bytes right behind it.
pub(crate) fn waiting(
    broker: &TestBroker,
    tickets: &mpsc::Receiver<Ticket>,
    behind: &[u8],
) -> (Peer, Ticket) {
    let mut peer = broker.open();
    peer.send([&wire::frame(1, b"later"), behind].concat());
    let ticket = tickets.recv_timeout(DEADLINE).unwrap();
    (peer, ticket)
}

#[test]
fn an_accepted_session_is_served_and_a_refused_one_is_closed_with_what_came_behind() {
    let (broker, _tickets) = start_obedient(&[]);
    let mut witness = broker.subscriber(&["a"]);
    for (payload, reason) in [
        (&b"refuse"[..], CloseReason::AuthFailed),
        (b"limit", CloseReason::LimitConnect),
    ] {
        let mut peer = broker.open();
        let behind = [wire::subscribe(&["a", "mine"]), wire::publish("a", "x")].concat();
        peer.send([wire::frame(1, payload), behind].concat());
        peer.expect_end();
        assert_eq!(broker.counters().closed(reason), 1);
    }
    assert_eq!(broker.subscribers("mine"), 0);
    let mut accepted = broker.open();
    accepted.send([wire::frame(1, b"please"), wire::publish("a", "served")].concat());
    witness.expect_nothing_before(wire::publish("a", "served"));
    drop((witness, accepted));
    broker.finish();
}

#[test]
fn what_comes_behind_a_connect_waits_for_its_answer_and_is_executed_in_order() {
    let (broker, tickets) = start_obedient(&[]);
    let mut witness = broker.subscriber(&["a"]);
    let frames = wire::numbered("a", 100);
    let behind = [wire::subscribe(&["mine"]), frames.clone(), vec![5, 4, 1]].concat();
    let (mut peer, ticket) = waiting(&broker, &tickets, &behind);
    // More comes while it waits, in a segment of its own.
    peer.send(b"axx");
    let mut other = broker.connect();
    other.publish("a", "meanwhile");
    witness.expect_nothing_before(wire::publish("a", "meanwhile"));
    assert_eq!(broker.subscribers("mine"), 0);
    thread::spawn(|| ticket.accept()).join().unwrap();
    witness.expect([frames, wire::publish("a", "xx")].concat());
    wait_until("its topic is held", || broker.subscribers("mine") == 1);
    other.publish("mine", "live");
    peer.expect_nothing_before(wire::publish("mine", "live"));
    drop((witness, other, peer));
    broker.finish();
}

#[test]
fn what_comes_behind_a_connect_is_discarded_when_it_is_refused_or_forgotten() {
    let (broker, tickets) = start_obedient(&[]);
    let mut witness = broker.subscriber(&["a"]);
    let behind = [wire::subscribe(&["mine"]), wire::numbered("a", 100)].concat();
    let answers: [(fn(Ticket), CloseReason); 3] = [
        (
            |ticket| ticket.refuse(Refusal::NotAuthorised),
            CloseReason::AuthFailed,
        ),
        (
            |ticket| ticket.refuse(Refusal::Limit),
            CloseReason::LimitConnect,
        ),
        (drop, CloseReason::AuthFailed),
    ];
    for (answer, reason) in answers {
        let before = broker.counters().closed(reason);
        let (mut peer, ticket) = waiting(&broker, &tickets, &behind);
        thread::spawn(move || answer(ticket)).join().unwrap();
        peer.expect_end();
        assert_eq!(broker.counters().closed(reason), before + 1);
    }
    assert_eq!(broker.subscribers("mine"), 0);
    let mut marker = broker.connect();
    marker.publish("a", "marker");
    witness.expect_nothing_before(wire::publish("a", "marker"));
    drop((witness, marker));
    broker.finish();
}

#[test]
fn the_end_of_the_stream_waits_behind_held_input() {
    let (broker, tickets) = start_obedient(&[]);
    let mut witness = broker.subscriber(&["a"]);
    let frames = wire::numbered("a", 1000);
    for disconnect in [&[][..], &wire::DISCONNECT] {
        let behind = [&frames, disconnect].concat();
        let (mut peer, ticket) = waiting(&broker, &tickets, &behind);
        peer.half_close();
        // The end has certainly come when another session's marker has.
        let mut other = broker.connect();
        other.publish("a", "meanwhile");
        witness.expect_nothing_before(wire::publish("a", "meanwhile"));
        ticket.accept();
        witness.expect(&frames);
        peer.expect_end();
    }
    let counters = broker.counters();
    broker.await_counters("both have ended", |counters| {
        counters.closed(CloseReason::Eof) >= 2
    });
    assert_eq!(counters.closed(CloseReason::ClientDisconnect), 1);
    drop(witness);
    broker.finish();
}

#[test]
fn f3_an_answer_for_a_session_that_has_ended_reaches_nobody() {
    let (broker, tickets) = start_obedient(&["listener.connect_timeout=200ms"]);
    let (peer, late) = waiting(&broker, &tickets, &wire::numbered("a", 10));
    peer.reset();
    broker.await_counters("it is gone", |counters| {
        counters.closed(CloseReason::Reset) == 1
    });
    let (mut patient, too_late) = waiting(&broker, &tickets, &wire::subscribe(&["a"]));
    patient.expect_end();
    assert_eq!(broker.counters().closed(CloseReason::ConnectTimeout), 1);
    let heir = broker.subscriber(&["heir"]);
    late.accept();
    too_late.accept();
    assert_eq!(broker.subscribers("a"), 0);
    drop((patient, heir));
    broker.finish();
}

#[test]
fn what_is_denied_is_discarded_and_not_charged() {
    let (broker, _tickets) = start_obedient(&[]);
    let mut witness = broker.subscriber(&["a"]);
    let mut peer = broker.connect();
    for _ in 0..100 {
        peer.publish("secret/1", "x");
        peer.subscribe(&["secret/2"]);
    }
    peer.publish("a", "served");
    witness.expect_nothing_before(wire::publish("a", "served"));
    let counters = broker.counters();
    assert_eq!(counters.discarded(DiscardCause::Denied), 200);
    assert_eq!(broker.subscribers("secret/2"), 0);
    drop((witness, peer));
    broker.finish();
}

#[test]
fn input_held_for_answers_is_bounded_in_total() {
    let (sender, tickets) = mpsc::channel();
    let obedient = Obedient { tickets: sender };
    let mut world = World::with(obedient, &["limits.held_total_max=64KiB"]);
    let greeting = [wire::frame(1, b"later"), wire::numbered("a", 5000)].concat();
    let (first, second) = (world.open(), world.open());
    world.receive(first, &greeting);
    world.receive(second, &greeting);
    world.turn();
    assert_eq!(world.ended.get(&second), Some(&CloseReason::LimitConnect));
    assert_eq!(world.ended.get(&first), None);
    tickets.recv().unwrap().accept();
    world.turn();
    assert_eq!(world.counters().accepted(5), 5000);
    // What was held is free again, for the next one and for one that gives up.
    let third = world.open();
    world.receive(third, &greeting);
    world.shard.close(third, CloseReason::ConnectTimeout);
    world.turn();
    let fourth = world.open();
    world.receive(fourth, &greeting);
    world.turn();
    assert_eq!(world.ended.get(&fourth), None);
}
