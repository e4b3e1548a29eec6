//! What one session is owed, and what became of it.

use std::collections::BTreeMap;
use std::rc::Rc;

use hvlp::outbound::SlowConsumer;

use crate::ledger::Publication;

/// What is known of a frame that a session may or may not be owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chance {
    /// Its shard may not have taken it yet.
    Open,
    /// Its shard has taken it, at a turn when the session was subscribed or at another one.
    Taken,
    /// The session has got it.
    Written,
}

/// Whether a subscriber gets everything as long as it lives.
pub(crate) const fn is_lossless(policy: SlowConsumer) -> bool {
    matches!(policy, SlowConsumer::Disconnect | SlowConsumer::Pause)
}

/// A last value that a session may get, or must: once, behind its SUBSCRIBE.
#[derive(Debug)]
struct Due {
    publication: Publication,
    must: bool,
}

#[derive(Debug)]
pub(crate) struct Account {
    number: u64,
    pub(crate) policy: SlowConsumer,
    bytes_max: usize,
    /// By the shard that they come from: topics, in the order of execution.
    owed: Vec<BTreeMap<u64, Rc<str>>>,
    /// What it may or may not be owed.
    chances: Vec<BTreeMap<u64, Chance>>,
    /// The last one that was written.
    last: Vec<u64>,
    /// The same of each topic, of all shards.
    last_of: BTreeMap<Rc<str>, u64>,
    /// Last values that were not written.
    due: Vec<Due>,
    /// It has subscribed, and some of these may be still to come.
    is_replaying: bool,
    /// It was due some since it was owed nothing.
    had_due: bool,
    /// The last one of each topic that was or may have been matched, by the shard it came from.
    newest: BTreeMap<Rc<str>, Vec<u64>>,
    /// The beginning of a frame that was cut by a short send.
    cut: Vec<u8>,
    pub(crate) written: u64,
    /// Bytes that it was or may have been owed since it was owed nothing.
    pub(crate) strain: usize,
    /// The most that ever had.
    strain_max: usize,
    /// Owed and never written, by a policy or because its socket failed: at least, at most.
    lost: (u64, u64),
}

impl Account {
    pub(crate) fn new(number: u64, shards: usize, policy: SlowConsumer, bytes_max: usize) -> Self {
        Self {
            number,
            policy,
            bytes_max,
            owed: vec![BTreeMap::new(); shards],
            chances: vec![BTreeMap::new(); shards],
            last: vec![0; shards],
            last_of: BTreeMap::new(),
            due: Vec::new(),
            is_replaying: false,
            had_due: false,
            newest: BTreeMap::new(),
            cut: Vec::new(),
            written: 0,
            strain: 0,
            strain_max: 0,
            lost: (0, 0),
        }
    }

    /// A frame was matched.
    pub(crate) fn owe(&mut self, publication: &Publication) {
        let topic = Rc::clone(&publication.topic);
        self.owed[publication.from].insert(publication.order, topic);
        self.note(publication);
    }

    /// A frame may be matched now.
    pub(crate) fn expect(&mut self, publication: &Publication) {
        let chances = &mut self.chances[publication.from];
        chances.entry(publication.order).or_insert(Chance::Open);
        self.note(publication);
    }

    fn note(&mut self, publication: &Publication) {
        self.strain += publication.len;
        self.strain_max = self.strain.max(self.strain_max);
        let shards = self.owed.len();
        let topic = Rc::clone(&publication.topic);
        let newest = self.newest.entry(topic).or_insert_with(|| vec![0; shards]);
        let newest = &mut newest[publication.from];
        *newest = publication.order.max(*newest);
    }

    /// Its shard has taken a frame, and matched it for sure if it `must`.
    pub(crate) fn settle(&mut self, publication: &Publication, must: bool) {
        let Publication { order, from, .. } = *publication;
        if self.chances[from].remove(&order) != Some(Chance::Open) {
            return;
        }
        match (must, order > self.last[from]) {
            (true, true) => {
                let topic = Rc::clone(&publication.topic);
                self.owed[from].insert(order, topic);
            }
            (false, true) => {
                self.chances[from].insert(order, Chance::Taken);
            }
            (true, false) => self.leave_out(order, from, &publication.topic),
            (false, false) => self.lost.1 += u64::from(self.leaves_gaps()),
        }
    }

    /// What its socket has taken, behind what was cut before.
    pub(crate) fn stream(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = std::mem::take(&mut self.cut);
        stream.extend_from_slice(bytes);
        stream
    }

