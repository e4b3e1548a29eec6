//! The daemon as a process: signals, limits of the kernel, exit codes and what it says.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio, exit};
use std::time::{Duration, Instant};
use std::{env, thread};

use hvlp::Broker;
use hvlp::handler::{SessionHandler, SessionView, Verdict};
use rustix::process::{Pid, Signal, kill_process};

use crate::malformed::FOREIGN;
use crate::support::{Canary, End, Peer, Process, command, engine, wait_until, wire};

/// A subscriber of "a" that is known to be one, because a message has come through.
pub(crate) fn subscriber(process: &Process) -> Peer {
    let mut peer = Peer::connect(process.address());
    let mut publisher = Peer::connect(process.address());
    // What a session publishes comes behind its own SUBSCRIBE.
    let mut witness = Peer::connect(process.address());
    witness.subscribe(&["ready"]);
    peer.subscribe(&["a"]);
    while !has_heard(&witness, &mut publisher) {}
    peer.publish("ready", "subscribed");
    while witness.next_frame().unwrap() != wire::publish("ready", "subscribed") {}
    peer
}

/// Whether a probe has reached the witness; it may have been too early.
fn has_heard(witness: &Peer, publisher: &mut Peer) -> bool {
    publisher.publish("ready", "probe");
    witness.has_bytes(Duration::from_millis(20))
}

/// A subscriber of "a" that reads nothing, and is owed more than its socket takes.
fn stuck(process: &Process) -> Peer {
    let stuck = subscriber(process);
    stuck.shrink_window();
    let mut healthy = subscriber(process);
    let mut publisher = Peer::connect(process.address());
    let frames = wire::publish("a", [7; 253]).repeat(4000);
    publisher.send(&frames);
    healthy.expect(&frames);
    stuck
}

/// Settings under which nothing but the drain's end, or a second signal, closes a stuck reader.
const STUCK: [&str; 6] = [
    "--set",
    "listener.sndbuf=4KiB",
    "--set",
    "listener.progress_timeout=1h",
    "--set",
    "drain_timeout=1h",
];

#[test]
fn c6_all_whose_time_is_over_in_one_turn_are_closed_although_nothing_else_happens() {
    let args = ["--reactors", "1", "--set", "listener.connect_timeout=1s"];
    let process = Process::start(&args);
    // Accepted in one turn, they are late in one turn; it takes leave of some of them.
    process.signal(Signal::STOP);
    let mut silent: Vec<_> = (0..60).map(|_| Peer::open(process.address())).collect();
    process.signal(Signal::CONT);
    for peer in &mut silent {
        assert_eq!(peer.expect_end(), End::Eof);
    }
    process.stop();
}

#[test]
fn g1_sigterm_when_idle_ends_with_0_and_everyone_is_told() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = Process::start(&[]);
        let mut silent = Peer::open(process.address());
        let mut subscribed = subscriber(&process);
        process.signal(signal);
        assert_eq!(silent.expect_end(), End::Eof);
        assert_eq!(subscribed.expect_end(), End::Eof);
        assert_eq!(process.wait().code(), Some(0));
        assert_eq!(process.count_lines("hvlp-broker stopped"), 1);
    }
}

#[test]
fn g1_sigterm_under_full_load_tears_no_frame_and_loses_none_that_it_owes() {
    let mut process = Process::start(&[]);
    let mut reader = subscriber(&process);
    let mut publisher = Peer::connect(process.address());
    let writer = thread::spawn(move || {
        let mut number = 0_u32;
        loop {
            let frames: Vec<u8> = (number..number + 100)
                .flat_map(|number| wire::publish("a", number.to_be_bytes()))
                .collect();
            if !publisher.try_send(frames) {
                return;
            }
            number += 100;
        }
    });
    let mut bytes = Vec::new();
    while bytes.len() < 1_000_000 {
        bytes.extend(reader.next_frame().unwrap());
    }
    process.signal(Signal::TERM);
    bytes.extend(reader.read_to_end().0);
    let (mut rest, mut number) = (&bytes[..], 0_u32);
    while let Some((frame, behind)) = wire::split(rest) {
        assert_eq!(frame, wire::publish("a", number.to_be_bytes()));
        (rest, number) = (behind, number + 1);
    }
    assert_eq!(rest, b"", "the last frame is whole");
    writer.join().unwrap();
    assert_eq!(process.wait().code(), Some(0));
    assert_eq!(
        process.count_lines(" 0 dropped"),
        1,
        "{:?}",
        process.lines()
    );
}

#[test]
fn g2_a_second_signal_during_the_drain_ends_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let mut process = Process::start(&STUCK);
        let stuck = stuck(&process);
        process.signal(Signal::TERM);
        wait_until("it drains", || process.count_lines("stopping") == 1);
        assert!(process.is_alive(), "an hour to go");
        process.signal(second);
        assert_eq!(process.wait().code(), Some(0));
        drop(stuck);
    }
}

