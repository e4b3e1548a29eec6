//! A reactor in memory: the turn of `src/reactor/mio.rs`, call by call, over sockets, a clock and a
//! scheduler that the simulation owns. What it does and sees it tells the model.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use hvlp::arena::Arena;
use hvlp::deadline::Timestamp;
use hvlp::handler::{Resolution, Resolver};
use hvlp::mesh::{Doorbell, Mesh};
use hvlp::packet::FRAME_LEN_MAX;
use hvlp::register::directory::Directory;
use hvlp::register::last_values::LastValues;
use hvlp::session::{CloseReason, SessionKey};
use hvlp::shard::Shard;

use crate::faults::{Fault, Mark};
use crate::guard::Guard;
use crate::model::Moment;
use crate::network::Readiness;
use crate::outside::Outside;

mod ending;
mod events;
mod evictions;
mod pauses;
mod reading;
mod sending;

pub(crate) use pauses::Told;

/// A connection that has a session, as the engine keeps it.
#[derive(Debug)]
struct Connection {
    peer: usize,
    number: u64,
    is_ready: bool,
    is_readable: bool,
    is_read_closed: bool,
    is_lingering: bool,
    /// As the model knows it.
    was_stopped: bool,
    /// Bytes that its socket has taken in this turn.
    taken: usize,
}

/// What others ask of a reactor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command {
    Stop,
    /// A word of another shard about a slow consumer.
    Pause(Told),
    /// A ticket of this session was answered, and this was the answer.
    Resolve(u64, Result<(), CloseReason>),
}

/// Whether a reactor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleep {
    Awake,
    /// It has found nothing to do, and not yet looked a last time.
    Drowsy,
    Asleep(Timestamp),
}

pub(crate) struct Reactor {
    pub(crate) id: usize,
    pub(crate) shard: Shard<Guard>,
    arena: Arena,
    connections: BTreeMap<SessionKey, Connection>,
    ready: VecDeque<SessionKey>,
    /// Offers of the last flush, which are answered with the next wait.
    offered: VecDeque<(SessionKey, Vec<Vec<u8>>)>,
    /// Late events, with their sessions.
    late: Vec<(SessionKey, Readiness)>,
    /// Keys of sessions that have ended.
    retired: Vec<SessionKey>,
    lingering: Vec<(Timestamp, SessionKey)>,
    /// By key, of sessions that have ended too.
    numbers: BTreeMap<SessionKey, u64>,
    directory: Arc<Directory>,
    /// Sessions that have closed over a backlog, and what the others were owed then.
    evicted: BTreeMap<SessionKey, usize>,
    /// Words to other shards that have not come there.
    told: VecDeque<Told>,
    /// Peers whose connections wait to be accepted.
    pub(crate) backlog: VecDeque<usize>,
    pub(crate) commands: VecDeque<Command>,
    resolutions: mpsc::Receiver<Resolution>,
    doorbell: Arc<Doorbell>,
    pub(crate) is_rung: Arc<AtomicBool>,
    sleep: Sleep,
    /// For so many steps it does not run.
    pub(crate) stalled: usize,
    stopping: Option<Timestamp>,
    is_quiet: bool,
    has_all: bool,
}

/// As long as the engine's.
const BACKSTOP: Duration = Duration::from_secs(1);
const BATCH_COST_MIN: usize = 1024;
const BACKLOG_PARTS_MAX: usize = 16;
const RETIRED_MAX: usize = 8;

