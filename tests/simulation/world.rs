//! A broker in memory, with everything that surrounds it: one run of the simulation.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hvlp::deadline::Timestamp;
use hvlp::handler::Refusal;
use hvlp::metrics::Counters;
use hvlp::register::directory::Directory;
use hvlp::session::CloseReason;

use crate::faults::Fault;
use crate::outside::Outside;
use crate::peer::Peer;
use crate::reactor::{Command, Reactor};

pub(crate) struct World {
    seed: u64,
    pub(crate) reactors: Vec<Reactor>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) outside: Outside,
    /// The next doorbell that rings is not heard.
    lose_bell: Arc<AtomicBool>,
    steps: u64,
    last_steps: VecDeque<(u64, Timestamp, Step)>,
    /// A digest of all steps: two runs of a seed have the same.
    digest: u64,
}

/// What has happened.
#[derive(Clone, Copy, Debug)]
#[expect(
    dead_code,
    reason = "a step is shown, and nothing else is done with it"
)]
enum Step {
    Connects { peer: usize, to: usize },
    Peer { peer: usize, does: &'static str },
    Turn { reactor: usize },
    Parks { reactor: usize },
    Stalls { reactor: usize, steps: usize },
    Time,
    Answers { session: u64, accepts: bool },
    Stop,
    Settles,
}

const LAST_STEPS: usize = 50;
const PEERS_MAX: usize = 12;
/// More turns than it takes to do all that peers can leave undone.
const TURNS_MAX: usize = 200_000;

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let outside = Outside::new(seed);
        let lose_bell = Arc::new(AtomicBool::new(false));
        let (reactors, directory) = Reactor::all(&outside, &lose_bell);
        Self {
            seed,
            reactors,
            directory,
            outside,
            lose_bell,
            steps: 0,
            last_steps: VecDeque::new(),
            digest: 0,
        }
    }

    /// So many steps, and then an end in which nothing goes wrong any more.
    pub(crate) fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
        }
        self.settle();
        self.end();
    }

    fn step(&mut self) {
        match self.outside.faults.below(100) {
            0..=3 => self.connect(),
            4..=39 => self.peer(),
            40..=84 => self.reactor(),
            85..=92 => self.pass(),
            93..=97 => self.answer(),
            98 if self.outside.faults.one_in(20) => self.stop(),
            98 => self.settle(),
            _ => self.stall(),
        }
    }

    // ---- peers

    fn connect(&mut self) {
        let alive = self
            .outside
            .peers
            .iter()
            .filter(|peer| peer.is_alive())
            .count();
        if alive >= PEERS_MAX {
            return;
        }
        let outside = &mut self.outside;
        let (peer, to) = (outside.peers.len(), outside.faults.below(outside.reactors));
        // Who may take one frame per turn would take for ever.
        let frames_max = 2 + outside.config.limits.frames_per_turn;
        outside
            .peers
            .push(Peer::new(peer, frames_max, &mut outside.faults));
        if !self.reactors[to].is_finished(outside) {
            self.reactors[to].backlog.push_back(peer);
        } else {
            outside.refused(peer);
        }
        self.note(Step::Connects { peer, to });
    }

    fn peer(&mut self) {
        let outside = &mut self.outside;
        let alive = outside.peers.iter().filter(|peer| peer.is_alive()).count();
        if alive == 0 {
            return;
        }
        let chosen = outside.faults.below(alive);
        let mut peers = outside
            .peers
            .iter_mut()
            .enumerate()
            .filter(|(_, peer)| peer.is_alive());
        let (index, peer) = peers.nth(chosen).expect("so many are alive");
        let mut does = "";
        for _ in 0..=outside.faults.below(3) {
            if peer.is_alive() {
                does = peer.act(&mut outside.faults, &mut outside.model.ledger);
            }
        }
        self.note(Step::Peer { peer: index, does });
    }

    // ---- reactors

    /// A turn of one of them, if it would run.
    fn reactor(&mut self) {
        self.tell();
        let count = self.reactors.len();
        let first = self.outside.faults.below(count);
        for reactor in (0..count).map(|offset| (first + offset) % count) {
            let one = &mut self.reactors[reactor];
            if one.stalled > 0 {
                one.stalled -= 1;
            } else if one.is_finished(&self.outside) {
                continue;
            } else if one.is_drowsy() {
                one.park(&mut self.outside);
                return self.note(Step::Parks { reactor });
            } else if one.is_woken(&self.outside) || self.outside.faults.hit(Fault::ReactorWakes) {
                return self.turn(reactor);
            }
        }
    }

    fn turn(&mut self, reactor: usize) {
        self.note(Step::Turn { reactor });
        let is_complete = self.outside.quiet == self.reactors.len();
        let loses = self.outside.reactors > 1 && self.outside.faults.hit(Fault::DoorbellLost);
        self.lose_bell.store(loses, Ordering::Relaxed);
        self.reactors[reactor].turn(&mut self.outside);
        let is_lost = loses && !self.lose_bell.swap(false, Ordering::Relaxed);
        self.outside.lost_doorbells += u64::from(is_lost);
        if !is_complete && self.outside.quiet == self.reactors.len() {
            for other in &self.reactors {
                other.is_rung.store(true, Ordering::Relaxed);
            }
        }
        self.check_turn(reactor);
    }

    /// What shards tell each other of slow consumers arrives, or later, and in its order.
    fn tell(&mut self) {
        for from in 0..self.reactors.len() {
            let mut late = [false; 3];
            for told in std::mem::take(self.reactors[from].told()) {
                late[told.to] |= self.outside.faults.hit(Fault::PauseLate);
                if late[told.to] {
                    self.reactors[from].told().push_back(told);
                } else if !self.reactors[told.to].is_finished(&self.outside) {
                    let commands = &mut self.reactors[told.to].commands;
                    commands.push_back(Command::Pause(told));
                }
            }
        }
    }

    fn stall(&mut self) {
        let reactor = self.outside.faults.below(self.reactors.len());
        if self.outside.faults.hit(Fault::ReactorStalls) {
            let steps = 1 + self.outside.faults.below(40);
            self.reactors[reactor].stalled = steps;
            self.note(Step::Stalls { reactor, steps });
        }
    }

    // ---- time

    fn pass(&mut self) {
        let next = self.deadline();
        let outside = &mut self.outside;
        let micros = |count: usize| Duration::from_micros(count as u64);
        let now = if outside.faults.hit(Fault::TimeLeaps) {
            outside.now + micros(outside.faults.below(20_000_000))
        } else if let Some(next) = next.filter(|_| outside.faults.one_in(4)) {
            match outside.faults.below(3) {
                0 => Timestamp::from(next.since_start().saturating_sub(micros(1))),
                1 => next,
                _ => next + micros(1),
            }
        } else {
            outside.now + micros(outside.faults.below(3_000))
        };
        outside.now = outside.now.max(now);
        self.note(Step::Time);
    }

    fn deadline(&self) -> Option<Timestamp> {
        let running = self
            .reactors
            .iter()
            .filter(|it| !it.is_finished(&self.outside));
        running.filter_map(Reactor::deadline).min()
    }

    // ---- control

    /// Somebody answers a CONNECT, or gives the answer up.
    fn answer(&mut self) {
        let mut tickets = self.outside.tickets.lock().unwrap();
        if tickets.is_empty() {
            return;
        }
        let chosen = self.outside.faults.below(tickets.len());
        let (session, ticket) = tickets.swap_remove(chosen);
        drop(tickets);
        let verdict = if self.outside.faults.hit(Fault::TicketDropped) {
            drop(ticket);
            Err(CloseReason::AuthFailed)
        } else if self.outside.faults.one_in(6) {
            ticket.refuse(Refusal::Limit);
            Err(CloseReason::LimitConnect)
        } else {
            ticket.accept();
            Ok(())
        };
        let shards = self.reactors.len() as u64;
        let shard = usize::try_from((session - 1) % shards).expect("at most three");
        let command = Command::Resolve(session, verdict);
        self.reactors[shard].commands.push_back(command);
        self.note(Step::Answers {
            session,
            accepts: verdict.is_ok(),
        });
    }

    fn stop(&mut self) {
        for reactor in &mut self.reactors {
            reactor.commands.push_back(Command::Stop);
        }
        self.note(Step::Stop);
    }

    // ---- the end

    /// Nothing goes wrong for a while, and everything that can be done in no time is, or nearly.
    fn settle(&mut self) {
        self.note(Step::Settles);
        self.outside.faults.set_calm(true);
        for reactor in &mut self.reactors {
            reactor.stalled = 0;
        }
        for peer in &mut self.outside.peers {
            peer.socket.recall();
        }
        self.run_until_idle();
        // A send that found no memory is made again after that.
        self.outside.now = self.outside.now + Duration::from_millis(10);
        self.run_until_idle();
        while !self.outside.tickets.lock().unwrap().is_empty() {
            self.answer();
            self.run_until_idle();
        }
        self.check_idle();
        self.outside.faults.set_calm(false);
    }

    /// Runs every reactor as long as something wakes it.
    fn run_until_idle(&mut self) {
        let mut turns = 0;
        loop {
            for peer in self.outside.peers.iter_mut().filter(|peer| peer.is_alive()) {
                peer.settle(&mut self.outside.faults);
            }
            let before = turns;
            for reactor in 0..self.reactors.len() {
                self.tell();
                let one = &mut self.reactors[reactor];
                if one.is_finished(&self.outside) {
                    continue;
                }
                if one.is_drowsy() {
                    one.park(&mut self.outside);
                }
                if self.reactors[reactor].is_woken(&self.outside) {
                    self.turn(reactor);
                    turns += 1;
                }
            }
            self.tell();
            let is_told = self
                .reactors
                .iter()
                .all(|it| it.commands.is_empty() || it.is_finished(&self.outside));
            if turns == before && is_told && !self.wait_for_backstop() {
                return;
            }
            assert!(turns < TURNS_MAX, "it goes on for ever");
        }
    }

    /// A doorbell was lost: whoever should have heard it looks after a second.
    fn wait_for_backstop(&mut self) -> bool {
        let is_due = |reactor: &Reactor| {
            !reactor.is_finished(&self.outside) && reactor.shard.has_mesh_work()
        };
        let is_needed = self.reactors.iter().any(is_due);
        if is_needed {
            assert!(self.outside.lost_doorbells > 0, "a sleeper was not woken");
            self.outside.now = self.outside.now + Duration::from_secs(1);
        }
        is_needed
    }

    /// Everybody leaves, or the broker stops, or both.
    fn end(&mut self) {
        self.outside.faults.set_calm(true);
        let stops = self.outside.faults.below(3);
        if stops == 0 {
            self.stop();
        } else {
            for peer in self.outside.peers.iter_mut().filter(|peer| peer.is_alive()) {
                peer.part(&mut self.outside.faults);
            }
        }
        self.run_until_idle();
        if stops == 1 {
            self.stop();
            self.run_until_idle();
        }
        let deadlines = 1_000;
        for _ in 0..deadlines {
            let Some(next) = self.deadline() else {
                break;
            };
            self.outside.now = self.outside.now.max(next);
            self.run_until_idle();
        }
        self.check_end();
    }

    // ---- what is known of it

    fn note(&mut self, step: Step) {
        self.steps += 1;
        if self.last_steps.len() == LAST_STEPS {
            self.last_steps.pop_front();
        }
        self.last_steps
            .push_back((self.steps, self.outside.now, step));
        let dice = self.outside.faults.below(1 << 30) as u64;
        self.digest = self.digest.rotate_left(7) ^ dice;
    }

    /// What all shards have counted.
    pub(crate) fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for reactor in &self.reactors {
            sum.add(&reactor.shard.counters());
        }
        sum
    }

    /// The same for two runs that did the same.
    pub(crate) fn fingerprint(&self) -> (u64, Counters) {
        (self.digest, self.counters())
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outside = &self.outside;
        writeln!(f, "seed {}, {} shards", self.seed, outside.reactors)?;
        writeln!(
            f,
            "{:#?}\n{:#?}",
            outside.config.listener, outside.config.limits
        )?;
        writeln!(f, "drain_timeout {:?}", outside.config.drain_timeout)?;
        writeln!(f, "faults, per cent: {:?}", outside.faults.plan())?;
        for (number, now, step) in &self.last_steps {
            writeln!(f, "{number:>6} {:>14?} {step:?}", now.since_start())?;
        }
        Ok(())
    }
}
