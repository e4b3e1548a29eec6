//! What clients of the reference rely on, and what a slow one must not do to the others.

use hvlp::metrics::DropReason;
use hvlp::session::CloseReason;

use crate::support::{End, start, wait_until, wire};

#[test]
fn connect_and_subscribe_are_served_in_one_segment_bytewise_and_with_a_payload() {
    let broker = start(&[]);
    let subscribe = wire::subscribe(&["Welcome"]);
    let plain = [&wire::CONNECT[..], &subscribe].concat();
    let token = [&wire::frame(1, b"s3cret")[..], &subscribe].concat();
    let mut peers = Vec::new();
    for script in [&plain, &token] {
        let mut at_once = broker.open();
        at_once.send(script);
        let mut bytewise = broker.open();
        bytewise.send_bytewise(script);
        peers.extend([at_once, bytewise]);
    }
    wait_until("all are subscribed", || broker.subscribers("Welcome") == 4);
    let mut publisher = broker.connect();
    publisher.publish("Welcome", "x");
    for peer in &mut peers {
        peer.expect_nothing_before(wire::publish("Welcome", "x"));
    }
    drop((peers, publisher));
    broker.finish();
}

#[test]
fn frames_are_forwarded_as_they_came_and_in_order_across_topics() {
    let broker = start(&[]);
    let mut all = broker.subscriber(&["a", "b", "c"]);
    let mut some = broker.subscriber(&["b"]);
    let mut publisher = broker.connect();
    let mut sent = Vec::new();
    for number in 0..3000_u32 {
        let topic = ["a", "b", "b", "c"][number as usize % 4];
        sent.push((
            topic,
            wire::publish(topic, vec![number as u8; number as usize % 250]),
        ));
    }
    let bytes = |of: &dyn Fn(&str) -> bool| -> Vec<u8> {
        let frames = sent.iter().filter(|(topic, _)| of(topic));
        frames.flat_map(|(_, frame)| frame.clone()).collect()
    };
    publisher.send(bytes(&|_| true));
    all.expect(bytes(&|_| true));
    some.expect(bytes(&|topic| topic == "b"));
    drop((all, some, publisher));
    broker.finish();
}

#[test]
fn slow_consumer_is_closed_and_others_still_receive() {
    let broker = start(&["listener.outbound_max=64KiB", "listener.sndbuf=4KiB"]);
    let mut healthy = broker.subscriber(&["a"]);
    let mut slow = broker.subscriber(&["a"]);
    slow.shrink_window();
    let mut publisher = broker.connect();
    let (mut sent, mut rounds) = (0_u32, 0);
    while broker.counters().closed(CloseReason::SlowConsumerBytes) == 0 {
        rounds += 1;
        assert!(rounds < 10_000, "it is owed more than it may be");
        let frames: Vec<u8> = (sent..sent + 100)
            .flat_map(|number| wire::publish("a", [&number.to_be_bytes()[..], &[0; 249]].concat()))
            .collect();
        publisher.send(&frames);
        healthy.expect(&frames);
        sent += 100;
    }
    let counters = broker.counters();
    assert!(counters.dropped(DropReason::SlowClose) > 0);
    assert_eq!(counters.sessions_closed.total(), 1);
    // What it did get is the beginning of what was sent; a reset took the rest.
    let (bytes, end) = slow.read_to_end();
    let mut rest = &bytes[..];
    let mut number = 0_u32;
    while let Some((frame, behind)) = wire::split(rest) {
        assert_eq!(frame[4..8], number.to_be_bytes());
        (rest, number) = (behind, number + 1);
    }
    assert_eq!(end, End::Reset);
    drop((healthy, slow, publisher));
    broker.finish();
}

#[test]
fn a_consumer_that_catches_up_loses_nothing() {
    let broker = start(&["listener.sndbuf=4KiB"]);
    let mut behind = broker.subscriber(&["a"]);
    behind.shrink_window();
    let mut publisher = broker.connect();
    let mut sent = Vec::new();
    while broker.counters().deliveries_owed < 1000 {
        let frames = wire::numbered("a", 1000);
        publisher.send(&frames);
        sent.extend(frames);
    }
    behind.expect(&sent);
    publisher.publish("a", "live again");
    behind.expect_nothing_before(wire::publish("a", "live again"));
    assert_eq!(broker.counters().deliveries_dropped.total(), 0);
    drop((behind, publisher));
    broker.finish();
}

#[test]
fn g1_what_the_drain_could_not_write_is_counted_as_such() {
    let broker = start(&["listener.sndbuf=4KiB", "drain_timeout=50ms"]);
    let stuck = broker.subscriber(&["a"]);
    stuck.shrink_window();
    let mut publisher = broker.connect();
    while broker.counters().deliveries_owed == 0 {
        publisher.send(wire::publish("a", [7; 253]).repeat(1000));
    }
    let counters = broker.stop();
    assert!(counters.dropped(DropReason::Drain) > 0);
    assert_eq!(
        counters.deliveries_dropped.total(),
        counters.dropped(DropReason::Drain)
    );
}
