//! `hvlp sub`.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;

use rustix::process::{Pid, Signal, kill_process};

use crate::peer::{Connection, Peer};
use crate::{CONNECT, DISCONNECT, hvlp, line_of, spawn};

const SUBSCRIBE_A: &[u8] = &[0x03, 0x02, 0x01, 0x61];

/// A peer that is subscribed to "a" and then does `play`.
fn subscribed(play: impl FnOnce(Connection) + Send + 'static) -> Peer {
    Peer::once(|mut connection| {
        connection.expect(CONNECT);
        connection.expect(SUBSCRIBE_A);
        play(connection);
    })
}

/// A peer that sends these as messages of "a" and waits for the end.
fn sending(messages: &[&[u8]]) -> Peer {
    let mut frames = Vec::new();
    for data in messages {
        let len = u8::try_from(data.len()).unwrap();
        frames.extend([0x05, 2 + len, 0x01, 0x61]);
        frames.extend(*data);
    }
    subscribed(move |mut connection| {
        connection.write(&frames);
        connection.expect(DISCONNECT);
    })
}

/// What `hvlp sub` prints for these messages.
fn printed(messages: &[&[u8]], arguments: &[&str]) -> Vec<u8> {
    let peer = sending(messages);
    let (server, count) = (peer.address.to_string(), messages.len().to_string());
    let mut command = hvlp(&["-s", &server, "sub", "a", "-C", &count]);
    let run = command.args(arguments).assert().code(0);
    peer.join();
    run.stderr("subscribed, waiting\n")
        .get_output()
        .stdout
        .clone()
}

#[test]
fn each_form_of_output_is_exact() {
    let messages: [&[u8]; 3] = [b"21.5", b"", b"\xff\x1b"];
    for (arguments, expected) in [
        (&[][..], &b"21.5\n\n\xff\x1b\n"[..]),
        (&["-v"], b"a 21.5\na \na \xff\x1b\n"),
        (&["-N"], b"21.5\xff\x1b"),
        (&["-o", "raw"], b"21.5\xff\x1b"),
        (&["-o", "hex"], b"32312e35\n\nff1b\n"),
        (&["-v", "-o", "hex"], b"a 32312e35\na \na ff1b\n"),
        (
            &["-F", "%n %t=%p (%l, %x)%%"],
            b"1 a=21.5 (4, 32312e35)%\n2 a= (0, )%\n3 a=\xff\x1b (2, ff1b)%\n",
        ),
        (&["-N", "-F", "%l\\t"], b"4\t0\t2\t"),
    ] {
        assert_eq!(printed(&messages, arguments), expected, "{arguments:?}");
    }
}

#[test]
fn json_is_one_object_a_line_with_stable_keys() {
    for arguments in [&["--json"][..], &["-o", "json"]] {
        let text = printed(&[b"21.5 \"\n", b"\xff\x00"], arguments);
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let stamp_len = "2026-11-22T08:31:05.123456Z".len();
        for (line, rest) in lines.iter().zip([
            r#"","n":1,"topic":"a","data":"21.5 \"\n"}"#,
            r#"","n":2,"topic":"a","data_b64":"/wA="}"#,
        ]) {
            let (start, behind) = line.split_at(r#"{"ts":""#.len() + stamp_len);
            assert!(
                start.starts_with(r#"{"ts":"2"#) && start.ends_with('Z'),
                "{line}"
            );
            assert_eq!(behind, rest);
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok());
        }
        assert_eq!(lines.len(), 2);
    }
}

#[test]
fn it_stops_after_so_many_messages_and_prints_no_more() {
    let peer = sending(&[b"1", b"2", b"3"]);
    let server = peer.address.to_string();
    let run = hvlp(&["-s", &server, "-q", "sub", "a", "-C", "2"]).assert();
    run.code(0).stdout("1\n2\n").stderr("");
    peer.join();
}

#[test]
fn time_out_before_enough_messages_is_exit_5_and_without_a_count_0() {
    for (arguments, code) in [(&["-C", "2"][..], 5), (&[], 0)] {
        let peer = sending(&[b"1"]);
        let server = peer.address.to_string();
        let mut command = hvlp(&["-s", &server, "sub", "a", "-W", "2s"]);
        command.args(arguments).assert().code(code).stdout("1\n");
        peer.join();
    }
}

#[test]
fn several_topics_are_subscribed_in_one_frame() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        connection.expect(&[0x03, 0x05, 0x01, 0x61, 0x02, 0x62, 0x63]);
        connection.write(&[0x05, 0x04, 0x02, 0x62, 0x63, 0x31]);
        connection.expect(DISCONNECT);
    });
    let server = peer.address.to_string();
    let run = hvlp(&["-s", &server, "subscribe", "a", "bc", "-v", "-C", "1"]).assert();
    run.code(0).stdout("bc 1\n");
    peer.join();
}

