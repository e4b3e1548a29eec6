//! Client and broker together.

use std::time::{Duration, Instant};

use hvlp::client::{Batch, Client, Reconnect};
use hvlp::session::SessionState;
use hvlp::{Broker, BrokerHandle};

use crate::engine;
use crate::peer::LONG;

fn broker(address: &str) -> BrokerHandle {
    let broker = Broker::builder().listen(address).unwrap();
    engine::chosen(broker).spawn().unwrap()
}

/// Waits until something is so at the broker.
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A client that the broker knows as a subscriber of `topic`.
fn subscribed(broker: &BrokerHandle, topic: &str) -> Client {
    let mut client = Client::connect(broker.local_addr()).unwrap();
    client.subscribe([topic]).unwrap();
    let is_subscribed = || broker.register().subscribers(topic).next().is_some();
    eventually("the subscription", is_subscribed);
    client
}

#[test]
fn what_one_publishes_another_receives_and_the_publisher_does_not() {
    let broker = broker("127.0.0.1:0");
    let mut consumer = subscribed(&broker, "a/b");
    let mut producer = Client::connect(broker.local_addr()).unwrap();
    producer.subscribe(["a/b"]).unwrap();
    producer.publish("a/b", b"21.5").unwrap();
    producer.publish("other", b"").unwrap();
    let message = consumer.receive(LONG).unwrap().unwrap();
    assert_eq!((message.topic(), message.data()), ("a/b", &b"21.5"[..]));
    // The producer's subscription was read before its message, so it is there by now.
    consumer.publish("a/b", b"back").unwrap();
    let message = producer.receive(LONG).unwrap().unwrap();
    assert_eq!(message.data(), b"back");
    producer.disconnect().unwrap();
    consumer.disconnect().unwrap();
    assert!(broker.register().sessions().is_empty());
}

#[test]
fn a_session_waits_for_connect_between_open_and_connect() {
    let broker = broker("127.0.0.1:0");
    let builder = Client::builder().address(broker.local_addr()).unwrap();
    let mut client = builder.open().unwrap();
    let state = || {
        broker
            .register()
            .sessions()
            .first()
            .map(|session| session.state)
    };
    eventually("the session", || state() == Some(SessionState::WaitConnect));
    client.send_connect(b"").unwrap();
    eventually("CONNECT", || state() == Some(SessionState::Connected));
    client.unsubscribe(["never held"]).unwrap();
    client.disconnect().unwrap();
    assert_eq!(state(), None);
}

#[test]
fn a_thousand_messages_followed_by_disconnect_are_all_delivered() {
    let broker = broker("127.0.0.1:0");
    for one_by_one in [true, false] {
        let mut consumer = subscribed(&broker, "a");
        let mut producer = Client::connect(broker.local_addr()).unwrap();
        let mut batch = Batch::new();
        for n in 0..1000_u16 {
            if one_by_one {
                producer.publish("a", &n.to_be_bytes()).unwrap();
            } else {
                batch.publish("a", &n.to_be_bytes()).unwrap();
            }
        }
        producer.send_batch(&mut batch).unwrap();
        producer.disconnect().unwrap();
        let messages = consumer.messages(LONG).take(1000);
        let numbers = messages.map(|message| message.unwrap().data().to_vec());
        assert!(numbers.eq((0..1000_u16).map(|n| n.to_be_bytes().to_vec())));
        consumer.disconnect().unwrap();
    }
}

#[test]
fn two_threads_of_each_client_publish_and_receive_at_once() {
    const COUNT: u16 = 5000;
    let broker = broker("127.0.0.1:0");
    let (left, right) = (subscribed(&broker, "left"), subscribed(&broker, "right"));
    std::thread::scope(|scope| {
        for (client, to) in [(left, "right"), (right, "left")] {
            let (mut sender, mut receiver) = client.split();
            scope.spawn(move || {
                for n in 0..COUNT {
                    sender.publish(to, &n.to_be_bytes()).unwrap();
                }
            });
            scope.spawn(move || {
                let messages = receiver.messages(LONG).take(COUNT.into());
                let numbers = messages.map(|message| message.unwrap().data().to_vec());
                assert!(numbers.eq((0..COUNT).map(|n| n.to_be_bytes().to_vec())));
            });
        }
    });
    assert_eq!(broker.counters().deliveries_dropped.total(), 0);
}

#[test]
fn l7_after_a_restart_of_the_broker_the_subscriptions_are_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("unix:{}", folder.path().join("broker.sock").display());
    for address in ["127.0.0.1:0", &path] {
        let first = broker(address);
        let address = first.local_addr().to_string();
        let reconnect = Reconnect {
            first: Duration::from_millis(1),
            max: Duration::from_millis(10),
            attempts_max: None,
        };
        let builder = Client::builder().address(&address).unwrap();
        let mut consumer = builder.reconnect(reconnect).connect().unwrap();
        let topics: Vec<String> = (0..100).map(|n| format!("topic/{n}")).collect();
        consumer.subscribe(&topics).unwrap();
        eventually("the subscription", || {
            first.register().subscribers("topic/99").count() == 1
        });
        first.stop();
        first.join().unwrap();

        let second = broker(&address);
        let receiving = std::thread::spawn(move || {
            let message = consumer.receive(LONG).unwrap().unwrap();
            (message.topic().to_string(), consumer.reconnects())
        });
        eventually("the subscription", || {
            second.register().subscribers("topic/99").count() == 1
        });
        let mut producer = Client::connect(second.local_addr()).unwrap();
        producer.publish("topic/99", b"again").unwrap();
        assert_eq!(receiving.join().unwrap(), ("topic/99".to_string(), 1));
    }
}
