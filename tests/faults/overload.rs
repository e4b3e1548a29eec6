//! Too much of everything at once: the states that a broker enters, and leaves by itself.

use std::collections::VecDeque;
use std::time::Duration;

use hvlp::config::{Config, MemoryBound};
use hvlp::metrics::{Counters, DropReason, Overload};
use hvlp::session::CloseReason;
use hvlp::shard::{Accounts, SendOutcome};
#[cfg(feature = "cli")]
use rustix::process::Signal;

use crate::support::memory::World;
use crate::support::wire;
#[cfg(feature = "cli")]
use crate::support::{Canary, Peer, Process, wait_until};

const MIB: usize = 1024 * 1024;

/// A shard with so many MiB for all that comes, its limits far above them.
fn world(room: usize) -> World<hvlp::handler::Open> {
    let mut config = Config {
        reactors: 1,
        ..Config::default()
    };
    let fixed = MemoryBound::of(&config, false).fixed();
    config.limits.memory_max = Some(fixed + room * MIB);
    let accounts = Accounts::new(&MemoryBound::of(&config, false), false);
    let mut world = World::new(&["listener.outbound_max=1GiB"]);
    world.shard = world.shard.with_accounts(accounts);
    world
}

#[test]
fn e9_near_the_end_of_the_memory_the_largest_backlogs_go_and_nobody_else() {
    let mut world = world(16);
    let subscribe = wire::subscribe(&["a"]);
    let healthy = world.connected(&subscribe);
    let publisher = world.connected([]);
    let mut slow = Vec::new();
    let frames = wire::publish("a", [7; 253]).repeat(100);
    // The earlier it came, the more it is owed: by some chunks.
    for turn in 0.. {
        if !world.ended.is_empty() {
            break;
        }
        if turn % 6 == 0 && slow.len() < 8 {
            slow.push(world.connected(&subscribe));
        }
        world.receive(publisher, &frames);
        world.turn_with(&mut |key, offered| match key == healthy {
            true => SendOutcome::Whole(offered),
            false => SendOutcome::Short(0),
        });
        assert!(
            world.take(healthy) == frames,
            "the healthy one gets everything"
        );
        let accounted = world.counters().accounted_bytes;
        assert!(accounted <= 16 * MIB as u64, "{accounted}");
        let state = world.counters().overload(Overload::Memory);
        if state == 1 {
            assert!(accounted > 12 * MIB as u64, "{accounted}");
        }
    }
    assert_eq!(
        world.ended.iter().collect::<Vec<_>>(),
        [(&slow[0], &CloseReason::SlowConsumerEvicted)],
        "the largest, and that is enough"
    );
    let counters = world.counters();
    assert_eq!(
        counters.deliveries_dropped.total(),
        counters.dropped(DropReason::Evicted)
    );
    // The next ones take nothing for too long.
    world.pass(Duration::from_secs(10));
    world.turn();
    // As an engine does that has nothing else to do.
    while world.shard.has_leftovers() {
        world.turn();
    }
    let state = world.counters().overload(Overload::Memory);
    assert_eq!(state, 0, "it leaves by itself");
    assert!(world.shard.is_open(publisher) && world.shard.is_open(healthy));
}

#[test]
#[cfg(feature = "cli")]
fn e9_new_connections_are_refused_until_there_is_memory_again() {
    // Most of what there is may be names of topics, which only their subscribers can let go of.
    let settings = [
        "reactors=1",
        "limits.memory_max=102MiB",
        "limits.topics_max=64_000",
        "limits.topic_bytes_max=16MiB",
        "limits.subscriptions_max=64_000",
        "limits.sessions_max=64",
        "limits.outbound_total_max=1MiB",
        "limits.held_total_max=64KiB",
    ];
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let args: Vec<_> = ["--listen", "127.0.0.1:0"]
        .into_iter()
        .chain(settings)
        .collect();
    let process = Process::start(&args);
    let canary = Canary::start(process.address());
    let mut hoarder = Peer::connect(process.address());
    let name = |number: u32| format!("{number:0>250}");
    let subscribe: Vec<u8> = (0..63_000)
        .flat_map(|number| wire::subscribe(&[name(number)]))
        .collect();
    hoarder.send(&subscribe);
    let said = |what: &str| process.count_lines(what) > 0;
    wait_until("it says so", || {
        said("overloaded: new connections are refused")
    });
    Peer::open(process.address()).expect_end();
    // Who is there is served.
    hoarder.send(wire::publish("nobody", "listens"));
    drop(hoarder);
    wait_until("it is over", || said("no longer overloaded"));
    drop(crate::process::subscriber(&process));
    canary.finish();
    process.stop();
}

