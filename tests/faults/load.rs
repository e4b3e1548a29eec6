//! Several reactors under load: readers that stop, subscriptions that come and go, and in each case
//! others that must lose nothing.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use hvlp::metrics::DropReason;
use hvlp::packet::id;
use hvlp::session::CloseReason;

use crate::support::{DEADLINE, Peer, Prng, TestBroker, start, wire};

const REACTORS: u64 = 3;

/// On which reactors the subscribers of a topic are.
fn reactors_of(broker: &TestBroker, topic: &str) -> BTreeSet<u64> {
    let register = broker.handle().register();
    let subscribers = register.subscribers(topic);
    // Reactor k of n numbers its sessions k + 1, k + 1 + n, ...
    subscribers
        .map(|session| (session.number - 1) % REACTORS)
        .collect()
}

#[test]
fn c4_readers_that_stop_on_every_reactor_are_closed_and_all_others_get_everything_in_order() {
    const MESSAGES: u32 = 200;
    let broker = start(&["reactors=3", "listener.outbound_max=256KiB"]);
    let stalled: Vec<_> = (0..6)
        .map(|_| broker.subscriber(&["all", "stalled"]))
        .collect();
    stalled.iter().for_each(Peer::shrink_window);
    let mut healthy: Vec<_> = (0..6)
        .map(|_| broker.subscriber(&["all", "healthy"]))
        .collect();
    let mut publishers: Vec<_> = (0..3_u8).map(|_| broker.connect()).collect();
    for topic in ["stalled", "healthy"] {
        assert_eq!(reactors_of(&broker, topic), (0..REACTORS).collect());
    }
    let message = |publisher: usize, number: u32| {
        let head = [&[publisher as u8][..], &number.to_be_bytes()].concat();
        wire::publish("all", [&head[..], &[7; 200]].concat())
    };

    let closed = || broker.counters().closed(CloseReason::SlowConsumerBytes);
    let deadline = Instant::now() + DEADLINE;
    let mut round = 0;
    // Some more behind the last close: who is left gets those as well.
    let mut rounds_after = 0;
    while rounds_after < 2 {
        assert!(Instant::now() < deadline, "{} were closed", closed());
        rounds_after += u32::from(closed() == 6);
        let numbers = round * MESSAGES..(round + 1) * MESSAGES;
        for (publisher, peer) in publishers.iter_mut().enumerate() {
            let burst = numbers
                .clone()
                .flat_map(|number| message(publisher, number));
            peer.send(burst.collect::<Vec<_>>());
        }
        for subscriber in &mut healthy {
            let mut next = vec![numbers.start; publishers.len()];
            for _ in 0..MESSAGES as usize * publishers.len() {
                let frame = subscriber.next_frame().unwrap();
                let publisher = usize::from(frame[6]);
                assert_eq!(frame, message(publisher, next[publisher]));
                next[publisher] += 1;
            }
        }
        round += 1;
    }
    drop((stalled, healthy, publishers));
    let counters = broker.finish();
    assert_eq!(counters.closed(CloseReason::SlowConsumerBytes), 6);
    let dropped = counters.deliveries_dropped.total();
    assert!(dropped > 0 && dropped == counters.dropped(DropReason::SlowClose));
}

/// A publisher and a subscriber of a topic of their own at full speed; between its messages the
/// publisher sends others to topics that come and go.
struct Flow {
    stop: Arc<AtomicBool>,
    publisher: JoinHandle<(Peer, u32)>,
    subscriber: JoinHandle<(Peer, u32)>,
}

/// Messages under way, so that the subscriber is never too slow.
const WINDOW: u32 = 20_000;
const BLOCK: u32 = 500;
const CHURNED_TOPICS: usize = 1_000;

