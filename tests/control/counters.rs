//! What is told is what was done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hvlp::metrics::{Kind, METRICS, PROCESS};
use serde_json::Value;

use crate::scraper::Scraper;
use crate::start;
use crate::support::{Peer, wait_until, wire};

/// As the broker's own handle tells them, when nothing goes on any more. A look at the counters is
/// a turn of each reactor.
const MOVING: [&str; 1] = ["turns_total"];

#[test]
fn every_metric_of_the_tables_is_served_with_its_kind_and_help_and_no_other() {
    let (broker, scraper) = start(&[]);
    let page = scraper.metrics();
    let tables = || METRICS.iter().chain(PROCESS);
    assert_eq!(page.families.len(), tables().count());
    for metric in tables() {
        let (kind, help) = &page.families[&format!("hvlp_{}", metric.name)];
        assert_eq!(
            (kind.as_str(), help.as_str()),
            (metric.kind.name(), metric.help)
        );
        for value in metric.values {
            page.get(metric.name, &format!("{}=\"{value}\"", metric.label));
        }
    }
    let (version, engine) = (env!("CARGO_PKG_VERSION"), broker.handle().engine());
    page.get(
        "build_info",
        &format!("version=\"{version}\",engine=\"{engine}\""),
    );
    let limit = page.get("descriptors", "kind=\"limit\"");
    assert!(page.get("descriptors", "kind=\"used\"") <= limit);
    for reactor in ["0", "1", "process"] {
        let label = format!("reactor=\"{reactor}\"");
        assert!((page.get("reactor_answers", &label) - 1.0).abs() < f64::EPSILON);
    }
    broker.finish();
}

#[test]
fn each_counter_is_what_was_done_summed_over_two_reactors() {
    let (broker, scraper) = start(&[]);
    // Sessions are spread: the subscribers are on different reactors.
    let mut subscribers = [broker.subscriber(&["t"]), broker.subscriber(&["t", "u"])];
    let mut publisher = broker.connect();
    for number in 0..10_u8 {
        publisher.publish("t", [number; 5]);
    }
    publisher.publish("nobody", "1");
    publisher.send([5, 0]);
    for peer in &mut subscribers {
        for number in 0..10_u8 {
            peer.expect(wire::publish("t", [number; 5]));
        }
    }
    let waiting = broker.open();
    let expect = |name: &str, labels: &str, expected: u32| {
        let told = || scraper.metrics().get(name, labels);
        wait_until(&format!("{name}{{{labels}}} is {expected}"), || {
            (told() - f64::from(expected)).abs() < f64::EPSILON
        });
    };
    expect("sessions", "state=\"connected\"", 3);
    expect("sessions", "state=\"wait_connect\"", 1);
    expect("deliveries_written_total", "", 20);
    expect("topics", "", 2);
    expect("subscriptions", "", 3);
    let page = scraper.metrics();
    let frame = wire::publish("t", [0; 5]).len();
    assert_eq!(whole(page.sum("bytes_out_total")), 20 * frame as u64);
    assert!(
        page.sum("mesh_bytes_total") > 0.0,
        "one subscriber is elsewhere"
    );

    publisher.send(wire::DISCONNECT);
    publisher.expect_end();
    let [reset, ended] = subscribers;
    reset.reset();
    drop((ended, waiting));
    expect("sessions_closed_total", "reason=\"client_disconnect\"", 1);
    expect("sessions_closed_total", "reason=\"reset\"", 1);
    expect("sessions_closed_total", "reason=\"eof\"", 2);
    for (name, labels, expected) in [
        ("sessions_opened_total", "", 4),
        ("frames_read_total", "", 3 + 2 + 11 + 1 + 1),
        ("packets_accepted_total", "type=\"connect\"", 3),
        ("packets_accepted_total", "type=\"subscribe\"", 2),
        ("packets_accepted_total", "type=\"publish\"", 11),
        ("packets_accepted_total", "type=\"disconnect\"", 1),
        ("packets_accepted_total", "type=\"unsubscribe\"", 0),
        ("frames_discarded_total", "cause=\"empty_publish\"", 1),
        ("publishes_unmatched_total", "", 1),
        ("deliveries_matched_total", "", 20),
        ("deliveries_owed", "", 0),
        ("sessions", "state=\"connected\"", 0),
        ("topics", "", 0),
    ] {
        expect(name, labels, expected);
    }
    assert_told_alike(scraper, &broker.counters().samples());
    broker.finish();
}

