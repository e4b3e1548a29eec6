//! A turn's share: who has used it up is put off, everyone else has their turn, nothing is lost.

use std::cell::RefCell;
use std::sync::Arc;

use hvlp::Broker;
use hvlp::arena::Arena;
use hvlp::config::Config;
use hvlp::deadline::Timestamp;
use hvlp::handler::{
    ConnectAnswer, ConnectRequest, Open, Resolver, SessionHandler, SessionView, Ticket,
};
use hvlp::mesh::{Doorbell, Mesh};
use hvlp::packet::id;
use hvlp::register::directory::Directory;
use hvlp::session::{CloseReason, Peer, SessionKey};
use hvlp::shard::{Outgoing, SendOutcome, Shard};

use crate::support::memory::{World, whole};
use crate::support::{spawn, start, wait_until, wire};

#[test]
fn c13_a_publisher_at_line_rate_is_put_off_and_the_next_one_is_read_meanwhile() {
    let mut world = World::new(&["limits.frames_per_turn=100"]);
    let subscriber = world.connected(wire::subscribe(&["t"]));
    let (greedy, modest) = (world.connected(""), world.connected(""));
    let flood = wire::numbered("t", 1000);
    assert_eq!(
        world.receive_with(greedy, &flood, &mut whole),
        flood.len(),
        "it came in one receive"
    );
    assert!(world.shard.is_spent() && world.shard.has_held(greedy));
    world.turn();
    let first = world.take(subscriber);
    assert!(flood.starts_with(&first));
    assert_eq!(frames(&first).len(), 100);

    world.receive(modest, wire::publish("t", "me too"));
    world.turn();
    let second = world.take(subscriber);
    assert!(
        second.starts_with(&wire::publish("t", "me too")),
        "{second:?}"
    );

    let mut rest = second;
    while world.has_more() {
        world.turn();
        rest.extend(world.take(subscriber));
    }
    let mut all = frames(&[first, rest].concat());
    all.retain(|frame| !frame.ends_with(b"me too"));
    assert_eq!(all.concat(), flood);
}

#[test]
fn c14_a_turn_delivers_its_share_and_at_most_one_frame_to_all_more() {
    let mut world = World::new(&["limits.deliver_per_turn=4KiB"]);
    let subscribers: Vec<_> = (0..50)
        .map(|_| world.connected(wire::subscribe(&["t"])))
        .collect();
    let publisher = world.connected("");
    let flood = wire::numbered("t", 300);
    let frame_len = flood.len() / 300;
    world.receive_with(publisher, &flood, &mut whole);
    let mut turns = 0;
    let mut delivered = 0;
    loop {
        world.turn();
        turns += 1;
        let so_far = world.counters().deliveries_written;
        let bytes = (so_far - delivered) as usize * frame_len;
        assert!(bytes < 4096 + 50 * frame_len, "{bytes} bytes in one turn");
        delivered = so_far;
        if !world.has_more() {
            break;
        }
    }
    assert!(turns > 20, "{turns}");
    for subscriber in subscribers {
        assert_eq!(world.take(subscriber), flood);
    }
}

#[test]
fn c14_without_room_to_hold_input_a_turn_flushes_and_goes_on() {
    let mut world = World::new(&[
        "limits.deliver_per_turn=4KiB",
        "limits.held_total_max=64KiB",
    ]);
    let subscriber = world.connected(wire::subscribe(&["t"]));
    let publisher = world.connected("");
    let flood = wire::numbered("t", 20_000);
    let taken = world.receive_with(publisher, &flood, &mut whole);
    assert!(taken > 64 * 1024);
    world.receive(publisher, &flood[taken..]);
    world.turn();
    assert_eq!(world.take(subscriber), flood);
}

/// Two shards in memory and the mesh between them.
struct Pair {
    shards: [(Shard<Open>, Arena); 2],
}

impl Pair {
    fn new(settings: &[&str]) -> Self {
        let mut config = Config::default();
        for setting in settings {
            config.set(setting).unwrap();
        }
        let directory = Arc::new(Directory::new());
        let mut ends = Mesh::between(&[Doorbell::new(|| ()), Doorbell::new(|| ())]).into_iter();
        let shards = [0, 1].map(|id| {
            let shard = Shard::new(id, 2, &config, Open, Resolver::new(|_| ()));
            let mesh = ends.next().unwrap();
            (shard.with_peers(Arc::clone(&directory), mesh), Arena::new())
        });
        Self { shards }
    }

    fn connected(&mut self, shard: usize, more: &[u8]) -> SessionKey {
        let key = self.shards[shard].0.open(now(), Peer::Memory).unwrap();
        self.receive(shard, key, &[&wire::CONNECT, more].concat());
        self.turn(shard);
        key
    }