#[test]
fn e2_e3_a_limit_that_was_met_is_a_state_until_a_twentieth_is_free_again() {
    type Gauge = fn(&Counters) -> u64;
    let cases: [(&str, u64, Gauge, Overload); 3] = [
        (
            "limits.subscriptions_max=40",
            40,
            |counters| counters.subscriptions,
            Overload::Subscriptions,
        ),
        (
            "limits.topics_max=40",
            40,
            |counters| counters.topics,
            Overload::Topics,
        ),
        (
            "limits.topic_bytes_max=64KiB",
            64 * 1024,
            |counters| counters.topic_bytes,
            Overload::Topics,
        ),
    ];
    for (limit, max, gauge, overload) in cases {
        let mut world = World::new(&[limit]);
        let [holder, greedy] = [(); 2].map(|()| world.connected([]));
        let is_full = |world: &World<_>| world.counters().overload(overload) == 1;
        let mut names = (0..).map(|number| format!("{number:0>200}"));
        let mut held = VecDeque::new();
        while gauge(&world.counters()) + 200 <= max || held.len() < 40 {
            let name = names.next().unwrap();
            world.receive(holder, wire::subscribe(&[&name]));
            held.push_back(name);
        }
        world.turn();
        assert!(!is_full(&world), "{limit}: nobody was refused");
        world.receive(greedy, wire::subscribe(&[names.next().unwrap()]));
        world.turn();
        let reason = CloseReason::LimitSubscriptions;
        assert_eq!(world.ended.get(&greedy), Some(&reason), "{limit}");
        assert!(is_full(&world), "{limit}");
        while is_full(&world) {
            assert!(gauge(&world.counters()) >= max - max / 20, "{limit}");
            let name = held.pop_front().unwrap();
            world.receive(holder, wire::unsubscribe(&[name]));
            world.turn();
        }
        assert!(gauge(&world.counters()) < max - max / 20, "{limit}");
        assert!(world.shard.is_open(holder));
    }
}

#[test]
#[cfg(feature = "cli")]
fn e10_where_there_is_no_memory_for_what_a_session_is_owed_it_alone_is_closed() {
    let settings = [
        "--listen",
        "127.0.0.1:0",
        "--reactors=1",
        "--set",
        "listener.outbound_max=1GiB",
        "--set",
        "limits.outbound_total_max=1GiB",
    ];
    let process = Process::start(&settings);
    let canary = Canary::start(process.address());
    let stuck = crate::process::subscriber(&process);
    stuck.shrink_window();
    let mut healthy = crate::process::subscriber(&process);
    let mut publisher = Peer::connect(process.address());
    process.limit_address_space(16 * MIB as u64);
    // Few enough for the socket of the healthy one, which is owed nothing in between and needs no
    // memory then.
    let frames = wire::publish("a", [7; 253]).repeat(400);
    let is_closed = || process.count_lines("reason=no_memory") > 0;
    // More than it may take, several times over.
    for _ in 0..1000 {
        publisher.send(&frames);
        healthy.expect(&frames);
    }
    wait_until("it is closed over that", is_closed);
    canary.finish();
    process.stop();
}

#[test]
#[cfg(feature = "cli")]
fn e10_without_memory_for_all_that_came_a_turn_reads_what_it_has_memory_for() {
    let process = Process::start(&["--listen", "127.0.0.1:0", "--reactors=1"]);
    let mut witness = crate::process::subscriber(&process);
    let mut publishers = [(); 4].map(|()| Peer::connect(process.address()));
    process.limit_address_space(256 * 1024);
    // Together more than a segment of the arena, and all of it is there for one turn.
    let unheard = wire::publish("unheard", [7; 200]).repeat(1500);
    process.signal(Signal::STOP);
    for publisher in &mut publishers {
        publisher.send(&unheard);
        publisher.publish("a", "behind them");
    }
    process.signal(Signal::CONT);
    witness.expect(wire::publish("a", "behind them").repeat(4));
    process.stop();
}

#[test]
#[cfg(feature = "cli")]
fn e11_memory_returns_to_the_system_after_a_burst() {
    let process = Process::start(&["--listen", "127.0.0.1:0", "--reactors=2"]);
    let canary = Canary::start(process.address());
    let mut healthy = crate::process::subscriber(&process);
    let mut publisher = Peer::connect(process.address());
    let frames = wire::publish("a", [7; 253]).repeat(4000);
    let burst = |healthy: &mut Peer, publisher: &mut Peer| {
        let stuck: Vec<_> = (0..20)
            .map(|_| crate::process::subscriber(&process))
            .collect();
        stuck.iter().for_each(Peer::shrink_window);
        for _ in 0..6 {
            publisher.send(&frames);
            healthy.expect(&frames);
        }
        process.resident()
    };
    // What every turn needs is there after the first one.
    let before = process.resident();
    burst(&mut healthy, &mut publisher);
    wait_until("it is given back", || process.resident() < 2 * before);
    let before = process.resident();
    for _ in 0..3 {
        let peak = burst(&mut healthy, &mut publisher);
        assert!(peak > 4 * before, "{peak} bytes, {before} before");
        wait_until("it is given back", || process.resident() < before / 5 * 6);
    }
    canary.finish();
    process.stop();
}
