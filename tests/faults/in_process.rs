//! The process that a broker runs in: it publishes and subscribes like a client, and is one more
//! peer of the mesh.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use hvlp::packet::{EncodeError, id};
use hvlp::session::Peer as Far;
use hvlp::{Broker, ProcessError, Subscription};

use crate::support::{DEADLINE, TestBroker, spawn, start, wait_until, wire};

/// The next message's number, and that it is on this topic.
fn number(subscription: &mut Subscription, topic: &str) -> u32 {
    let message = subscription.receive(DEADLINE).unwrap().expect("a message");
    assert_eq!(message.topic(), topic);
    u32::from_be_bytes(message.data().try_into().unwrap())
}

/// What the handle publishes with stays a session until the broker stops.
fn finish(broker: TestBroker) {
    broker.await_counters("its publisher alone is left", |counters| {
        counters.sessions.total() <= 1 + 2 && counters.is_conserved()
    });
    let counters = broker.stop();
    assert_eq!(counters.deliveries_owed, 0);
}

#[test]
fn what_the_process_publishes_reaches_clients_and_its_own_subscriptions_in_order() {
    for settings in [&["reactors=1"], &["reactors=3"]] {
        let broker = start(settings);
        let mut clients: Vec<_> = (0..4).map(|_| broker.subscriber(&["t"])).collect();
        let mut own: Vec<_> = (0..2)
            .map(|_| broker.handle().subscribe(["t", "other"]).unwrap())
            .collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..20_000_u32 {
                    broker.handle().publish("t", number.to_be_bytes()).unwrap();
                }
            });
            for subscription in &mut own {
                scope.spawn(|| {
                    for expected in 0..20_000 {
                        assert_eq!(number(subscription, "t"), expected);
                    }
                });
            }
            for client in &mut clients {
                scope.spawn(|| client.expect(wire::numbered("t", 20_000)));
            }
        });
        drop((clients, own));
        finish(broker);
    }
}

#[test]
fn f4_a_subscription_of_the_process_is_in_force_when_the_call_returns() {
    let broker = start(&["reactors=2"]);
    let mut publishers = [broker.connect(), broker.connect()];
    for round in 0..300 {
        let topic = format!("t{}", round % 5);
        let mut subscription = broker.handle().subscribe([&topic]).unwrap();
        for publisher in &mut publishers {
            publisher.publish(&topic, u32::to_be_bytes(round));
        }
        assert_eq!(number(&mut subscription, &topic), round);
        assert_eq!(number(&mut subscription, &topic), round);
        subscription.unsubscribe([&topic]).unwrap();
        assert_eq!(broker.subscribers(&topic), 0);
    }
    drop(publishers);
    broker.finish();
}

#[test]
fn messages_of_each_thread_keep_their_order() {
    let broker = start(&["reactors=2"]);
    let mut subscription = broker.handle().subscribe(["t"]).unwrap();
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let broker = &broker;
            scope.spawn(move || {
                for number in 0..3000_u32 {
                    let data = [&[thread][..], &number.to_be_bytes()].concat();
                    broker.handle().publish("t", data).unwrap();
                }
            });
        }
        let mut next = [0_u32; 4];
        for _ in 0..4 * 3000 {
            let message = subscription.receive(DEADLINE).unwrap().unwrap();
            let expected = &mut next[usize::from(message.data()[0])];
            assert_eq!(message.data()[1..], expected.to_be_bytes());
            *expected += 1;
        }
    });
    drop(subscription);
    finish(broker);
}