#[test]
fn g3_a_stuck_reader_delays_the_end_by_the_drain_timeout_at_most() {
    let settings = [
        "--set",
        "listener.sndbuf=4KiB",
        "--set",
        "drain_timeout=200ms",
    ];
    let mut process = Process::start(&settings);
    let stuck = stuck(&process);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    assert_eq!(
        process.count_lines(" 0 dropped"),
        0,
        "{:?}",
        process.lines()
    );
    drop(stuck);
}

#[test]
fn g7_an_address_that_others_can_reach_is_refused_unless_the_risk_is_accepted() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let (code, lines) = Process::fail(&["--listen", address]);
        assert_eq!(code, Some(3), "{lines:?}");
        assert_eq!(lines.len(), 1, "{lines:?}");
        for part in [
            "refusing to listen on",
            address,
            "127.0.0.1",
            "--insecure-anonymous",
        ] {
            assert!(lines[0].contains(part), "{part} in {lines:?}");
        }
    }
    for _ in 0..2 {
        let process = Process::start(&["--listen", "0.0.0.0:0", "--insecure-anonymous"]);
        let warned = || process.count_lines("WARN") == 1;
        wait_until("the warning of every start", warned);
        assert_eq!(process.count_lines("--insecure-anonymous"), 1);
        process.stop();
    }
}

#[test]
fn d6_without_descriptors_clients_are_refused_and_nobody_else_notices() {
    let process = Process::start(&[]);
    let canary = Canary::start(process.address());
    // Sessions fill the gaps, so that the limit leaves not a single one.
    let mut served = Vec::new();
    let is_dense = |open: &[u64]| open.last() == Some(&(open.len() as u64 - 1));
    while served.is_empty() || !is_dense(&process.descriptors()) {
        let before = process.descriptors().len();
        served.push(Peer::connect(process.address()));
        wait_until("it has its session", || {
            process.descriptors().len() > before
        });
    }
    let used = process.descriptors();
    let ticks = process.cpu_ticks();
    let start = Instant::now();
    process.limit_descriptors(used.len() as u64);
    // Each gets its turn as accepting is tried again: after 100 ms, 200 ms, 400 ms, 800 ms.
    let mut refused: Vec<_> = (0..5).map(|_| Peer::open(process.address())).collect();
    for peer in &mut refused {
        peer.expect_end();
    }
    assert!(
        start.elapsed() >= Duration::from_millis(1400),
        "each rest is longer"
    );
    // A busy loop would have used all of that time.
    let used_up = (process.cpu_ticks() - ticks) * 10;
    assert!(
        u128::from(used_up) < start.elapsed().as_millis() / 2 + 50,
        "{used_up} ms of CPU"
    );
    wait_until("it says so", || process.count_lines("cannot accept") > 0);
    let told = process.count_lines("cannot accept");
    assert_eq!(told, 1, "one line in ten seconds: {:?}", process.lines());
    wait_until("the spare one is back", || process.descriptors() == used);

    process.limit_descriptors(used.len() as u64 + 10);
    drop(subscriber(&process));
    drop(served);
    canary.finish();
    process.stop();
}

#[test]
fn d13_sigpipe_at_its_default_action_does_not_end_the_process() {
    // A process that is spawned has it at its default action, whatever its parent does.
    let mut process = Process::start(&[]);
    let ignored = u64::from_str_radix(&process.status("SigIgn"), 16).unwrap();
    assert_ne!(ignored & (1 << (13 - 1)), 0, "SIGPIPE is ignored");
    let canary = Canary::start(process.address());
    let mut publisher = Peer::connect(process.address());
    for _ in 0..50 {
        let gone = subscriber(&process);
        publisher.send(wire::publish("a", [7; 253]).repeat(100));
        gone.reset();
        publisher.send(wire::publish("a", [7; 253]).repeat(100));
    }
    assert!(process.is_alive());
    canary.finish();
    drop(publisher);
    process.stop();
}

#[test]
fn a15_one_line_says_what_another_protocol_looks_like_and_what_to_do() {
    let process = Process::start(&["--set", "listener.frame_timeout=100ms"]);
    let canary = Canary::start(process.address());
    for _ in 0..2 {
        for (_, hello) in FOREIGN {
            let mut peer = Peer::open(process.address());
            peer.send(hello);
            peer.half_close();
            peer.expect_end();
        }
    }
    for (name, _) in FOREIGN {
        let line = format!("speaks {name}");
        wait_until("the line is there", || process.count_lines(&line) > 0);
    }
    canary.finish();
    let lines = process.lines();
    process.stop();
    for (name, _) in FOREIGN {
        let about = lines
            .iter()
            .filter(|line| line.contains(&format!("speaks {name}")));
        assert_eq!(about.count(), 1, "one line a minute: {lines:?}");
    }
}

#[test]
fn a_taken_port_is_one_line_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, lines) = Process::fail(&["--listen", &address]);
    assert_eq!((code, lines.len()), (Some(4), 1), "{lines:?}");
    for part in [&address, "in use", "--listen"] {
        assert!(lines[0].contains(part), "{part} in {lines:?}");
    }
}

