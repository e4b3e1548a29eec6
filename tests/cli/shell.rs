//! `hvlp shell` from a pipe.

use std::io::Write;

use crate::peer::Peer;
use crate::{CONNECT, DISCONNECT, LONG, hvlp, lines_of, spawn};

#[test]
fn the_manuals_commands_send_their_packets() {
    let peer = Peer::once(|mut connection| {
        connection.expect(&[0x07, 0x00]);
        connection.expect(&[0x01, 0x06, 0x73, 0x33, 0x63, 0x72, 0x65, 0x74]);
        connection.expect(&[0x03, 0x05, 0x01, 0x61, 0x02, 0x62, 0x63]);
        connection.expect(&[0x04, 0x02, 0x01, 0x61]);
        connection.expect(&[0x05, 0x04, 0x01, 0x61, 0xAA, 0x55]);
        connection.expect(&[0x05, 0x05, 0x01, 0x61, 0x31, 0x20, 0x32]);
        connection.expect(DISCONNECT);
        connection.expect_end();
    });
    let input = format!(
        "config server {}\nopen\nsend 07 00\nconnect s3cret\nsubscribe a bc\nunsubscribe a\n\
         publish a -x aa 55\npublish a 1 2\ndisconnect\nquit\n",
        peer.address
    );
    let run = hvlp(&["shell"])
        .write_stdin(input)
        .assert()
        .code(0)
        .stderr("");
    run.stdout(format!(
        "server {0}\nopen: {0}\nconnected\nsubscribed to \"a\", \"bc\"\nunsubscribed from \"a\"\n\
         disconnected\n",
        peer.address
    ));
    peer.join();
}

#[test]
fn messages_and_packets_are_shown_as_they_come() {
    let (go, wait) = std::sync::mpsc::channel();
    let peer = Peer::once(move |mut connection| {
        connection.expect(CONNECT);
        connection.write(&[0x05, 0x04, 0x01, 0x61, 0x31, 0x1B]);
        wait.recv().unwrap();
        connection.write(&[0x05, 0x03, 0x01, 0x61, 0x32, 0x05, 0x00, 0x07, 0x01, 0x2A]);
        connection.expect(&[0x05, 0x03, 0x01, 0x61, 0x33]);
        connection.expect(DISCONNECT);
    });
    let mut child = spawn(&peer.address.to_string(), &["shell"]);
    let lines = lines_of(child.stdout.take().unwrap());
    let next = || lines.recv_timeout(LONG).unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"connect\n").unwrap();
    let (_open, mut first) = (next(), [next(), next()]);
    first.sort();
    assert_eq!(first, ["a 1\\u{1b}", "connected"]);
    input.write_all(b"sniffer on\n").unwrap();
    assert_eq!(next(), "sniffer is on");
    go.send(()).unwrap();
    assert_eq!(next(), "<- PUBLISH topic=\"a\" data=[32]");
    assert_eq!(next(), "<- malformed (PUBLISH without a topic) [05, 00]");
    assert_eq!(next(), "<- UNKNOWN id=7 payload=[2a]");
    input.write_all(b"publish a 3\n").unwrap();
    assert_eq!(next(), "-> PUBLISH topic=\"a\" data=[33]");
    drop(input);
    assert_eq!(next(), "-> DISCONNECT payload=[]");
    assert_eq!(next(), "disconnected");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    peer.join();
}

#[test]
fn each_mistake_has_its_own_answer() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        connection.expect_end();
    });
    let input = "subscribe a\nconnect\nconnect\nopen\nfly\nsubscribe\nsend 0g\nopen a/b:1\n\
                 config port 7\npublish 'a\nhelp fly\nclose\nclose\n";
    let server = peer.address.to_string();
    let run = hvlp(&["-s", &server, "shell"]).write_stdin(input).assert();
    let text = String::from_utf8(run.code(1).get_output().stderr.clone()).unwrap();
    let expected = [
        "not connected; connect first",
        "already connected to 127.0.0.1:",
        "already connected to 127.0.0.1:",
        "there is no command \"fly\"; help lists them",
        "wrong arguments; write: subscribe TOPIC...",
        "\"0g\" is no byte sequence; write two hexadecimal digits a byte, as in aa 55",
        "\"a/b:1\" is no address: write host:port, [v6]:port or unix:/path",
        "already connected to 127.0.0.1:",
        "a quote is not closed",
        "no command \"fly\"; help lists them",
        "not connected; connect first",
    ];
    assert_eq!(text.lines().count(), expected.len(), "{text}");
    for (line, expected) in text.lines().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
    peer.join();
}

#[test]
fn a_connection_that_ends_by_itself_is_reported_and_can_be_made_again() {
    let peer = Peer::listening(|listener| {
        listener.accept().expect(CONNECT);
        let mut second = listener.accept();
        second.expect(CONNECT);
        second.expect(DISCONNECT);
    });
    let mut child = spawn(&peer.address.to_string(), &["shell"]);
    let lines = lines_of(child.stdout.take().unwrap());
    let next = || lines.recv_timeout(LONG).unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"connect\n").unwrap();
    let seen = [next(), next(), next()];
    let ended = format!(
        "connection ended: the broker at {} closed the connection",
        peer.address
    );
    assert!(seen.contains(&ended), "{seen:?}");
    // The end may be noticed by the next command, or the one after it.
    loop {
        input.write_all(b"connect\n").unwrap();
        if lines
            .recv_timeout(std::time::Duration::from_millis(200))
            .is_ok()
        {
            break;
        }
    }
    assert_eq!(next(), "connected");
    drop(input);
    assert_eq!(next(), "disconnected");
    child.wait().unwrap();
    peer.join();
}

#[test]
fn help_lists_every_command_of_the_manual() {
    let run = hvlp(&["shell"]).write_stdin("help\n").assert().code(0);
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    for command in [
        "connect",
        "subscribe",
        "unsubscribe",
        "publish",
        "disconnect",
        "config",
        "open",
        "send",
        "close",
        "sniffer",
        "help",
        "quit",
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(command)),
            "{command}"
        );
    }
}
