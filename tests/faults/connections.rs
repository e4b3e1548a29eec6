//! Section D, and half-open peers: connections by the thousand, and those that say nothing.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use hvlp::Broker;
use hvlp::address::Address;
use hvlp::metrics::RefuseReason;
use hvlp::session::CloseReason;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::{SockFilter, SockRef, Socket};

use crate::support::memory::World;
use crate::support::{Canary, Peer, TestBroker, spawn, start, start_stallable, wire};

#[test]
fn c3_connected_silence_is_served_for_ever() {
    let mut world = World::new(&[]);
    let silent = world.connected(wire::subscribe(&["a"]));
    let publisher = world.connected([]);
    assert_eq!(world.shard.deadline(), None, "nothing is waited for");
    for _ in 0..100 {
        world.pass(Duration::from_secs(365 * 86_400));
    }
    let frame = wire::publish("a", "after a century");
    world.receive(publisher, &frame);
    world.turn();
    assert_eq!(world.take(silent), frame);
    assert!(world.ended.is_empty());
}

/// The broker's end of a peer's connection: a copy of the descriptor.
fn far_end(broker: &TestBroker, peer: &Peer) -> Socket {
    let near = peer.tcp().local_addr().unwrap();
    let Address::Tcp { port, .. } = *broker.address() else {
        panic!("this is about TCP");
    };
    let process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let numbers = fs::read_dir("/proc/self/fd").unwrap();
    let numbers = numbers.map(|entry| {
        entry
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .parse()
            .unwrap()
    });
    let copies = numbers.filter_map(|number| {
        // Others open and close theirs meanwhile.
        let copy = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?;
        Some(Socket::from(copy))
    });
    let is_far_end = |socket: &Socket| {
        let address = |address: std::io::Result<socket2::SockAddr>| address.ok()?.as_socket();
        address(socket.peer_addr()) == Some(near)
            && address(socket.local_addr()).map(|local| local.port()) == Some(port)
    };
    let mut copies = copies.filter(is_far_end);
    copies.next().expect("the broker holds it")
}

#[test]
fn c3_c8_sockets_have_keepalive_and_the_user_timeout_as_configured() {
    let given = [
        "listener.tcp_keepalive=7s",
        "listener.tcp_keepalive_interval=3s",
        "listener.tcp_user_timeout=11s",
    ];
    for (settings, [idle, interval, unanswered]) in [(&[][..], [60, 15, 120]), (&given, [7, 3, 11])]
    {
        let broker = start(settings);
        let peer = broker.subscriber(&["a"]);
        let socket = far_end(&broker, &peer);
        let seconds = Duration::from_secs;
        assert!(socket.keepalive().unwrap());
        // Sessions do not all ask at once.
        let time = socket.tcp_keepalive_time().unwrap();
        assert!((seconds(idle / 2)..=seconds(idle)).contains(&time));
        let time = socket.tcp_keepalive_interval().unwrap();
        assert!((seconds(interval / 2)..=seconds(interval)).contains(&time));
        let timeout = socket.tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(seconds(unanswered)));
        assert!(socket.tcp_nodelay().unwrap() && socket.out_of_band_inline().unwrap());
        drop((socket, peer));
        broker.finish();
    }
}

#[test]
fn c3_silent_sessions_that_began_together_are_asked_at_different_times() {
    let broker = start(&["reactors=1"]);
    let peers: Vec<_> = (0..60).map(|_| broker.connect()).collect();
    broker.await_counters("all are there", |counters| counters.sessions.total() == 62);
    let time = |peer| far_end(&broker, peer).tcp_keepalive_time().unwrap();
    let mut times: Vec<_> = peers.iter().map(time).collect();
    times.sort();
    let most = times.chunk_by(|one, other| one == other).map(<[_]>::len);
    assert!(most.max() <= Some(4), "of 60, in 30 s: {times:?}");
    drop(peers);
    broker.finish();
}

/// The host of this peer is gone: its kernel throws away whatever comes, unanswered.
fn vanish(peer: &Peer) {
    let drop_all = SockFilter::new(0x06, 0, 0, 0);
    SockRef::from(peer.tcp())
        .attach_filter(&[drop_all])
        .unwrap();
}

#[test]
fn c8_a_peer_whose_host_is_gone_is_closed_although_nothing_is_sent_to_it() {
    let broker = start(&[
        "listener.tcp_keepalive=1s",
        "listener.tcp_keepalive_interval=1s",
        "listener.tcp_user_timeout=1s",
    ]);
    let (gone, healthy) = (broker.subscriber(&["a"]), broker.subscriber(&["a"]));
    vanish(&gone);
    broker.await_counters("it is given up", |counters| {
        counters.closed(CloseReason::WriteTimeout) == 1
    });
    assert_eq!(broker.subscribers("a"), 1, "who answers stays");
    drop((gone, healthy));
    broker.finish();
}

#[test]
fn c9_a_peer_whose_host_is_gone_with_data_in_flight_is_given_up() {
    let broker = start(&["listener.tcp_user_timeout=1s"]);
    let (gone, mut healthy) = (broker.subscriber(&["a"]), broker.subscriber(&["a"]));
    let mut publisher = broker.connect();
    vanish(&gone);
    publisher.publish("a", "in flight");
    healthy.expect(wire::publish("a", "in flight"));
    broker.await_counters("it is given up", |counters| {
        counters.closed(CloseReason::WriteTimeout) == 1
    });
    publisher.publish("a", "later");
    healthy.expect(wire::publish("a", "later"));
    drop((gone, healthy, publisher));
    let counters = broker.finish();
    assert_eq!(counters.deliveries_dropped.total(), 0, "the kernel took it");
}

