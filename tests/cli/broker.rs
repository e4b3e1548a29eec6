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
fn ping_prints_each_round_trip_and_a_summary() {
    let broker = Broker::builder().listen("127.0.0.1:0").unwrap();
    let broker = engine::chosen(broker).spawn().unwrap();
    let server = broker.local_addr().to_string();
    let run = hvlp(&["-s", &server, "ping", "-c", "3", "-i", "1ms"])
        .assert()
        .code(0);
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("ping {server}"));
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