#[test]
fn wrong_usage_is_one_line_with_what_to_do() {
    for (args, code, lesson) in [
        (&["--lisen", "127.0.0.1:0"][..], 2, "--listen"),
        (&["--listen", "127.0.0.1:port"], 2, "127.0.0.1:port"),
        (&["--listen"], 2, "--listen"),
        (&["positional"], 2, "positional"),
        (&["--log", "xml"], 2, "json"),
        (&["--set", "limits.sesions_max=5"], 3, "limits.sessions_max"),
        (&["--set", "nonsense=5"], 3, "--set help"),
        (&["--set", "limits.sessions_max=0"], 3, "from 1"),
        (&["--outbound-max", "8"], 3, "8MiB"),
        (&["--busy-poll", "0s"], 3, "busy_poll"),
    ] {
        let (got, lines) = Process::fail(args);
        assert_eq!(
            (got, lines.len()),
            (Some(code), 1),
            "{args:?} says {lines:?}"
        );
        assert!(lines[0].starts_with("hvlp-broker: "), "{lines:?}");
        assert!(lines[0].contains(lesson), "{lesson} in {lines:?}");
    }
}

#[test]
fn numbers_of_reactors_that_cannot_be_are_refused_with_those_that_can() {
    for count in ["64", "0", "1000000"] {
        let (code, lines) = Process::fail(&["--listen", "127.0.0.1:0", "--reactors", count]);
        assert_eq!((code, lines.len()), (Some(3), 1), "{lines:?}");
        let said = &lines[0];
        assert!(
            said.contains("reactors") && said.contains("from 1 to 63"),
            "{said}"
        );
    }
}

/// Panics at a message on `panic`.
#[derive(Clone)]
struct Fragile;

impl SessionHandler for Fragile {
    fn on_publish(&mut self, _: SessionView, topic: &str, _: &[u8]) -> Verdict {
        assert!(topic != "panic", "a hook has failed");
        Verdict::Allow
    }
}

/// A program that serves with `Fragile`, as `main` of any program with a hook would.
fn serve_fragile() -> ! {
    let builder = Broker::builder().handler(Fragile).set("reactors=3");
    let builder = builder.and_then(|builder| builder.listen("127.0.0.1:0"));
    let ended = builder.and_then(|builder| {
        engine::chosen(builder)
            .run(|broker| eprintln!("fragile, listening on {}", broker.local_addr()))
    });
    match ended {
        Ok(_) => exit(0),
        Err(error) => {
            eprintln!("fragile: {error}");
            exit(1)
        }
    }
}

#[test]
fn f9_f11_a_hook_that_panics_takes_its_process_with_it() {
    const ROLE: &str = "HVLP_TEST_ROLE";
    const NAME: &str = "process::f9_f11_a_hook_that_panics_takes_its_process_with_it";
    if env::var_os(ROLE).is_some() {
        serve_fragile();
    }
    // Sessions are spread: the first three are on as many reactors.
    for at in 0..3 {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", NAME, "--nocapture"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Process::spawn(command.env(ROLE, "fragile"));
        let mut peers: Vec<_> = (0..6).map(|_| Peer::connect(process.address())).collect();
        for peer in &mut peers {
            peer.subscribe(&["a"]);
        }
        peers[at].publish("panic", b"");
        assert_eq!(process.wait().code(), Some(1), "{:?}", process.lines());
        let (said, reactor) = (process.lines(), format!("'hvlp-reactor-{at}'"));
        assert!(said.iter().any(|line| line.contains(&reactor)), "{said:?}");
        let last = said.last().unwrap();
        assert_eq!(last, "fragile: the reactor panicked: a hook has failed");
        for peer in &mut peers {
            peer.expect_end();
        }
    }
}

#[test]
fn what_is_typed_goes_before_a_variable() {
    let mut broker = command(&[
        "--listen",
        "127.0.0.1:0",
        "--set",
        "listener.outbound_max=2MiB",
    ]);
    let broker = Process::spawn(broker.env("HVLP_OUTBOUND_MAX", "1MiB"));
    let owed = "a subscriber that is owed 2MiB is closed";
    wait_until("the greeting is whole", || {
        broker.lines().iter().any(|line| line.contains(owed))
    });
}

#[test]
fn with_json_every_line_is_an_object_from_the_addresses_to_the_end() {
    let args = ["--listen", "127.0.0.1:0", "--log", "json", "--log-level"];
    let mut child = command(&args)
        .arg("debug")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map(|line| {
        let line = line.unwrap();
        let object: serde_json::Value = serde_json::from_str(&line).expect(&line);
        object
    });
    let listening = lines.find(|line| line["message"] == "listening").unwrap();
    let address: SocketAddr = listening["addresses"][0].as_str().unwrap().parse().unwrap();
    drop(TcpStream::connect(address).unwrap());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["message"], &last["dropped"]),
        (&"stopped".into(), &0.into())
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
