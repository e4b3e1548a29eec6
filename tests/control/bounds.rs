//! What one request and all of them may take.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::start;
use crate::support::{Canary, wait_until};

#[test]
fn a_head_of_more_than_4_kib_is_refused() {
    let (broker, scraper) = start(&[]);
    let head = |len: usize| {
        let start = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(len - start.len() - 4))
    };
    assert_eq!(scraper.send(&head(4096)).code, 200);
    for len in [4097, 8192, 1 << 20] {
        assert_eq!(scraper.send(&head(len)).code, 431, "{len}");
    }
    let many = "a: b\r\n".repeat(100);
    let request = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    assert_eq!(scraper.send(&request).code, 431);
    let page = scraper.metrics();
    let refused = page.get("admin_refused_total", "reason=\"head_max\"");
    assert!((refused - 4.0).abs() < f64::EPSILON);
    broker.finish();
}

#[test]
fn what_is_no_http_is_answered_with_400_or_closed() {
    let (broker, scraper) = start(&[]);
    for bytes in [
        &b"\x05\x04\x01a\xAA\x55"[..],
        b"GET\r\n\r\n",
        b"GET /\xFF\xFE HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost localhost\r\n\r\n",
    ] {
        let answer = scraper.exchange(bytes);
        let text = String::from_utf8_lossy(&answer);
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 400 "),
            "{text}"
        );
    }
    let refused = scraper
        .metrics()
        .get("admin_refused_total", "reason=\"malformed\"");
    assert!(refused >= 5.0, "{refused}");
    broker.finish();
}

#[test]
fn one_connection_has_one_answer_however_much_is_sent() {
    let (broker, scraper) = start(&[]);
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answers = scraper.exchange(request.repeat(1000).as_bytes());
    assert_eq!(
        String::from_utf8(answers)
            .unwrap()
            .matches("HTTP/1.1")
            .count(),
        1
    );
    let endless = "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n";
    let mut socket = scraper.open();
    socket.write_all(endless.as_bytes()).unwrap();
    // Until the endpoint has had enough; a gibibyte would never be taken.
    let mut sent = 0;
    while sent < 1 << 30 && socket.write_all(&[0; 65_536]).is_ok() {
        sent += 65_536;
    }
    assert!(sent < 64 << 20, "{sent}");
    assert_eq!(scraper.get("/healthz").code, 200);
    broker.finish();
}

#[test]
fn a_hundred_slow_connections_stop_neither_a_scrape_nor_delivery() {
    let (broker, scraper) = start(&[]);
    let canary = Canary::start(broker.address());
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut socket = scraper.open();
        socket.write_all(b"GET /metrics HT").unwrap();
        slow.push(socket);
    }
    for _ in 0..20 {
        assert_eq!(scraper.get("/healthz").code, 200);
    }
    let refused = |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        scraper.metrics().get("admin_refused_total", &label)
    };
    assert!(refused("displaced") >= 84.0);
    // Those that had a place have lost it after two seconds.
    wait_until("their time is over", || {
        refused("displaced") + refused("head_timeout") >= 100.0
    });
    for mut socket in slow {
        let mut rest = Vec::new();
        // A reset, or the end.
        let _ = socket.read_to_end(&mut rest);
        assert!(rest.is_empty(), "nothing was asked");
    }
    canary.finish();
    broker.finish();
}

#[test]
fn a_head_that_is_not_whole_in_two_seconds_ends_its_connection() {
    let (broker, scraper) = start(&[]);
    let start = Instant::now();
    let mut socket = scraper.open();
    let mut trickle = socket.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        for byte in b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"
            .iter()
            .cycle()
        {
            if trickle.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    assert!(rest.is_empty());
    assert!(start.elapsed() >= Duration::from_secs(2));
    drop(socket);
    writer.join().unwrap();
    let refused = scraper
        .metrics()
        .get("admin_refused_total", "reason=\"head_timeout\"");
    assert!((refused - 1.0).abs() < f64::EPSILON);
    broker.finish();
}

#[test]
fn reactors_are_asked_ten_times_a_second_however_many_scrape() {
    let (broker, scraper) = start(&[]);
    let turns = || scraper.metrics().sum("turns_total");
    let (start, before) = (Instant::now(), turns());
    for _ in 0..300 {
        assert_eq!(scraper.get("/metrics").code, 200);
    }
    let asked = start.elapsed().as_secs_f64() * 10.0 + 2.0;
    let taken = turns() - before;
    // Three reactors; each question is a turn, and each sleeps at most a second.
    assert!(
        taken <= 3.0 * (asked + start.elapsed().as_secs_f64() + 2.0),
        "{taken} turns"
    );
    broker.finish();
}