    fn receive(&mut self, shard: usize, key: SessionKey, bytes: &[u8]) {
        let (shard, arena) = &mut self.shards[shard];
        let piece = arena.push(bytes);
        assert!(shard.receive(now(), key, arena, piece).is_none());
    }

    /// What each session is sent in one turn.
    fn turn(&mut self, shard: usize) -> Vec<(SessionKey, Vec<u8>)> {
        let (shard, arena) = &mut self.shards[shard];
        let mut sent = Vec::new();
        shard.begin_turn(now());
        while let Some(key) = shard.next_resumed() {
            let held = arena.push(shard.remainder(key));
            assert!(shard.receive(now(), key, arena, held).is_none());
        }
        shard.begin_delivering();
        while shard.deliver(arena).is_some() {}
        while let Some(key) = shard.next_dirty() {
            let bytes: Vec<u8> = match shard.outgoing(now(), key, arena) {
                Outgoing::Run(piece) => arena.bytes(piece).to_vec(),
                Outgoing::Scattered(pieces) => pieces
                    .flat_map(|piece| arena.bytes(piece).to_vec())
                    .collect(),
                Outgoing::Ahead(_) | Outgoing::Backlog(_) | Outgoing::Nothing => continue,
            };
            shard.sent(now(), key, arena, SendOutcome::Whole(bytes.len()));
            sent.push((key, bytes));
        }
        shard.end_flush();
        shard.hand_over(now());
        shard.end_turn(arena);
        assert!(shard.counters().is_conserved());
        sent
    }
}

fn now() -> Timestamp {
    Timestamp::default()
}

#[test]
fn c14_what_another_reactor_sent_is_cut_between_frames_and_goes_on_in_order() {
    for share in ["4KiB", "5000B", "30KiB"] {
        let mut pair = Pair::new(&[&format!("limits.deliver_per_turn={share}")]);
        let subscribers: Vec<_> = (0..20)
            .map(|_| pair.connected(1, &wire::subscribe(&["t", "u"])))
            .collect();
        let publisher = pair.connected(0, b"");
        // Runs of one topic, of frames of several lengths, and of the other.
        let flood = [
            wire::numbered("t", 200),
            (0..50)
                .flat_map(|n| wire::publish("t", vec![7; n]))
                .collect(),
            wire::numbered("u", 3),
            wire::publish("t", "end"),
        ]
        .concat();
        pair.receive(0, publisher, &flood);
        pair.turn(0);
        let mut taken = vec![Vec::new(); subscribers.len()];
        let mut turns = 0;
        while pair.shards[1].0.has_mesh_work() {
            let sent = pair.turn(1);
            let bytes: usize = sent.iter().map(|(_, bytes)| bytes.len()).sum();
            assert!(bytes <= 30 * 1024 + 20 * 60, "{bytes} bytes in one turn");
            for (key, bytes) in sent {
                let index = subscribers.iter().position(|it| *it == key).unwrap();
                taken[index].extend(bytes);
            }
            turns += 1;
        }
        assert!(turns > 1, "{share}: {turns} turns");
        assert!(taken.iter().all(|taken| *taken == flood), "{share}");
        assert!(pair.shards[1].0.is_delivered());
    }
}

#[test]
fn g1_a_batch_of_which_the_next_turn_delivers_the_rest_has_not_arrived() {
    let mut pair = Pair::new(&["limits.deliver_per_turn=4KiB"]);
    pair.connected(1, &wire::subscribe(&["t"]));
    let publisher = pair.connected(0, b"");
    pair.receive(0, publisher, &wire::numbered("t", 2000));
    pair.turn(0);
    let (shard, arena) = &mut pair.shards[1];
    shard.begin_delivering();
    while shard.deliver(arena).is_some() {}
    assert!(shard.is_spent());
    // A stop asks here, at the end of a turn: told yes, it would close those who wait for the rest.
    assert!(!shard.is_delivered());
}

#[test]
fn c16_a_greedy_publisher_here_leaves_what_comes_from_peers_its_share() {
    let mut pair = Pair::new(&["limits.deliver_per_turn=4KiB"]);
    let subscriber = pair.connected(1, &wire::subscribe(&["t", "u"]));
    for _ in 0..20 {
        pair.connected(1, &wire::subscribe(&["t"]));
    }
    let (greedy, remote) = (pair.connected(1, b""), pair.connected(0, b""));
    pair.receive(1, greedy, &wire::numbered("t", 2000));
    for number in 0..20_u32 {
        pair.receive(0, remote, &wire::publish("u", number.to_be_bytes()));
        pair.turn(0);
        let sent = pair.turn(1);
        assert!(pair.shards[1].0.has_put_off(), "the greedy one has more");
        let (_, bytes) = sent.iter().find(|(key, _)| *key == subscriber).unwrap();
        assert!(bytes.ends_with(&wire::publish("u", number.to_be_bytes())));
    }
}

