//! `hvlp pub`.

use std::io::Write;

use crate::peer::Peer;
use crate::{CONNECT, DISCONNECT, hvlp, spawn};

/// A peer that expects exactly these PUBLISH frames of topic "a".
fn expecting(messages: &[&[u8]]) -> Peer {
    let mut expected = CONNECT.to_vec();
    for data in messages {
        let len = u8::try_from(data.len()).unwrap();
        expected.extend([0x05, 2 + len, 0x01, 0x61]);
        expected.extend(*data);
    }
    expected.extend(DISCONNECT);
    Peer::once(move |mut connection| {
        connection.expect(&expected);
        connection.expect_end();
    })
}

/// Runs `hvlp pub` against `peer`, which checks what comes.
fn publishes(peer: Peer, arguments: &[&str], input: &[u8]) {
    let server = peer.address.to_string();
    let mut command = hvlp(&["-s", &server, "pub"]);
    let command = command.args(arguments).write_stdin(input);
    command.assert().code(0).stdout("").stderr("");
    peer.join();
}

#[test]
fn each_way_to_give_the_data_sends_the_same_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    std::fs::write(&path, b"21.5").unwrap();
    let path = path.to_str().unwrap();
    let ways: [(&[&str], &[u8]); 9] = [
        (&["a", "21.5"], b""),
        (&["-t", "a", "-m", "21.5"], b""),
        (&["-t", "a", "21.5"], b""),
        (&["a", "-m", "21.5"], b""),
        (&["a", "-"], b"21.5"),
        (&["a", "--stdin"], b"21.5"),
        (&["a", "-f", path], b""),
        (&["a", "--hex", "32 31 2e35"], b""),
        (&["a", "-l"], b"21.5"),
    ];
    for (arguments, input) in ways {
        publishes(expecting(&[b"21.5"]), arguments, input);
    }
}

#[test]
fn data_may_be_empty_negative_or_any_bytes() {
    publishes(expecting(&[b""]), &["a", "-n"], b"");
    publishes(expecting(&[b"-5"]), &["a", "-5"], b"");
    publishes(expecting(&[b"-x"]), &["a", "-m", "-x"], b"");
    publishes(expecting(&[b"\xff\0\n"]), &["a", "--stdin"], b"\xff\0\n");
    publishes(expecting(&[b"\xaa\x55"]), &["a", "--hex", "AA55"], b"");
}

#[test]
fn lines_are_messages_also_empty_ones_and_the_last_without_newline() {
    publishes(
        expecting(&[b"1", b"", b" 3 \r", b"4"]),
        &["a", "-l"],
        b"1\n\n 3 \r\n4",
    );
    publishes(expecting(&[]), &["a", "-l"], b"");
    publishes(
        expecting(&[b"\xaa", b"\x55"]),
        &["a", "-l", "--hex"],
        b"aa\n55\n",
    );
}

#[test]
fn fifty_thousand_lines_arrive_in_order() {
    let lines: Vec<String> = (0..50_000).map(|n| n.to_string()).collect();
    let messages: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    publishes(
        expecting(&messages),
        &["a", "-l"],
        lines.join("\n").as_bytes(),
    );
}

#[test]
fn a_slow_producers_line_goes_out_at_once() {
    let (arrived, wait) = std::sync::mpsc::channel();
    let peer = Peer::once(move |mut connection| {
        connection.expect(CONNECT);
        for n in [0x31, 0x32] {
            connection.expect(&[0x05, 0x03, 0x01, 0x61, n]);
            arrived.send(()).unwrap();
        }
        connection.expect(DISCONNECT);
    });
    let mut child = spawn(&peer.address.to_string(), &["pub", "a", "-l"]);
    let mut input = child.stdin.take().unwrap();
    for line in ["1\n", "2\n"] {
        input.write_all(line.as_bytes()).unwrap();
        wait.recv_timeout(crate::LONG).unwrap();
    }
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    peer.join();
}

#[test]
fn a_message_is_repeated_and_numbered() {
    publishes(
        expecting(&[b"x", b"x", b"x"]),
        &["a", "x", "--count", "3"],
        b"",
    );
    let template = [
        "a",
        "no {n}",
        "--template",
        "--count",
        "2",
        "--interval",
        "1ms",
    ];
    publishes(expecting(&[b"no 1", b"no 2"]), &template, b"");
}

#[test]
fn what_is_too_long_is_refused_before_a_connection_is_made() {
    let data = "x".repeat(300);
    // Nobody listens at port 1: the length is what is wrong first.
    let run = hvlp(&["-p", "1", "pub", "a/b", &data]).assert().code(2);
    run.stderr("hvlp: message is 300 bytes; with topic \"a/b\" one PUBLISH carries at most 251\n");
    let run = hvlp(&["-p", "1", "pub", &data, "x"]).assert().code(2);
    run.stderr("hvlp: topic is 300 bytes; the longest is 254\n");
}

#[test]
fn lines_before_one_that_is_too_long_are_sent_and_it_is_named() {
    let peer = expecting(&[b"1", b"2"]);
    let server = peer.address.to_string();
    let input = format!("1\n2\n{}\n4\n", "x".repeat(300));
    let mut command = hvlp(&["-s", &server, "pub", "a", "-l"]);
    command.write_stdin(input).assert().code(2).stderr(
        "hvlp: line 3: message is 300 bytes; with topic \"a\" one PUBLISH carries at most 253\n",
    );
    peer.join();
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let run = hvlp(&["-p", "1", "pub", "a", "-f", "/nonexistent"])
        .assert()
        .code(1);
    run.stderr("hvlp: cannot read /nonexistent: No such file or directory (os error 2)\n");
}

#[test]
fn l1_a_broker_that_closes_at_once_is_no_success() {
    let peer = Peer::once(|mut connection| connection.expect(CONNECT));
    let server = peer.address.to_string();
    let run = hvlp(&["-s", &server, "pub", "a", "1"]).assert().code(1);
    let text = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    assert!(text.contains(&server), "{text}");
    peer.join();
}
