//! How many sessions each address has: one host that opens all it can leaves room for others.
//!
//! Looked at when a connection comes and when it goes, never between.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::Limits;
use crate::session::Peer;

/// Sessions by address, those on their way to their reactor included.
///
/// Bounded by the sessions: an address without one is not in it.
#[derive(Debug)]
pub(crate) struct Addresses {
    sessions_max: usize,
    counts_this_host: bool,
    sessions: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            sessions_max: limits.sessions_per_address_max,
            counts_this_host: limits.count_this_host,
            sessions: Mutex::default(),
        }
    }

    /// Counts one more session of `peer`; false if its address has as many as it may.
    pub(crate) fn enter(&self, peer: Peer) -> bool {
        let Some(address) = self.counted(peer) else {
            return true;
        };
        let mut sessions = self.lock();
        let count = sessions.entry(address).or_default();
        let is_free = *count < self.sessions_max;
        *count += usize::from(is_free);
        is_free
    }

    /// One session of `peer` less.
    pub(crate) fn leave(&self, peer: Peer) {
        let Some(address) = self.counted(peer) else {
            return;
        };
        let mut sessions = self.lock();
        if let Some(count) = sessions.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                sessions.remove(&address);
            }
        }
    }

    /// What a peer counts as: its address, of IPv6 the network of 64 bits that one site has. All
    /// processes on this host are one, if they count at all.
    fn counted(&self, peer: Peer) -> Option<IpAddr> {
        let this_host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let address = match peer {
            Peer::Tcp(address) => match address.ip().to_canonical() {
                local if local.is_loopback() => this_host,
                IpAddr::V4(address) => IpAddr::V4(address),
                IpAddr::V6(address) => {
                    let network = u128::from(address) >> 64 << 64;
                    IpAddr::V6(Ipv6Addr::from(network))
                }
            },
            Peer::Unix => this_host,
            Peer::Process | Peer::Memory => return None,
        };
        (self.counts_this_host || address != this_host).then_some(address)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing panics while it is held.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(counts_this_host: bool) -> Addresses {
        Addresses::new(&Limits {
            sessions_per_address_max: 2,
            count_this_host: counts_this_host,
            ..Limits::default()
        })
    }

    fn tcp(address: &str) -> Peer {
        Peer::Tcp(address.parse().unwrap())
    }

    #[test]
    fn d2_an_address_has_its_share_and_others_still_get_in() {
        let addresses = addresses(false);
        let one = [
            tcp("192.0.2.1:1"),
            tcp("[::ffff:192.0.2.1]:2"),
            tcp("192.0.2.1:3"),
        ];
        assert_eq!(one.map(|peer| addresses.enter(peer)), [true, true, false]);
        assert!(addresses.enter(tcp("192.0.2.2:1")));
        addresses.leave(one[0]);
        assert!(addresses.enter(one[2]) && !addresses.enter(one[0]));
        for peer in [one[1], one[2], tcp("192.0.2.2:1")] {
            addresses.leave(peer);
        }
        assert!(addresses.lock().is_empty(), "nothing is left of them");
    }

    #[test]
    fn d2_ipv6_counts_by_network_and_this_host_by_its_setting() {
        let exempt = addresses(false);
        let network = ["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::ffff:3]:1"].map(tcp);
        assert_eq!(network.map(|peer| exempt.enter(peer)), [true, true, false]);
        assert!(exempt.enter(tcp("[2001:db8:0:1::1]:1")));
        let local = [
            Peer::Unix,
            tcp("127.0.0.1:1"),
            tcp("[::1]:1"),
            Peer::Process,
        ];
        assert!(local.iter().all(|peer| exempt.enter(*peer)));
        let counted = addresses(true);
        let entered = local.map(|peer| counted.enter(peer));
        assert_eq!(entered, [true, true, false, true]);
    }
}
