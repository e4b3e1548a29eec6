//! Bytes out: what each dirty session is offered, and when the reactor hears what became of it.

use std::collections::VecDeque;
use std::io::ErrorKind;

use hvlp::session::SessionKey;
use hvlp::shard::{Outgoing, SendOutcome};

use crate::faults::Mark;
use crate::model::Moment;
use crate::outside::Outside;
use crate::reactor::{BACKLOG_PARTS_MAX, Reactor};

impl Reactor {
    /// The engine on readiness hears of each send before the next one, the one on completion of
    /// many at once; a backlog is sent by itself in both.
    pub(super) fn flush(&mut self, outside: &mut Outside) {
        let together = outside.faults.pick(&[1, 1, 2, usize::MAX]);
        let mut offers = self.offer_all(outside, together);
        self.send_all(outside, &mut offers);
    }

    /// The engine on completion hears of the last flush of a turn with the next wait, if nothing
    /// before that needs to know.
    pub(super) fn flush_last(&mut self, outside: &mut Outside) {
        if !self.is_at_rest(outside) || outside.faults.one_in(2) {
            return self.flush(outside);
        }
        let mut offers = self.offer_all(outside, usize::MAX);
        // What was sent by itself may have closed its session.
        if !offers.is_empty() && self.is_at_rest(outside) {
            outside.faults.mark(Mark::SentWithTheWait, true);
            self.offered = offers;
            self.observe(outside, Moment::Flush);
        } else {
            self.send_all(outside, &mut offers);
        }
    }

    /// As in the engine.
    fn is_at_rest(&self, outside: &Outside) -> bool {
        self.stopping.is_none()
            && !self.shard.has_leftovers()
            && !self.arena.has_batches()
            && self
                .deadline()
                .is_none_or(|deadline| deadline > outside.now)
    }

    /// What the last wait told of the last flush.
    pub(super) fn answer(&mut self, outside: &mut Outside) {
        if self.offered.is_empty() {
            return;
        }
        let mut offers = std::mem::take(&mut self.offered);
        self.send_all(outside, &mut offers);
        self.shard.void(&mut self.arena);
    }

    /// Offers what is owed; at most so many offers less one are not answered then.
    fn offer_all(
        &mut self,
        outside: &mut Outside,
        together: usize,
    ) -> VecDeque<(SessionKey, Vec<Vec<u8>>)> {
        let mut offers = VecDeque::new();
        while let Some(key) = self.shard.next_dirty() {
            let (offer, is_alone) = self.offer(outside, key);
            match offer.is_empty() {
                true => {}
                false if is_alone => self.send(outside, key, &offer),
                false => offers.push_back((key, offer)),
            }
            outside.faults.mark(Mark::SentTogether, offers.len() > 1);
            while offers.len() >= together
                && let Some((key, offer)) = offers.pop_front()
            {
                self.send(outside, key, &offer);
            }
        }
        offers
    }

    fn send_all(
        &mut self,
        outside: &mut Outside,
        offers: &mut VecDeque<(SessionKey, Vec<Vec<u8>>)>,
    ) {
        for (key, offer) in offers.drain(..) {
            self.send(outside, key, &offer);
        }
        self.shard.end_flush();
        self.note_stopped(outside);
        self.observe(outside, Moment::Flush);
    }

    /// What is to be sent, and whether that is a send of its own.
    fn offer(&mut self, outside: &mut Outside, key: SessionKey) -> (Vec<Vec<u8>>, bool) {
        if !self.connections.contains_key(&key) {
            return (Vec::new(), false);
        }
        let before = self.backlogs();
        let mut is_alone = false;
        let offer: Vec<Vec<u8>> = match self.shard.outgoing(outside.now, key, &self.arena) {
            Outgoing::Nothing => Vec::new(),
            Outgoing::Run(piece) => vec![self.arena.bytes(piece).to_vec()],
            Outgoing::Scattered(pieces) => pieces
                .map(|piece| self.arena.bytes(piece).to_vec())
                .collect(),
            Outgoing::Ahead(bytes) => {
                is_alone = true;
                outside.faults.mark(Mark::WentAhead, true);
                vec![bytes.to_vec()]
            }
            Outgoing::Backlog(chunks) => {
                is_alone = true;
                outside.faults.mark(Mark::BacklogOffered, true);
                // It need not be offered whole.
                let parts_max = outside.faults.pick(&[1, 2, BACKLOG_PARTS_MAX]);
                let parts: Vec<_> = chunks.take(parts_max).collect();
                vec![parts.concat()]
            }
        };
        // What this turn brought may have gone behind a backlog.
        self.check_evicted(outside, key, &before);
        self.note_backlog(outside, key);
        // Its last words may be in this offer.
        self.observe(outside, Moment::Flush);
        (offer, is_alone)
    }

    fn send(&mut self, outside: &mut Outside, key: SessionKey, offer: &[Vec<u8>]) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        outside.faults.mark(Mark::Scattered, offer.len() > 1);
        let (outcome, bytes) = outside.send(connection.peer, offer);
        connection.taken += bytes.len();
        outside.model.taken(connection.number, &bytes);
        let number = connection.number;
        let is_read = self.shard.wants_input(key) || self.shard.has_held(key);
        let before = self.backlogs();
        self.shard.sent(outside.now, key, &self.arena, outcome);
        self.check_evicted(outside, key, &before);
        self.note_backlog(outside, key);
        if let SendOutcome::Failed(kind) = outcome {
            self.send_failed(outside, key, number, kind, is_read);
        }
    }

    fn send_failed(
        &mut self,
        outside: &mut Outside,
        key: SessionKey,
        number: u64,
        kind: ErrorKind,
        is_read: bool,
    ) {
        // What the peer has sent before it went is read, if anything still is.
        let is_reset = matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        if !is_reset || !is_read {
            return outside.model.failed(number, kind);
        }
        assert!(
            self.shard.is_broken(key),
            "session {number} is read to its end"
        );
        outside.faults.mark(Mark::Broken, true);
        outside.model.broken(number);
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.is_readable = true;
            connection.is_read_closed = true;
        }
        self.make_ready(key);
    }
}
