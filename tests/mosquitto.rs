//! What filters match, against a real Mosquitto where one is installed.
#![cfg(feature = "broker")]
#![allow(
    clippy::unwrap_used,
    reason = "what a test cannot go on without has failed it"
)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hvlp::register::wildcard::{Pattern, Wildcards};
use hvlp::session::SessionKey;

/// Only a failing test waits for it.
const LONG: Duration = Duration::from_secs(10);

/// A server of the test's own; it ends with the test.
struct Mosquitto {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Mosquitto {
    /// `None`, and a line that says so, where it is not installed.
    fn start() -> Option<Self> {
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        // Whoever takes the free port meanwhile makes it end at once.
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("mosquitto.conf");
            let settings = format!("listener {port} 127.0.0.1\nallow_anonymous true\n");
            std::fs::write(&file, settings).unwrap();
            let mut command = Command::new("mosquitto");
            let command = command.arg("-c").arg(&file).env("PATH", &path);
            let Ok(child) = command.stderr(Stdio::null()).spawn() else {
                eprintln!("skipped: mosquitto is not installed");
                return None;
            };
            let mut server = Self {
                child,
                port,
                _directory: directory,
            };
            let deadline = Instant::now() + LONG;
            while server.child.try_wait().unwrap().is_none() && Instant::now() < deadline {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Some(server);
                }
                std::thread::yield_now();
            }
        }
        panic!("mosquitto does not start");
    }
}

/// A session that speaks MQTT 3.1.1.
struct Session(TcpStream);

impl Session {
    fn connect(server: &Mosquitto, name: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut session = Self(stream);
        let head = b"\x00\x04MQTT\x04\x02\x00\x00";
        session.send(0x10, &[&head[..], &text(name)].concat());
        assert_eq!(session.packet(), (0x20, vec![0, 0]), "CONNACK");
        session
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let len = u8::try_from(body.len()).unwrap();
        assert!(len < 128, "lengths of one byte are enough here");
        let packet = [&[kind, len], body].concat();
        self.0.write_all(&packet).unwrap();
    }

    fn packet(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut body = vec![0; usize::from(head[1])];
        self.0.read_exact(&mut body).unwrap();
        (head[0], body)
    }

    fn subscribe(&mut self, filter: &str) {
        self.send(0x82, &[&[0, 1], &text(filter)[..], &[0]].concat());
        assert_eq!(self.packet(), (0x90, vec![0, 1, 0]), "SUBACK of {filter}");
    }

    /// Everything that came before the answer to a ping.
    fn topics_until_pong(&mut self) -> BTreeSet<String> {
        self.send(0xC0, &[]);
        let mut topics = BTreeSet::new();
        loop {
            match self.packet() {
                (0xD0, _) => return topics,
                (0x30, body) => {
                    let topic = String::from_utf8(body[2..].to_vec()).unwrap();
                    assert!(topics.insert(topic), "each once");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap();
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

/// All names of up to so many of these levels.
fn names(levels: &[&str], levels_max: usize) -> Vec<String> {
    let mut all = Vec::new();
    let mut longest: Vec<String> = levels.iter().map(|level| (*level).to_owned()).collect();
    for _ in 0..levels_max {
        let longer = longest
            .iter()
            .flat_map(|name| levels.iter().map(move |level| format!("{name}/{level}")));
        let longer = longer.collect();
        all.append(&mut std::mem::replace(&mut longest, longer));
    }
    // MQTT has no empty topic.
    all.retain(|name| !name.is_empty());
    all
}

#[test]
fn j9_filters_match_what_mosquitto_says() {
    let Some(server) = Mosquitto::start() else {
        return;
    };
    let filters = names(&["", "a", "b", "+", "#"], 3);
    let is_filter = |name: &String| matches!(Pattern::of(name), Pattern::Filter(_));
    let filters: Vec<_> = filters.into_iter().filter(is_filter).collect();
    let topics = names(&["", "a", "b", "c"], 4);
    assert!(filters.len() > 50 && topics.len() > 300);

    let subscribed = |filter: &String| {
        let mut session = Session::connect(&server, filter);
        session.subscribe(filter);
        session
    };
    let mut sessions: Vec<_> = filters.iter().map(subscribed).collect();
    let mut publisher = Session::connect(&server, "publisher");
    for topic in &topics {
        publisher.send(0x30, &text(topic));
    }
    assert!(publisher.topics_until_pong().is_empty());

    let mut wildcards = Wildcards::new(1000);
    for (slot, filter) in (0..).zip(&filters) {
        wildcards.subscribe(SessionKey::new(slot, 0), filter);
    }
    let mut ours = vec![BTreeSet::new(); filters.len()];
    for topic in &topics {
        for key in wildcards.subscribers(topic) {
            ours[key.slot() as usize].insert(topic.clone());
        }
    }
    for ((filter, session), ours) in filters.iter().zip(&mut sessions).zip(ours) {
        assert_eq!(ours, session.topics_until_pong(), "{filter}");
    }
}
