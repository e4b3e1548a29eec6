//! A reactor without sockets: of its loop, the verbs that concern other reactors, in its order.

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};

use crate::mesh::{Doorbell, Mesh, Record};
use crate::packet::{Frame, FrameBuf};
use crate::reactor::ending::{Ending, Quiet};
use crate::session::SessionKey;

/// What a reactor sleeps on: as an eventfd in a poll, it keeps a wake-up until somebody polls.
struct Waker {
    rung: Mutex<bool>,
    bell: Condvar,
}

impl Waker {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            rung: Mutex::new(false),
            bell: Condvar::new(),
        })
    }

    fn wake(&self) {
        *self.rung.lock().unwrap() = true;
        self.bell.notify_one();
    }

    /// There is no time-out, so that a wake-up that is lost is found as a deadlock.
    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.bell.wait(rung).unwrap();
        }
        *rung = false;
    }

    fn poll(&self) {
        *self.rung.lock().unwrap() = false;
    }
}

pub(crate) struct Peer {
    mesh: Mesh,
    doorbell: Arc<Doorbell>,
    waker: Arc<Waker>,
    ending: Ending,
    /// Runs published so far, by peer, and the numbers of those that came, in their order.
    sent: Vec<u8>,
    received: Vec<Vec<u8>>,
    has_put_back: bool,
    /// Publishers that may not be read, by the outbox that holds them up.
    stopped: Vec<(usize, SessionKey)>,
}

impl Peer {
    /// As many as take part in a model.
    pub(crate) fn among(count: usize) -> Vec<Self> {
        let wakers: Vec<Arc<Waker>> = (0..count).map(|_| Waker::new()).collect();
        let doorbells: Vec<_> = wakers
            .iter()
            .map(|waker| {
                let waker = Arc::clone(waker);
                Doorbell::new(move || waker.wake())
            })
            .collect();
        let all = wakers.clone();
        let quiet = Quiet::new(count, move || all.iter().for_each(|waker| waker.wake()));
        let ends = Mesh::between(&doorbells).into_iter();
        ends.zip(doorbells)
            .zip(wakers)
            .map(|((mesh, doorbell), waker)| Self {
                mesh,
                doorbell,
                waker,
                ending: Ending::new(Arc::clone(&quiet)),
                sent: vec![0; count],
                received: vec![Vec::new(); count],
                has_put_back: false,
                stopped: Vec::new(),
            })
            .collect()
    }

    /// Publishes a run for peer `to`, each with its number.
    pub(crate) fn publish(&mut self, to: usize) {
        let number = self.sent[to];
        self.sent[to] += 1;
        let run = FrameBuf::publish("t", &[number]).unwrap();
        let publisher = SessionKey::new(u32::from(number), 0);
        self.mesh.forward(to, publisher, 0, None, run.bytes());
    }

    /// One turn.
    pub(crate) fn turn(&mut self) {
        self.wait();
        self.deliver();
        self.hand_over();
    }

    pub(crate) fn wait(&self) {
        if self.mesh.has_work() {
            self.waker.poll();
            return;
        }
        if self.doorbell.park(|| self.mesh.has_work()) {
            self.waker.sleep();
        } else {
            self.waker.poll();
        }
        self.doorbell.unpark();
    }

    /// Takes what has come. The first batch is put back once, as by a turn that has no room for
    /// all of it.
    pub(crate) fn deliver(&mut self) {
        let mut taken = Vec::new();
        while let Some((from, batch, mut position)) = self.mesh.take() {
            if !std::mem::replace(&mut self.has_put_back, true) {
                self.mesh.put_back(from, batch, position);
                break;
            }
            while let Some(record) = Record::read(&batch, position.record) {
                position.record = record.frames.end;
                let (frame, rest) = Frame::split_first(&batch[record.frames]).unwrap();
                let (topic, data) = frame.publish_parts().unwrap();
                assert_eq!((topic, rest), (&b"t"[..], &[][..]));
                self.received[from].extend_from_slice(data);
            }
            taken.push((from, batch));
        }
        for (from, batch) in taken {
            self.mesh.give_back(from, batch);
        }
    }

    pub(crate) fn hand_over(&mut self) {
        let change = self.mesh.hand_over();
        self.stopped.extend(change.stopped);
        for resumed in change.resumed {
            let at = self.stopped.iter().position(|stopped| *stopped == resumed);
            self.stopped
                .swap_remove(at.expect("who is resumed was stopped"));
        }
        assert_eq!(self.stopped.is_empty(), self.mesh.spill_len() == 0);
    }

    /// What ends the turns of one that reads no more; it drains as soon as all has arrived.
    pub(crate) fn look_for_the_end(&mut self) {
        let is_handed_over = self.mesh.is_handed_over();
        self.ending
            .all_arrived(is_handed_over, || self.mesh.is_delivered());
    }

    /// Whether it ends, as one without sessions does.
    pub(crate) fn may_leave(&self) -> bool {
        self.ending.may_leave()
    }

    pub(crate) fn is_handed_over(&self) -> bool {
        self.mesh.is_handed_over()
    }

    pub(crate) fn received_count(&self) -> usize {
        self.received.iter().map(Vec::len).sum()
    }

    /// Asserts that `runs` of peer `from` have come, each once and in their order.
    pub(crate) fn assert_received(&self, from: usize, runs: u8) {
        assert_eq!(self.received[from], (0..runs).collect::<Vec<_>>());
    }
}
