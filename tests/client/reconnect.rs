//! Coming back after a lost connection.

use std::time::Duration;

use hvlp::client::{Client, ClientBuilder, ClientError, Reconnect};

use crate::peer::{LONG, Peer};
use crate::{CONNECT, DISCONNECT};

const SUBSCRIBE_A: &[u8] = &[0x03, 0x02, 0x01, 0x61];
const MESSAGE: &[u8] = &[0x05, 0x03, 0x01, 0x61, 0x31];

fn reconnecting(peer: &Peer) -> ClientBuilder {
    let reconnect = Reconnect {
        first: Duration::from_millis(1),
        max: Duration::from_millis(20),
        attempts_max: None,
    };
    let builder = Client::builder().address(peer.address.clone()).unwrap();
    builder.reconnect(reconnect)
}

#[test]
fn l7_subscriptions_are_restored_before_anything_else_goes_on() {
    let peer = Peer::listening(|listener| {
        let mut first = listener.accept();
        first.expect(CONNECT);
        first.expect(SUBSCRIBE_A);
        // Cut within a frame: the new connection must not begin with its rest.
        first.write(&MESSAGE[..4]);
        drop(first);
        let mut second = listener.accept();
        second.expect(CONNECT);
        second.expect(SUBSCRIBE_A);
        second.write(MESSAGE);
        second.expect(DISCONNECT);
    });
    let mut client = reconnecting(&peer).connect().unwrap();
    client.subscribe(["a"]).unwrap();
    let message = client.receive(LONG).unwrap().unwrap();
    assert_eq!(message.data(), b"1");
    assert_eq!(client.reconnects(), 1);
    client.disconnect().unwrap();
    peer.join();
}

#[test]
fn both_halves_go_on_with_the_same_new_connection() {
    let (done, wait) = std::sync::mpsc::channel();
    let peer = Peer::listening(move |listener| {
        let mut first = listener.accept();
        first.expect(CONNECT);
        first.expect(SUBSCRIBE_A);
        first.reset();
        let mut second = listener.accept();
        second.expect(CONNECT);
        second.expect(SUBSCRIBE_A);
        // What the sender writes after the loss arrives here, and the receiver hears of it.
        second.expect(&[0x05, 0x03, 0x01, 0x62]);
        second.write(MESSAGE);
        wait.recv().unwrap();
    });
    let (mut sender, mut receiver) = reconnecting(&peer).connect().unwrap().split();
    sender.subscribe(["a"]).unwrap();
    let receiving = std::thread::spawn(move || receiver.receive(LONG).map(|got| got.is_some()));
    while !receiving.is_finished() {
        sender.publish("b", b"x").unwrap();
        std::thread::yield_now();
    }
    done.send(()).unwrap();
    assert!(receiving.join().unwrap().unwrap());
    peer.join();
}

#[test]
fn a_sender_alone_comes_back_with_the_newest_subscriptions() {
    let (lost, wait) = std::sync::mpsc::channel();
    let peer = Peer::listening(move |listener| {
        let mut first = listener.accept();
        first.expect(CONNECT);
        first.expect(SUBSCRIBE_A);
        first.reset();
        lost.send(()).unwrap();
        let mut second = listener.accept();
        second.expect(CONNECT);
        second.expect(&[0x03, 0x02, 0x01, 0x62]);
        second.expect(DISCONNECT);
    });
    let (mut sender, _receiver) = reconnecting(&peer).connect().unwrap().split();
    sender.subscribe(["a"]).unwrap();
    wait.recv().unwrap();
    sender.unsubscribe(["a"]).unwrap();
    sender.subscribe(["b"]).unwrap();
    sender.disconnect().unwrap();
    peer.join();
}

#[test]
fn it_gives_up_after_as_many_attempts_as_allowed() {
    let peer = Peer::listening(|listener| {
        let mut first = listener.accept();
        first.expect(CONNECT);
    });
    let builder = Client::builder().address(peer.address.clone()).unwrap();
    let reconnect = Reconnect {
        first: Duration::from_millis(1),
        max: Duration::from_millis(2),
        attempts_max: Some(3),
    };
    let builder = builder.reconnect(reconnect).write_timeout(Duration::MAX);
    let mut client = builder.connect().unwrap();
    peer.join();
    for error in [
        client.receive(Duration::MAX).unwrap_err(),
        client.publish("a", b"1").unwrap_err(),
    ] {
        assert!(
            matches!(error, ClientError::NothingListens { .. }),
            "{error}"
        );
    }
}

#[test]
fn waiting_for_the_broker_to_come_back_keeps_the_time_limit() {
    let peer = Peer::listening(|listener| listener.accept().expect(CONNECT));
    let builder = reconnecting(&peer).write_timeout(Duration::from_millis(30));
    let mut client = builder.connect().unwrap();
    peer.join();
    assert!(client.receive(Duration::from_millis(30)).unwrap().is_none());
    let error = client.publish("a", b"1").unwrap_err();
    assert!(
        error.to_string().contains("did not come back within 30ms"),
        "{error}"
    );
}
