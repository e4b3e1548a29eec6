//! What a client asks for beyond the base protocol, of this broker and of others.

use std::time::Duration;

use hvlp::Broker;
use hvlp::client::{Client, ClientBuilder, ClientError, Reconnect};
use hvlp::packet::{Extensions, Reason, Status};

use crate::peer::{LONG, Peer};
use crate::{CONNECT, DISCONNECT, engine};

const ACK: Extensions = Extensions::ACK;
/// CONNECT that wants ACK, and the answer that grants it.
const HELLO: &[u8] = &[0x01, 0x05, 0xFF, 0x48, 0x2B, 0x01, 0x00];
const GRANTED: &[u8] = &[0x01, 0x05, 0xFF, 0x48, 0x2B, 0x01, 0x00];
const SUBSCRIBE_A: &[u8] = &[0x03, 0x02, 0x01, 0x61];
const MESSAGE: &[u8] = &[0x05, 0x03, 0x01, 0x61, 0x31];
const PING: &[u8] = &[0x04, 0x00];
const PONG: &[u8] = &[0x04, 0x05, 0xFF, 0x00, 0x00, 0x00, 0x07];

fn asking(peer: &Peer) -> ClientBuilder {
    let builder = Client::builder().address(peer.address.clone()).unwrap();
    builder.extensions(ACK)
}

#[test]
fn what_was_subscribed_and_acknowledged_is_received_and_a_barrier_counts_what_is_lost() {
    let broker = engine::chosen(Broker::builder().listen("127.0.0.1:0").unwrap());
    let broker = broker.spawn().unwrap();
    let builder = Client::builder().address(broker.local_addr()).unwrap();
    let wanted = ACK | Extensions::WILD | Extensions::ECHO;
    let mut client = builder.extensions(wanted).connect().unwrap();
    assert_eq!(client.extensions(), wanted);
    let statuses = client.subscribe_acked(["a/+", "b", "#a"]).unwrap();
    assert_eq!(statuses, [Status::Ok, Status::Ok, Status::Malformed]);
    assert_eq!(
        client.topics(),
        ["a/+", "b"],
        "what was refused is not held"
    );
    let mut other = Client::connect(broker.local_addr()).unwrap();
    for n in 0..100_u8 {
        other.publish("a/x", &[n]).unwrap();
        client.publish("b", &[n]).unwrap();
        // Requests that nobody waits for do not disturb those that somebody does.
        client.subscribe(["c"]).unwrap();
        assert_eq!(client.barrier().unwrap(), 0);
    }
    assert_eq!(
        client.unsubscribe_acked(["b", "z"]).unwrap(),
        [Status::Ok; 2]
    );
    let mut next = [0, 0];
    for _ in 0..200 {
        let message = client.receive(LONG).unwrap().unwrap();
        let of = usize::from(message.topic() == "b");
        assert_eq!(message.data(), [next[of]]);
        next[of] += 1;
    }
    assert_eq!(next, [100, 100]);
    client.disconnect().unwrap();
}

#[test]
fn more_topics_than_one_frame_holds_have_a_status_each() {
    let broker = engine::chosen(Broker::builder().listen("127.0.0.1:0").unwrap());
    let broker = broker.spawn().unwrap();
    let builder = Client::builder().address(broker.local_addr()).unwrap();
    let mut client = builder.extensions(ACK).connect().unwrap();
    let topics: Vec<_> = (0..1000).map(|n| format!("topic {n}")).collect();
    assert_eq!(client.subscribe_acked(&topics).unwrap(), [Status::Ok; 1000]);
    assert_eq!(client.subscribe_acked([""; 0]).unwrap(), []);
    client.disconnect().unwrap();
}

#[test]
fn l5_a_broker_that_does_not_answer_is_asked_no_more() {
    let peer = Peer::listening(|listener| {
        let mut first = listener.accept();
        first.expect(HELLO);
        first.expect_end();
        let mut second = listener.accept();
        second.expect(CONNECT);
        second.expect(SUBSCRIBE_A);
        second.write(MESSAGE);
        second.expect(DISCONNECT);
    });
    let mut client = asking(&peer).connect().unwrap();
    assert_eq!(client.extensions(), Extensions::NONE);
    let error = client.subscribe_acked(["a"]).unwrap_err();
    assert!(matches!(error, ClientError::NotGranted { missing, .. } if missing == ACK));
    client.subscribe(["a"]).unwrap();
    assert_eq!(client.receive(LONG).unwrap().unwrap().data(), b"1");
    client.disconnect().unwrap();
    peer.join();
}

