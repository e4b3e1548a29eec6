//! What wakes a reactor: edges, told late, twice, without reason or not at all; commands; new
//! connections.

use std::io::ErrorKind;

use hvlp::metrics::RefuseReason;
use hvlp::session::{Peer, SessionKey};
use hvlp::shard::Gone;

use crate::faults::{Fault, Mark};
use crate::model::Moment;
use crate::network::Readiness;
use crate::outside::Outside;
use crate::reactor::{Command, Connection, Reactor};

/// What one wait brings.
enum Event {
    Edge(SessionKey, Readiness),
    Commands,
}

impl Reactor {
    pub(super) fn read(&mut self, outside: &mut Outside) {
        self.begin_turn(outside);
        self.take_events(outside);
        self.resume();
        self.accept(outside);
        if !self.shard.is_spilling() {
            self.read_ready(outside);
        }
        outside.faults.mark(Mark::PutOff, self.shard.has_put_off());
        outside
            .faults
            .mark(Mark::Spilling, self.shard.is_spilling());
    }

    /// The shard goes on with the last turn's work, and gives last values to those who wait for
    /// some.
    fn begin_turn(&mut self, outside: &mut Outside) {
        let before = self.backlogs();
        self.shard.begin_turn(outside.now);
        self.note_evicted(outside, &before);
        let keys: Vec<_> = self.connections.keys().copied().collect();
        for key in keys {
            self.note_backlog(outside, key);
            let number = self.connections[&key].number;
            let replays = outside.model.sessions[&number].is_replaying();
            outside.faults.mark(Mark::Replaying, replays);
        }
        self.observe(outside, Moment::Flush);
    }

    fn take_events(&mut self, outside: &mut Outside) {
        for event in self.events(outside) {
            match event {
                Event::Edge(key, readiness) => self.notice(outside, key, readiness),
                Event::Commands => self.take_commands(outside),
            }
        }
    }

    /// All events of one wait, in any order.
    fn events(&mut self, outside: &mut Outside) -> Vec<Event> {
        let faults = &mut outside.faults;
        let mut events = vec![Event::Commands];
        let late = std::mem::take(&mut self.late).into_iter();
        events.extend(late.map(|(key, readiness)| Event::Edge(key, readiness)));
        for (key, connection) in &self.connections {
            let socket = &mut outside.peers[connection.peer].socket;
            let readiness = socket.readiness();
            if !socket.has_edge {
                if faults.hit(Fault::EventSpurious) {
                    let all = Readiness {
                        is_readable: true,
                        is_writable: true,
                        ..readiness
                    };
                    events.push(Event::Edge(*key, all));
                }
                continue;
            }
            if faults.hit(Fault::EventLost) {
                socket.lose_edge();
                continue;
            }
            socket.tell();
            if faults.hit(Fault::EventLate) {
                self.late.push((*key, readiness));
                continue;
            }
            events.push(Event::Edge(*key, readiness));
            if faults.hit(Fault::EventDoubled) {
                events.push(Event::Edge(*key, readiness));
            }
        }
        if !self.retired.is_empty() && faults.hit(Fault::EventStale) {
            let key = faults.pick(&self.retired);
            self.misuse(key, outside);
            let readiness = Readiness {
                is_readable: true,
                is_writable: true,
                is_read_closed: true,
                is_error: true,
            };
            events.push(Event::Edge(key, readiness));
        }
        outside.faults.shuffle(&mut events);
        events
    }

    /// Calls of the shard for a session that has ended: they reach nobody.
    fn misuse(&mut self, key: SessionKey, outside: &mut Outside) {
        match outside.faults.below(4) {
            0 => self.shard.writable(key),
            1 => self.shard.gone(key, Gone::Eof),
            2 => self.shard.reaped(key),
            _ => {
                let piece = self.arena.push(b"\x02\x00");
                let rest = self.shard.receive(outside.now, key, &mut self.arena, piece);
                assert_eq!(rest, None, "nothing is left of what nobody receives");
            }
        }
        assert!(!self.shard.is_open(key) && !self.shard.wants_input(key));
    }

    fn notice(&mut self, outside: &mut Outside, key: SessionKey, readiness: Readiness) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return self.shard.count_stale_event();
        };
        if readiness.is_writable {
            self.shard.writable(key);
        }
        if readiness.is_readable || readiness.is_read_closed {
            connection.is_readable = true;
            connection.is_read_closed |= readiness.is_read_closed;
        }
        if readiness.is_error && !self.shard.wants_input(key) && !self.shard.has_held(key) {
            let error = outside.peers[connection.peer].socket.error();
            let kind = error.unwrap_or(ErrorKind::ConnectionReset);
            outside.model.failed(connection.number, kind);
            self.shard.gone(key, Gone::Failed(kind));
        }
        if connection.is_readable && (connection.is_lingering || self.shard.wants_input(key)) {
            self.make_ready(key);
        }
    }

    fn take_commands(&mut self, outside: &mut Outside) {
        for command in std::mem::take(&mut self.commands) {
            match command {
                Command::Stop => self.stop(outside),
                Command::Pause(told) => self.apply_pause(outside, told),
                Command::Resolve(number, verdict) => {
                    let resolution = self.resolutions.try_recv();
                    outside.model.resolved(number, verdict, outside.now);
                    self.shard.resolve(resolution.expect("one for each answer"));
                }
            }
        }
    }

    // ---- accept

    fn accept(&mut self, outside: &mut Outside) {
        for _ in 0..outside.config.limits.accept_per_turn {
            let Some(peer) = self.backlog.pop_front() else {
                break;
            };
            if outside.faults.hit(Fault::AcceptAborted) {
                outside.refused(peer);
            } else if outside.faults.hit(Fault::AcceptNoDescriptors) {
                self.refuse(outside, peer, RefuseReason::NoDescriptors);
            } else if self.stopping.is_some() {
                self.refuse(outside, peer, RefuseReason::Stopping);
            } else {
                self.adopt(outside, peer);
            }
        }
    }

    fn refuse(&mut self, outside: &mut Outside, peer: usize, reason: RefuseReason) {
        self.shard.refuse(reason);
        outside.model.expected[self.id].refused += 1;
        outside.refused(peer);
    }

    fn adopt(&mut self, outside: &mut Outside, peer: usize) {
        let is_full = self.shard.session_count() >= outside.config.limits.sessions_max;
        let (listener, policy) = outside.listener();
        let Ok(key) = self.shard.open_at(outside.now, Peer::Memory, listener) else {
            assert!(is_full, "there was room");
            outside.model.expected[self.id].refused += 1;
            return outside.refused(peer);
        };
        assert!(!is_full, "no more than sessions_max");
        assert!(!self.connections.contains_key(&key), "the key is in use");
        if outside.faults.hit(Fault::RegisterFails) {
            self.shard.forget(key, RefuseReason::RegisterFailed);
            outside.model.expected[self.id].refused += 1;
            self.retire(key);
            return outside.refused(peer);
        }
        outside.faults.mark(Mark::SlotReused, key.generation() > 0);
        let number = self.shard.number(key).expect("it was opened");
        outside
            .model
            .opened(number, self.id, key, policy, outside.now);
        self.numbers.insert(key, number);
        self.connections.insert(
            key,
            Connection {
                peer,
                number,
                is_ready: false,
                is_readable: false,
                is_read_closed: false,
                is_lingering: false,
                was_stopped: false,
                taken: 0,
            },
        );
    }
}