#[test]
fn a_broker_that_leaves_is_exit_1_after_what_came_was_printed() {
    let peer = subscribed(|mut connection| connection.write(&[5, 3, 1, 0x61, 0x31, 5, 9]));
    let server = peer.address.to_string();
    let run = hvlp(&["-s", &server, "sub", "a"])
        .assert()
        .code(1)
        .stdout("1\n");
    let text = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    assert!(
        text.ends_with("closed the connection 2 bytes into a frame\n"),
        "{text}"
    );
    peer.join();
}

#[test]
fn with_reconnect_it_goes_on() {
    let peer = Peer::listening(|listener| {
        for data in [0x31, 0x32] {
            let mut connection = listener.accept();
            connection.expect(CONNECT);
            connection.expect(SUBSCRIBE_A);
            connection.write(&[0x05, 0x03, 0x01, 0x61, data]);
            if data == 0x32 {
                connection.expect(DISCONNECT);
            }
        }
    });
    let server = peer.address.to_string();
    let run = hvlp(&["-s", &server, "sub", "a", "--reconnect", "-C", "2"]).assert();
    run.code(0)
        .stdout("1\n2\n")
        .stderr("subscribed, waiting\nconnected again\n");
    peer.join();
}

#[test]
fn l8_a_reader_that_leaves_ends_it_with_0() {
    let peer = subscribed(|mut connection| {
        // Until the program has gone; what it does not read ends this with an error.
        let frames = [[0x05, 0x03, 0x01, 0x61, 0x31]; 100].concat();
        while std::io::Write::write_all(&mut connection.0, &frames).is_ok() {}
    });
    let mut child = spawn(&peer.address.to_string(), &["sub", "a"]);
    let mut output = child.stdout.take().unwrap();
    assert_eq!(line_of(&mut output), "1\n");
    drop(output);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut talk = String::new();
    child.stderr.unwrap().read_to_string(&mut talk).unwrap();
    assert_eq!(talk, "subscribed, waiting\n");
    peer.join();
}

/// Whether the program, signalled while `play` goes on, ends by that signal; what it printed.
fn interrupted(
    signal: Signal,
    arguments: &[&str],
    play: impl FnOnce(Connection) + Send + 'static,
) -> Vec<u8> {
    let peer = subscribed(play);
    let mut child = spawn(&peer.address.to_string(), arguments);
    let mut output = child.stdout.take().unwrap();
    let mut printed = vec![0];
    output.read_exact(&mut printed).unwrap();
    kill_process(Pid::from_child(&child), signal).unwrap();
    output.read_to_end(&mut printed).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
    peer.join();
    printed
}

#[test]
fn l8_an_interrupted_one_prints_what_it_has_and_ends_by_the_signal() {
    for signal in [Signal::INT, Signal::TERM] {
        let silent = |mut connection: Connection| {
            connection.write(&[0x05, 0x04, 0x01, 0x61, 0x31, 0x32]);
            let _ = connection.0.read(&mut [0]);
        };
        assert_eq!(interrupted(signal, &["sub", "a", "-N"], silent), b"12");
    }
}

#[test]
fn l8_a_flood_that_is_interrupted_ends_with_a_whole_line() {
    let flood = |mut connection: Connection| {
        let frames = [[0x05, 0x06, 0x01, 0x61, 0x31, 0x32, 0x33, 0x34]; 1000].concat();
        while std::io::Write::write_all(&mut connection.0, &frames).is_ok() {}
    };
    let printed = interrupted(Signal::INT, &["sub", "a"], flood);
    let lines = printed.split(|&byte| byte == b'\n');
    let last = lines.clone().count() - 1;
    for (at, line) in lines.enumerate() {
        assert_eq!(line, if at < last { &b"1234"[..] } else { b"" });
    }
}

#[test]
fn a_rate_ends_with_what_came_since_its_last_line() {
    let text = String::from_utf8(printed(&[b"1", b"22"], &["--rate", "-o", "json"])).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert!(line["messages_per_s"].as_f64().unwrap() > 0.0, "{text}");
}

#[test]
fn a_rate_is_printed_instead_of_the_messages() {
    let peer = subscribed(|mut connection| {
        connection.write(&[[0x05, 0x03, 0x01, 0x61, 0x31]; 100].concat());
        // Until the program is ended.
        let _ = connection.0.read(&mut [0]);
    });
    let mut child = spawn(&peer.address.to_string(), &["sub", "a", "--rate"]);
    let lines = crate::lines_of(child.stdout.take().unwrap());
    let line = loop {
        let line = lines.recv_timeout(crate::LONG).unwrap();
        if !line.starts_with("0 msg/s") {
            break line;
        }
    };
    let (rate, rest) = line.split_once(" msg/s  ").unwrap();
    assert!((1..=100).contains(&rate.parse::<u32>().unwrap()), "{line}");
    assert_eq!(rest, format!("{rate} B/s"));
    child.kill().unwrap();
    child.wait().unwrap();
    peer.join();
}
