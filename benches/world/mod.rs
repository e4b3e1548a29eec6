//! Shards driven by hand, as a reactor drives them: every send is taken whole, time stands still.

use std::sync::Arc;

use hvlp::arena::{Arena, Piece};
use hvlp::config::Config;
use hvlp::deadline::Timestamp;
use hvlp::handler::{Open, Resolver};
use hvlp::mesh::{Doorbell, Mesh};
use hvlp::packet::{Extensions, FrameBuf, Hello};
use hvlp::register::directory::Directory;
use hvlp::session::{Peer, SessionKey};
use hvlp::shard::{Outgoing, SendOutcome, Shard};

/// What one receive brings in at most.
const RECEIVE_LEN: usize = 256 * 1024;

/// As many of the longest filters below fit.
const TOPICS_PER_FRAME: usize = 10;

/// One shard and the bytes of its turn.
pub(crate) struct World {
    pub(crate) shard: Shard<Open>,
    arena: Arena,
}

impl World {
    /// The only shard of its broker.
    pub(crate) fn alone() -> Self {
        Self::new(0, 1)
    }

    /// Two shards of one broker.
    pub(crate) fn two() -> (Self, Self) {
        let directory = Arc::new(Directory::new());
        let doorbells = [Doorbell::new(|| ()), Doorbell::new(|| ())];
        let mut ends = Mesh::between(&doorbells).into_iter();
        let mut world = |id| {
            let Self { shard, arena } = Self::new(id, 2);
            let mesh = ends.next().expect("one for each doorbell");
            let shard = shard.with_peers(Arc::clone(&directory), mesh);
            Self { shard, arena }
        };
        (world(0), world(1))
    }

    fn new(id: u8, count: u8) -> Self {
        let resolver = Resolver::new(|_| ());
        Self {
            shard: Shard::new(id, count, &Config::default(), Open, resolver),
            arena: Arena::new(),
        }
    }

    /// A session that is subscribed to these topics.
    pub(crate) fn open(&mut self, topics: &[String]) -> SessionKey {
        self.open_with(&FrameBuf::connect(b"").expect("it fits"), topics)
    }

    /// A session that is subscribed to these filters.
    pub(crate) fn open_wild(&mut self, filters: &[String]) -> SessionKey {
        let hello = Hello {
            want: Extensions::WILD,
            ..Hello::default()
        };
        self.open_with(&hello.to_frame().expect("it fits"), filters)
    }

    fn open_with(&mut self, connect: &FrameBuf, topics: &[String]) -> SessionKey {
        let opened = self.shard.open(Timestamp::default(), Peer::Memory);
        let key = opened.expect("there is room");
        self.turn(key, connect.bytes());
        for topics in topics.chunks(TOPICS_PER_FRAME) {
            self.turn(key, FrameBuf::subscribe(topics).expect("they fit").bytes());
        }
        key
    }

    /// A turn with one receive; what others want of it is handed over to them.
    pub(crate) fn turn(&mut self, key: SessionKey, bytes: &[u8]) {
        let now = Timestamp::default();
        let piece = self.arena.push(bytes);
        let mut rest = self.shard.receive(now, key, &mut self.arena, piece);
        self.flush();
        while let Some(piece) = rest {
            rest = self.shard.receive_rest(now, key, &mut self.arena, piece);
            self.flush();
        }
        self.end_turn();
    }

    /// A turn that gives what other shards have handed over to those who want it here.
    pub(crate) fn deliver(&mut self) {
        while self.shard.deliver(&mut self.arena).is_some() {}
        self.flush();
        self.end_turn();
    }

    fn end_turn(&mut self) {
        self.shard.hand_over(Timestamp::default());
        self.shard.end_turn(&mut self.arena);
    }

    fn flush(&mut self) {
        let now = Timestamp::default();
        while let Some(key) = self.shard.next_dirty() {
            let len = match self.shard.outgoing(now, key, &self.arena) {
                Outgoing::Run(piece) => piece.len(),
                Outgoing::Scattered(pieces) => pieces.map(Piece::len).sum(),
                Outgoing::Ahead(answers) => answers.len(),
                Outgoing::Backlog(_) | Outgoing::Nothing => continue,
            };
            let whole = SendOutcome::Whole(len);
            self.shard.sent(now, key, &self.arena, whole);
        }
        self.shard.end_flush();
    }
}