impl Reactor {
    /// All reactors of a broker, and the directory that they share.
    pub(crate) fn all(
        outside: &Outside,
        lose_bell: &Arc<AtomicBool>,
    ) -> (Vec<Self>, Arc<Directory>) {
        let count = outside.reactors;
        let bells: Vec<_> = (0..count)
            .map(|_| Arc::new(AtomicBool::new(false)))
            .collect();
        let doorbell = |is_rung: &Arc<AtomicBool>| {
            let (is_rung, lose_bell) = (Arc::clone(is_rung), Arc::clone(lose_bell));
            Doorbell::new(move || {
                // Whoever has set the flag finds it unset, and counts the loss.
                if !lose_bell.swap(false, Ordering::Relaxed) {
                    is_rung.store(true, Ordering::Relaxed);
                }
            })
        };
        let doorbells: Vec<_> = bells.iter().map(doorbell).collect();
        let directory = Arc::new(Directory::new());
        let values = LastValues::of(&outside.config);
        let ends = Mesh::with_rings_of(outside.ring_batches, &doorbells);
        let mut reactors = Vec::new();
        for (id, (mesh, (bell, is_rung))) in ends
            .into_iter()
            .zip(doorbells.iter().zip(bells))
            .enumerate()
        {
            let (sender, resolutions) = mpsc::channel();
            let resolver = Resolver::new(move |resolution| {
                // A ticket may outlive the world.
                let _ = sender.send(resolution);
            });
            let number = |value: usize| u8::try_from(value).expect("at most three");
            let guard = Guard(Arc::clone(&outside.tickets));
            let shard = Shard::new(number(id), number(count), &outside.config, guard, resolver);
            let shard = shard.with_last_values(values.clone());
            let shard = match count {
                1 => shard,
                _ => shard.with_peers(Arc::clone(&directory), mesh),
            };
            reactors.push(Self::new(
                id,
                shard,
                Arc::clone(&directory),
                Arc::clone(bell),
                is_rung,
                resolutions,
            ));
        }
        (reactors, directory)
    }

    fn new(
        id: usize,
        shard: Shard<Guard>,
        directory: Arc<Directory>,
        doorbell: Arc<Doorbell>,
        is_rung: Arc<AtomicBool>,
        resolutions: mpsc::Receiver<Resolution>,
    ) -> Self {
        Self {
            id,
            shard,
            arena: Arena::new(),
            connections: BTreeMap::new(),
            ready: VecDeque::new(),
            offered: VecDeque::new(),
            late: Vec::new(),
            retired: Vec::new(),
            lingering: Vec::new(),
            numbers: BTreeMap::new(),
            directory,
            evicted: BTreeMap::new(),
            told: VecDeque::new(),
            backlog: VecDeque::new(),
            commands: VecDeque::new(),
            resolutions,
            doorbell,
            is_rung,
            sleep: Sleep::Awake,
            stalled: 0,
            stopping: None,
            is_quiet: false,
            has_all: false,
        }
    }

    /// One turn, in the order of the engine.
    pub(crate) fn turn(&mut self, outside: &mut Outside) {
        self.wake(outside);
        self.answer(outside);
        self.read(outside);
        self.deliver(outside);
        self.flush_last(outside);
        self.hand_over(outside);
        self.expire(outside);
        self.reap(outside);
        self.check_held(outside);
        self.sleep = Sleep::Awake;
        if !self.has_work() && !outside.faults.hit(Fault::ParkLate) {
            self.park(outside);
        } else if !self.has_work() {
            self.sleep = Sleep::Drowsy;
        }
    }

    // ---- wait

    /// The last look before the sleep.
    pub(crate) fn park(&mut self, outside: &mut Outside) {
        let shard = &self.shard;
        if outside.reactors == 1 || self.doorbell.park(|| shard.has_mesh_work()) {
            self.sleep = Sleep::Asleep(outside.now);
        } else {
            self.sleep = Sleep::Awake;
            outside.faults.mark(Mark::ParkRefused, true);
        }
    }

    pub(crate) fn is_drowsy(&self) -> bool {
        self.sleep == Sleep::Drowsy
    }

    /// Whether its loop would run now.
    pub(crate) fn is_woken(&self, outside: &Outside) -> bool {
        let Sleep::Asleep(since) = self.sleep else {
            return true;
        };
        self.has_events(outside) || outside.reactors > 1 && since + BACKSTOP <= outside.now
    }

    /// Whether anything but the backstop ends its sleep.
    fn has_events(&self, outside: &Outside) -> bool {
        let has_edge = |connection: &Connection| outside.peers[connection.peer].socket.has_edge;
        self.is_rung.load(Ordering::Relaxed)
            || !self.offered.is_empty()
            || !self.commands.is_empty()
            || !self.backlog.is_empty()
            || !self.late.is_empty()
            || self
                .deadline()
                .is_some_and(|deadline| deadline <= outside.now)
            || self.connections.values().any(has_edge)
    }

