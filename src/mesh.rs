//! Shard-to-shard delivery: bounded rings of batches, one for each ordered pair of shards.
//!
//! A shard appends the runs that another one wants to that shard's outbox, and hands the batches
//! over at the end of its turn. What a full ring does not take stays here, in the spill, and the
//! publishers that fed it are not read until it has gone: nothing is dropped, nobody waits in a
//! lock, and because inboxes are always emptied, two full shards cannot deadlock.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::outbound::whole_frames;
use crate::session::SessionKey;
use crate::sync::{AtomicBool, Consumer, Ordering, Producer, PushError, RingBuffer, fence};

/// Records of runs: each a header of the run's length in bytes, its number of frames (4 bytes each,
/// little-endian) and its topic's hash (8 bytes), and so many bytes of whole frames. A number of
/// frames with `NUMBERED` in it is followed by the number (8 bytes) of the last value that the run
/// became. Words between shards are records without frames; see [`Word`].
pub(crate) type Batch = Vec<u8>;

/// The number of frames of a record that asks whether all before it has been delivered, and of the
/// one that says so. Both carry the key of the session that wants to know instead of a hash.
const ASKS: u32 = 0;
const ANSWERS: u32 = u32::MAX;
const NUMBERED: u32 = 1 << 31;

/// A batch is handed over when it has grown to this.
const BATCH_LEN: usize = 64 * 1024;
/// Batches under way between two shards.
const RING_BATCHES: usize = 8;
const RECORD_HEADER_LEN: usize = 16;
const NUMBER_LEN: usize = 8;
/// What the batches from one shard to another take beside the spill: the ring's, the empty ones on
/// their way back, and the one that is filled.
pub(crate) const RING_BYTES_MAX: usize = (2 * RING_BATCHES + 1) * BATCH_LEN;

/// How a shard that sleeps is woken, at most once per sleep.
pub struct Doorbell {
    parked: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Doorbell {
    /// A doorbell that calls `wake`, from any thread.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            parked: AtomicBool::new(false),
            wake: Box::new(wake),
        })
    }

    /// The owner is about to sleep, and looks once more whether it `has_work`; returns whether it
    /// may.
    ///
    /// SeqCst on both sides: either the owner's look comes behind the push and finds it, or the
    /// pusher's look at `parked` comes behind this store and rings.
    pub fn park(&self, has_work: impl FnOnce() -> bool) -> bool {
        self.parked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        !has_work()
    }

    /// The owner is awake.
    pub fn unpark(&self) {
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Something was pushed: wakes the owner if it sleeps; returns whether it did.
    pub fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        let sleeps = self.parked.swap(false, Ordering::SeqCst);
        if sleeps {
            (self.wake)();
        }
        sleeps
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Doorbell").field(&self.parked).finish()
    }
}

/// One shard's end of the mesh: an outbox to and an inbox from every other shard.
#[derive(Debug)]
pub struct Mesh {
    /// By shard; none to itself.
    outboxes: Vec<Option<Outbox>>,
    inboxes: Vec<Option<Inbox>>,
    /// The inbox that is looked at first, so that each has its share.
    first: usize,
    /// Bytes that the rings have taken so far.
    handed_bytes: u64,
    /// Peers woken so far.
    rung: u64,
}

/// Batches to one other shard.
#[derive(Debug)]
struct Outbox {
    filling: Batch,
    /// Full batches that the ring has not taken, the oldest first.
    spill: VecDeque<Batch>,
    spill_len: usize,
    ring: Producer<Batch>,
    empties: Consumer<Batch>,
    /// Publishers whose frames are in what is not handed over yet.
    fed_by: Vec<SessionKey>,
    /// Publishers that are not read until the spill is empty.
    stopped: Vec<SessionKey>,
    /// The ring was full: the consumer rings when it has made room.
    wants_room: Arc<AtomicBool>,
    doorbell: Arc<Doorbell>,
}

/// Batches from one other shard.
#[derive(Debug)]
struct Inbox {
    /// The batch that comes next, if a turn could not deliver all of it.
    unfinished: Option<(Batch, Position)>,
    ring: Consumer<Batch>,
    empties: Producer<Batch>,
    wants_room: Arc<AtomicBool>,
    doorbell: Arc<Doorbell>,
}

/// How far a batch was delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Where the record begins that comes next.
    pub(crate) record: usize,
    /// How many bytes of its frames were delivered already.
    pub(crate) skip: usize,
}

/// A run in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where its frames lie.
    pub(crate) frames: Range<usize>,
    pub(crate) frame_count: u32,
    /// Of its topic.
    pub(crate) hash: u64,
    /// Of the last value that it became, if its topic is kept.
    pub(crate) number: Option<u64>,
}