#[test]
fn l5_who_has_sent_a_secret_does_not_fall_back_and_shows_it_to_nobody() {
    let peer = Peer::once(|mut connection| {
        connection.expect(&[0x01, 0x10, 0xFF, 0x48, 0x2B, 0x01, 0x00]);
        connection.expect(b"\x05alice\x04hush");
        connection.expect_end();
    });
    let builder = asking(&peer).login("alice", "hush").payload("token");
    let shown = format!("{builder:?}");
    assert!(shown.contains("alice") && !shown.contains("hush") && !shown.contains("token"));
    let error = builder.connect().unwrap_err();
    assert!(matches!(error, ClientError::NoLogin { .. }), "{error}");
    peer.join();
}

#[test]
fn a_refusal_and_a_close_have_their_reasons() {
    let peer = Peer::listening(|listener| {
        let mut refused = listener.accept();
        refused.expect(HELLO);
        refused.write(&[0x01, 0x05, 0xFF, 0x48, 0x2B, 0x00, 0x01]);
        let mut closed = listener.accept();
        closed.expect(HELLO);
        closed.write(GRANTED);
        closed.write(b"\x02\x0E\x04slow consumer");
    });
    let error = asking(&peer).connect().unwrap_err();
    assert!(
        matches!(error, ClientError::Refused { status, .. } if status == Status::NotAuthorised)
    );
    let mut client = asking(&peer).connect().unwrap();
    let error = client.receive(LONG).unwrap_err();
    assert!(
        matches!(error, ClientError::ClosedFor { reason, .. } if reason == Reason::SlowConsumer)
    );
    assert!(
        error
            .to_string()
            .ends_with("closed the connection: slow consumer")
    );
    peer.join();
}

#[test]
fn messages_that_come_before_an_answer_are_received_afterwards_in_their_order() {
    let peer = Peer::once(|mut connection| {
        connection.expect(HELLO);
        connection.write(GRANTED);
        connection.expect(PING);
        connection.write(&[MESSAGE, PONG, &[0x05, 0x03, 0x01, 0x61, 0x32]].concat());
        connection.expect(DISCONNECT);
    });
    let mut client = asking(&peer).connect().unwrap();
    assert_eq!(client.barrier().unwrap(), 7);
    for data in [b"1", b"2"] {
        assert_eq!(client.receive(LONG).unwrap().unwrap().data(), data);
    }
    client.disconnect().unwrap();
    peer.join();
}

#[test]
fn l3_an_answer_to_another_question_is_an_error_with_a_name() {
    let peer = Peer::once(|mut connection| {
        connection.expect(HELLO);
        connection.write(GRANTED);
        connection.expect(PING);
        connection.write(&[0x03, 0x01, 0x00]);
        connection.expect_end();
    });
    let mut client = asking(&peer).connect().unwrap();
    let error = client.barrier().unwrap_err();
    assert!(matches!(error, ClientError::NotABroker { .. }), "{error}");
    peer.join();
}

#[test]
fn l7_a_new_connection_is_granted_anew_and_its_answers_are_not_taken_for_later_ones() {
    let peer = Peer::listening(|listener| {
        let mut first = listener.accept();
        first.expect(HELLO);
        first.write(GRANTED);
        first.expect(SUBSCRIBE_A);
        first.write(&[0x03, 0x01, 0x00]);
        drop(first);
        let mut second = listener.accept();
        second.expect(HELLO);
        second.expect(SUBSCRIBE_A);
        second.write(&[GRANTED, &[0x03, 0x01, 0x00], MESSAGE].concat());
        second.expect(PING);
        second.write(PONG);
        second.expect(DISCONNECT);
    });
    let reconnect = Reconnect {
        first: Duration::from_millis(1),
        ..Reconnect::default()
    };
    let mut client = asking(&peer).reconnect(reconnect).connect().unwrap();
    assert_eq!(client.subscribe_acked(["a"]).unwrap(), [Status::Ok]);
    assert_eq!(client.receive(LONG).unwrap().unwrap().data(), b"1");
    assert_eq!((client.reconnects(), client.barrier().unwrap()), (1, 7));
    client.disconnect().unwrap();
    peer.join();
}

