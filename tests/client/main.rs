//! What the client library writes and how it takes what it is sent, in bytes over real sockets.
#![cfg(feature = "client")]
#![allow(
    clippy::unwrap_used,
    reason = "what a test cannot go on without has failed it"
)]

#[cfg(all(feature = "broker", feature = "tokio"))]
mod asynchronous;
#[cfg(feature = "broker")]
mod broker;
#[cfg(feature = "broker")]
#[path = "../support/engine.rs"]
mod engine;
#[cfg(feature = "broker")]
mod extensions;
mod faults;
#[path = "../peer/mod.rs"]
mod peer;
mod reconnect;

use std::time::Duration;

use hvlp::client::{Batch, Client, ClientError, Fault};

use self::peer::{LONG, Peer};

const CONNECT: &[u8] = &[0x01, 0x00];
const DISCONNECT: &[u8] = &[0x02, 0x00];

#[test]
fn each_call_writes_exactly_its_frame() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        connection.expect(&[0x03, 0x05, 0x01, 0x61, 0x02, 0x62, 0x63]);
        connection.expect(&[0x04, 0x02, 0x01, 0x61]);
        connection.expect(&[0x05, 0x04, 0x01, 0x61, 0xAA, 0x55]);
        connection.expect(&[0x09, 0x00, 0x07]);
        connection.expect(DISCONNECT);
        connection.expect_end();
    });
    let mut client = Client::connect(&peer.address).unwrap();
    client.subscribe(["a", "bc"]).unwrap();
    client.unsubscribe(["a"]).unwrap();
    assert_eq!(client.topics(), ["bc"]);
    client.publish("a", &[0xAA, 0x55]).unwrap();
    client.send_raw(&[0x09, 0x00, 0x07]).unwrap();
    client.disconnect().unwrap();
    peer.join();
}

#[test]
fn open_writes_nothing_until_connect_is_asked_for() {
    let peer = Peer::once(|mut connection| {
        connection.expect(&[0x07, 0x01, 0x2A]);
        connection.expect(&[0x01, 0x06, 0x73, 0x33, 0x63, 0x72, 0x65, 0x74]);
    });
    let builder = Client::builder().address(peer.address.clone()).unwrap();
    let mut client = builder.open().unwrap();
    client.send_raw(&[0x07, 0x01, 0x2A]).unwrap();
    client.send_connect(b"s3cret").unwrap();
    peer.join();
}

#[test]
fn the_payload_of_connect_is_what_the_builder_was_given() {
    let peer = Peer::once(|mut connection| {
        connection.expect(&[0x01, 0x06, 0x73, 0x33, 0x63, 0x72, 0x65, 0x74]);
    });
    let builder = Client::builder().address(peer.address.clone()).unwrap();
    let _client = builder.payload("s3cret").connect().unwrap();
    peer.join();
}

#[test]
fn more_topics_than_one_frame_holds_go_out_in_several() {
    let topics: Vec<String> = (0..3).map(|n| format!("{n}{}", "x".repeat(99))).collect();
    let mut expected = vec![0x03, 202];
    for (position, topic) in topics.iter().enumerate() {
        if position == 2 {
            expected.extend([0x03, 101]);
        }
        expected.push(100);
        expected.extend(topic.as_bytes());
    }
    let peer = Peer::once(move |mut connection| {
        connection.expect(CONNECT);
        connection.expect(&expected);
    });
    let mut client = Client::connect(&peer.address).unwrap();
    client.subscribe(&topics).unwrap();
    peer.join();
}

#[test]
fn a_batch_goes_out_in_order_and_is_empty_then() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        for n in 0..=255 {
            connection.expect(&[0x05, 0x03, 0x01, 0x61, n]);
        }
        connection.expect(DISCONNECT);
    });
    let mut client = Client::connect(&peer.address).unwrap();
    let mut batch = Batch::new();
    for n in 0..=255 {
        batch.publish("a", &[n]).unwrap();
    }
    client.send_batch(&mut batch).unwrap();
    assert!(batch.is_empty());
    client.disconnect().unwrap();
    peer.join();
}