/// The page, the document and the handle tell the same.
fn assert_told_alike(scraper: Scraper, samples: &[(&str, &str, u64)]) {
    let (page, document) = (scraper.metrics(), scraper.snapshot());
    for metric in METRICS
        .iter()
        .filter(|metric| !MOVING.contains(&metric.name))
    {
        let of_metric = samples.iter().filter(|(name, ..)| *name == metric.name);
        let counted: u64 = of_metric.clone().map(|(.., number)| number).sum();
        assert_eq!(whole(page.sum(metric.name)), counted, "{}", metric.name);
        for (name, value, number) in of_metric {
            let told = match value.is_empty() {
                true => &document["counters"][name],
                false => &document["counters"][name][value],
            };
            assert_eq!(told.as_u64(), Some(*number), "{name} {value}");
        }
    }
}

#[test]
fn a_snapshot_under_load_accounts_for_every_frame_and_delivery() {
    let (broker, scraper) = start(&[]);
    let mut readers = [broker.subscriber(&["t"]), broker.subscriber(&["t"])];
    let mut publisher = broker.connect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in &mut readers {
            scope.spawn(move || {
                while reader
                    .next_frame()
                    .is_ok_and(|frame| frame[0] == 5 && frame.len() > 4)
                {}
            });
        }
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                publisher.send(wire::publish("t", [7; 50]).repeat(100));
            }
            // Empty data ends the readers.
            publisher.publish("t", "");
        });
        let mut last = 0;
        for _ in 0..30 {
            let document = scraper.snapshot();
            assert_eq!(document["conserved"], true, "{document}");
            let matched = whole_of(&document, "deliveries_matched_total");
            assert!(matched >= last, "counters only grow");
            last = matched;
            assert_reactors_add_up(&document);
            thread::sleep(std::time::Duration::from_millis(20));
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(last > 0);
    });
    drop((readers, publisher));
    broker.finish();
}

fn assert_reactors_add_up(document: &Value) {
    let reactors = document["reactors"].as_array().unwrap();
    let names: Vec<_> = reactors.iter().map(|reactor| &reactor["reactor"]).collect();
    assert_eq!(names, ["0", "1", "process"]);
    assert!(
        reactors
            .iter()
            .all(|one| one["standing"] == "answers" && one["conserved"] == true)
    );
    for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Counter) {
        if metric.values.is_empty() {
            let each = reactors
                .iter()
                .map(|reactor| whole_of(reactor, metric.name));
            assert_eq!(
                whole_of(document, metric.name),
                each.sum::<u64>(),
                "{}",
                metric.name
            );
        }
    }
    assert!(document["age_seconds"].as_f64().unwrap() <= 1.0);
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
}

fn whole_of(document: &Value, name: &str) -> u64 {
    document["counters"][name].as_u64().expect(name)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of a test are small"
)]
fn whole(number: f64) -> u64 {
    assert!((number - number.trunc()).abs() < f64::EPSILON);
    number as u64
}

#[test]
fn what_a_stalled_reader_is_owed_is_seen_as_backlog() {
    let settings = ["listener.sndbuf=4KiB", "listener.progress_timeout=1h"];
    let (broker, scraper) = start(&settings);
    let stalled = broker.subscriber(&["t"]);
    stalled.shrink_window();
    let mut publisher = broker.connect();
    publisher.send(wire::publish("t", [7; 200]).repeat(4000));
    wait_until("its backlog is told", || {
        let page = scraper.metrics();
        let most = page.get("backlog_bytes_max_session", "");
        most > 100_000.0 && most <= page.get("backlog_bytes", "")
    });
    assert!(scraper.metrics().get("deliveries_owed", "") > 0.0);
    let limit = scraper.metrics().get("backlog_limit_bytes", "");
    assert!(limit >= 64.0 * 1024.0);
    drop::<(Peer, Peer)>((stalled, publisher));
    wait_until("it is gone", || {
        scraper.metrics().get("backlog_bytes", "") < 1.0
    });
    broker.finish();
}
