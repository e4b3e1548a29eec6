//! `hvlp` as a program: what it prints, what it sends and how it exits.
#![cfg(all(feature = "client", feature = "cli"))]
#![allow(
    clippy::unwrap_used,
    reason = "what a test cannot go on without has failed it"
)]

mod broker;
#[path = "../support/engine.rs"]
mod engine;
#[path = "../peer/mod.rs"]
mod peer;
mod publish;
mod shell;
mod subscribe;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Stdio};

use assert_cmd::Command;

use self::peer::{LONG, Peer};

const CONNECT: &[u8] = &[0x01, 0x00];
const DISCONNECT: &[u8] = &[0x02, 0x00];

/// `hvlp` without the variables of whoever runs the tests, and with an end.
fn hvlp(arguments: &[&str]) -> Command {
    let mut command = Command::from_std(std_hvlp(arguments));
    command.timeout(LONG);
    command
}

/// The same for a program that runs beside the test.
fn spawn(server: &str, arguments: &[&str]) -> Child {
    let mut command = std_hvlp(&["-s", server]);
    command.args(arguments);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

fn std_hvlp(arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hvlp"));
    let variables = std::env::vars_os().map(|(name, _)| name);
    for name in variables.filter(|name| name.to_string_lossy().starts_with("HVLP_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// The next line of a program's output.
fn line_of(output: &mut impl std::io::Read) -> String {
    let mut line = String::new();
    let mut byte = [0];
    while !line.ends_with('\n') && output.read(&mut byte).unwrap() > 0 {
        line.push(char::from(byte[0]));
    }
    line
}

#[test]
fn nothing_listens_is_exit_3_and_tells_what_to_start() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let expected = format!("hvlp: nothing listens on {address}; start one: hvlp-broker\n");
    for arguments in [
        vec!["-H", &host, "-p", &port, "pub", "a", "1"],
        vec!["sub", "-p", &port, "a"],
        vec!["ping", "-p", &port],
    ] {
        let run = hvlp(&arguments).assert().code(3);
        run.stdout("").stderr(expected.clone());
    }
    let mut by_variable = hvlp(&["pub", "a", "1"]);
    let by_variable = by_variable.env("HVLP_SERVER", format!("hvlp://{address}"));
    by_variable.assert().code(3).stderr(expected);
}

#[test]
#[cfg(target_os = "linux")]
fn the_exit_code_stands_when_nobody_can_read_why() {
    let full = std::fs::File::options().write(true).open("/dev/full");
    let mut command = std_hvlp(&["-s", "unix:/nonexistent/hvlp.sock", "sub", "a"]);
    let status = command.stderr(full.unwrap()).status().unwrap();
    assert_eq!(status.code(), Some(3));
}

#[test]
fn a_server_that_is_no_broker_is_exit_3() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        connection.write(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        connection.expect_end();
    });
    let server = peer.address.to_string();
    let run = hvlp(&["-s", &server, "sub", "a"]).assert().code(3);
    let text = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    assert!(
        text.ends_with("does not look like an HVLP broker: it speaks HTTP\n"),
        "{text}"
    );
}

#[test]
fn wrong_usage_is_exit_2_and_says_what_would_be_right() {
    for (arguments, hint) in [
        (vec!["pub"], "which topic?"),
        (vec!["pub", "a"], "publish what?"),
        (vec!["pub", "a", "1", "-n"], "data twice"),
        (vec!["pub", "a", "b", "c"], "unexpected argument 'c'"),
        (vec!["pub", "-t", "a", "b", "c"], "topic twice"),
        (
            vec!["pub", "a", "--hex", "abc"],
            "pairs of hexadecimal digits",
        ),
        (vec!["pub", "a", "1", "--interval", "1"], "no unit"),
        (vec!["sub"], "TOPIC"),
        (
            vec!["sub", "a", "-v", "--json"],
            "-v and -N are for text and hex",
        ),
        (
            vec!["sub", "a", "--rate", "-o", "hex"],
            "--rate prints no data",
        ),
        (vec!["sub", "a", "-F", "%z"], "has no meaning"),
        (vec!["sub", "a", "-F", "%p", "-v"], "cannot be used with"),
        (vec!["sub", "a", "-W", "0s"], "0 is no time"),
        (vec!["ping", "-i", "200000000000y"], "a century is the most"),
        (vec!["-s", "a/b:1", "sub", "a"], "write host:port"),
        (
            vec!["-s", "unix:/x", "-p", "1", "sub", "a"],
            "leave -H and -p out",
        ),
        (vec!["fly"], "unrecognized subcommand"),
    ] {
        let run = hvlp(&arguments).assert().code(2).stdout("");
        let text = String::from_utf8(run.get_output().stderr.clone()).unwrap();
        assert!(text.contains(hint), "{arguments:?}: {text}");
    }
}

#[test]
fn help_and_version_are_on_standard_output() {
    let run = hvlp(&["-V"]).assert().code(0);
    run.stdout(format!("hvlp {}\n", env!("CARGO_PKG_VERSION")));
    for arguments in [vec!["-h"], vec!["pub", "-h"], vec!["sub", "--help"]] {
        let run = hvlp(&arguments).assert().code(0).stderr("");
        assert!(run.get_output().stdout.starts_with(b"Pub") || arguments[0] == "sub");
    }
    let run = hvlp(&["sub", "-h", "somehost"]).assert().code(0);
    run.stderr("-h is this help; the host is -H or -s\n");
}

#[test]
fn each_option_has_its_variable() {
    let peer = Peer::once(|mut connection| {
        connection.expect(CONNECT);
        connection.write(&[0x05, 0x03, 0x01, 0x61, 0x31, 0x05, 0x03, 0x01, 0x61, 0x32]);
        connection.expect(&[0x03, 0x02, 0x01, 0x61]);
        connection.expect(DISCONNECT);
    });
    let mut command = hvlp(&["sub", "a"]);
    command.env("HVLP_SERVER", peer.address.to_string());
    command
        .env("HVLP_COUNT", "1")
        .env("HVLP_OUTPUT", "hex")
        .env("HVLP_QUIET", "1");
    command.assert().code(0).stdout("31\n").stderr("");
    peer.join();
}

/// Reads lines in the background, so that a test can wait for one.
fn lines_of(output: impl std::io::Read + Send + 'static) -> std::sync::mpsc::Receiver<String> {
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut read = BufReader::new(output).lines();
        while let Some(Ok(line)) = read.next() {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