impl Flow {
    fn start(broker: &TestBroker, topic: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let arrived = Arc::new(AtomicU32::new(0));
        let mut subscriber = broker.subscriber(&[topic]);
        let mut publisher = broker.connect();
        let (topic, stopped, seen) = (topic.to_owned(), Arc::clone(&stop), Arc::clone(&arrived));
        let publish = move || {
            let mut dice = Prng::new(7);
            let mut sent = 0;
            while !stopped.load(Ordering::SeqCst) {
                while sent - seen.load(Ordering::SeqCst) > WINDOW {
                    thread::yield_now();
                }
                let pair = |number: u32| {
                    let other = format!("churned/{}", dice.below(CHURNED_TOPICS));
                    let own = wire::publish(&topic, number.to_be_bytes());
                    [own, wire::publish(other, b"")].concat()
                };
                publisher.send((sent..sent + BLOCK).flat_map(pair).collect::<Vec<_>>());
                sent += BLOCK;
            }
            publisher.publish(&topic, b"end");
            (publisher, sent)
        };
        let subscribe = move || {
            let mut next = 0_u32;
            loop {
                let frame = subscriber.next_frame().unwrap();
                if frame.ends_with(b"end") {
                    return (subscriber, next);
                }
                assert!(frame.ends_with(&next.to_be_bytes()), "{next}: {frame:?}");
                next += 1;
                arrived.store(next, Ordering::SeqCst);
            }
        };
        Self {
            stop,
            publisher: thread::spawn(publish),
            subscriber: thread::spawn(subscribe),
        }
    }

    /// Everything that was sent has arrived, once and in order.
    fn finish(self) -> (Peer, Peer) {
        self.stop.store(true, Ordering::SeqCst);
        let (publisher, sent) = self.publisher.join().unwrap();
        let (subscriber, arrived) = self.subscriber.join().unwrap();
        assert_eq!(arrived, sent);
        assert!(sent > WINDOW, "{sent} messages are no full flow");
        (publisher, subscriber)
    }
}

/// Takes all topics that come and go and lets go of them, `rounds` times, while it reads what they
/// bring; returns how many bytes that was once the peer has closed.
fn churn(mut peer: Peer, rounds: usize) -> (Peer, JoinHandle<u64>) {
    let mut socket = peer.tcp().try_clone().unwrap();
    let reader = thread::spawn(move || {
        let (mut room, mut total) = ([0; 16 * 1024], 0);
        while let Ok(len @ 1..) = socket.read(&mut room) {
            total += len as u64;
        }
        total
    });
    let topics: Vec<_> = (0..CHURNED_TOPICS)
        .map(|n| format!("churned/{n}"))
        .collect();
    let lists = || topics.chunks(TOPICS_PER_FRAME);
    let round: Vec<u8> = lists()
        .map(wire::subscribe)
        .chain(lists().map(wire::unsubscribe))
        .flatten()
        .collect();
    for _ in 0..rounds {
        peer.send(&round);
    }
    (peer, reader)
}

const TOPICS_PER_FRAME: usize = 20;

#[test]
fn e3_200_000_subscriptions_come_and_go_beside_full_flows_and_leave_nothing() {
    const CHURNERS: usize = 4;
    const ROUNDS: usize = 200_000 / CHURNERS / CHURNED_TOPICS;
    let broker = start(&["reactors=3"]);
    let flows: Vec<_> = (0..3)
        .map(|n| Flow::start(&broker, &format!("flow/{n}")))
        .collect();
    let churners: Vec<_> = (0..CHURNERS)
        .map(|_| {
            let peer = broker.connect();
            thread::spawn(move || churn(peer, ROUNDS))
        })
        .collect();
    let churners: Vec<_> = churners
        .into_iter()
        .map(|churner| churner.join().unwrap())
        .collect();
    let frames = (CHURNERS * ROUNDS * CHURNED_TOPICS / TOPICS_PER_FRAME) as u64;
    broker.await_counters("the last subscription has ended", |counters| {
        counters.accepted(id::UNSUBSCRIBE) == frames
    });
    // Every session is still there: what is left are the flows' topics and the canary's.
    let counters = broker.counters();
    assert_eq!(counters.accepted(id::SUBSCRIBE), frames + 4);
    assert_eq!((counters.topics, counters.subscriptions), (4, 4));

    let flows: Vec<_> = flows.into_iter().map(Flow::finish).collect();
    let brought = churners.into_iter().map(|(peer, reader)| {
        peer.half_close();
        drop(peer);
        reader.join().unwrap()
    });
    assert!(
        brought.sum::<u64>() > 0,
        "they held topics while others published"
    );
    drop(flows);
    let counters = broker.finish();
    assert_eq!(counters.frames_discarded.total(), 0);
}
