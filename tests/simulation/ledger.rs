//! Who is owed which frame, and what became of it.
//!
//! Each PUBLISH carries an id of its own, so every frame that leaves a session says which one it
//! is. What a session gets from one shard comes in the order of execution there.
//!
//! Frames that cross from one shard to another are matched when the other shard takes them, and
//! which turn takes which frame is its own business as long as not all are taken. So a session
//! *may* get such a frame if it was subscribed at any of these turns, and *must* if it was at all
//! of them. When a shard takes everything in one turn the two are one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use hvlp::outbound::SlowConsumer;

use crate::account::Account;
use crate::values::Values;
use crate::wire;

/// The sessions, by number, that want a topic.
pub(crate) type Wanted = BTreeSet<u64>;

/// One accepted PUBLISH.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    /// When it was executed, in the order of all.
    pub(crate) order: u64,
    pub(crate) from: usize,
    pub(crate) len: usize,
    pub(crate) topic: Rc<str>,
    publisher: u64,
    /// Its topic is one of those whose newest message is kept.
    pub(crate) is_kept: bool,
}

#[derive(Debug)]
struct Draft {
    bytes: Vec<u8>,
    peer: usize,
    published: Option<(u64, usize)>,
}

/// A frame on its way from one shard to another.
#[derive(Debug)]
struct Crossing {
    publication: Publication,
    /// The other shard may have it.
    is_offered: bool,
    /// The other shard has it.
    is_handed_over: bool,
    /// Those who were subscribed at any turn that may have taken it.
    may: Wanted,
    /// Those who were at all of them.
    must: Option<Wanted>,
}

pub(crate) struct Ledger {
    drafts: Vec<Draft>,
    executed: u64,
    last_of_peer: BTreeMap<usize, u32>,
    accounts: BTreeMap<u64, Account>,
    /// By sender and receiver.
    crossings: Vec<Vec<VecDeque<Crossing>>>,
    /// Frames whose last byte a socket took, by shard.
    pub(crate) written: Vec<u64>,
    pub(crate) values: Values,
    shards: usize,
}

const PAYLOAD_LEN_MAX: usize = 255;

impl Ledger {
    pub(crate) fn new(shards: usize, values: Values) -> Self {
        let row = || (0..shards).map(|_| VecDeque::new()).collect();
        Self {
            drafts: Vec::new(),
            executed: 0,
            last_of_peer: BTreeMap::new(),
            accounts: BTreeMap::new(),
            crossings: (0..shards).map(|_| row()).collect(),
            written: vec![0; shards],
            values,
            shards,
        }
    }

    /// A PUBLISH that a peer is about to write, with an id of its own and `padding` bytes.
    pub(crate) fn draft(&mut self, peer: usize, topic: &str, padding: usize) -> Vec<u8> {
        let id = u32::try_from(self.drafts.len()).expect("a run is short");
        let mut data = id.to_be_bytes().to_vec();
        let padding = padding.min(PAYLOAD_LEN_MAX - 1 - topic.len() - data.len());
        data.extend((0..padding).map(|at| id.to_le_bytes()[0] ^ u8::try_from(at % 256).unwrap()));
        let bytes = wire::publish(topic, data);
        self.drafts.push(Draft {
            bytes: bytes.clone(),
            peer,
            published: None,
        });
        bytes
    }

    pub(crate) fn opened(&mut self, number: u64, policy: SlowConsumer, bytes_max: usize) {
        let account = Account::new(number, self.shards, policy, bytes_max);
        self.accounts.insert(number, account);
    }

    /// A shard has accepted a PUBLISH.
    pub(crate) fn publish(
        &mut self,
        publisher: u64,
        from: usize,
        topic: &str,
        frame: &[u8],
    ) -> Publication {
        let id = id_of(topic.len(), frame);
        let draft = &mut self.drafts[id as usize];
        assert_eq!(draft.bytes, frame, "what is executed is what was written");
        assert!(draft.published.is_none(), "frame {id} is executed twice");
        self.executed += 1;
        draft.published = Some((self.executed, from));
        let last = self.last_of_peer.insert(draft.peer, id);
        assert!(
            last < Some(id),
            "session {publisher}: {id} is executed behind {last:?}"
        );
        let publication = Publication {
            order: self.executed,
            from,
            len: frame.len(),
            topic: topic.into(),
            publisher,
            is_kept: self.values.keeps(topic),
        };
        if publication.is_kept {
            self.values.put(&publication);
        }
        publication
    }