/// What handing over has changed for publishers, by the outbox concerned.
#[derive(Debug, Default)]
pub(crate) struct HandedOver {
    /// These are not read until outbox k has no spill.
    pub(crate) stopped: Vec<(usize, SessionKey)>,
    /// Outbox k no longer holds these up.
    pub(crate) resumed: Vec<(usize, SessionKey)>,
}

impl Mesh {
    /// The ends of a mesh between as many shards as there are doorbells, in their order.
    pub fn between(doorbells: &[Arc<Doorbell>]) -> Vec<Self> {
        Self::with_rings_of(RING_BATCHES, doorbells)
    }

    /// As `between`, with rings that take so many batches.
    pub fn with_rings_of(batches: usize, doorbells: &[Arc<Doorbell>]) -> Vec<Self> {
        let count = doorbells.len();
        let mut ends: Vec<_> = (0..count)
            .map(|_| Self {
                outboxes: (0..count).map(|_| None).collect(),
                inboxes: (0..count).map(|_| None).collect(),
                first: 0,
                handed_bytes: 0,
                rung: 0,
            })
            .collect();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let (outbox, inbox) = pair(batches, &doorbells[from], &doorbells[to]);
                ends[from].outboxes[to] = Some(outbox);
                ends[to].inboxes[from] = Some(inbox);
            }
        }
        ends
    }

    /// Appends a run, whole frames of the topic with this hash, for shard `to`. `number`: of the
    /// last value that it became.
    pub(crate) fn forward(
        &mut self,
        to: usize,
        publisher: SessionKey,
        hash: u64,
        number: Option<u64>,
        mut run: &[u8],
    ) {
        let header_len = RECORD_HEADER_LEN + number.map_or(0, |_| NUMBER_LEN);
        let Some(outbox) = self.outboxes.get_mut(to).and_then(Option::as_mut) else {
            return;
        };
        if outbox.fed_by.last() != Some(&publisher) {
            outbox.fed_by.push(publisher);
        }
        while !run.is_empty() {
            let room = BATCH_LEN.saturating_sub(outbox.filling.len() + header_len);
            let (len, frames) = whole_frames(run, room);
            if len == 0 {
                // A run is whole frames, and a frame fits into an empty batch.
                assert!(!outbox.filling.is_empty(), "a run is whole frames");
                outbox.close_batch();
                continue;
            }
            let (record, rest) = run.split_at(len);
            let word = |count: u64| u32::try_from(count).expect("a batch is short");
            let numbered = number.map_or(0, |_| NUMBERED);
            let header = header(word(len as u64), word(frames) | numbered, hash);
            outbox.filling.extend_from_slice(&header);
            if let Some(number) = number {
                outbox.filling.extend_from_slice(&number.to_le_bytes());
            }
            outbox.filling.extend_from_slice(record);
            run = rest;
        }
    }

    /// Asks shard `to`, for the session `key` here, whether it has delivered all before this.
    pub(crate) fn ask(&mut self, to: usize, key: SessionKey) {
        self.append_word(to, ASKS, key);
    }

    /// Answers shard `to` what it has asked for `key` there.
    pub(crate) fn answer(&mut self, to: usize, key: SessionKey) {
        self.append_word(to, ANSWERS, key);
    }

    fn append_word(&mut self, to: usize, word: u32, key: SessionKey) {
        let Some(outbox) = self.outboxes.get_mut(to).and_then(Option::as_mut) else {
            return;
        };
        if outbox.filling.len() + RECORD_HEADER_LEN > BATCH_LEN {
            outbox.close_batch();
        }
        let header = header(0, word, key.to_bits());
        outbox.filling.extend_from_slice(&header);
    }

    /// Hands over what the rings take, rings doorbells, and says which publishers must wait.
    pub(crate) fn hand_over(&mut self) -> HandedOver {
        let mut change = HandedOver::default();
        for (to, outbox) in self.outboxes.iter_mut().enumerate() {
            let Some(outbox) = outbox else { continue };
            outbox.close_batch();
            let taken = outbox.push_spill();
            if taken > 0 {
                self.handed_bytes += taken as u64;
                self.rung += u64::from(outbox.doorbell.ring());
            }
            if outbox.spill.is_empty() {
                outbox.fed_by.clear();
                change
                    .resumed
                    .extend(outbox.stopped.drain(..).map(|key| (to, key)));
            } else {
                change
                    .stopped
                    .extend(outbox.fed_by.iter().map(|key| (to, *key)));
                outbox.stopped.append(&mut outbox.fed_by);
            }
        }
        change
    }

    /// The next batch from a peer, each in its turn, and where to go on in it; the peer's number is
    /// needed to give it back.
    pub(crate) fn take(&mut self) -> Option<(usize, Batch, Position)> {
        let count = self.inboxes.len();
        for offset in 0..count {
            let from = (self.first + offset) % count;
            let Some(inbox) = &mut self.inboxes[from] else {
                continue;
            };
            if let Some((batch, position)) = inbox.unfinished.take() {
                self.first = from + 1;
                return Some((from, batch, position));
            }
            let Ok(batch) = inbox.ring.pop() else {
                continue;
            };
            // The pusher has set this flag before it looked for room; see `push_spill`.
            fence(Ordering::SeqCst);
            if inbox.wants_room.swap(false, Ordering::SeqCst) {
                self.rung += u64::from(inbox.doorbell.ring());
            }
            self.first = from + 1;
            return Some((from, batch, Position::default()));
        }
        None
    }

    /// Gives an empty batch back to the peer that it came from.
    pub(crate) fn give_back(&mut self, from: usize, mut batch: Batch) {
        batch.clear();
        if let Some(Some(inbox)) = self.inboxes.get_mut(from) {
            // A ring full of empty ones needs no more.
            let _ = inbox.empties.push(batch);
        }
    }

    /// Keeps a batch that was delivered up to `position`; it is the first to be taken.
    pub(crate) fn put_back(&mut self, from: usize, batch: Batch, position: Position) {
        if let Some(Some(inbox)) = self.inboxes.get_mut(from) {
            debug_assert!(inbox.unfinished.is_none(), "a turn ends with one");
            inbox.unfinished = Some((batch, position));
        }
    }

    /// Whether a peer has left something, or a ring that was full has room: no reason to sleep.
    pub(crate) fn has_work(&self) -> bool {
        !self.is_delivered()
            || self
                .outboxes
                .iter()
                .flatten()
                .any(|outbox| !outbox.spill.is_empty() && !outbox.ring.is_full())
    }

    /// Whether everything appended has been handed over.
    pub(crate) fn is_handed_over(&self) -> bool {
        let outboxes = self.outboxes.iter().flatten();
        outboxes
            .map(|outbox| outbox.spill.len() + outbox.filling.len())
            .sum::<usize>()
            == 0
    }

    /// Whether nothing waits in any inbox.
    pub(crate) fn is_delivered(&self) -> bool {
        self.inboxes
            .iter()
            .flatten()
            .all(|inbox| inbox.unfinished.is_none() && inbox.ring.is_empty())
    }

    /// Bytes handed over so far, and peers woken because something was, or because there is room.
    pub(crate) const fn totals(&self) -> (u64, u64) {
        (self.handed_bytes, self.rung)
    }

    /// All spills together, in bytes.
    pub(crate) fn spill_total(&self) -> usize {
        let outboxes = self.outboxes.iter().flatten();
        outboxes.map(|outbox| outbox.spill_len).sum()
    }

    /// The longest spill, in bytes.
    pub(crate) fn spill_len(&self) -> usize {
        self.outboxes
            .iter()
            .flatten()
            .map(|outbox| outbox.spill_len)
            .max()
            .unwrap_or(0)
    }
}