#[test]
fn j11_who_only_receives_keeps_the_promise_of_a_keepalive() {
    let broker = engine::chosen(Broker::builder().listen("127.0.0.1:0").unwrap());
    let broker = broker.spawn().unwrap();
    let builder = Client::builder().address(broker.local_addr()).unwrap();
    let mut silent = builder.keepalive(Duration::from_secs(1)).connect().unwrap();
    // Twice as long as a silent client is tolerated.
    assert_eq!(silent.receive(Duration::from_secs(3)).unwrap(), None);
    silent.subscribe(["a"]).unwrap();
    silent.disconnect().unwrap();
}

#[test]
fn an_answer_that_comes_too_late_is_not_taken_for_the_next_one() {
    let (go, may_answer) = std::sync::mpsc::channel();
    let peer = Peer::once(move |mut connection| {
        connection.expect(HELLO);
        connection.write(GRANTED);
        connection.expect(PING);
        may_answer.recv_timeout(LONG).unwrap();
        connection.write(PONG);
        connection.expect(PING);
        connection.write(&[0x04, 0x05, 0xFF, 0x00, 0x00, 0x00, 0x09]);
        connection.expect(DISCONNECT);
    });
    let patience = Duration::from_millis(50);
    let mut client = asking(&peer).answer_timeout(patience).connect().unwrap();
    let error = client.barrier().unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { limit, .. } if limit == patience));
    go.send(()).unwrap();
    // The late one may still be on its way.
    let dropped = loop {
        match client.barrier() {
            Err(ClientError::TimedOut { .. }) => {}
            answered => break answered.unwrap(),
        }
    };
    assert_eq!(dropped, 9);
    client.disconnect().unwrap();
    peer.join();
}

#[test]
fn who_receives_without_a_pause_keeps_the_connection_alive_too() {
    let peer = Peer::once(|mut connection| {
        connection.expect(&[0x01, 0x05, 0xFF, 0x48, 0x2B, 0x00, 0x01]);
        connection.write(&[0x01, 0x05, 0xFF, 0x48, 0x2B, 0x00, 0x00]);
        // More than is read while nothing has to be waited for.
        let end = std::time::Instant::now() + Duration::from_secs(1);
        while std::time::Instant::now() < end {
            connection.write(&MESSAGE.repeat(10_000));
        }
        connection.expect(&[0x03, 0x00]);
    });
    let builder = Client::builder().address(peer.address.clone()).unwrap();
    let mut client = builder.keepalive(Duration::from_secs(1)).connect().unwrap();
    while client.receive(LONG).is_ok() {}
    peer.join();
}

#[test]
fn l7_a_broker_that_grants_less_when_it_comes_back_is_an_error() {
    let peer = Peer::listening(|listener| {
        let mut first = listener.accept();
        first.expect(HELLO);
        first.write(GRANTED);
        drop(first);
        let mut second = listener.accept();
        second.expect(HELLO);
        second.write(&[0x01, 0x05, 0xFF, 0x48, 0x2B, 0x00, 0x00]);
        second.expect_end();
    });
    let mut client = asking(&peer)
        .reconnect(Reconnect::default())
        .connect()
        .unwrap();
    let error = client.receive(LONG).unwrap_err();
    assert!(matches!(error, ClientError::NotGranted { missing, .. } if missing == ACK));
    drop(client);
    peer.join();
}

#[test]
fn more_messages_than_are_kept_before_an_answer_are_an_error_of_their_own() {
    let peer = Peer::once(|mut connection| {
        connection.expect(HELLO);
        connection.write(GRANTED);
        connection.expect(PING);
        connection.write(&MESSAGE.repeat(300_000));
        connection.write(PONG);
        connection.expect(DISCONNECT);
    });
    let mut client = asking(&peer).connect().unwrap();
    let error = client.barrier().unwrap_err();
    assert!(
        matches!(error, ClientError::TooManyMessages { .. }),
        "{error}"
    );
    for _ in 0..300_000 {
        assert_eq!(client.receive(LONG).unwrap().unwrap().data(), b"1");
    }
    client.disconnect().unwrap();
    peer.join();
}
