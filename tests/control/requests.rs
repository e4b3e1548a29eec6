//! What is answered to which request, and what is refused.

use hvlp::handler::Open;

use crate::{start, start_at};

#[test]
fn only_the_three_paths_exist() {
    let (broker, scraper) = start(&[]);
    for path in [
        "/",
        "/metrics/",
        "/v1",
        "/v1/snapshot/..",
        "/../etc/passwd",
        "/%2e%2e/metrics",
        "//metrics",
        "/panic",
        "/%ff",
    ] {
        let answer = scraper.get(path);
        assert_eq!(answer.code, 404, "{path}");
        assert!(answer.body.contains("/v1/snapshot"), "{path}");
    }
    for path in [
        "/healthz?limit=99999999999999999999999999",
        "/healthz?offset=-1&x=%zz",
    ] {
        assert_eq!(scraper.get(path).code, 200, "{path}");
    }
    let page = scraper.metrics();
    assert!(page.get("admin_refused_total", "reason=\"path\"") >= 9.0);
    assert!(page.get("admin_requests_total", "") >= 12.0);
    broker.finish();
}

#[test]
fn only_get_and_head_are_methods() {
    let (broker, scraper) = start(&[]);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "KICK"] {
        for path in ["/metrics", "/v1/snapshot", "/nowhere"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}"
            );
            let answer = scraper.send(&request);
            assert_eq!(answer.code, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        }
    }
    let refused = scraper
        .metrics()
        .get("admin_refused_total", "reason=\"method\"");
    assert!((refused - 21.0).abs() < f64::EPSILON);
    broker.finish();
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let (broker, scraper) = start(&[]);
    for path in ["/healthz", "/metrics", "/v1/snapshot", "/nowhere"] {
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (head, get) = (scraper.send(&request), scraper.get(path));
        assert_eq!(head.code, get.code, "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert!(head.header("content-length").is_some(), "{path}");
        assert_eq!(get.header("cache-control"), Some("no-store"));
        assert_eq!(get.header("connection"), Some("close"));
    }
    broker.finish();
}

#[test]
fn a_foreign_host_is_refused_where_only_this_host_is_served() {
    let (broker, scraper) = start(&[]);
    for lines in [
        "Host: example.org",
        "Host: localhost.example.org:80",
        "Host: 192.168.1.1",
        "Host: ",
        "X: y",
        "Host: localhost\r\nHost: localhost",
    ] {
        for path in ["/metrics", "/healthz", "/v1/snapshot"] {
            let answer = scraper.send(&format!("GET {path} HTTP/1.1\r\n{lines}\r\n\r\n"));
            assert_eq!(answer.code, 421, "{lines}");
            assert!(!answer.body.contains("hvlp_"), "{lines}");
        }
    }
    let absolute = "GET http://example.org/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(scraper.send(absolute).code, 421);
    for host in ["localhost:9644", "127.0.0.1", "[::1]:1"] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(scraper.send(&request).code, 200, "{host}");
    }
    assert_eq!(scraper.send("GET /healthz HTTP/1.0\r\n\r\n").code, 200);
    let refused = scraper
        .metrics()
        .get("admin_refused_total", "reason=\"host\"");
    assert!((refused - 19.0).abs() < f64::EPSILON);
    broker.finish();
}

#[test]
fn an_address_that_others_can_reach_serves_metrics_and_health_only() {
    let (broker, scraper) = start_at("0.0.0.0:0", Open, &[]);
    for path in ["/metrics", "/healthz"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: broker.example.org\r\n\r\n");
        assert_eq!(scraper.send(&request).code, 200, "{path}");
    }
    let answer = scraper.get("/v1/snapshot");
    assert_eq!(answer.code, 403);
    assert!(
        answer.body.contains("loopback"),
        "it says why: {}",
        answer.body
    );
    let refused = scraper
        .metrics()
        .get("admin_refused_total", "reason=\"forbidden\"");
    assert!((refused - 1.0).abs() < f64::EPSILON);
    broker.finish();
}