/// What a record without frames says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The peer asks, for this session of its own, whether all before has been delivered.
    Asks(SessionKey),
    /// All that this session here has published to the peer before its ping was delivered.
    Answers(SessionKey),
}

impl Record {
    /// What it says, if it has no frames.
    pub(crate) fn word(&self) -> Option<Word> {
        match self.frame_count {
            ASKS => Some(Word::Asks(SessionKey::of_bits(self.hash))),
            ANSWERS => Some(Word::Answers(SessionKey::of_bits(self.hash))),
            _ => None,
        }
    }

    /// The record that begins at `at`; `None` at the end of the batch.
    pub(crate) fn read(batch: &[u8], at: usize) -> Option<Self> {
        let (len, behind) = batch.get(at..)?.split_first_chunk()?;
        let (frame_count, behind) = behind.split_first_chunk()?;
        let (hash, behind) = behind.split_first_chunk()?;
        let mut start = at + RECORD_HEADER_LEN;
        let (mut frame_count, mut number) = (u32::from_le_bytes(*frame_count), None);
        if frame_count & NUMBERED != 0 && frame_count != ANSWERS {
            let (bytes, _) = behind.split_first_chunk()?;
            number = Some(u64::from_le_bytes(*bytes));
            frame_count &= !NUMBERED;
            start += NUMBER_LEN;
        }
        Some(Self {
            frames: start..start + u32::from_le_bytes(*len) as usize,
            frame_count,
            hash: u64::from_le_bytes(*hash),
            number,
        })
    }
}

/// What a record begins with: the length of its frames, how many they are, and whose they are.
fn header(len: u32, frames: u32, hash: u64) -> [u8; RECORD_HEADER_LEN] {
    let mut header = [0; RECORD_HEADER_LEN];
    header[..4].copy_from_slice(&len.to_le_bytes());
    header[4..8].copy_from_slice(&frames.to_le_bytes());
    header[8..].copy_from_slice(&hash.to_le_bytes());
    header
}

