//! Many source addresses within loopback: each has ephemeral ports of its own, of which those of
//! one would not do.

use std::net::SocketAddr;

use socket2::SockAddr;

/// Addresses that connections are dealt out to.
const SOURCES: usize = 60;

/// Where connection `number` comes from: 127.0.1.1 to 127.0.1.60, in turn.
pub fn source(number: usize) -> SockAddr {
    let last = u8::try_from(1 + number % SOURCES).expect("the sources fit into an octet");
    SockAddr::from(SocketAddr::from(([127, 0, 1, last], 0)))
}
