//! Whether every loop goes round, and what is told while it does not, or while the broker ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use hvlp::handler::{SessionHandler, SessionView, Verdict};

use crate::support::{DEADLINE, wait_until, wire};
use crate::{start, start_with};

/// Makes a reactor stand still at the topic "block" until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

impl SessionHandler for Gate {
    fn on_publish(&mut self, _: SessionView, topic: &str, _: &[u8]) -> Verdict {
        if topic == "block" {
            let open = self.0.0.lock().unwrap();
            let waited = self.0.1.wait_timeout_while(open, DEADLINE, |open| !*open);
            assert!(*waited.unwrap().0, "the test opens it");
        }
        Verdict::Allow
    }
}

/// Opens the gate however the test ends, so that the broker can end too.
struct OpenAtEnd(Gate);

impl Drop for OpenAtEnd {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[test]
fn health_is_bad_while_a_reactor_stands_still_and_good_again_afterwards() {
    let gate = Gate::default();
    let (broker, scraper) = start_with(gate.clone(), &[]);
    let open = OpenAtEnd(gate);
    let healthy = scraper.get("/healthz");
    assert_eq!((healthy.code, healthy.body.as_str()), (200, "ok\n"));
    let mut subscriber = broker.subscriber(&["t"]);
    // The second session is on the second reactor, the third on the first again.
    let mut blocked = broker.connect();
    let mut publisher = broker.connect();
    blocked.publish("block", "");
    wait_until("it is told", || scraper.get("/healthz").code == 503);
    for _ in 0..2 {
        let ill = scraper.get("/healthz");
        assert_eq!(ill.code, 503);
        assert_eq!(ill.body, "reactor 1 did not answer within 1s\n");
    }
    // The rest is told all the same, and the first reactor serves.
    let page = scraper.metrics();
    for (reactor, answers) in [("0", 1.0), ("1", 0.0), ("process", 1.0)] {
        let told: f64 = page.get("reactor_answers", &format!("reactor=\"{reactor}\""));
        assert!((told - answers).abs() < f64::EPSILON, "{reactor}");
    }
    let document = scraper.snapshot();
    assert_eq!(document["reactors"][1]["standing"], "late");
    assert_eq!(document["conserved"], true);
    publisher.publish("t", "x");
    subscriber.expect(wire::publish("t", "x"));
    drop(open);
    wait_until("it goes round again", || {
        scraper.get("/healthz").code == 200
    });
    drop((subscriber, blocked, publisher));
    broker.finish();
}

#[test]
fn when_all_connections_are_being_answered_one_more_is_closed() {
    let gate = Gate::default();
    let (broker, scraper) = start_with(gate.clone(), &[]);
    let open = OpenAtEnd(gate);
    let mut blocked = broker.connect();
    blocked.publish("block", "");
    wait_until("it stands still", || scraper.get("/healthz").code == 503);
    wait_until("there are too many", || {
        // Each waits for the reactor once it has asked, and cannot be displaced then.
        let ask = |_| {
            let mut asker = scraper.open();
            // Closed already, it takes nothing.
            let _ = asker.write_all(b"GET /healthz HTTP/1.0\r\n\r\n");
            asker
        };
        let askers: Vec<_> = (0..20).map(ask).collect();
        let answered = |mut asker: TcpStream| {
            let mut answer = String::new();
            // A reset is an end like any other.
            let _ = asker.read_to_string(&mut answer);
            assert!(answer.is_empty() || answer.contains(" 503 "), "{answer}");
        };
        askers.into_iter().for_each(answered);
        let refused = "reason=\"connections_max\"";
        scraper.metrics().get("admin_refused_total", refused) > 0.0
    });
    drop((open, blocked));
    wait_until("it goes round again", || {
        scraper.get("/healthz").code == 200
    });
    broker.finish();
}

#[test]
fn a_broker_that_drains_can_be_watched_to_its_end() {
    let settings = [
        "listener.sndbuf=4KiB",
        "listener.progress_timeout=1h",
        "drain_timeout=1m",
    ];
    let (broker, scraper) = start(&settings);
    let mut stalled = broker.subscriber(&["t"]);
    stalled.shrink_window();
    let mut publisher = broker.connect();
    let frames = wire::publish("t", [7; 200]).repeat(800);
    publisher.send(&frames);
    wait_until("a backlog", || {
        scraper.metrics().get("backlog_bytes", "") > 50_000.0
    });
    broker.handle().stop();
    // The other session owes nothing and is owed nothing.
    publisher.expect_end();
    for _ in 0..5 {
        assert_eq!(scraper.get("/healthz").body, "ok\n");
        assert!(scraper.metrics().get("deliveries_owed", "") > 0.0);
        assert_eq!(scraper.snapshot()["conserved"], true);
        std::thread::sleep(Duration::from_millis(110));
    }
    stalled.expect(&frames);
    stalled.expect_end();
    // Nobody has joined it: what it counted last is still told.
    wait_until("all have ended", || {
        let document = scraper.snapshot();
        let reactors = document["reactors"].as_array().unwrap();
        reactors
            .iter()
            .all(|reactor| reactor["standing"] == "ended")
    });
    assert_eq!(scraper.get("/healthz").body, "ok\n");
    let page = scraper.metrics();
    assert!((page.get("deliveries_written_total", "") - 800.0).abs() < f64::EPSILON);
    let closed = page.get("sessions_closed_total", "reason=\"shutdown\"");
    assert!((closed - 2.0).abs() < f64::EPSILON);
    assert_eq!(broker.stop().deliveries_written, 800);
    assert!(!scraper.is_listening(), "a broker that was joined is gone");
}