#[test]
fn messages_come_whole_however_they_were_split() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        for byte in [0x05, 0x04, 0x01, 0x61, 0xAA, 0x55, 0x05, 0x01, 0x00, 0x05] {
            connection.write(&[byte]);
        }
        connection.expect(&[0x05, 0x01, 0x00]);
        connection.write(&[0x02, 0x01, 0x62]);
        connection.expect_end();
    });
    let mut client = Client::connect(&peer.address).unwrap();
    let first = client.receive(LONG).unwrap().unwrap();
    assert_eq!((first.topic(), first.data()), ("a", &[0xAA, 0x55][..]));
    let second = client.receive(LONG).unwrap().unwrap();
    assert_eq!((second.topic(), second.data()), ("", &[][..]));
    assert!(client.receive(Duration::ZERO).unwrap().is_none());
    assert!(client.receive(Duration::from_millis(1)).unwrap().is_none());
    client.publish("", b"").unwrap();
    let third = client.messages(LONG).next().unwrap().unwrap();
    assert_eq!((third.topic(), third.data()), ("b", &[][..]));
    drop(client);
    peer.join();
}

#[test]
fn l2_what_does_not_fit_is_refused_before_a_byte_is_written() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        connection.expect(&[0x05, 0x03, 0x01, 0x61, 0x31]);
        connection.expect(DISCONNECT);
    });
    let mut client = Client::connect(&peer.address).unwrap();
    let long = "x".repeat(255);
    for refused in [
        client.publish(&long, b""),
        client.publish("a/b", &[0; 252]),
        client.subscribe(["a", &long]),
        client.unsubscribe([&long]),
        client.send_connect(&[0; 256]),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.fault(), Fault::Caller, "{error}");
        assert!(matches!(error, ClientError::Encode(_)));
    }
    assert!(client.topics().is_empty());
    client.publish("a", b"1").unwrap();
    client.disconnect().unwrap();
    peer.join();
}

#[test]
fn one_thread_publishes_while_another_receives() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        for n in 0..100 {
            connection.expect(&[0x05, 0x03, 0x01, 0x61, n]);
            connection.write(&[0x05, 0x03, 0x01, 0x62, n]);
        }
        connection.expect(DISCONNECT);
        connection.expect_end();
    });
    let (mut sender, mut receiver) = Client::connect(&peer.address).unwrap().split();
    let receiving = std::thread::spawn(move || {
        let messages = receiver.messages(LONG);
        let data: Vec<u8> = messages.map(|message| message.unwrap().data()[0]).collect();
        data
    });
    for n in 0..100 {
        sender.publish("a", &[n]).unwrap();
    }
    sender.disconnect().unwrap();
    assert!(receiving.join().unwrap().into_iter().eq(0..100));
    peer.join();
}

#[test]
fn frames_of_several_senders_do_not_mix() {
    const COUNT: usize = 200;
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        let mut seen = [0; 4];
        for _ in 0..4 * COUNT {
            let mut frame = [0; 257];
            std::io::Read::read_exact(&mut connection.0, &mut frame).unwrap();
            let who = frame[4];
            assert_eq!(frame[..4], [5, 255, 1, b'a']);
            assert!(frame[4..].iter().all(|&byte| byte == who));
            seen[usize::from(who)] += 1;
        }
        assert_eq!(seen, [COUNT; 4]);
    });
    let client = Client::connect(&peer.address).unwrap();
    std::thread::scope(|scope| {
        for who in 0..4 {
            let mut sender = client.sender();
            scope.spawn(move || {
                for _ in 0..COUNT {
                    sender.publish("a", &[who; 253]).unwrap();
                }
            });
        }
    });
    peer.join();
}

#[test]
fn a_unix_socket_serves_as_well() {
    use std::io::{Read, Write};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hvlp.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&[0x05, 0x03, 0x01, 0x61, 0x31]).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    let mut client = Client::connect(format!("unix:{}", path.display())).unwrap();
    assert_eq!(client.receive(LONG).unwrap().unwrap().data(), b"1");
    client.disconnect().unwrap();
    assert_eq!(peer.join().unwrap(), [CONNECT, DISCONNECT].concat());
}