    /// A session has subscribed to what `is_fresh` tells, and gets its newest messages first.
    pub(crate) fn begin_replay(&mut self, number: u64, is_fresh: impl Fn(&str) -> bool) {
        let values = self.values.all().filter(|value| is_fresh(&value.topic));
        let values = values.cloned().collect();
        self.account(number).begin_replay(values);
    }

    /// A session is read again, so it has got them, all if that `is_whole`, and what they stand for
    /// has been taken from all other shards.
    pub(crate) fn end_replay(&mut self, number: u64, shard: usize, since: u64, is_whole: bool) {
        for from in (0..self.shards).filter(|from| *from != shard) {
            let is_before = |it: &Crossing| it.publication.order <= since;
            self.settle(from, shard, is_before);
        }
        let values = &self.values;
        let account = self.accounts.get_mut(&number).expect("it was opened");
        account.end_replay(|value| is_whole && values.holds(&value.topic, value.order));
    }

    pub(crate) fn owe(&mut self, number: u64, publication: &Publication) {
        self.account(number).owe(publication);
    }

    /// It goes to another shard as well, because somebody there is subscribed.
    pub(crate) fn forward(&mut self, to: usize, publication: Publication) {
        self.crossings[publication.from][to].push_back(Crossing {
            publication,
            is_offered: false,
            is_handed_over: false,
            may: Wanted::new(),
            must: None,
        });
    }

    fn account(&mut self, number: u64) -> &mut Account {
        self.accounts.get_mut(&number).expect("it was opened")
    }

    /// A shard has ended its turn, and handed over some of what it has for others, or `all`.
    pub(crate) fn hand_over(&mut self, from: usize, all: bool) {
        for crossing in self.crossings[from].iter_mut().flatten() {
            crossing.is_offered = true;
            crossing.is_handed_over |= all;
        }
    }

    /// A shard has taken some of what it was handed, or `all`.
    pub(crate) fn deliver(
        &mut self,
        to: usize,
        all: bool,
        wanted: impl Fn(&Publication) -> Wanted,
    ) {
        for row in &mut self.crossings {
            for crossing in row[to].iter_mut().filter(|crossing| crossing.is_offered) {
                crossing.consider(wanted(&crossing.publication), &mut self.accounts);
            }
            while all
                && row[to]
                    .front()
                    .is_some_and(|crossing| crossing.is_handed_over)
            {
                let taken = row[to].pop_front();
                taken.expect("it is there").settle(&mut self.accounts);
            }
        }
    }

    /// How many messages were executed so far.
    pub(crate) const fn executed(&self) -> u64 {
        self.executed
    }

    /// A session was told that all it has published, up to a message of this order, has been given
    /// to whoever wants it: so it has, and with it whatever went there before.
    pub(crate) fn pass_barrier(&mut self, publisher: u64, from: usize, executed: u64) {
        let is_its_own = |it: &Crossing| {
            it.publication.publisher == publisher && it.publication.order <= executed
        };
        for to in 0..self.shards {
            self.settle(from, to, is_its_own);
        }
    }

    /// Shard `to` has taken the last of these, and all before it.
    fn settle(&mut self, from: usize, to: usize, is_it: impl Fn(&Crossing) -> bool) {
        let row = &mut self.crossings[from][to];
        let last = row.iter().rposition(is_it);
        for crossing in row.drain(..last.map_or(0, |last| last + 1)) {
            let publication = &crossing.publication;
            assert!(
                crossing.must.is_some(),
                "it is told to be in effect, and is still on its way: {publication:?}"
            );
            crossing.settle(&mut self.accounts);
        }
    }

