//! The client for tokio: the same bytes, and futures that may be dropped at any time.

use std::time::Duration;

use futures_util::future::poll_immediate;
use futures_util::{StreamExt, TryStreamExt};
use hvlp::Broker;
use hvlp::client::{AsyncClient, Batch, ClientBuilder, ClientError, Message, Reconnect};
use hvlp::packet::{Extensions, Reason, Status};
use tokio::time::timeout;

use crate::peer::{LONG, Peer};
use crate::{CONNECT, DISCONNECT, engine};

const ACK: Extensions = Extensions::ACK;
/// CONNECT that wants ACK, and the answer that grants it.
const HELLO: &[u8] = &[0x01, 0x05, 0xFF, 0x48, 0x2B, 0x01, 0x00];
const SUBSCRIBE_A: &[u8] = &[0x03, 0x02, 0x01, 0x61];
const PING: &[u8] = &[0x04, 0x00];
const PONG: [u8; 7] = [0x04, 0x05, 0xFF, 0x00, 0x00, 0x00, 0x07];

fn builder(peer: &Peer) -> ClientBuilder {
    AsyncClient::builder()
        .address(peer.address.clone())
        .unwrap()
}

fn soon() -> Reconnect {
    Reconnect {
        first: Duration::from_millis(1),
        max: Duration::from_millis(5),
        attempts_max: None,
    }
}

/// A message of "a" with a number, and the number again.
fn numbered(number: u32) -> Vec<u8> {
    [&[0x05, 0x06, 0x01, 0x61], &number.to_be_bytes()[..]].concat()
}

fn number_of(message: &Message) -> u32 {
    u32::from_be_bytes(message.data().try_into().unwrap())
}

/// Polls a future as often as told and then drops it; what it had to say, if that was in time.
async fn polled<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    for _ in 0..times {
        if let Some(done) = poll_immediate(future.as_mut()).await {
            return Some(done);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test]
async fn it_does_what_the_blocking_one_does() {
    let broker = engine::chosen(Broker::builder().listen("127.0.0.1:0").unwrap());
    let broker = broker.spawn().unwrap();
    let wanted = ACK | Extensions::WILD;
    let builder = AsyncClient::builder().address(broker.local_addr()).unwrap();
    let mut consumer = builder.extensions(wanted).connect_async().await.unwrap();
    assert_eq!(consumer.extensions(), wanted);
    let statuses = consumer.subscribe_acked(["a/+", "b", "#a"]).await.unwrap();
    assert_eq!(statuses, [Status::Ok, Status::Ok, Status::Malformed]);
    assert_eq!(consumer.topics(), ["a/+", "b"]);
    let statuses = consumer.unsubscribe_acked(["b"]).await.unwrap();
    assert_eq!(statuses, [Status::Ok]);

    let mut producer = AsyncClient::connect(broker.local_addr()).await.unwrap();
    assert!(producer.local_address().is_some() && producer.barrier().await.is_err());
    let mut batch = Batch::new();
    for n in 0..1000_u32 {
        batch.publish("a/x", &n.to_be_bytes()).unwrap();
    }
    producer.send_batch(&mut batch).await.unwrap();
    assert!(batch.is_empty());
    producer
        .publish("a/x", &1000_u32.to_be_bytes())
        .await
        .unwrap();
    producer.disconnect().await.unwrap();
    let messages: Vec<_> = consumer.messages().take(1001).try_collect().await.unwrap();
    assert!(
        (0..)
            .zip(&messages)
            .all(|(n, message)| number_of(message) == n)
    );
    assert_eq!(consumer.barrier().await.unwrap(), 0);
    consumer.disconnect().await.unwrap();
}

#[tokio::test]
async fn a_receive_that_is_dropped_loses_nothing_wherever_it_was() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        for number in 0..2000 {
            for byte in numbered(number) {
                connection.write(&[byte]);
            }
        }
        connection.expect(DISCONNECT);
    });
    let mut client = AsyncClient::connect(&peer.address).await.unwrap();
    let (mut next, mut dropped) = (0, 0);
    while next < 2000 {
        match polled(next as usize % 3 + 1, client.receive()).await {
            None => dropped += 1,
            Some(message) => {
                assert_eq!(number_of(&message.unwrap()), next);
                next += 1;
            }
        }
    }
    assert!(dropped > 0);
    client.disconnect().await.unwrap();
    peer.join();
}

