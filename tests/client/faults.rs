//! Rows L of `tests/FAULTS-COVERAGE.md`: each kind of bad end has its own error.

use std::io::Read;
use std::net::TcpListener;
use std::time::Duration;

use hvlp::address::Address;
use hvlp::client::{Batch, Client, ClientError, Fault, Misbehaved};

use crate::peer::{LONG, Peer};
use crate::{CONNECT, DISCONNECT};

#[test]
fn l1_nobody_listens() {
    let address: Address = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().into()
    };
    let error = Client::connect(&address).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("nothing listens on {address}; start one: hvlp-broker")
    );
    assert_eq!(error.fault(), Fault::Environment);

    let error = Client::connect("unix:/nonexistent/hvlp.sock").unwrap_err();
    assert!(matches!(error, ClientError::NothingListens { .. }));
}

#[test]
fn l1_accepts_and_closes() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
    });
    let mut client = Client::connect(&peer.address).unwrap();
    let error = client.receive(LONG).unwrap_err();
    assert!(matches!(error, ClientError::Closed { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Broker);
    let error = client.disconnect().unwrap_err();
    assert!(matches!(error, ClientError::Closed { .. }), "{error}");
    peer.join();
}

#[test]
fn l1_an_http_server_and_a_tls_port_are_told_apart_from_a_broker() {
    for (answer, name) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "HTTP"),
        (&[0x15, 3, 3, 0, 2, 2, 10], "TLS"),
    ] {
        for receives in [true, false] {
            let peer = Peer::once(|mut connection| {
                connection.expect(CONNECT);
                connection.write(answer);
            });
            let mut client = Client::connect(&peer.address).unwrap();
            let address = client.broker().clone();
            peer.join();
            let error = if receives {
                client.receive(LONG).unwrap_err()
            } else {
                client.disconnect().unwrap_err()
            };
            assert_eq!(
                error.to_string(),
                format!("{address} does not look like an HVLP broker: it speaks {name}")
            );
        }
    }
}

#[test]
fn l1_what_ends_without_a_single_message_does_not_look_like_a_broker() {
    for said in [&b"hello\r\n"[..], &[0x01, 0x00], &[0x00]] {
        let peer = Peer::once(|mut connection| {
            connection.expect(CONNECT);
            connection.write(said);
        });
        let mut client = Client::connect(&peer.address).unwrap();
        let error = client.receive(LONG).unwrap_err();
        let ClientError::NotABroker { cause, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*cause, Misbehaved::NoMessage);
        peer.join();
    }
}

#[test]
fn l3_garbage_is_skipped_and_at_last_an_error_that_stays() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        connection.write(&[0x02, 0x00, 0x05, 0x00, 0x05, 0x03, 0x01, 0x61, 0x31]);
        connection.write(&[[0x05, 0x00]; 65].concat());
        connection.expect_end();
    });
    let mut client = Client::connect(&peer.address).unwrap();
    assert_eq!(client.receive(LONG).unwrap().unwrap().data(), b"1");
    for _ in 0..2 {
        let error = client.receive(LONG).unwrap_err();
        let ClientError::NotABroker { cause, .. } = &error else {
            panic!("{error}");
        };
        assert!(matches!(cause, Misbehaved::Garbage { count: 65, .. }));
    }
    peer.join();
}

#[test]
fn l4_a_partial_frame_is_never_handed_out() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        connection.write(&[0x05, 0x02, 0x01, 0x61, 0x05, 0x0A, 0x01, 0x61]);
    });
    let mut client = Client::connect(&peer.address).unwrap();
    assert!(client.receive(LONG).unwrap().is_some());
    let error = client.receive(LONG).unwrap_err();
    assert!(
        matches!(error, ClientError::ClosedInFrame { received: 4, .. }),
        "{error}"
    );
    peer.join();
}

#[test]
fn l4_a_reset_is_called_a_reset() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        connection.reset();
    });
    let mut client = Client::connect(&peer.address).unwrap();
    let error = client.receive(LONG).unwrap_err();
    assert!(matches!(error, ClientError::Reset { .. }), "{error}");
    peer.join();
}

