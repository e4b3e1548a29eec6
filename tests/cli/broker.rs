//! `hvlp` and a real broker.

use std::io::Read;

use hvlp::Broker;

use crate::{engine, hvlp, lines_of, spawn};

#[test]
fn what_pub_sends_sub_prints() {
    let broker = Broker::builder().listen("127.0.0.1:0").unwrap();
    let broker = engine::chosen(broker).spawn().unwrap();
    let server = broker.local_addr().to_string();
    let mut subscriber = spawn(&server, &["sub", "a/b", "c", "-v", "-C", "1001"]);
    let talk = lines_of(subscriber.stderr.take().unwrap());
    assert_eq!(
        talk.recv_timeout(crate::LONG).unwrap(),
        "subscribed, waiting"
    );
    while broker.register().subscribers("c").next().is_none() {
        std::thread::yield_now();
    }
    let lines: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let mut command = hvlp(&["-s", &server, "pub", "c", "-l"]);
    command.write_stdin(lines.join("\n")).assert().code(0);
    hvlp(&["-s", &server, "pub", "a/b", "end"]).assert().code(0);

    let mut printed = String::new();
    subscriber
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut printed)
        .unwrap();
    assert_eq!(subscriber.wait().unwrap().code(), Some(0));
    let expected = lines.iter().map(|line| format!("c {line}\n"));
    assert_eq!(printed, expected.collect::<String>() + "a/b end\n");
}

#[test]
fn wildcards_are_asked_for_where_a_topic_has_them_unless_it_is_exact() {
    let broker = Broker::builder().listen("127.0.0.1:0").unwrap();
    let broker = engine::chosen(broker).spawn().unwrap();
    let server = broker.local_addr().to_string();
    let mut all = spawn(&server, &["sub", "-v", "a/#", "+", "-C", "4"]);
    let mut exact = spawn(&server, &["sub", "-v", "--exact", "a/#", "-C", "1"]);
    for subscriber in [&mut all, &mut exact] {
        let talk = lines_of(subscriber.stderr.take().unwrap());
        let line = talk.recv_timeout(crate::LONG).unwrap();
        assert_eq!(line, "subscribed, waiting");
    }
    while broker.register().subscribers("a/#").next().is_none() {
        std::thread::yield_now();
    }
    for topic in ["a/b/c", "b/c", "a/#", "a", "c"] {
        let mut command = hvlp(&["-s", &server, "pub", topic, "1", "--confirm"]);
        let run = command.assert().code(0);
        run.stdout("").stderr("confirmed, messages: 1\n");
    }
    for (subscriber, expected) in [(all, "a/b/c 1\na/# 1\na 1\nc 1\n"), (exact, "a/# 1\n")] {
        let output = subscriber.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        assert_eq!(output.status.code(), Some(0));
    }

    let mut command = hvlp(&["-s", &server, "sub", "a", "a/#/b"]);
    let run = command.assert().code(1).stdout("");
    run.stderr(
        "hvlp: topic \"a/#/b\": a wildcard is a level of its own, and # the last one; --exact \
         takes it as it is written\n",
    );
}

#[test]
fn without_extensions_wildcards_and_confirmations_are_refused_and_pings_still_measure() {
    let broker = Broker::builder().set("extensions=none").unwrap();
    let broker = engine::chosen(broker.listen("127.0.0.1:0").unwrap());
    let broker = broker.spawn().unwrap();
    let server = broker.local_addr().to_string();
    let run = hvlp(&["-s", &server, "sub", "a/#"]).assert().code(1);
    run.stdout("").stderr(format!(
        "hvlp: the broker at {server} has no wildcards; --exact takes + and # as they are written\n"
    ));
    let mut command = hvlp(&["-s", &server, "pub", "a", "1", "--confirm"]);
    command
        .assert()
        .code(1)
        .stdout("")
        .stderr(format!("hvlp: the broker at {server} does not offer ack\n"));
    let mut command = hvlp(&["-s", &server, "ping", "-c", "2", "-i", "1ms"]);
    let run = command.assert().code(0);
    let text = String::from_utf8_lossy(&run.get_output().stdout);
    let first = format!("ping {server}, by messages through it: it has no pings\n1: ");
    assert!(text.starts_with(&first), "{text}");
    assert!(text.contains("\n2 sent, 0 lost, min "), "{text}");
}

#[test]
fn ping_prints_each_round_trip_and_a_summary() {
    let broker = Broker::builder().listen("127.0.0.1:0").unwrap();
    let broker = engine::chosen(broker).spawn().unwrap();
    let server = broker.local_addr().to_string();
    let run = hvlp(&["-s", &server, "ping", "-c", "3", "-i", "1ms"])
        .assert()
        .code(0);
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("ping {server}, by its pings"));
    assert!(
        lines[1].starts_with("1: ") && lines[3].ends_with(" us"),
        "{text}"
    );
    assert!(lines[4].starts_with("3 sent, 0 lost, min "), "{text}");
    assert_eq!(lines.len(), 5);

    let run = hvlp(&["-s", &server, "ping", "-c", "2", "-i", "1ms", "--json"])
        .assert()
        .code(0);
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    let objects: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects[1]["n"], 2);
    assert!(objects[1]["us"].as_f64().unwrap() > 0.0);
    assert_eq!(
        (&objects[2]["sent"], &objects[2]["lost"]),
        (&2.into(), &0.into())
    );
    for name in ["min_us", "avg_us", "p50_us", "p99_us", "max_us"] {
        assert!(objects[2][name].as_f64().unwrap() > 0.0, "{name}");
    }
}

#[test]
fn ping_sums_up_what_it_has_when_the_broker_goes() {
    let broker = Broker::builder().listen("127.0.0.1:0").unwrap();
    let broker = engine::chosen(broker).spawn().unwrap();
    let server = broker.local_addr().to_string();
    let mut ping = spawn(&server, &["ping", "-i", "10ms"]);
    let lines = lines_of(ping.stdout.take().unwrap());
    while !lines.recv_timeout(crate::LONG).unwrap().starts_with("2: ") {}
    broker.stop();
    broker.join().unwrap();
    let summary = lines.iter().last().unwrap();
    assert!(summary.contains(" sent, 0 lost, min "), "{summary}");
    assert_eq!(ping.wait().unwrap().code(), Some(1));
}