#[test]
fn c13_b6_a_publisher_that_was_put_off_and_leaves_has_published_everything() {
    let broker = start(&["limits.deliver_per_turn=4KiB", "limits.frames_per_turn=64"]);
    let mut subscribers: Vec<_> = (0..10).map(|_| broker.subscriber(&["t"])).collect();
    let mut publisher = broker.connect();
    let flood = wire::numbered("t", 3000);
    publisher.send(&flood);
    publisher.half_close();
    for subscriber in &mut subscribers {
        subscriber.expect(&flood);
    }
    drop((publisher, subscribers));
    broker.finish();
}

#[test]
fn c13_g1_a_stop_executes_what_was_put_off() {
    let builder = Broker::builder().listen("127.0.0.1:0").unwrap();
    let settings = ["limits.deliver_per_turn=4KiB", "limits.frames_per_turn=64"];
    let broker = spawn(builder, &settings);
    let mut subscriber = broker.subscriber(&["t"]);
    let mut publisher = broker.connect();
    let greetings = [&wire::CONNECT[..], &wire::CONNECT, &wire::subscribe(&["t"])].concat();
    let flood = wire::numbered("t", 20_000);
    publisher.send(&flood);
    broker.await_counters("some are accepted", |counters| {
        counters.accepted(id::PUBLISH) > 1000
    });
    let counters = broker.stop();
    let (stream, _) = subscriber.read_to_end();
    assert!(flood.starts_with(&stream));
    assert_eq!(counters.deliveries_dropped.total(), 0);
    let received_len = counters.bytes_in as usize - greetings.len();
    let frame_len = flood.len() / 20_000;
    assert_eq!(
        stream.len(),
        received_len / frame_len * frame_len,
        "every whole frame that was received was executed"
    );
    drop(publisher);
}

#[test]
fn c13_g1_what_was_put_off_is_executed_at_a_stop_although_its_publisher_resets() {
    for _ in 0..5 {
        let builder = Broker::builder().listen("127.0.0.1:0").unwrap();
        // A turn for each frame, and what is put off is copied in each: that takes its time.
        let settings = ["reactors=1", "limits.frames_per_turn=1", "drain_timeout=1h"];
        let broker = spawn(builder, &settings);
        let mut publisher = broker.connect();
        let flood = wire::numbered("t", 20_000);
        publisher.send(&flood);
        broker.await_counters("some were received", |counters| counters.bytes_in > 20_000);
        broker.handle().stop();
        publisher.reset();
        let counters = broker.stop();
        let received_len = counters.bytes_in as usize - wire::CONNECT.len();
        let executed = counters.accepted(id::PUBLISH) as usize;
        assert_eq!(executed, received_len / (flood.len() / 20_000));
    }
}

#[test]
fn c13_a_session_that_was_put_off_before_its_connect_goes_on() {
    let builder = Broker::builder().listen("127.0.0.1:0").unwrap();
    let broker = spawn(builder, &["reactors=1", "limits.frames_per_turn=1"]);
    let mut peer = broker.open();
    let frames = [
        wire::publish("t", "early"),
        wire::CONNECT.to_vec(),
        wire::subscribe(&["t"]),
    ];
    peer.send(frames.concat());
    wait_until("it is subscribed", || broker.subscribers("t") == 1);
    broker.stop();
}

#[test]
fn c13_a_login_that_is_accepted_while_the_broker_drains_publishes_nothing() {
    let mut world = World::with(Later, &[]);
    let subscriber = world.connected(wire::subscribe(&["t"]));
    assert!(
        !world.shard.wants_input(subscriber),
        "its answer is awaited"
    );
    world.shard.stop_reading();
    assert!(!world.shard.has_any_held(), "nobody waits for it");
    TICKETS.with_borrow_mut(|tickets| tickets.drain(..).for_each(Ticket::accept));
    world.turn();
    assert_eq!(world.ended[&subscriber], CloseReason::Shutdown);
    assert_eq!(world.counters().accepted(id::SUBSCRIBE), 0);
}

thread_local! {
    static TICKETS: RefCell<Vec<Ticket>> = const { RefCell::new(Vec::new()) };
}

/// Puts every answer off.
#[derive(Clone)]
struct Later;

impl SessionHandler for Later {
    fn on_connect(&mut self, _: SessionView, request: ConnectRequest<'_>) -> ConnectAnswer {
        let (ticket, answer) = request.later();
        TICKETS.with_borrow_mut(|tickets| tickets.push(ticket));
        answer
    }
}

fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((frame, rest)) = wire::split(bytes) {
        frames.push(frame.to_vec());
        bytes = rest;
    }
    frames
}
