//! The session cases of `tests/vectors/session/`: bytes of several connections into this broker,
//! the bytes that each of them gets, and why it is closed.
//!
//! In memory each write is also cut at every byte. Over sockets the cases run one after the other
//! on one broker, whole, cut in two and byte by byte; in the end it still serves.
#![cfg(all(feature = "broker", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hvlp::Broker;
use hvlp::metrics::Counters;
use hvlp::session::{CloseReason, SessionKey};
use serde_json::Value;

#[path = "support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "other tests use the rest")]
mod support;

use support::memory::World;
use support::{DEADLINE, Peer, TestBroker, spawn, wire};

const FILES: [&str; 6] = [
    "frames",
    "budget",
    "states",
    "scripts",
    "time",
    "extensions",
];

struct Case {
    name: String,
    steps: Vec<Step>,
    /// In the order of their first steps.
    connections: Vec<Connection>,
}

/// One thing that happens; connections by their place in the case.
#[derive(Clone)]
enum Step {
    Send(usize, Vec<u8>),
    /// The peer ends its direction.
    End(usize),
    Pass(Duration),
}

struct Connection {
    out: Vec<u8>,
    close: CloseReason,
}

impl Connection {
    /// Whether it stays until its peer ends it.
    const fn stays(&self) -> bool {
        matches!(self.close, CloseReason::Eof | CloseReason::EofMidFrame)
    }
}

// ---- in memory

#[test]
fn every_case_in_memory_whole_and_with_each_write_cut_at_every_byte() {
    for case in cases() {
        run_in_memory(&case, case.steps.clone(), "whole");
        for (at, step) in case.steps.iter().enumerate() {
            let Step::Send(who, bytes) = step else {
                continue;
            };
            for cut in 1..bytes.len() {
                let (first, second) = bytes.split_at(cut);
                let parts = [first, second].map(|part| Step::Send(*who, part.to_vec()));
                let mut steps = case.steps.clone();
                steps.splice(at..=at, parts);
                run_in_memory(&case, steps, &format!("step {at} cut at {cut}"));
            }
        }
    }
}

fn run_in_memory(case: &Case, steps: Vec<Step>, how: &str) {
    let mut world = World::new(&[]);
    let mut keys: BTreeMap<usize, SessionKey> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Send(who, bytes) => {
                let key = *keys.entry(who).or_insert_with(|| world.open());
                world.receive(key, bytes);
            }
            Step::End(who) => world.eof(keys[&who]),
            Step::Pass(time) => world.pass(time),
        }
        world.turn();
    }
    // Last words take a turn more.
    while world.has_more() {
        world.turn();
    }
    for (who, connection) in case.connections.iter().enumerate() {
        let (key, name) = (keys[&who], &case.name);
        if !world.ended.contains_key(&key) {
            assert!(connection.stays(), "{name}, {how}: {who} is still there");
            world.eof(key);
            world.turn();
        }
        let ended = world.ended.get(&key);
        assert_eq!(
            ended,
            Some(&connection.close),
            "{name}, {how}: end of {who}"
        );
        assert_eq!(world.take(key), connection.out, "{name}, {how}: to {who}");
    }
    assert_eq!(
        world.shard.register().topic_count(),
        0,
        "{}, {how}",
        case.name
    );
    assert_eq!(world.shard.session_count(), 0, "{}, {how}", case.name);
}

// ---- over sockets

/// How a write goes out.
#[derive(Clone, Copy, Debug)]
enum Writes {
    Whole,
    /// The second part when the broker has read the first.
    Halves,
    Bytewise,
}

#[test]
fn every_case_over_tcp() {
    run_over(spawn(
        Broker::builder().listen("127.0.0.1:0").unwrap(),
        &["reactors=1"],
    ));
}

#[test]
fn every_case_over_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", directory.path().join("hvlp").display());
    run_over(spawn(
        Broker::builder().listen(&listen).unwrap(),
        &["reactors=1"],
    ));
}

fn run_over(broker: TestBroker) {
    let is_timeless = |case: &Case| !case.steps.iter().any(|it| matches!(it, Step::Pass(_)));
    for case in cases().into_iter().filter(is_timeless) {
        for writes in [Writes::Whole, Writes::Halves, Writes::Bytewise] {
            let before = broker.counters();
            let mut run = Run::new(&broker);
            case.steps.iter().for_each(|step| run.step(step, writes));
            run.finish(&case, writes);
            let counters = broker.counters();
            for reason in CloseReason::ALL {
                let closed = counters.closed(reason) - before.closed(reason);
                let expected = case.connections.iter().filter(|it| it.close == reason);
                let name = &case.name;
                assert_eq!(
                    closed,
                    expected.count() as u64,
                    "{name}, {writes:?}: {reason}"
                );
            }
        }
    }
    let mut subscriber = broker.subscriber(&["still"]);
    broker.connect().publish("still", "served");
    subscriber.expect_nothing_before(wire::publish("still", "served"));
    drop(subscriber);
    broker.finish();
}

