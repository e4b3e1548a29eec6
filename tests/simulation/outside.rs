//! Everything that a reactor works on and does not own: time, peers, dice, and the model that
//! watches.

use std::io::ErrorKind;
use std::time::Duration;

use hvlp::config::Config;
use hvlp::deadline::Timestamp;
use hvlp::outbound::SlowConsumer;
use hvlp::packet::Extensions;
use hvlp::register::last_values::Prefixes;
use hvlp::session::ListenerId;
use hvlp::shard::SendOutcome;

use crate::faults::Faults;
use crate::guard::Tickets;
use crate::model::Model;
use crate::peer::Peer;
use crate::values::Values;

pub(crate) struct Outside {
    pub(crate) now: Timestamp,
    pub(crate) config: Config,
    pub(crate) reactors: usize,
    /// What a ring between two of them takes.
    pub(crate) ring_batches: usize,
    pub(crate) faults: Faults,
    pub(crate) peers: Vec<Peer>,
    pub(crate) model: Model,
    pub(crate) tickets: Tickets,
    /// Reactors that will publish nothing any more.
    pub(crate) quiet: usize,
    /// Doorbells that woke nobody.
    pub(crate) lost_doorbells: u64,
    /// Nothing is dropped while its subscriber lives: then each drop has one reason.
    loses_nothing: bool,
}

impl Outside {
    pub(crate) fn new(seed: u64) -> Self {
        let mut faults = Faults::new(seed);
        let reactors = 1 + faults.below(3);
        let loses_nothing = faults.one_in(2);
        let mut config = config(&mut faults, loses_nothing);
        let values = last_values(&mut faults, &mut config);
        let ring_batches = faults.pick(&[1, 2, 4, 8]);
        Self {
            now: Timestamp::default(),
            reactors,
            ring_batches,
            faults,
            peers: Vec::new(),
            model: Model::new(reactors, &config, values),
            config,
            tickets: Tickets::default(),
            quiet: 0,
            lost_doorbells: 0,
            loses_nothing,
        }
    }

    /// A listener, and its policy.
    pub(crate) fn listener(&mut self) -> (ListenerId, SlowConsumer) {
        let index = match self.loses_nothing {
            true => self.faults.below(LOSSLESS_LISTENERS),
            false => self.faults.below(LISTENERS),
        };
        let policy = match index {
            0 | 1 => SlowConsumer::Disconnect,
            _ => POLICIES[index - 1],
        };
        match index {
            0 => (ListenerId::COMMON, policy),
            _ => (ListenerId::of(index - 1), policy),
        }
    }

    pub(crate) fn receive(&mut self, peer: usize, len: usize) -> Result<Vec<u8>, ErrorKind> {
        self.peers[peer].socket.receive(len, &mut self.faults)
    }

    /// Offers all parts, in one call or in two; returns what the kernel took.
    pub(crate) fn send(&mut self, peer: usize, parts: &[Vec<u8>]) -> (SendOutcome, Vec<u8>) {
        let faults = &mut self.faults;
        let socket = &mut self.peers[peer].socket;
        let mut bytes = parts.concat();
        assert!(!bytes.is_empty(), "an offer of nothing would never end");
        let first = match parts.len() > 1 && faults.one_in(4) {
            true => parts[..1 + faults.below(parts.len() - 1)].concat().len(),
            false => bytes.len(),
        };
        let mut outcome = socket.send(first, faults);
        if let SendOutcome::Whole(sent) = outcome
            && sent < bytes.len()
        {
            outcome = match socket.send(bytes.len() - sent, faults) {
                SendOutcome::Whole(more) => SendOutcome::Whole(sent + more),
                SendOutcome::Short(more) => SendOutcome::Short(sent + more),
                SendOutcome::NoBuffers(more) => SendOutcome::NoBuffers(sent + more),
                // What went before went; the failure shows at the next send.
                SendOutcome::Failed(_) => {
                    socket.has_edge = true;
                    SendOutcome::Short(sent)
                }
            };
        }
        let taken = match outcome {
            SendOutcome::Whole(taken)
            | SendOutcome::Short(taken)
            | SendOutcome::NoBuffers(taken) => taken,
            SendOutcome::Failed(_) => 0,
        };
        bytes.truncate(taken);
        (outcome, bytes)
    }