#[tokio::test]
async fn a_publish_that_is_dropped_tears_no_frame_and_is_sent_once_or_never() {
    let (go, may_read) = std::sync::mpsc::channel();
    let peer = Peer::once(move |mut connection| {
        connection.expect(CONNECT);
        may_read.recv_timeout(LONG).unwrap();
        let mut received = Vec::new();
        std::io::Read::read_to_end(&mut connection.0, &mut received).unwrap();
        received
            .chunks(257)
            .map(|frame| match frame.split_at_checked(257 - 4) {
                Some((head, number)) => {
                    assert_eq!(head[..4], [0x05, 0xFF, 0x01, 0x61]);
                    u32::from_be_bytes(number.try_into().unwrap())
                }
                None => {
                    assert_eq!(frame, DISCONNECT);
                    u32::MAX
                }
            })
            .collect::<Vec<_>>()
    });
    let mut client = AsyncClient::connect(&peer.address).await.unwrap();
    let (mut sent, mut dropped) = (Vec::new(), 0);
    for number in 0..200_000_u32 {
        let mut data = [7; 253];
        data[249..].copy_from_slice(&number.to_be_bytes());
        match polled(1, client.publish("a", &data)).await {
            Some(done) => {
                done.unwrap();
                sent.push(number);
            }
            None => dropped += 1,
        }
        if dropped == 100 {
            break;
        }
    }
    assert_eq!(dropped, 100, "the peer takes only so much");
    go.send(()).unwrap();
    client.disconnect().await.unwrap();
    let received = peer.join();
    assert_eq!(received.last(), Some(&u32::MAX));
    assert!(
        received.is_sorted_by(|one, next| one < next),
        "each at most once"
    );
    assert!(
        sent.iter()
            .all(|number| received.binary_search(number).is_ok())
    );
}

#[tokio::test]
async fn an_answer_to_who_has_given_up_is_not_taken_for_the_next_one() {
    let peer = Peer::once(|mut connection| {
        connection.expect(HELLO);
        connection.write(HELLO);
        connection.expect(PING);
        connection.expect(SUBSCRIBE_A);
        connection.write(&PONG);
        connection.write(&numbered(1));
        connection.write(&[0x03, 0x01, 0x00]);
        connection.expect(DISCONNECT);
    });
    let mut client = builder(&peer)
        .extensions(ACK)
        .connect_async()
        .await
        .unwrap();
    assert!(polled(3, client.barrier()).await.is_none());
    assert_eq!(client.subscribe_acked(["a"]).await.unwrap(), [Status::Ok]);
    assert_eq!(number_of(&client.receive().await.unwrap()), 1);
    client.disconnect().await.unwrap();
    peer.join();
}

#[tokio::test]
async fn l7_it_comes_back_with_its_topics_and_what_was_not_sent_whole() {
    let peer = Peer::listening(|listener| {
        let mut first = listener.accept();
        first.expect(CONNECT);
        first.expect(SUBSCRIBE_A);
        first.write(&numbered(1));
        first.reset();
        let mut second = listener.accept();
        second.expect(CONNECT);
        second.expect(SUBSCRIBE_A);
        second.write(&numbered(2));
        second.expect(&numbered(3));
        second.expect(DISCONNECT);
    });
    let mut client = builder(&peer)
        .reconnect(soon())
        .connect_async()
        .await
        .unwrap();
    client.subscribe(["a"]).await.unwrap();
    assert_eq!(number_of(&client.receive().await.unwrap()), 1);
    // Whoever gives up while it is away goes on where it was.
    let mut second = None;
    while second.is_none() {
        second = polled(2, client.receive()).await;
    }
    assert_eq!(number_of(&second.unwrap().unwrap()), 2);
    assert_eq!(client.reconnects(), 1);
    client.publish("a", &3_u32.to_be_bytes()).await.unwrap();
    client.disconnect().await.unwrap();
    peer.join();
}