/// One case on one broker.
struct Run<'a> {
    broker: &'a TestBroker,
    peers: BTreeMap<usize, Peer>,
    /// Those whose streams have ended, by their peer or by the broker.
    ended: BTreeSet<usize>,
}

impl<'a> Run<'a> {
    const fn new(broker: &'a TestBroker) -> Self {
        Self {
            broker,
            peers: BTreeMap::new(),
            ended: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: &Step, writes: Writes) {
        match step {
            Step::Send(who, bytes) => match writes {
                Writes::Whole => self.send(*who, bytes, bytes.len().max(1)),
                Writes::Bytewise => self.send(*who, bytes, 1),
                Writes::Halves => {
                    let (first, second) = bytes.split_at(bytes.len() / 2);
                    self.send(*who, first, first.len().max(1));
                    self.send(*who, second, second.len().max(1));
                }
            },
            Step::End(who) => {
                let before = self.broker.counters();
                self.peers[who].half_close();
                self.ended.insert(*who);
                self.await_read(&before, u64::MAX);
            }
            Step::Pass(_) => unreachable!("cases with time run in memory"),
        }
    }

    /// In writes of so many bytes. Returns when the broker has read and executed all of them, or
    /// has closed a session over them.
    fn send(&mut self, who: usize, bytes: &[u8], len: usize) {
        if self.ended.contains(&who) {
            return;
        }
        let before = self.broker.counters();
        let peer = self.peers.entry(who);
        let peer = peer.or_insert_with(|| Peer::open(self.broker.address()));
        for part in bytes.chunks(len) {
            if !peer.try_send(part) {
                break;
            }
        }
        if self.await_read(&before, bytes.len() as u64) {
            self.ended.insert(who);
        }
    }

    /// Until the broker has read so many bytes more than before, or has closed a session: then it
    /// returns true. Asking is a turn of the broker, so there is no need to rest in between.
    fn await_read(&self, before: &Counters, len: u64) -> bool {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let counters = self.broker.counters();
            if counters.sessions_closed.total() > before.sessions_closed.total() {
                return true;
            }
            if counters.bytes_in - before.bytes_in >= len {
                return false;
            }
            assert!(Instant::now() < deadline, "all is read within {DEADLINE:?}");
        }
    }

    fn finish(self, case: &Case, writes: Writes) {
        for (who, mut peer) in self.peers {
            let connection = &case.connections[who];
            if connection.stays() && !self.ended.contains(&who) {
                peer.half_close();
            }
            let (out, _) = peer.read_to_end();
            assert_eq!(out, connection.out, "{}, {writes:?}: to {who}", case.name);
        }
    }
}

// ---- the files

#[test]
fn the_cases_are_many_and_named_once() {
    let cases = cases();
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len(), "a name is used twice");
    assert!(cases.len() >= 500, "only {} cases", cases.len());
}

#[test]
fn the_files_are_what_their_generator_writes() {
    let written = tempfile::tempdir().unwrap();
    let mut generator = Command::new("python3");
    generator
        .arg(directory().join("generate.py"))
        .arg(written.path());
    match generator.stdout(Stdio::null()).status() {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => return println!("skipped, python3 does not start: {error}"),
    }
    for file in FILES {
        let [committed, written] = [directory().as_path(), written.path()]
            .map(|place| fs::read_to_string(place.join(file).with_extension("json")).unwrap());
        assert!(committed == written, "{file}.json: run generate.py again");
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/session")
}

fn cases() -> Vec<Case> {
    let files = FILES.map(|file| {
        let text = fs::read_to_string(directory().join(file).with_extension("json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    });
    let cases = files
        .iter()
        .flat_map(|file| file["cases"].as_array().unwrap());
    cases.map(Case::of).collect()
}

impl Case {
    fn of(case: &Value) -> Self {
        let named = case["connections"].as_object().unwrap();
        let mut names: Vec<&str> = Vec::new();
        let mut steps = Vec::new();
        for step in case["steps"].as_array().unwrap() {
            if let Some(millis) = step["pass_ms"].as_u64() {
                steps.push(Step::Pass(Duration::from_millis(millis)));
                continue;
            }
            let name = step["at"].as_str().unwrap();
            let place = names.iter().position(|known| *known == name);
            let who = place.unwrap_or(names.len());
            if place.is_none() {
                names.push(name);
            }
            steps.push(match step["send"].as_str() {
                Some(hex) => Step::Send(who, bytes_of(hex)),
                None => Step::End(who),
            });
        }
        assert_eq!(names.len(), named.len(), "{}", case["name"]);
        let connections = names.iter().map(|name| Connection::of(&named[*name]));
        Self {
            name: case["name"].as_str().unwrap().to_owned(),
            connections: connections.collect(),
            steps,
        }
    }
}

impl Connection {
    fn of(connection: &Value) -> Self {
        let label = connection["close"].as_str().unwrap();
        let mut reasons = CloseReason::ALL.into_iter();
        let close = reasons.find(|reason| reason.to_string() == label);
        Self {
            out: bytes_of(connection["out"].as_str().unwrap()),
            close: close.unwrap_or_else(|| panic!("{label} is no reason")),
        }
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    hex.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}
