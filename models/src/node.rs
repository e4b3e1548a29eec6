//! A shard driven by hand, with a session that publishes and one that subscribes.

use std::sync::{Arc, LazyLock};

use crate::arena::Arena;
use crate::config::Config;
use crate::deadline::Timestamp;
use crate::handler::{Open, Resolver};
use crate::mesh::{Doorbell, Mesh};
use crate::packet::{Frame, FrameBuf};
use crate::register::directory::Directory;
use crate::register::last_values::LastValues;
use crate::session::{Peer, SessionKey};
use crate::shard::{Outgoing, SendOutcome, Shard};

static CONFIG: LazyLock<Config> = LazyLock::new(Config::default);

pub(crate) struct Node {
    shard: Shard<Open>,
    arena: Arena,
    publisher: SessionKey,
    subscriber: SessionKey,
    /// The numbers that the subscriber has got.
    pub(crate) received: Vec<u8>,
}

impl Node {
    /// As many as take part in a model, with one directory.
    pub(crate) fn among(count: u8) -> Vec<Self> {
        Self::among_with(count, None)
    }

    /// As `among`, with last values.
    pub(crate) fn among_with(count: u8, values: Option<Arc<LastValues>>) -> Vec<Self> {
        let directory = Arc::new(Directory::new());
        let doorbells: Vec<_> = (0..count).map(|_| Doorbell::new(|| ())).collect();
        let ends = Mesh::between(&doorbells).into_iter();
        (0..count)
            .zip(ends)
            .map(|(id, mesh)| {
                let resolver = Resolver::new(|_| ());
                let mut shard = Shard::new(id, count, &CONFIG, Open, resolver)
                    .with_last_values(values.clone())
                    .with_peers(Arc::clone(&directory), mesh);
                let [publisher, subscriber] = [(); 2].map(|()| {
                    shard
                        .open(Timestamp::default(), Peer::Memory)
                        .expect("there is room for two")
                });
                let mut node = Self {
                    shard,
                    arena: Arena::new(),
                    publisher,
                    subscriber,
                    received: Vec::new(),
                };
                let connect = FrameBuf::connect(&[]).unwrap();
                node.execute(publisher, &connect);
                node.execute(subscriber, &connect);
                node
            })
            .collect()
    }

    pub(crate) fn subscribe(&mut self) {
        self.execute(self.subscriber, &FrameBuf::subscribe(["t"]).unwrap());
    }

    pub(crate) fn unsubscribe(&mut self) {
        self.execute(self.subscriber, &FrameBuf::unsubscribe(["t"]).unwrap());
    }

    pub(crate) fn publish(&mut self, number: u8) {
        self.execute(self.publisher, &FrameBuf::publish("t", &[number]).unwrap());
    }

    /// Delivers what has come from others.
    pub(crate) fn deliver(&mut self) {
        while self.shard.deliver(&mut self.arena).is_some() {}
        self.end_turn();
    }

    fn execute(&mut self, key: SessionKey, frame: &FrameBuf) {
        let piece = self.arena.push(frame.bytes());
        let rest = self
            .shard
            .receive(Timestamp::default(), key, &mut self.arena, piece);
        assert_eq!(rest, None, "a frame is little");
        self.end_turn();
    }

    fn end_turn(&mut self) {
        while let Some(key) = self.shard.next_dirty() {
            let bytes = match self.shard.outgoing(Timestamp::default(), key, &self.arena) {
                Outgoing::Run(piece) => self.arena.bytes(piece).to_vec(),
                Outgoing::Scattered(pieces) => pieces
                    .flat_map(|piece| self.arena.bytes(piece).to_vec())
                    .collect(),
                Outgoing::Ahead(bytes) => bytes.to_vec(),
                Outgoing::Backlog(chunks) => chunks.flatten().copied().collect(),
                Outgoing::Nothing => unreachable!("the socket takes all"),
            };
            let outcome = SendOutcome::Whole(bytes.len());
            self.shard
                .sent(Timestamp::default(), key, &self.arena, outcome);
            let mut rest = &bytes[..];
            while let Some((frame, behind)) = Frame::split_first(rest) {
                let (_, data) = frame.publish_parts().unwrap();
                self.received.extend_from_slice(data);
                rest = behind;
            }
        }
        self.shard.end_flush();
        self.shard.hand_over(Timestamp::default());
        self.shard.end_turn(&mut self.arena);
        self.shard.begin_turn(Timestamp::default());
    }
}
