//! The admin endpoint: what it tells is what was done, and nobody can stop it from telling.
//!
//! Over real sockets on ports of their own; hostile requests are literal bytes.
#![cfg(all(feature = "control", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

mod bounds;
mod counters;
#[cfg(feature = "cli")]
mod daemon;
mod exposition;
mod health;
mod page;
mod requests;
mod scraper;
#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the tests of faults need more of it"
)]
mod support;

use hvlp::Broker;
use hvlp::handler::{Open, SessionHandler};

use self::scraper::Scraper;
use self::support::TestBroker;

/// A broker with two reactors and an admin endpoint, and who asks it.
fn start(settings: &[&str]) -> (TestBroker, Scraper) {
    start_with(Open, settings)
}

fn start_with<H: SessionHandler>(handler: H, settings: &[&str]) -> (TestBroker, Scraper) {
    start_at("127.0.0.1:0", handler, settings)
}

fn start_at<H: SessionHandler>(
    admin: &str,
    handler: H,
    settings: &[&str],
) -> (TestBroker, Scraper) {
    let builder = Broker::builder().listen("127.0.0.1:0").unwrap();
    let builder = builder.set("reactors=2").unwrap().admin(admin).unwrap();
    let broker = support::spawn(builder.handler(handler), settings);
    let scraper = Scraper::of(broker.handle().admin_addr().unwrap());
    (broker, scraper)
}
