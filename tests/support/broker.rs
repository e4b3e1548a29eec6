//! A broker on a port of its own, and what must be true when a test is over.

use std::collections::HashSet;
use std::fs;
use std::time::Instant;

use hvlp::address::Address;
use hvlp::handler::{Open, SessionHandler};
use hvlp::metrics::Counters;
use hvlp::{Broker, BrokerHandle, Builder};

use super::{Canary, DEADLINE, Peer, engine, wait_until};

pub(crate) struct TestBroker {
    handle: Option<BrokerHandle>,
    address: Address,
    canaries: Vec<Canary>,
}

/// A broker on TCP with these settings and a canary beside whatever the test does.
pub(crate) fn start(settings: &[&str]) -> TestBroker {
    start_with(Open, settings)
}

pub(crate) fn start_with<H: SessionHandler>(handler: H, settings: &[&str]) -> TestBroker {
    let builder = Broker::builder().listen("127.0.0.1:0").unwrap();
    let mut broker = spawn(builder.handler(handler), settings);
    broker.canaries.push(Canary::start(&broker.address));
    broker
}

/// Without a canary: for transports that it does not speak.
pub(crate) fn spawn<H: SessionHandler>(mut builder: Builder<H>, settings: &[&str]) -> TestBroker {
    builder = engine::chosen(builder).set("drain_timeout=2s").unwrap();
    for setting in settings {
        builder = builder.set(setting).unwrap();
    }
    let handle = builder.spawn().unwrap();
    TestBroker {
        address: handle.local_addr().clone(),
        handle: Some(handle),
        canaries: Vec::new(),
    }
}

impl TestBroker {
    pub(crate) fn handle(&self) -> &BrokerHandle {
        self.handle.as_ref().expect("it is taken at the end only")
    }

    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn counters(&self) -> Counters {
        self.handle().counters()
    }

    /// A connection without CONNECT.
    pub(crate) fn open(&self) -> Peer {
        Peer::open(&self.address)
    }

    pub(crate) fn connect(&self) -> Peer {
        Peer::connect(&self.address)
    }

    /// A peer that is subscribed, and known to be.
    pub(crate) fn subscriber(&self, topics: &[&str]) -> Peer {
        let before: Vec<_> = topics.iter().map(|topic| self.subscribers(topic)).collect();
        let mut peer = self.connect();
        peer.subscribe(topics);
        for (topic, before) in topics.iter().zip(before) {
            wait_until("the subscription is in force", || {
                self.subscribers(topic) > before
            });
        }
        peer
    }

    pub(crate) fn subscribers(&self, topic: &str) -> usize {
        self.handle().register().subscribers(topic).count()
    }

    /// Waits until the counters say so.
    #[track_caller]
    pub(crate) fn await_counters(&self, what: &str, is_so: impl Fn(&Counters) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so(&self.counters()) {
            assert!(
                Instant::now() < deadline,
                "{what} within {DEADLINE:?}; it counts {:?}",
                self.samples(),
            );
            super::rest();
        }
    }

    /// Descriptors of connections that the broker holds: sockets whose near end is its port.
    pub(crate) fn connections(&self) -> usize {
        let Address::Tcp { port, .. } = self.address else {
            panic!("descriptors are counted for TCP");
        };
        let table = |name| fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
        let sockets = owned_sockets();
        let is_ours = |line: &&str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let near = fields.get(1).and_then(|near| near.rsplit(':').next());
            let is_listening = fields.get(3) == Some(&"0A");
            near == Some(&format!("{port:04X}"))
                && !is_listening
                && fields.get(9).is_some_and(|inode| sockets.contains(*inode))
        };
        let tables = [table("tcp"), table("tcp6")];
        tables
            .iter()
            .flat_map(|table| table.lines())
            .filter(is_ours)
            .count()
    }

    /// Stops the broker while the peers are still there, and returns its last count.
    pub(crate) fn stop(mut self) -> Counters {
        self.canaries.drain(..).for_each(Canary::finish);
        let counters = self.end();
        assert!(counters.is_conserved());
        counters
    }

    /// Stops the broker and drops its handle, as a program does that does not look back.
    pub(crate) fn let_go(mut self) {
        self.canaries.drain(..).for_each(Canary::finish);
        let handle = self.handle.take().expect("it is taken once");
        handle.stop();
    }

    fn end(&mut self) -> Counters {
        let handle = self.handle.take().expect("it is taken once");
        handle.stop();
        handle.join().expect("the reactor neither fails nor panics")
    }

    /// The end of every test: the canary is well, nothing is left, every frame and delivery is
    /// accounted for. The test has let go of its peers.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Counters {
        self.canaries.drain(..).for_each(Canary::finish);
        self.await_counters("sessions, topics and subscriptions are gone", |counters| {
            assert!(
                counters.is_conserved(),
                "every frame and delivery is accounted for"
            );
            (
                counters.sessions.total(),
                counters.topics,
                counters.subscriptions,
            ) == (0, 0, 0)
        });
        if matches!(self.address, Address::Tcp { .. }) {
            wait_until("every descriptor is closed", || self.connections() == 0);
        }
        let counters = self.end();
        assert!(counters.is_conserved());
        assert_eq!(counters.deliveries_owed, 0);
        assert_eq!(counters.sessions_opened, counters.sessions_closed.total());
        counters
    }

    fn samples(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut samples = self.counters().samples();
        samples.retain(|(.., value)| *value > 0);
        samples
    }
}

/// The inodes of all sockets that this process has open.
fn owned_sockets() -> HashSet<String> {
    let inode = |entry: std::io::Result<fs::DirEntry>| {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        let inode = target
            .to_str()?
            .strip_prefix("socket:[")?
            .strip_suffix(']')?;
        Some(inode.to_owned())
    };
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(inode)
        .collect()
}