#[tokio::test]
async fn l1_l4_each_end_has_its_error_and_it_stays() {
    let peer = Peer::listening(|listener| {
        listener.accept().expect(CONNECT);
        let mut cut = listener.accept();
        cut.expect(CONNECT);
        cut.write(&numbered(1)[..5]);
        drop(cut);
        let mut foreign = listener.accept();
        foreign.expect(CONNECT);
        foreign.write(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let mut told = listener.accept();
        told.expect(HELLO);
        told.write(HELLO);
        told.write(b"\x02\x0E\x04slow consumer");
    });
    let mut errors = Vec::new();
    for _ in 0..3 {
        let mut client = builder(&peer).connect_async().await.unwrap();
        errors.push(client.receive().await.unwrap_err());
        let again = client.receive().await.unwrap_err();
        assert_eq!(again.to_string(), errors.last().unwrap().to_string());
    }
    assert!(matches!(errors[0], ClientError::Closed { .. }));
    assert!(matches!(
        errors[1],
        ClientError::ClosedInFrame { received: 5, .. }
    ));
    assert!(matches!(errors[2], ClientError::NotABroker { .. }));
    let mut client = builder(&peer)
        .extensions(ACK)
        .connect_async()
        .await
        .unwrap();
    let error = client.receive().await.unwrap_err();
    assert!(
        matches!(error, ClientError::ClosedFor { reason, .. } if reason == Reason::SlowConsumer)
    );
    let address = peer.address.clone();
    peer.join();
    let error = AsyncClient::connect(address).await.unwrap_err();
    assert!(
        matches!(error, ClientError::NothingListens { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn l5_a_broker_that_does_not_answer_is_asked_no_more_unless_it_has_a_secret() {
    let peer = Peer::listening(|listener| {
        let mut first = listener.accept();
        first.expect(HELLO);
        first.expect_end();
        let mut second = listener.accept();
        second.expect(CONNECT);
        second.write(&numbered(1));
        second.expect(DISCONNECT);
        drop(second);
        listener.accept().expect(&[0x01, 0x10, 0xFF]);
    });
    let mut client = builder(&peer)
        .extensions(ACK)
        .connect_async()
        .await
        .unwrap();
    assert_eq!(client.extensions(), Extensions::NONE);
    assert_eq!(number_of(&client.receive().await.unwrap()), 1);
    client.disconnect().await.unwrap();
    let asking = builder(&peer).extensions(ACK).login("alice", "hush");
    let error = asking.connect_async().await.unwrap_err();
    assert!(matches!(error, ClientError::NoLogin { .. }), "{error}");
    peer.join();
}

#[tokio::test]
async fn who_waits_in_receive_keeps_the_connection_alive() {
    let broker = engine::chosen(Broker::builder().listen("127.0.0.1:0").unwrap());
    let broker = broker.spawn().unwrap();
    let builder = AsyncClient::builder().address(broker.local_addr()).unwrap();
    let keeping = builder.keepalive(Duration::from_secs(1));
    let mut client = keeping.connect_async().await.unwrap();
    assert!(
        timeout(Duration::from_secs(3), client.receive())
            .await
            .is_err()
    );
    client.disconnect().await.unwrap();
}

#[tokio::test]
async fn l7_a_frame_that_was_cut_by_a_reset_is_sent_again_whole_and_none_twice() {
    let (go, may_reset) = std::sync::mpsc::channel();
    let peer = Peer::listening(move |listener| {
        let mut first = listener.accept();
        first.expect(CONNECT);
        let mut taken = vec![0; 100_000];
        std::io::Read::read_exact(&mut first.0, &mut taken).unwrap();
        may_reset.recv_timeout(LONG).unwrap();
        first.reset();
        let mut second = listener.accept();
        second.expect(CONNECT);
        let mut last = taken.len() / FRAME_LEN - 1;
        loop {
            let mut frame = [0; FRAME_LEN];
            std::io::Read::read_exact(&mut second.0, &mut frame).unwrap();
            let number = u32::from_be_bytes(frame[4..8].try_into().unwrap());
            assert_eq!(frame, odd(number), "a whole frame");
            assert!(number as usize > last, "{number} after {last}");
            last = number as usize;
            if number == u32::MAX {
                break;
            }
        }
    });
    let mut client = builder(&peer)
        .reconnect(soon())
        .connect_async()
        .await
        .unwrap();
    let mut batch = Batch::new();
    let mut numbers = 0..u32::MAX;
    let mut was_full = false;
    while !was_full {
        for number in numbers.by_ref().take(1000) {
            batch.publish("a", &odd(number)[4..]).unwrap();
        }
        was_full = polled(1, client.send_batch(&mut batch)).await.is_none();
    }
    go.send(()).unwrap();
    client.send_batch(&mut batch).await.unwrap();
    client.publish("a", &odd(u32::MAX)[4..]).await.unwrap();
    peer.join();
    assert_eq!(client.reconnects(), 1);
}

/// Of a length that no buffer is a multiple of.
const FRAME_LEN: usize = 251;

fn odd(number: u32) -> [u8; FRAME_LEN] {
    let mut frame = [7; FRAME_LEN];
    frame[..4].copy_from_slice(&[0x05, 249, 0x01, 0x61]);
    frame[4..8].copy_from_slice(&number.to_be_bytes());
    frame
}

#[tokio::test]
async fn who_has_only_published_disconnects_in_order_when_a_beat_is_overdue() {
    let broker = engine::chosen(Broker::builder().listen("127.0.0.1:0").unwrap());
    let broker = broker.spawn().unwrap();
    let builder = AsyncClient::builder().address(broker.local_addr()).unwrap();
    let keeping = builder.keepalive(Duration::from_secs(2));
    let mut client = keeping.connect_async().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.publish("a", b"1").await.unwrap();
    client.disconnect().await.unwrap();
}

#[tokio::test]
async fn l7_a_request_that_met_a_reset_fails_at_once_and_messages_that_came_stay() {
    let (go, may_end) = std::sync::mpsc::channel();
    let peer = Peer::listening(move |listener| {
        let mut first = listener.accept();
        first.expect(HELLO);
        first.write(HELLO);
        first.write(&[numbered(1), numbered(2)].concat());
        may_end.recv_timeout(LONG).unwrap();
        first.reset();
        let mut second = listener.accept();
        second.expect(HELLO);
        second.write(HELLO);
        second.write(&numbered(3));
        second.expect_eventually(DISCONNECT);
    });
    let asking = builder(&peer).extensions(ACK).reconnect(soon());
    let mut client = asking.connect_async().await.unwrap();
    assert_eq!(number_of(&client.receive().await.unwrap()), 1);
    go.send(()).unwrap();
    // Until it is noticed by a send; the message that came before is not lost with it.
    while client.reconnects() == 0 {
        if let Err(error) = client.barrier().await {
            let is_closed = matches!(
                error,
                ClientError::Closed { .. } | ClientError::Reset { .. }
            );
            assert!(is_closed, "{error}");
        }
        if client.reconnects() == 0 {
            client.publish("a", b"x").await.unwrap();
        }
    }
    assert_eq!(number_of(&client.receive().await.unwrap()), 2);
    assert_eq!(number_of(&client.receive().await.unwrap()), 3);
    client.disconnect().await.unwrap();
    peer.join();
}