#[test]
fn c9_a_peer_whose_host_is_gone_with_a_backlog_is_stalled() {
    let settings = ["listener.sndbuf=4KiB", "listener.progress_timeout=500ms"];
    let broker = start(&settings);
    let (gone, mut healthy) = (broker.subscriber(&["a"]), broker.subscriber(&["a"]));
    let mut publisher = broker.connect();
    vanish(&gone);
    let frames = wire::publish("a", [7; 253]).repeat(2000);
    publisher.send(&frames);
    healthy.expect(&frames);
    broker.await_counters("it is closed", |counters| {
        counters.closed(CloseReason::SlowConsumerStalled) == 1
    });
    drop((gone, healthy, publisher));
    broker.finish();
}

#[test]
fn d1_a_flood_of_connections_leaves_nothing() {
    let broker = start(&["reactors=2"]);
    let floods: Vec<_> = (0..4)
        .map(|_| {
            let address = broker.address().clone();
            std::thread::spawn(move || {
                for round in 0..1000 {
                    let peer = Peer::open(&address);
                    match round % 2 {
                        0 => drop(peer),
                        _ => peer.reset(),
                    }
                }
            })
        })
        .collect();
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    let counters = broker.finish();
    let taken = counters.sessions_opened + counters.refused(RefuseReason::Overload);
    assert!(taken >= 4000, "each was accepted: {taken}");
}

#[test]
fn d1_a_turn_accepts_its_share_and_no_more() {
    let (broker, stall) = start_stallable(&["limits.accept_per_turn=2", "reactors=1"]);
    let before = broker.counters();
    let mut peers = Vec::new();
    stall.during(&broker, || {
        peers.extend((0..1000).map(|_| broker.open()));
    });
    broker.await_counters("all are accepted", |counters| {
        counters.sessions_opened >= before.sessions_opened + 1000
    });
    let turns = broker.counters().turns - before.turns;
    assert!(turns >= 500, "{turns} turns for 1000 connections");
    drop(peers);
    broker.finish();
}

#[test]
fn d1_beyond_accepts_per_second_connections_wait_and_get_in() {
    // Two may come at once: they are the canary's.
    let broker = start(&["limits.accepts_per_second=20", "reactors=2"]);
    let before = broker.counters();
    let mut subscribers: Vec<_> = (0..8).map(|_| broker.open()).collect();
    for peer in &mut subscribers {
        peer.send([&wire::CONNECT[..], &wire::subscribe(&["a"])].concat());
    }
    broker.await_counters("all are served", |counters| counters.subscriptions == 9);
    let after = broker.counters();
    assert!(after.accept_rests > before.accept_rests);
    let turns = after.turns - before.turns;
    assert!(turns < 10_000, "{turns} turns: it waits, and does not spin");
    assert_eq!(after.sessions_refused, before.sessions_refused);
    drop(subscribers);
    broker.finish();
}

/// Sockets of this port that wait for late segments.
fn time_waits(port: u16) -> usize {
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let near = format!(":{port:04X}");
    let is_one = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1].ends_with(&near) && fields[3] == "06"
    };
    table.lines().filter(is_one).count()
}

#[test]
fn d17_a_restart_binds_at_once_although_connections_of_the_former_linger_in_the_kernel() {
    let mut listen = "127.0.0.1:0".to_owned();
    for round in 0..3 {
        let broker = spawn(Broker::builder().listen(&listen).unwrap(), &[]);
        listen = broker.address().to_string();
        let canary = Canary::start(broker.address());
        let mut peers: Vec<_> = (0..500).map(|_| broker.connect()).collect();
        for peer in &mut peers {
            peer.send(wire::DISCONNECT);
            peer.expect_end();
        }
        drop(peers);
        canary.finish();
        broker.finish();
        let address: SocketAddr = listen.parse().unwrap();
        let waiting = time_waits(address.port());
        assert!(waiting >= 100, "{waiting} wait after round {round}");
    }
}

#[test]
fn d18_both_families_serve_on_one_port_and_a_mapped_address_is_the_ipv4_one() {
    let broker = spawn(Broker::builder().listen("127.0.0.1:0").unwrap(), &[]);
    let port = broker
        .address()
        .to_string()
        .parse::<SocketAddr>()
        .unwrap()
        .port();
    broker.finish();
    let mut builder = Broker::builder()
        .listen(&format!("[::ffff:127.0.0.1]:{port}"))
        .unwrap();
    let has_ipv6 = crate::transports::has_ipv6();
    if has_ipv6 {
        builder = builder.listen(&format!("[::1]:{port}")).unwrap();
    }
    let broker = spawn(builder, &[]);
    assert_eq!(broker.address().to_string(), format!("127.0.0.1:{port}"));
    let mut peers: Vec<_> = broker
        .handle()
        .local_addrs()
        .iter()
        .map(Peer::connect)
        .collect();
    let mut witness = broker.subscriber(&["a"]);
    for peer in &mut peers {
        peer.publish("a", "x");
        witness.expect(wire::publish("a", "x"));
    }
    let register = broker.handle().register();
    let mapped = "::ffff:";
    assert!(
        register
            .sessions()
            .iter()
            .all(|it| !it.peer.to_string().contains(mapped))
    );
    drop((peers, witness));
    broker.finish();
    for open in ["[::ffff:0.0.0.0]:0", "[::ffff:192.0.2.1]:0"] {
        let refused = Broker::builder().listen(open).unwrap().spawn().unwrap_err();
        assert!(
            refused.to_string().contains("refusing to listen"),
            "{refused}"
        );
    }
}