    /// The connection of a peer was closed before it had a session.
    pub(crate) fn refused(&mut self, peer: usize) {
        self.peers[peer].is_refused = true;
        self.peers[peer].socket.close();
    }
}

/// First those that lose nothing while the subscriber lives.
const POLICIES: [SlowConsumer; 5] = [
    SlowConsumer::Disconnect,
    SlowConsumer::Pause,
    SlowConsumer::DropNewest,
    SlowConsumer::DropOldest,
    SlowConsumer::Conflate,
];
/// The common settings, and a listener with each of these.
const LISTENERS: usize = 1 + POLICIES.len();
const LOSSLESS_LISTENERS: usize = 3;

/// Some brokers keep last values, some of these only a few.
fn last_values(faults: &mut Faults, config: &mut Config) -> Values {
    let prefixes = faults.pick(&[&[][..], &[], &["a"], &["churn/", "topic/with"], &[""]]);
    config.last_value = Prefixes::of(prefixes.iter().copied());
    config.limits.last_value_topics_max = faults.pick(&[1, 3, 100]);
    Values::new(prefixes, config.limits.last_value_topics_max)
}

/// Settings near their limits, so that a short run meets them.
fn config(faults: &mut Faults, loses_nothing: bool) -> Config {
    const BIG: usize = 1 << 20;
    let mut config = Config::default();
    let times = [2_000, 50_000, 1_000_000, 30_000_000, 30_000_000, 30_000_000];
    let time = |faults: &mut Faults| Duration::from_micros(faults.pick(&times));
    config.drain_timeout = time(faults);
    config.listener.connect_timeout = time(faults);
    config.listener.frame_timeout = time(faults);
    config.listener.progress_timeout = time(faults);
    config.listener.pause_max = time(faults);
    config.limits.error_window = time(faults);
    // One chunk takes it all, so that a subscriber pauses as soon as its socket refuses anything.
    // To make room among the oldest frames takes two.
    let least = if loses_nothing { 2_000 } else { 5_000 };
    // Answers to one long list, or to some short ones.
    config.listener.answers_max = faults.pick(&[40, 300, 64 * 1024, 64 * 1024]);
    config.extensions = Extensions::from_bits(faults.pick(&[7, 7, 7, 7, 3, 5, 6, 0]));
    config.listener.outbound_max = faults.pick(&[least, 5_000, 7_000, 12_000, 70_000]);
    for policy in POLICIES {
        let mut listen = format!("127.0.0.1:1?slow_consumer={policy}");
        if policy == SlowConsumer::Conflate {
            // Its two generations share what is left beside a first chunk.
            listen.push_str("&outbound_max=64KiB");
        }
        config.listen.push(listen.parse().unwrap());
    }
    let limits = &mut config.limits;
    limits.sessions_max = 3 + faults.below(6);
    // Three smallest backlogs are within the second, and more than nine tenths of it.
    limits.outbound_total_max = faults.pick(&[6_000, 14_000, 40_000, BIG, BIG, BIG]);
    limits.held_total_max = faults.pick(&[100, 2_000, 20_000, BIG]);
    limits.subscriptions_per_session_max = faults.pick(&[2, 6, BIG, BIG, BIG]);
    limits.subscriptions_max = faults.pick(&[6, 20, BIG, BIG, BIG]);
    limits.topics_max = faults.pick(&[4, 10, BIG, BIG, BIG]);
    limits.filter_shapes_max = faults.pick(&[1, 3, 1024, 1024]);
    limits.error_budget = faults.pick(&[1, 3, 64, 64, 64]);
    limits.accept_per_turn = faults.pick(&[1, 64]);
    limits.read_per_session = faults.pick(&[10, 300, 4_000, BIG]);
    limits.read_per_turn = faults.pick(&[100, 1_000, BIG, BIG]);
    limits.frames_per_turn = faults.pick(&[1, 5, 100, BIG]);
    limits.deliver_per_turn = faults.pick(&[1, 300, 4_000, BIG]);
    limits.pieces_per_turn = faults.pick(&[1, 5, 100, BIG]);
    limits.mesh_spill_max = faults.pick(&[0, 100, 1_000, BIG]);
    config
}
