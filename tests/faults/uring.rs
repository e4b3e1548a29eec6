//! F8 and G14: what only an engine on completion can get wrong, and where it cannot be had.

use std::collections::HashMap;

use hvlp::session::CloseReason;

use super::handler::{start_obedient, waiting};
use super::support::{Peer, start, start_stallable, wait_until, wire};

/// More than a ring has room for completions.
const HERD: usize = 4_500;

#[test]
fn f8_from_more_sockets_than_buffers_everything_arrives_and_in_order() {
    everything_arrives_and_in_order(600, 300);
}

#[test]
fn f8_with_more_input_than_buffers_everything_arrives_and_in_order() {
    // As few sockets as these are served in one look, and each takes buffers until none is left.
    everything_arrives_and_in_order(40, 6_000);
}

/// All of `count` publishers send so many messages while the broker stands still.
fn everything_arrives_and_in_order(count: usize, messages: u32) {
    // What a turn leaves in the buffers comes before what it could read from their sockets.
    let settings = ["engine=uring", "reactors=1", "limits.read_per_turn=64KiB"];
    let (broker, stall) = start_stallable(&settings);
    let topics: Vec<_> = (0..count).map(|who| format!("crowd/{who}")).collect();
    let mut witness = broker.connect();
    for some in topics.chunks(10) {
        witness.subscribe(&some.iter().map(String::as_str).collect::<Vec<_>>());
    }
    wait_until("it is subscribed", || {
        broker.subscribers(&topics[count - 1]) == 1
    });
    let mut crowd: Vec<_> = topics.iter().map(|_| broker.connect()).collect();
    // Several buffers of each: one that comes back full says that more is in the socket.
    stall.during(&broker, || {
        for (peer, topic) in crowd.iter_mut().zip(&topics) {
            peer.send(wire::numbered(topic, messages));
        }
    });
    let mut next: HashMap<Vec<u8>, u32> = HashMap::new();
    for _ in 0..count * messages as usize {
        let frame = witness.next_frame().unwrap();
        // Type and length, the topic with a length of its own, the data.
        let (topic, data) = frame[3..].split_at(usize::from(frame[2]));
        let number = next.entry(topic.to_vec()).or_default();
        assert_eq!(data, number.to_be_bytes());
        *number += 1;
    }
    drop((witness, crowd));
    broker.finish();
}

#[test]
fn f8_more_completions_than_the_queue_has_room_for_are_late_and_not_lost() {
    let (broker, stall) = start_stallable(&["engine=uring", "reactors=1"]);
    let mut witness = broker.subscriber(&["herd"]);
    let mut herd: Vec<_> = (0..HERD).map(|_| broker.connect()).collect();
    wait_until("all are there", || {
        broker.counters().accepted(1) > HERD as u64
    });
    stall.during(&broker, || {
        herd.iter_mut().for_each(|peer| peer.publish("herd", "x"));
    });
    witness.expect(wire::publish("herd", "x").repeat(HERD));
    stall.during(&broker, || drop(herd));
    wait_until("all have left", || broker.connections() < 10);
    drop(witness);
    broker.finish();
}

#[test]
fn f8_a_session_that_ends_with_requests_in_flight_leaves_nothing_to_the_next() {
    let broker = start(&[
        "engine=uring",
        "reactors=1",
        "listener.outbound_max=64KiB",
        "listener.sndbuf=4KiB",
    ]);
    let mut publisher = broker.connect();
    for round in 0..200 {
        // Its receive is armed, and soon a poll for room as well.
        let mut slow = Peer::connect_narrow(broker.address());
        slow.subscribe(&["flood"]);
        wait_until("it is subscribed", || broker.subscribers("flood") == 1);
        publisher.send(wire::numbered("flood", 20_000));
        match round % 3 {
            0 => slow.reset(),
            1 => drop(slow),
            // Unless it was closed before.
            _ => drop(slow.try_send(wire::DISCONNECT)),
        }
        wait_until("it has left", || broker.subscribers("flood") == 0);
        // Whoever comes next has its slot, and gets what is meant for it alone.
        let mut next = broker.subscriber(&["next"]);
        publisher.publish("next", "mine");
        next.expect_nothing_before(wire::publish("next", "mine"));
    }
    drop(publisher);
    broker.finish();
}

#[test]
fn f8_what_comes_for_sessions_that_are_not_read_counts_as_held_input_and_is_bounded() {
    let settings = ["engine=uring", "reactors=1", "limits.held_total_max=64KiB"];
    let (broker, tickets) = start_obedient(&settings);
    let mut sessions: Vec<_> = (0..3).map(|_| waiting(&broker, &tickets, b"")).collect();
    let flood = wire::numbered("a", 4000);
    for (number, (peer, _)) in sessions.iter_mut().enumerate().take(2) {
        peer.send(&flood);
        let held = (number + 1) * flood.len();
        broker.await_counters("all of it is held", |counters| {
            counters.held_bytes == held as u64
        });
    }
    sessions[2].0.send(&flood);
    broker.await_counters("the last one finds no room", |counters| {
        counters.closed(CloseReason::LimitConnect) == 1
    });
    assert_eq!(broker.counters().held_bytes, 2 * flood.len() as u64);
    let (mut witness, mut peers) = (broker.subscriber(&["a"]), Vec::new());
    for (peer, ticket) in sessions.into_iter().take(2) {
        ticket.accept();
        witness.expect(&flood);
        peers.push(peer);
    }
    assert_eq!(broker.counters().held_bytes, 0);
    drop(witness);
    drop(peers);
    broker.finish();
}

#[cfg(feature = "cli")]
mod refused {
    use std::collections::BTreeMap;

    use rustix::io::Errno;
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    use crate::support::{Process, wait_until};

    /// A thread, and every process that it starts, to whom io_uring_setup answers `errno`.
    fn without_rings<T: Send>(errno: Errno, act: impl FnOnce() -> T + Send) -> T {
        // The same number on every architecture.
        const IO_URING_SETUP: i64 = 425;
        let filter = SeccompFilter::new(
            BTreeMap::from([(IO_URING_SETUP, Vec::new())]),
            SeccompAction::Allow,
            SeccompAction::Errno(errno.raw_os_error().unsigned_abs()),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        std::thread::scope(|scope| {
            let act = || {
                apply_filter(&program).unwrap();
                act()
            };
            scope.spawn(act).join().unwrap()
        })
    }

    #[test]
    fn g14_f8_where_io_uring_is_refused_uring_says_what_would_help_and_auto_serves() {
        for (errno, help) in [
            (Errno::PERM, "kernel.io_uring_disabled"),
            (Errno::NOSYS, "Linux 6.1 or later"),
            (Errno::NOMEM, "ulimit -l"),
            (Errno::INVAL, "too old"),
        ] {
            let (code, lines) = without_rings(errno, || {
                Process::fail(&["--engine", "uring", "--listen", "127.0.0.1:0"])
            });
            assert_eq!(code, Some(3), "{lines:?}");
            let told = lines.last().unwrap();
            assert!(told.contains("cannot start with --engine uring"), "{told}");
            assert!(
                told.contains(help) && told.contains("--engine mio"),
                "{told}"
            );

            let mut process = without_rings(errno, || Process::start(&["--engine", "auto"]));
            // Lines of the log go through a thread of their own.
            wait_until("it says why", || process.count_lines("engine=\"mio\"") == 1);
            process.signal(rustix::process::Signal::TERM);
            assert_eq!(process.wait().code(), Some(0));
        }
    }
}