    /// What of that is no whole frame.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.cut
    }

    pub(crate) fn cut(&mut self, rest: &[u8]) {
        self.cut = rest.to_vec();
    }

    /// It has subscribed, and may get these now.
    pub(crate) fn begin_replay(&mut self, values: Vec<Publication>) {
        for publication in values {
            self.strain += publication.len;
            let must = false;
            self.due.push(Due { publication, must });
        }
        self.strain_max = self.strain.max(self.strain_max);
        self.is_replaying = true;
        self.had_due |= !self.due.is_empty();
    }

    /// It has got all of them; `is_kept` tells which ones were there all the time.
    pub(crate) fn end_replay(&mut self, is_kept: impl Fn(&Publication) -> bool) {
        if std::mem::take(&mut self.is_replaying) {
            for due in &mut self.due {
                due.must |= is_kept(&due.publication);
            }
        }
    }

    /// Whether a message that is written now is a last value. It is no older than what came of its
    /// topic before.
    fn write_value(&mut self, order: u64, from: usize, topic: &str) -> bool {
        let is_message = self.owed[from].contains_key(&order)
            || self.chances[from]
                .get(&order)
                .is_some_and(|it| *it != Chance::Written);
        let place = self.due.iter().position(|it| it.publication.order == order);
        let Some(place) = place.filter(|_| !is_message || order <= self.last[from]) else {
            return false;
        };
        self.due.remove(place);
        let last = self.last_of.get(topic).copied().unwrap_or(0);
        assert!(
            last <= order,
            "session {}: the value {order} of {topic:?} is written behind {last}",
            self.number
        );
        true
    }

    /// Its socket has taken the last byte of a frame.
    pub(crate) fn write(&mut self, (order, from): (u64, usize), topic: &str) {
        let number = self.number;
        let is_value = self.write_value(order, from, topic);
        let last_of = self.last_of.entry(topic.into()).or_default();
        *last_of = order.max(*last_of);
        if is_value {
            self.written += 1;
            return;
        }
        let last = std::mem::replace(&mut self.last[from], order);
        assert!(
            last < order,
            "session {number}: {order} is written behind {last}"
        );
        let chance = self.chances[from].get_mut(&order);
        let chance = chance.map(|it| std::mem::replace(it, Chance::Written));
        assert!(
            self.owed[from].remove(&order).is_some()
                || chance.is_some_and(|it| it != Chance::Written),
            "session {number} is not owed {order} of shard {from}"
        );
        if chance == Some(Chance::Taken) {
            self.chances[from].remove(&order);
        }
        self.written += 1;
        self.forget_chances(from, order);
        let behind = self.owed[from].split_off(&order);
        for (order, topic) in std::mem::replace(&mut self.owed[from], behind) {
            self.leave_out(order, from, &topic);
        }
    }

    /// Nothing is owed any more.
    pub(crate) fn paid(&mut self) {
        for from in 0..self.owed.len() {
            self.forget_chances(from, u64::MAX);
            for (order, topic) in std::mem::take(&mut self.owed[from]) {
                self.leave_out(order, from, &topic);
            }
        }
        self.strain = 0;
        if self.is_replaying {
            self.strain = self.due.iter().map(|it| it.publication.len).sum();
            return;
        }
        for due in std::mem::take(&mut self.due) {
            let is_missing = due.must && !self.leaves_gaps();
            let (number, value) = (self.number, &due.publication);
            assert!(!is_missing, "session {number} has not got {value:?}");
            self.lost.0 += u64::from(due.must);
            self.lost.1 += u64::from(self.leaves_gaps());
        }
        self.had_due = false;
    }

    /// Frames that its shard has taken and that come before `order` will not be written.
    fn forget_chances(&mut self, from: usize, order: u64) {
        let chances = &mut self.chances[from];
        let before = chances.len();
        chances.retain(|at, chance| *chance != Chance::Taken || *at > order);
        let gone = before - chances.len();
        self.lost.1 += if self.leaves_gaps() { gone as u64 } else { 0 };
    }

    /// Whether a frame may be left out although a later one is written.
    pub(crate) fn leaves_gaps(&self) -> bool {
        !is_lossless(self.policy)
    }

    /// A frame was matched and is not written, although the session lives: its policy says so.
    fn leave_out(&mut self, order: u64, from: usize, topic: &str) {
        let is_just = match self.policy {
            SlowConsumer::Disconnect | SlowConsumer::Pause => false,
            // What is newest here may be older than what came before it.
            SlowConsumer::DropOldest | SlowConsumer::Conflate if self.had_due => true,
            SlowConsumer::DropNewest => self.was_full(),
            SlowConsumer::DropOldest => self.was_full() && !self.is_newest(order, from, None),
            SlowConsumer::Conflate => !self.is_newest(order, from, Some(topic)),
        };
        assert!(
            is_just,
            "session {}, {}: {order} of shard {from} is missing, last are {:?}",
            self.number, self.policy, self.last
        );
        self.lost = (self.lost.0 + 1, self.lost.1 + 1);
    }

    /// Whether so much has gathered that its bound may have been reached. That a frame was left out
    /// may show when what came behind it has gone.
    pub(crate) const fn was_full(&self) -> bool {
        self.strain_max * 9 / 8 + 1_000 >= self.bytes_max
    }

    /// Whether nothing else has come behind it, of its topic or at all. What came from two shards
    /// came in an order that only they know.
    fn is_newest(&self, order: u64, from: usize, topic: Option<&str>) -> bool {
        let is_asked = |name: &str| topic.is_none_or(|topic| topic == name);
        let newest = self.newest.iter().filter(|(name, _)| is_asked(name));
        newest
            .flat_map(|(_, by_shard)| by_shard.iter().enumerate())
            .all(|(shard, newest)| match shard == from {
                true => *newest <= order,
                false => *newest == 0,
            })
    }

    /// Its socket has failed.
    pub(crate) fn lose(&mut self) {
        let (must, may) = self.owed();
        self.lost = (self.lost.0 + must, self.lost.1 + may);
        self.due.clear();
        self.owed.iter_mut().for_each(BTreeMap::clear);
        self.chances.iter_mut().for_each(BTreeMap::clear);
    }

    /// How many frames wait: at least, at most.
    pub(crate) fn owed(&self) -> (u64, u64) {
        let owed: usize = self.owed.iter().map(BTreeMap::len).sum();
        let chances = self.chances.iter().flat_map(BTreeMap::values);
        let chances = chances.filter(|it| **it != Chance::Written).count();
        let must = owed + self.due.iter().filter(|it| it.must).count();
        (must as u64, (owed + chances + self.due.len()) as u64)
    }

    /// How many were matched and not written: at least, at most.
    pub(crate) fn unwritten(&self) -> (u64, u64) {
        let (must, may) = self.owed();
        (must + self.lost.0, may + self.lost.1)
    }
}
