//! Where a broker can listen, and how many of them there can be.

use hvlp::Broker;
use hvlp::address::Address;

use crate::support::{Canary, Peer, TestBroker, spawn, wait_until, wire};

/// The cases that every transport must pass.
fn serves(broker: &TestBroker) {
    let mut subscriber = broker.subscriber(&["a"]);
    let frames = wire::numbered("a", 1000);
    for goodbye in [&[][..], &wire::DISCONNECT, &wire::DISCONNECT[..1]] {
        let mut publisher = broker.open();
        publisher.send([&wire::CONNECT[..], &frames, goodbye].concat());
        drop(publisher);
        subscriber.expect(&frames);
    }
    let mut bytewise = broker.open();
    bytewise.send_bytewise([&wire::CONNECT[..], &frames[..80]].concat());
    subscriber.expect(&frames[..80]);
    // Malformed frames, one after the other, until the budget is used up.
    bytewise.try_send(wire::frame(5, &[]).repeat(64));
    bytewise.read_to_end();
}

#[test]
fn a_unix_socket_is_served_and_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hvlp.sock");
    let listen = format!("unix:{}", path.display());
    for _ in 0..2 {
        let broker = spawn(Broker::builder().listen(&listen).unwrap(), &[]);
        assert!(path.exists());
        serves(&broker);
        broker.finish();
        assert!(!path.exists());
        // What a broker that was killed leaves behind is replaced by the next one.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
    }
}

/// Not every container has IPv6.
pub(crate) fn has_ipv6() -> bool {
    let bound = std::net::TcpListener::bind("[::1]:0");
    if let Err(error) = &bound {
        println!("IPv6 is skipped: {error}");
    }
    bound.is_ok()
}

#[test]
fn ipv6_is_served() {
    if !has_ipv6() {
        return;
    }
    let broker = spawn(Broker::builder().listen("[::1]:0").unwrap(), &[]);
    let canary = Canary::start(broker.address());
    assert!(broker.address().to_string().starts_with("[::1]:"));
    serves(&broker);
    canary.finish();
    broker.finish();
}

#[test]
fn all_addresses_of_a_broker_are_one_place() {
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", directory.path().join("s").display());
    let mut builder = Broker::builder();
    let third = if has_ipv6() { "[::1]:0" } else { "127.0.0.2:0" };
    for address in ["127.0.0.1:0", third, &unix, "127.0.0.1:0"] {
        builder = builder.listen(address).unwrap();
    }
    let broker = spawn(builder, &[]);
    let addresses: Vec<Address> = broker.handle().local_addrs().to_vec();
    let mut peers: Vec<_> = addresses.iter().map(Peer::connect).collect();
    peers.iter_mut().for_each(|peer| peer.subscribe(&["a"]));
    wait_until("all are subscribed", || broker.subscribers("a") == 4);
    for from in 0..4 {
        peers[from].publish("a", [from as u8]);
        for (to, peer) in peers.iter_mut().enumerate() {
            if to != from {
                peer.expect_nothing_before(wire::publish("a", [from as u8]));
            }
        }
    }
    drop(peers);
    broker.finish();
}

#[test]
fn g16_ten_brokers_in_one_process_do_not_know_each_other() {
    let brokers: Vec<_> = (0..10).map(|_| crate::support::start(&[])).collect();
    let mut subscribers: Vec<_> = brokers
        .iter()
        .map(|broker| broker.subscriber(&["a"]))
        .collect();
    for (number, broker) in brokers.iter().enumerate() {
        let mut publisher = broker.connect();
        publisher.publish("a", [number as u8]);
    }
    for (number, subscriber) in subscribers.iter_mut().enumerate() {
        subscriber.expect_nothing_before(wire::publish("a", [number as u8]));
    }
    drop(subscribers);
    for broker in brokers {
        broker.finish();
    }
}
