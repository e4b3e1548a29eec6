//! Shards in memory whose turns come in any order.

use std::collections::HashMap;
use std::sync::Arc;

use hvlp::arena::Arena;
use hvlp::config::Config;
use hvlp::deadline::Timestamp;
use hvlp::handler::{Open, Resolver};
use hvlp::mesh::{Doorbell, Mesh};
use hvlp::register::directory::Directory;
use hvlp::register::last_values::LastValues;
use hvlp::session::{Peer, SessionKey};
use hvlp::shard::{Outgoing, SendOutcome, Shard};

/// A session and its shard.
pub(crate) type Place = (usize, SessionKey);

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<(Shard<Open>, Arena)>,
    /// What each session has been sent.
    heard: HashMap<Place, Vec<u8>>,
}

impl Cluster {
    pub(crate) fn new(count: u8, settings: &[&str]) -> Self {
        let mut config = Config::default();
        settings.iter().for_each(|one| config.set(one).unwrap());
        let directory = Arc::new(Directory::new());
        let values = LastValues::of(&config);
        let doorbells: Vec<_> = (0..count).map(|_| Doorbell::new(|| ())).collect();
        let ends = Mesh::with_rings_of(2, &doorbells);
        let nodes = (0..).zip(ends).map(|(id, mesh)| {
            let shard = Shard::new(id, count, &config, Open, Resolver::new(|_| ()));
            let shard = shard.with_last_values(values.clone());
            (shard.with_peers(Arc::clone(&directory), mesh), Arena::new())
        });
        Self {
            nodes: nodes.collect(),
            heard: HashMap::new(),
        }
    }

    /// A session that has sent this.
    pub(crate) fn connected(&mut self, at: usize, bytes: &[u8]) -> Place {
        let key = self.nodes[at].0.open(now(), Peer::Memory).unwrap();
        self.receive((at, key), bytes);
        self.turn(at);
        (at, key)
    }

    pub(crate) fn receive(&mut self, (at, key): Place, bytes: &[u8]) {
        let (shard, arena) = &mut self.nodes[at];
        let piece = arena.push(bytes);
        assert!(shard.receive(now(), key, arena, piece).is_none());
    }

    /// Whether the session is read, and all that it has sent executed.
    pub(crate) fn is_idle(&self, (at, key): Place) -> bool {
        let shard = &self.nodes[at].0;
        shard.wants_input(key) && !shard.has_held(key)
    }

    pub(crate) fn turn(&mut self, at: usize) {
        let (shard, arena) = &mut self.nodes[at];
        shard.begin_turn(now());
        while let Some(key) = shard.next_resumed() {
            if shard.has_held(key) && !shard.is_stopped(key) {
                let held = arena.push(shard.remainder(key));
                assert!(shard.receive(now(), key, arena, held).is_none());
            }
        }
        shard.begin_delivering();
        while shard.deliver(arena).is_some() {}
        while let Some(key) = shard.next_dirty() {
            let bytes: Vec<u8> = match shard.outgoing(now(), key, arena) {
                Outgoing::Run(piece) => arena.bytes(piece).to_vec(),
                Outgoing::Ahead(bytes) => bytes.to_vec(),
                Outgoing::Scattered(pieces) => pieces
                    .flat_map(|piece| arena.bytes(piece).to_vec())
                    .collect(),
                Outgoing::Backlog(chunks) => chunks.flatten().copied().collect(),
                Outgoing::Nothing => continue,
            };
            shard.sent(now(), key, arena, SendOutcome::Whole(bytes.len()));
            self.heard.entry((at, key)).or_default().extend(bytes);
        }
        shard.end_flush();
        shard.hand_over(now());
        shard.end_turn(arena);
        assert!(shard.counters().is_conserved());
    }

    /// What a session has been sent since it was asked for last.
    pub(crate) fn take(&mut self, place: Place) -> Vec<u8> {
        self.heard.remove(&place).unwrap_or_default()
    }

    pub(crate) fn heard(&self, place: Place) -> &[u8] {
        self.heard.get(&place).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn has_work(&self) -> bool {
        let mut shards = self.nodes.iter().map(|(shard, _)| shard);
        shards.any(|shard| {
            !shard.is_handed_over()
                || !shard.is_delivered()
                || shard.has_any_held()
                || shard.is_dirty()
        })
    }

    pub(crate) fn settle(&mut self) {
        while self.has_work() {
            (0..self.nodes.len()).for_each(|at| self.turn(at));
        }
    }

    pub(crate) fn delivered(&self) -> u64 {
        let counters = self.nodes.iter().map(|(shard, _)| shard.counters());
        counters.map(|counters| counters.deliveries_matched).sum()
    }
}

fn now() -> Timestamp {
    Timestamp::default()
}