    /// A session's socket has taken these bytes. Returns the frames that are no messages.
    pub(crate) fn taken(&mut self, number: u64, shard: usize, bytes: &[u8]) -> Vec<Vec<u8>> {
        let account = self.accounts.get_mut(&number).expect("it was opened");
        let stream = account.stream(bytes);
        let (mut rest, mut answers) = (&stream[..], Vec::new());
        while let Some((frame, behind)) = wire::split(rest) {
            rest = behind;
            if frame[0] != 5 {
                answers.push(frame.to_vec());
                continue;
            }
            let topic_len = usize::from(frame[2]);
            let draft = &self.drafts[id_of(topic_len, frame) as usize];
            assert_eq!(
                draft.bytes, frame,
                "session {number} gets a frame as it was written"
            );
            let topic = std::str::from_utf8(&frame[3..3 + topic_len]).expect("it was accepted");
            account.write(draft.published.expect("it was accepted"), topic);
            self.written[shard] += 1;
        }
        account.cut(rest);
        answers
    }

    /// How much of an answer its socket has taken, if it was cut within one.
    pub(crate) fn cut_answer_len(&self, number: u64) -> usize {
        match self.accounts[&number].rest() {
            [5, ..] => 0,
            rest => rest.len(),
        }
    }

    /// How many messages were matched for a session and not written: at least, at most.
    pub(crate) fn unwritten(&self, number: u64) -> (u64, u64) {
        self.accounts[&number].unwritten()
    }

    /// A session's socket has failed: what it is owed is lost.
    pub(crate) fn lose(&mut self, number: u64) {
        self.account(number).lose();
    }

    /// A session is owed nothing: what it might have been owed it was not, or it was dropped.
    pub(crate) fn paid(&mut self, number: u64) {
        self.account(number).paid();
    }

    /// At most so many bytes have gathered for a session since it was owed nothing.
    pub(crate) fn strain(&self, number: u64) -> usize {
        self.accounts[&number].strain
    }

    /// Whether so much has gathered that its bound may have been reached.
    pub(crate) fn was_full(&self, number: u64) -> bool {
        self.accounts[&number].was_full()
    }

    pub(crate) fn policy(&self, number: u64) -> SlowConsumer {
        self.accounts[&number].policy
    }

    /// How many frames a session is owed: at least, at most.
    pub(crate) fn owed(&self, number: u64) -> (u64, u64) {
        self.accounts[&number].owed()
    }

    /// How many were matched for it: at least, at most.
    pub(crate) fn matched(&self, number: u64) -> (u64, u64) {
        let account = &self.accounts[&number];
        let (must, may) = account.unwritten();
        (account.written + must, account.written + may)
    }

    /// A session has ended, and so many of its deliveries were dropped.
    pub(crate) fn closed(&mut self, number: u64, dropped: u64) {
        let account = self.accounts.remove(&number).expect("it was opened");
        let (must, may) = account.unwritten();
        assert!(
            (must..=may).contains(&dropped),
            "session {number}: {dropped} dropped, {must} to {may} were owed"
        );
    }

    /// Whether nothing is on its way between shards.
    pub(crate) fn is_settled(&self) -> bool {
        self.crossings.iter().flatten().all(VecDeque::is_empty)
    }
}

impl Crossing {
    /// The receiving shard may take it now, when these are subscribed.
    fn consider(&mut self, wanted: Wanted, accounts: &mut BTreeMap<u64, Account>) {
        for number in &wanted {
            let account = accounts.get_mut(number).expect("it was opened");
            account.expect(&self.publication);
        }
        self.may.extend(&wanted);
        self.must = Some(match self.must.take() {
            None => wanted,
            Some(must) => must.intersection(&wanted).copied().collect(),
        });
    }

    /// The receiving shard has taken it.
    fn settle(self, accounts: &mut BTreeMap<u64, Account>) {
        let must = self.must.unwrap_or_default();
        for number in self.may {
            if let Some(account) = accounts.get_mut(&number) {
                account.settle(&self.publication, must.contains(&number));
            }
        }
    }
}

fn id_of(topic_len: usize, frame: &[u8]) -> u32 {
    let id = frame[3 + topic_len..].first_chunk();
    u32::from_be_bytes(*id.expect("every PUBLISH has an id"))
}