#[test]
fn a_subscription_that_is_not_read_is_closed_as_slow_and_nobody_else_notices() {
    let broker = start(&["reactors=2", "listener.outbound_max=64KiB"]);
    let mut stalled = broker.handle().subscribe(["t"]).unwrap();
    let mut client = broker.subscriber(&["t"]);
    // More than the pipe and the backlog hold, in steps that the client keeps up with.
    for _ in 0..200 {
        for number in 0..100_u32 {
            let data = [&number.to_be_bytes()[..], &[0; 100]].concat();
            broker.handle().publish("t", &data).unwrap();
        }
        for _ in 0..100 {
            client.next_frame().unwrap();
        }
    }
    broker.await_counters("it was closed", |counters| {
        let slow = hvlp::session::CloseReason::SlowConsumerBytes;
        counters.closed(slow) == 1
    });
    // What was in the pipe is whole frames and comes first.
    let mut received = 0;
    let end = loop {
        match stalled.receive(Duration::from_secs(1)) {
            Ok(message) => received += u32::from(message.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(end, ProcessError::Ended);
    assert!(received > 1000, "{received}");
    drop((stalled, client));
    finish(broker);
}

#[test]
fn g1_a_stop_delivers_what_the_process_has_published() {
    for _ in 0..5 {
        let small_turns = [
            "reactors=2",
            "limits.frames_per_turn=64",
            "limits.read_per_session=4KiB",
        ];
        // Without a canary, whose end would give the broker time.
        let broker = spawn(
            Broker::builder().listen("127.0.0.1:0").unwrap(),
            &small_turns,
        );
        let mut client = broker.subscriber(&["t"]);
        let mut own = broker.handle().subscribe(["t"]).unwrap();
        let reader = thread::spawn(move || client.read_to_end().0);
        for number in 0..5000_u32 {
            broker.handle().publish("t", number.to_be_bytes()).unwrap();
        }
        let counters = broker.stop();
        assert!(counters.accepted(id::PUBLISH) >= 5000);
        assert!(reader.join().unwrap() == wire::numbered("t", 5000));
        for expected in 0..5000 {
            assert_eq!(number(&mut own, "t"), expected);
        }
        assert_eq!(own.receive(DEADLINE), Err(ProcessError::Ended));
    }
}

#[test]
fn the_process_is_told_what_does_not_fit_and_that_the_broker_has_ended() {
    let broker = start(&["reactors=1"]);
    let long = "x".repeat(255);
    let too_long = ProcessError::Encode(EncodeError::TopicTooLong { len: 255 });
    assert_eq!(broker.handle().publish(&long, b""), Err(too_long));
    let mut subscription = broker.handle().subscribe(["a"]).unwrap();
    assert_eq!(subscription.subscribe(["b", &long]), Err(too_long));
    assert_eq!(broker.subscribers("b"), 0);
    assert_eq!(subscription.receive(Duration::ZERO), Ok(None));

    let snapshot = broker.handle().register();
    let session = snapshot.subscribers("a").next().unwrap();
    assert_eq!(session.peer, Far::Process);

    broker.handle().stop();
    wait_until("it has ended", || !broker.handle().is_alive());
    assert_eq!(broker.handle().publish("a", b""), Err(ProcessError::Ended));
    let refused = broker.handle().subscribe(["a"]).unwrap_err();
    assert_eq!(refused, ProcessError::Ended);
    assert_eq!(subscription.receive(DEADLINE), Err(ProcessError::Ended));
}

/// A broker without a canary, whose sessions would be counted too.
fn alone(settings: &[&str]) -> TestBroker {
    spawn(Broker::builder().listen("127.0.0.1:0").unwrap(), settings)
}

#[test]
fn a_subscription_that_comes_to_nothing_and_a_publisher_that_came_second_leave_no_session() {
    let broker = alone(&["reactors=1"]);
    let long = "x".repeat(300);
    for _ in 0..200 {
        assert!(broker.handle().subscribe([&long]).is_err());
        drop(broker.handle().subscribe(["t"]).unwrap());
    }
    let barrier = Barrier::new(16);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                barrier.wait();
                broker.handle().publish("t", b"").unwrap();
            });
        }
    });
    broker.await_counters("one publisher is left", |counters| {
        counters.sessions.total() == 1
    });
    broker.stop();
}

#[test]
fn a_subscription_beyond_a_limit_is_an_error_and_says_so() {
    for _ in 0..20 {
        let broker = alone(&["reactors=1", "limits.subscriptions_per_session_max=1"]);
        let refused = broker.handle().subscribe(["a", "b"]).unwrap_err();
        assert_eq!(refused, ProcessError::Ended);
        broker.stop();
    }
    let broker = alone(&["reactors=1", "limits.sessions_max=2"]);
    let held = [(); 2].map(|()| broker.handle().subscribe(["a"]).unwrap());
    let refused = broker.handle().subscribe(["a"]).unwrap_err();
    assert_eq!(refused, ProcessError::TooManySessions);
    assert_eq!(
        broker.handle().publish("a", b""),
        Err(ProcessError::TooManySessions)
    );
    drop(held);
    wait_until("there is room again", || {
        broker.handle().publish("a", b"").is_ok()
    });
    broker.stop();
}

#[test]
fn g1_what_is_published_after_a_stop_is_refused_or_executed() {
    for _ in 0..50 {
        let broker = alone(&["reactors=1"]);
        broker.handle().stop();
        let accepted = broker.handle().publish("t", b"").is_ok();
        assert_eq!(broker.stop().accepted(id::PUBLISH), u64::from(accepted));
    }
}