    fn wake(&mut self, outside: &Outside) {
        let Sleep::Asleep(since) = self.sleep else {
            return;
        };
        let is_backstop = !self.has_events(outside) && since + BACKSTOP <= outside.now;
        if outside.reactors > 1 {
            self.doorbell.unpark();
            if is_backstop && self.shard.has_mesh_work() {
                self.shard.count_doorbell_missed();
            }
        }
        self.is_rung.store(false, Ordering::Relaxed);
    }

    pub(crate) fn has_work(&self) -> bool {
        (!self.ready.is_empty() && !self.shard.is_spilling())
            || self.shard.is_dirty()
            || self.shard.has_put_off()
            || self.shard.has_mesh_work()
            || self.shard.has_leftovers()
            || !self.backlog.is_empty()
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let lingering = self.lingering.iter().map(|(due, _)| *due);
        lingering
            .chain(self.shard.deadline())
            .chain(self.stopping)
            .min()
    }

    /// Tells the model of sessions that the shard has decided to end.
    fn observe(&self, outside: &mut Outside, moment: Moment) {
        for (key, connection) in &self.connections {
            if self.shard.is_closing(*key) {
                outside
                    .model
                    .seen_closing(connection.number, moment, outside.now);
            }
        }
    }

    // ---- deliver and hand over

    fn deliver(&mut self, outside: &mut Outside) {
        if !self.shard.has_mesh_work() {
            return outside.model.delivered(self.id, self.shard.is_delivered());
        }
        if self.shard.is_spent() {
            self.flush(outside);
        }
        let before = self.shard.counters().deliveries_matched;
        self.shard.begin_delivering();
        let mut budget = outside.config.limits.read_per_turn;
        while budget > 0 {
            let Some(len) = self.shard.deliver(&mut self.arena) else {
                break;
            };
            budget = budget.saturating_sub(len.max(BATCH_COST_MIN));
        }
        let deliveries = self.shard.counters().deliveries_matched - before;
        self.check_share(outside, deliveries);
        let is_cut = self.shard.is_spent() && !self.shard.is_delivered();
        outside.faults.mark(Mark::BatchCut, is_cut);
        outside.model.delivered(self.id, self.shard.is_delivered());
    }

    /// A turn exceeds its share by the fan-out of one frame at most.
    fn check_share(&self, outside: &Outside, deliveries: u64) {
        const FRAME_LEN_MIN: usize = 7;
        let sessions = self.shard.session_count();
        let share = outside.config.limits.deliver_per_turn + FRAME_LEN_MAX * sessions;
        assert!(
            deliveries as usize * FRAME_LEN_MIN <= share,
            "{deliveries} deliveries to {sessions} sessions are more than a turn's share"
        );
    }

    fn hand_over(&mut self, outside: &mut Outside) {
        self.shard.hand_over(outside.now);
        outside
            .model
            .ledger
            .hand_over(self.id, self.shard.is_handed_over());
        for (key, connection) in &self.connections {
            let is_stopped = self.shard.is_stopped(*key) && !connection.was_stopped;
            outside.faults.mark(Mark::PublisherStopped, is_stopped);
        }
        self.note_stopped(outside);
        self.resume();
        self.wind_down(outside);
    }

    fn make_ready(&mut self, key: SessionKey) {
        if let Some(connection) = self.connections.get_mut(&key)
            && !connection.is_ready
        {
            connection.is_ready = true;
            self.ready.push_back(key);
        }
    }

    /// Puts those back on the ready list that are read again.
    fn resume(&mut self) {
        while let Some(key) = self.shard.next_resumed() {
            self.make_ready(key);
        }
    }

    /// Sessions with connections: their keys, numbers and peers.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (SessionKey, u64, usize)> {
        let open = self.connections.iter().filter(|(_, it)| !it.is_lingering);
        open.map(|(key, connection)| (*key, connection.number, connection.peer))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.lingering.is_empty()
    }
}