fn pair(batches: usize, from: &Arc<Doorbell>, to: &Arc<Doorbell>) -> (Outbox, Inbox) {
    let (ring_in, ring_out) = RingBuffer::new(batches);
    let (empties_in, empties_out) = RingBuffer::new(batches);
    let wants_room = Arc::new(AtomicBool::new(false));
    let outbox = Outbox {
        filling: Batch::new(),
        spill: VecDeque::new(),
        spill_len: 0,
        ring: ring_in,
        empties: empties_out,
        fed_by: Vec::new(),
        stopped: Vec::new(),
        wants_room: Arc::clone(&wants_room),
        doorbell: Arc::clone(to),
    };
    let inbox = Inbox {
        unfinished: None,
        ring: ring_out,
        empties: empties_in,
        wants_room,
        doorbell: Arc::clone(from),
    };
    (outbox, inbox)
}

impl Outbox {
    fn close_batch(&mut self) {
        if self.filling.is_empty() {
            return;
        }
        let empty = self
            .empties
            .pop()
            .unwrap_or_else(|_| Batch::with_capacity(BATCH_LEN));
        let full = std::mem::replace(&mut self.filling, empty);
        self.spill_len += full.len();
        self.spill.push_back(full);
    }

    /// Moves batches into the ring, the oldest first; returns how many bytes went.
    fn push_spill(&mut self) -> usize {
        let before = self.spill_len;
        while let Some(batch) = self.spill.pop_front() {
            let len = batch.len();
            let Err(PushError::Full(batch)) = self.ring.push(batch) else {
                self.spill_len -= len;
                continue;
            };
            self.spill.push_front(batch);
            if self.wants_room.swap(true, Ordering::SeqCst) {
                break;
            }
            // Once more behind the flag: the consumer may have made room before it could see it.
            fence(Ordering::SeqCst);
            if self.ring.is_full() {
                break;
            }
        }
        before - self.spill_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::FrameBuf;

    fn silent() -> Arc<Doorbell> {
        Doorbell::new(|| ())
    }

    fn frames(count: usize) -> Vec<u8> {
        let frame = |n: usize| FrameBuf::publish("t", &vec![7; n % 240]).unwrap();
        (0..count).flat_map(|n| frame(n).bytes().to_vec()).collect()
    }

    fn drain(mesh: &mut Mesh) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some((from, batch, mut position)) = mesh.take() {
            while let Some(record) = Record::read(&batch, position.record) {
                position.record = record.frames.end;
                bytes.extend_from_slice(&batch[record.frames]);
            }
            mesh.give_back(from, batch);
        }
        bytes
    }

    #[test]
    fn f6_what_a_full_ring_does_not_take_waits_and_its_publisher_with_it() {
        let mut ends = Mesh::between(&[silent(), silent()]);
        let (greedy, modest) = (SessionKey::new(1, 0), SessionKey::new(2, 0));
        let run = frames(8000);
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        ends[0].forward(1, greedy, 0, None, &run);
        sent.extend_from_slice(&run);
        let change = ends[0].hand_over();
        assert!(run.len() > RING_BATCHES * BATCH_LEN);
        assert_eq!(change.stopped, [(1, greedy)]);
        assert!(ends[0].spill_len() > 0 && !ends[0].is_handed_over() && !ends[0].has_work());

        received.extend(drain(&mut ends[1]));
        assert!(ends[0].has_work());
        ends[0].forward(1, modest, 0, None, &frames(10));
        sent.extend_from_slice(&frames(10));
        let change = ends[0].hand_over();
        assert_eq!(
            (change.stopped, change.resumed),
            (vec![], vec![(1, greedy)])
        );
        received.extend(drain(&mut ends[1]));
        assert!(ends[0].is_handed_over() && ends[1].is_delivered());
        assert!(received == sent);
    }

    #[test]
    fn f10_a_doorbell_rings_once_for_a_sleeper_and_not_for_one_who_is_awake() {
        let rung = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&rung);
        let bell = Doorbell::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        bell.ring();
        assert!(bell.park(|| false));
        bell.ring();
        bell.ring();
        assert_eq!(rung.load(Ordering::SeqCst), 1);
        assert!(!bell.park(|| true), "who has work does not sleep");
        bell.unpark();
        bell.ring();
        assert_eq!(rung.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn c16_every_inbox_gets_its_share() {
        let mut ends = Mesh::between(&[silent(), silent(), silent()]);
        for from in [1, 2] {
            for _ in 0..3 {
                ends[from].forward(0, SessionKey::new(0, 0), 0, None, &frames(1));
                ends[from].hand_over();
            }
        }
        let order: Vec<_> = std::iter::from_fn(|| ends[0].take())
            .map(|(from, ..)| from)
            .collect();
        assert_eq!(order, [1, 2, 1, 2, 1, 2]);
    }
}
