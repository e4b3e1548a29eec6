//! Section D: system calls that fail, as `strace` makes them fail in a daemon of its own.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Canary, Peer, Process, command, wait_until, wire};

/// Whether system calls can be made to fail here: `strace` is there and may trace.
fn has_strace() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=none", "true"]);
    let ran = strace.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let has = ran.is_ok_and(|status| status.success());
    if !has {
        println!("skipped: strace is not there, or may not trace");
    }
    has
}

/// The daemon with faults in its system calls: `call:error=NAME:when=FIRST+STEP`, each.
fn faulty(faults: &[&str], args: &[&str]) -> Command {
    let daemon = command(&[&["--listen", "127.0.0.1:0", "--reactors", "2"], args].concat());
    let mut strace = Command::new("strace");
    // Detached: a signal meets the daemon, which is the child that the test knows.
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    let calls: Vec<_> = faults
        .iter()
        .map(|fault| fault.split(':').next().unwrap())
        .collect();
    strace.args(["-e", &format!("trace={}", calls.join(","))]);
    for fault in faults {
        strace.args(["-e", &format!("inject={fault}")]);
    }
    strace.arg(daemon.get_program()).args(daemon.get_args());
    strace
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
    strace
        .env("HVLP_ADMIN", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    strace
}

/// Sessions come, are served and leave, beside a canary.
fn serves(process: &Process, rounds: u32) {
    let canary = Canary::start(process.address());
    for _ in 0..rounds {
        let mut subscriber = crate::process::subscriber(process);
        let mut publisher = Peer::connect(process.address());
        let frames = wire::numbered("a", 100);
        publisher.send(&frames);
        subscriber.expect(&frames);
    }
    canary.finish();
}

#[test]
fn d5_d10_whatever_accept_fails_with_the_next_connection_is_served() {
    if !has_strace() {
        return;
    }
    for error in [
        "ECONNABORTED",
        "EPROTO",
        "EPERM",
        "ENETDOWN",
        "EHOSTUNREACH",
        "EOPNOTSUPP",
    ] {
        let fault = format!("accept4:error={error}:when=1+2");
        let process = Process::spawn(&mut faulty(&[&fault], &[]));
        serves(&process, 5);
        process.stop();
    }
}

#[test]
fn d8_accepting_rests_while_the_kernel_has_no_memory_and_goes_on() {
    if !has_strace() {
        return;
    }
    for error in ["ENOBUFS", "ENOMEM", "EMFILE", "ENFILE"] {
        let fault = format!("accept4:error={error}:when=1+4");
        let process = Process::spawn(&mut faulty(&[&fault], &[]));
        // Who comes while it rests may be refused: that is what the spare descriptor is for.
        wait_until("it says so", || {
            drop(Peer::open(process.address()));
            process.count_lines("cannot accept") == 1
        });
        wait_until("somebody is served", || {
            let mut peer = Peer::open(process.address());
            peer.try_send([&wire::CONNECT[..], &wire::subscribe(&["a"])].concat());
            !peer.has_ended(Duration::from_millis(50))
        });
        process.stop();
    }
}

#[test]
fn d8_a_socket_that_cannot_be_watched_is_refused_and_one_without_options_is_served() {
    if !has_strace() {
        return;
    }
    // Each thread counts its own calls; the first three watch wakers and the listener.
    let process = Process::spawn(&mut faulty(&["epoll_ctl:error=ENOMEM:when=4"], &[]));
    let mut peers: Vec<_> = (0..12).map(|_| Peer::open(process.address())).collect();
    let refused = |peer: &mut Peer| {
        peer.try_send(wire::CONNECT);
        peer.has_ended(Duration::from_millis(100))
    };
    let refused = peers
        .iter_mut()
        .map(refused)
        .filter(|refused| *refused)
        .count();
    assert_eq!(refused, 2, "{:?}", process.lines());
    serves(&process, 2);
    process.stop();

    let process = Process::spawn(&mut faulty(&["setsockopt:error=ENOMEM:when=5+1"], &[]));
    serves(&process, 2);
    wait_until("it says so", || {
        process.count_lines("a socket option was refused") > 0
    });
    process.stop();
}

#[test]
fn d8_a_send_without_buffers_is_tried_again_and_loses_nothing() {
    if !has_strace() {
        return;
    }
    let faults = [
        "sendto:error=ENOBUFS:when=5+7",
        "sendmsg:error=ENOBUFS:when=2+7",
    ];
    // The note of SIGTERM to the thread that waits for it is such a send too, of a library and from
    // a signal handler on whichever thread: this daemon is ended otherwise.
    let mut process = Process::spawn(&mut faulty(&faults, &[]));
    serves(&process, 20);
    assert!(process.is_alive());
}

#[test]
fn d9_interrupted_calls_are_made_again_and_no_edge_is_lost() {
    if !has_strace() {
        return;
    }
    // A thousand in a row, and every third. Not ended by SIGTERM, for the reason above.
    let calls = ["accept4", "recvfrom", "sendto", "sendmsg", "epoll_wait"];
    for when in ["when=1..1000", "when=1+3"] {
        let faults: Vec<_> = calls
            .iter()
            .map(|call| format!("{call}:error=EINTR:{when}"))
            .collect();
        let faults: Vec<_> = faults.iter().map(String::as_str).collect();
        let mut process = Process::spawn(&mut faulty(&faults, &[]));
        serves(&process, 5);
        assert!(process.is_alive());
    }
}

#[test]
fn d7_without_descriptors_at_the_start_there_is_no_start_and_the_reason_is_told() {
    for limit in 4..24 {
        let daemon = command(&["--listen", "127.0.0.1:0"]);
        let mut limited = Command::new("prlimit");
        limited
            .arg(format!("--nofile={limit}"))
            .arg(daemon.get_program())
            .args(daemon.get_args());
        limited
            .env("HVLP_ADMIN", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let Some(mut process) = Process::try_spawn(&mut limited) else {
            println!("skipped: prlimit is not there");
            return;
        };
        wait_until("it serves or ends", || {
            !process.is_alive() || process.count_lines("listening on") == 1
        });
        if process.is_alive() {
            assert!(limit > 8, "it takes more than {limit}");
            process.signal(Signal::TERM);
            assert_eq!(process.wait().code(), Some(0));
            continue;
        }
        let code = process.wait().code();
        let lines = process.lines();
        let is_told =
            |line: &String| line.contains("cannot start") || line.contains("cannot listen on");
        let names_it = |line: &String| line.contains("Too many open files");
        let is_library = |line: &String| line.contains("error while loading shared libraries");
        assert!(
            lines
                .iter()
                .any(|line| is_told(line) && names_it(line) || is_library(line)),
            "{limit}: {code:?} {lines:?}"
        );
    }
}

#[test]
fn g14_what_is_missing_at_the_start_is_named() {
    if !has_strace() {
        return;
    }
    for (fault, code, told) in [
        (
            "bind:error=EACCES",
            4,
            "cannot listen on 127.0.0.1:0: Permission denied",
        ),
        (
            "epoll_create1:error=ENOSYS",
            1,
            "cannot start: Function not implemented",
        ),
        (
            "eventfd2:error=EPERM",
            1,
            "cannot start: Operation not permitted",
        ),
    ] {
        let mut process = Process::try_spawn(&mut faulty(&[fault], &[])).unwrap();
        assert_eq!(process.wait().code(), Some(code), "{:?}", process.lines());
        assert_eq!(process.count_lines(told), 1, "{:?}", process.lines());
    }
}