#[test]
fn l4_a_broker_that_takes_nothing_is_a_time_out_and_nothing_is_torn() {
    const FRAME_LEN: usize = 257;
    let (go_on, wait) = std::sync::mpsc::channel();
    let peer = Peer::once(move |mut connection| {
        connection.expect(CONNECT);
        let sent: u8 = wait.recv().unwrap();
        let mut stream = Vec::new();
        connection.0.read_to_end(&mut stream).unwrap();
        let (frames, end) = stream.as_chunks::<FRAME_LEN>();
        assert_eq!(end, DISCONNECT);
        for (position, frame) in frames.iter().enumerate() {
            let number = u8::try_from(position % 251).unwrap();
            assert_eq!(frame[..4], [0x05, 0xFF, 0x01, 0x61]);
            assert_eq!(
                frame[4..],
                [number; 253],
                "frame {position} is torn, lost or doubled"
            );
        }
        assert_eq!(frames.len() % 251, usize::from(sent));
    });
    let builder = Client::builder().address(peer.address.clone()).unwrap();
    let builder = builder.write_timeout(Duration::from_millis(50));
    let mut client = builder.connect().unwrap();
    let mut batch = Batch::new();
    let mut numbers = (0..251).cycle();
    let error = loop {
        if batch.is_empty() {
            let next = numbers.by_ref().take(100);
            next.for_each(|number| batch.publish("a", &[number; 253]).unwrap());
        }
        if let Err(error) = client.send_batch(&mut batch) {
            break error;
        }
    };
    assert!(
        error
            .to_string()
            .ends_with("did not take anything within 50ms"),
        "{error}"
    );
    // What was not sent is still there, and goes out when the broker reads again.
    assert!(!batch.is_empty());
    go_on.send(numbers.next().unwrap()).unwrap();
    while client.send_batch(&mut batch).is_err() {}
    client.disconnect().unwrap();
    peer.join();
}

#[test]
fn l6_publishing_goes_on_while_received_messages_are_not_taken() {
    const COUNT: usize = 1000;
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        let mut other = connection.0.try_clone().unwrap();
        let flood = std::thread::spawn(move || {
            let frame = [[0x05, 0x03, 0x01, 0x62, 0x00]; 1000].concat();
            other
                .set_write_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            while std::io::Write::write_all(&mut other, &frame).is_ok() {}
        });
        for _ in 0..COUNT {
            connection.expect(&[0x05, 0x03, 0x01, 0x61, 0x31]);
        }
        flood.join().unwrap();
    });
    let (mut sender, receiver) = Client::connect(&peer.address).unwrap().split();
    for _ in 0..COUNT {
        sender.publish("a", b"1").unwrap();
    }
    peer.join();
    drop(receiver);
}

#[test]
fn a_half_that_goes_on_after_disconnect_is_told_so() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        connection.write(&[0x05, 0x03, 0x01, 0x61, 0x31]);
        connection.expect(DISCONNECT);
        connection.expect_end();
    });
    let (sender, mut receiver) = Client::connect(&peer.address).unwrap().split();
    let mut second = sender.clone();
    sender.disconnect().unwrap();
    assert_eq!(receiver.receive(LONG).unwrap().unwrap().data(), b"1");
    let ended = receiver.receive(LONG).unwrap_err();
    assert!(matches!(ended, ClientError::Disconnected), "{ended}");
    let refused = second.subscribe(["a"]).unwrap_err();
    assert!(matches!(refused, ClientError::Disconnected), "{refused}");
    peer.join();
}

#[test]
fn l4_a_peer_that_sends_for_ever_and_never_closes_does_not_hold_a_disconnect() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        let frames = [[0x05, 0x03, 0x01, 0x61, 0x31]; 1000].concat();
        while std::io::Write::write_all(&mut connection.0, &frames).is_ok() {}
    });
    let client = Client::connect(&peer.address).unwrap();
    let error = client.disconnect().unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("close the connection within 5s"),
        "{error}"
    );
    peer.join();
}