/// A shard with one publisher, and topics with as many subscribers each.
pub(crate) struct Workload {
    world: World,
    publisher: SessionKey,
    burst: Vec<u8>,
    /// How many messages a burst has, and how many deliveries become of it.
    pub(crate) messages: u64,
    pub(crate) deliveries: u64,
}

impl Workload {
    pub(crate) fn new(topic_count: usize, subscribers: usize) -> Self {
        let mut world = World::alone();
        let topics = topics(topic_count);
        subscribe_each(&mut world, &topics, subscribers);
        let publisher = world.open(&[]);
        let (burst, messages) = burst(&topics);
        Self {
            world,
            publisher,
            burst,
            messages,
            deliveries: messages * subscribers as u64,
        }
    }

    /// With subscribers of one filter that matches all topics instead.
    pub(crate) fn wild(topic_count: usize, subscribers: usize) -> Self {
        let mut workload = Self::new(topic_count, 0);
        for _ in 0..subscribers {
            workload.world.open_wild(&["bench/+".to_owned()]);
        }
        workload.deliveries = workload.messages * subscribers as u64;
        workload
    }

    /// Beside a session with so many filters, none of which matches.
    pub(crate) fn beside_filters(mut self, filters: usize) -> Self {
        let filters: Vec<_> = (0..filters)
            .map(|number| format!("{number}/+/{number}/#"))
            .collect();
        self.world.open_wild(&filters);
        self
    }

    /// A turn with one burst.
    pub(crate) fn turn(&mut self) {
        self.world.turn(self.publisher, &self.burst);
    }

    /// Whether `bursts` of them were delivered whole.
    pub(crate) fn is_delivered(&self, bursts: u64) -> bool {
        is_delivered(&self.world, bursts * self.deliveries)
    }
}

/// Two shards: on one is the publisher, on the other a subscriber for each topic.
pub(crate) struct HandOver {
    from: World,
    to: World,
    publisher: SessionKey,
    burst: Vec<u8>,
    pub(crate) messages: u64,
}

impl HandOver {
    pub(crate) fn new(topic_count: usize) -> Self {
        let (mut from, mut to) = World::two();
        let topics = topics(topic_count);
        subscribe_each(&mut to, &topics, 1);
        let publisher = from.open(&[]);
        let (burst, messages) = burst(&topics);
        Self {
            from,
            to,
            publisher,
            burst,
            messages,
        }
    }

    /// A turn of either shard: one burst is read here and delivered there.
    pub(crate) fn turns(&mut self) {
        self.from.turn(self.publisher, &self.burst);
        self.to.deliver();
    }

    /// Whether `bursts` of them were delivered whole.
    pub(crate) fn is_delivered(&self, bursts: u64) -> bool {
        is_delivered(&self.to, bursts * self.messages)
    }
}

fn is_delivered(world: &World, deliveries: u64) -> bool {
    let counters = world.shard.counters();
    counters.is_conserved() && counters.deliveries_written == deliveries
}

fn topics(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("bench/{number}")).collect()
}

fn subscribe_each(world: &mut World, topics: &[String], subscribers: usize) {
    for topic in topics {
        for _ in 0..subscribers {
            world.open(std::slice::from_ref(topic));
        }
    }
}

/// As many 64-byte messages as one receive holds, on `topics` in turn.
fn burst(topics: &[String]) -> (Vec<u8>, u64) {
    let (mut bytes, mut count) = (Vec::new(), 0);
    for topic in topics.iter().cycle() {
        let frame = FrameBuf::publish(topic, &[7; 64]).expect("it fits");
        if bytes.len() + frame.bytes().len() > RECEIVE_LEN {
            break;
        }
        bytes.extend_from_slice(frame.bytes());
        count += 1;
    }
    (bytes, count)
}
