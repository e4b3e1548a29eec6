//! Section G: daemons that are killed, stopped for a while, or not listened to.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use hvlp::address::Address;
use rustix::process::{Pid, Signal, kill_process};

use crate::process::subscriber;
use crate::support::{Canary, Peer, Prng, Process, command, wait_until, wire};

#[test]
fn g8_a_daemon_that_is_killed_under_load_serves_again_on_the_same_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", directory.path().join("s").display());
    let mut listen = "127.0.0.1:0".to_owned();
    let mut prng = Prng::new(8);
    for _ in 0..10 {
        // A reader that this machine makes slow holds the load instead of being closed.
        let pause = "listener.slow_consumer=pause";
        let args = ["--listen", &listen, "--listen", &unix, "--reactors", "2"];
        let args = [&args[..], &["--set", pause]].concat();
        let mut process = Process::spawn(&mut command(&args));
        listen = process.address().to_string();
        let mut reader = subscriber(&process);
        let mut publisher = Peer::connect(&unix.parse::<Address>().unwrap());
        let load =
            thread::spawn(
                move || {
                    while publisher.try_send(wire::publish("a", [7; 200]).repeat(50)) {}
                },
            );
        for _ in 0..prng.below(20_000) {
            assert_eq!(reader.next_frame().unwrap(), wire::publish("a", [7; 200]));
        }
        process.signal(Signal::KILL);
        process.wait();
        load.join().unwrap();
    }
    let process = Process::spawn(&mut command(&["--listen", &listen, "--listen", &unix]));
    drop(subscriber(&process));
    process.stop();
}

#[test]
fn g11_a_daemon_that_was_stopped_for_a_while_closes_nobody_over_it() {
    for reactors in ["1", "2"] {
        let timeout = "listener.frame_timeout=3s";
        let process = Process::start(&["--reactors", reactors, "--set", timeout]);
        let mut reader = subscriber(&process);
        let frame = wire::publish("a", "whole after all");
        let mut peers: Vec<_> = (0..10).map(|_| Peer::connect(process.address())).collect();
        for peer in &mut peers {
            peer.send(wire::publish("a", "x"));
            peer.send(&frame[..3]);
        }
        reader.expect(wire::publish("a", "x").repeat(10));
        process.signal(Signal::STOP);
        // What is waited for is the end of the frame's time.
        thread::sleep(Duration::from_millis(4500));
        process.signal(Signal::CONT);
        // Somebody is served, so deadlines have been looked at.
        let mut witness = Peer::connect(process.address());
        witness.publish("a", "later");
        reader.expect(wire::publish("a", "later"));
        for peer in &mut peers {
            peer.send(&frame[3..]);
        }
        reader.expect(frame.repeat(10));
        wait_until("it is told", || process.count_lines("stood still") > 0);
        process.stop();
    }
}

/// A daemon that says what it says to `log`, at length, and its address.
fn start_with_log(log: Stdio) -> (Child, Address) {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let listen = format!("127.0.0.1:{port}");
    let mut daemon: Command = command(&["--listen", &listen, "--log-level", "debug"]);
    let child = daemon.stderr(log).spawn().unwrap();
    wait_until("it listens", || TcpStream::connect(&listen).is_ok());
    (child, listen.parse().unwrap())
}

/// Far more lines than a pipe takes, beside a canary; then the end.
fn is_served_and_ends(mut child: Child, address: &Address) {
    let canary = Canary::start(address);
    for _ in 0..2000 {
        drop(Peer::connect(address));
    }
    canary.finish();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut status = None;
    wait_until("it ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn g12_a_full_disk_for_the_log_holds_up_nobody() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (child, address) = start_with_log(full.into());
    is_served_and_ends(child, &address);
}

#[test]
fn g12_a_log_that_nobody_reads_any_more_holds_up_nobody() {
    let (mut child, address) = start_with_log(Stdio::piped());
    drop(child.stderr.take());
    is_served_and_ends(child, &address);
}

#[test]
fn g12_a_log_whose_reader_has_stopped_holds_up_nobody_and_no_stop() {
    let (mut child, address) = start_with_log(Stdio::piped());
    let unread = child.stderr.take();
    is_served_and_ends(child, &address);
    drop(unread);
}

#[test]
fn d16_closed_standard_streams_are_the_null_device_before_there_is_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let daemon = command(&[]);
    let mut shell = Command::new("sh");
    let script = "exec \"$0\" --listen \"unix:$1\" <&- >&- 2>&-";
    shell
        .args(["-c", script])
        .arg(daemon.get_program())
        .arg(&socket);
    let mut child = shell.env("HVLP_ADMIN", "off").spawn().unwrap();
    wait_until("it listens", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    for number in 0..3 {
        let target = std::fs::read_link(format!("/proc/{}/fd/{number}", child.id()));
        assert_eq!(target.unwrap().to_str(), Some("/dev/null"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn d15_a_child_of_the_embedding_program_inherits_no_descriptor_of_the_broker() {
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", directory.path().join("s").display());
    let builder = hvlp::Broker::builder().listen("127.0.0.1:0").unwrap();
    let broker = crate::support::spawn(builder.listen(&unix).unwrap(), &["reactors=2"]);
    let peers = [broker.subscriber(&["a"]), broker.subscriber(&["a"])];
    let mut list = Command::new("ls");
    let listed = list
        .args(["-l", "/proc/self/fd"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("/dev/null"), "{listed}");
    for kind in ["socket:", "eventpoll", "eventfd"] {
        assert!(!listed.contains(kind), "{listed}");
    }
    drop(peers);
    broker.finish();
}
