//! The directory: which shards of the process have a subscriber for a topic.
//!
//! The one structure that shards share. A shard writes to it when a topic gets its first subscriber
//! there or loses its last; on the path of a message it is one load of one word.
//!
//! **Guarantee.** Once a SUBSCRIBE has been processed by its shard, every PUBLISH to that topic
//! that any shard processes later finds that shard's bit. Let S be the unlock that ends `join`. A
//! later PUBLISH holds one of three things:
//!
//! * an [`Interest`] that is still in the directory: it is the word in which the bit was set before
//!   S, so the load sees it;
//! * one that was removed: its word became 0, *retired*, before it left the table, hence before S;
//!   the load sees that, looks again under the lock and finds the new one;
//! * "nobody", with the number of births that this was true for: the topic's birth raised `births`
//!   before S, so the comparison fails and the look under the lock finds it.
//!
//! A removal and a birth cannot interleave, because both hold the lock of the topic's part.
//!
//! Filters are matched by the shard that has them: a shard's first one sets its bit in a word of
//! its own, which every PUBLISH loads as well, and its last one clears it.

use std::fmt;
use std::sync::PoisonError;

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use triomphe::ThinArc;

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// A topic, and who in this process wants it: its name behind a word with a bit for each shard, in
/// one allocation that the directory and the registers of those shards share.
///
/// Invariant: a word of the directory has at least one bit. The word 0 is retired for ever: the
/// topic must be looked up again.
#[derive(Clone)]
pub struct Interest(ThinArc<AtomicU64, u8>);

impl Interest {
    /// A topic that no directory knows of.
    pub(crate) fn alone(topic: &[u8]) -> Self {
        Self::new(topic, 0)
    }

    fn new(topic: &[u8], word: u64) -> Self {
        Self(ThinArc::from_header_and_slice(AtomicU64::new(word), topic))
    }

    /// The topic's name.
    #[inline]
    pub fn topic(&self) -> &[u8] {
        &self.0.slice
    }

    /// The shards that want the topic, a bit each; `None` if the topic must be looked up again.
    #[inline]
    pub fn shards(&self) -> Option<u64> {
        // SeqCst, a plain load on x86-64: this load and the stores under the lock stand in one
        // order with whatever told the publisher of the subscription.
        let word = self.word().load(Ordering::SeqCst);
        (word != 0).then_some(word)
    }

    fn word(&self) -> &AtomicU64 {
        &self.0.header.header
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = self.topic().escape_ascii();
        write!(f, "Interest({topic}: {:#b})", self.shards().unwrap_or(0))
    }
}

/// What a shard may remember about a topic that it has no subscriber for.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Shards, as long as the word is not retired.
    By(Interest),
    /// Nobody, as long as no topic was born in its part.
    Nobody {
        /// How many had been born by then.
        births: u64,
    },
}

/// Topics that somebody wants, and who.
#[derive(Debug)]
pub struct Directory {
    /// Chosen by the topic's hash.
    parts: [Part; PARTS],
    /// A bit for each shard that has a filter: it gets all that is published.
    filtering: AtomicU64,
    /// Keyed per process.
    hasher: RandomState,
}

/// As many locks, so that shards seldom want the same one.
const PARTS: usize = 64;

#[derive(Debug, Default)]
struct Part {
    births: AtomicU64,
    topics: Mutex<HashTable<Interest>>,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            parts: std::array::from_fn(|_| Part::default()),
            filtering: AtomicU64::new(0),
            hasher: RandomState::new(),
        }
    }
}

impl Directory {
    /// An empty directory with hash keys of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The keys by which it hashes. Registers that use the same ones hash a topic once for both.
    pub fn hasher(&self) -> RandomState {
        self.hasher.clone()
    }

    /// The hash by which this directory, and whoever remembers its answers, finds a topic.
    #[inline]
    pub fn hash(&self, topic: &[u8]) -> u64 {
        self.hasher.hash_one(topic)
    }

    /// `shard` has got its first subscriber for `topic`. When this returns, every publish sees it.
    pub fn join(&self, shard: u8, topic: &[u8]) -> Interest {
        let hash = self.hash(topic);
        let part = self.part(hash);
        let mut topics = part.lock();
        let rehash = |known: &Interest| self.hash(known.topic());
        match topics.entry(hash, |known| known.topic() == topic, rehash) {
            Entry::Occupied(known) => {
                let interest = known.get().clone();
                interest.word().fetch_or(bit(shard), Ordering::SeqCst);
                interest
            }
            Entry::Vacant(vacant) => {
                let born = Interest::new(topic, bit(shard));
                part.births.fetch_add(1, Ordering::SeqCst);
                vacant.insert(born).get().clone()
            }
        }
    }

    /// `shard` has lost its last subscriber for `topic`. The last shard takes the topic with it.
    pub fn leave(&self, shard: u8, topic: &[u8]) {
        let hash = self.hash(topic);
        let mut topics = self.part(hash).lock();
        let Ok(known) = topics.find_entry(hash, |known| known.topic() == topic) else {
            return;
        };
        let word = known.get().word();
        // With its last bit the word is retired, and that before it leaves the table: whoever still
        // holds it must see that it is.
        let left = word.fetch_and(!bit(shard), Ordering::SeqCst) & !bit(shard);
        if left == 0 {
            known.remove();
        }
    }

    /// Who wants `topic`, in a form that may be remembered. `hash`: of the topic, by
    /// [`Directory::hash`].
    pub fn look_up(&self, hash: u64, topic: &[u8]) -> Wanted {
        let part = self.part(hash);
        let topics = part.lock();
        match topics.find(hash, |known| known.topic() == topic) {
            Some(known) => Wanted::By(known.clone()),
            None => Wanted::Nobody {
                births: part.births.load(Ordering::SeqCst),
            },
        }
    }

    /// The shards in a remembered answer; `None` if it is no longer true.
    #[inline]
    pub fn recall(&self, hash: u64, wanted: &Wanted) -> Option<u64> {
        match wanted {
            Wanted::By(interest) => interest.shards(),
            Wanted::Nobody { births } => {
                (self.part(hash).births.load(Ordering::SeqCst) == *births).then_some(0)
            }
        }
    }

    /// `shard` has its first filter, or has lost its last one. When this returns with a filter,
    /// every publish sees it.
    pub fn set_filtering(&self, shard: u8, has_filters: bool) {
        // SeqCst, as the words of topics.
        match has_filters {
            true => self.filtering.fetch_or(bit(shard), Ordering::SeqCst),
            false => self.filtering.fetch_and(!bit(shard), Ordering::SeqCst),
        };
    }

    /// The shards that want whatever is published, because they have filters.
    #[inline]
    pub fn filtering(&self) -> u64 {
        self.filtering.load(Ordering::SeqCst)
    }

    /// How many topics somebody wants.
    pub fn topic_count(&self) -> usize {
        self.parts.iter().map(|part| part.lock().len()).sum()
    }

    fn part(&self, hash: u64) -> &Part {
        // The low bits: the table inside the part uses the others.
        &self.parts[usize::from(hash.to_le_bytes()[0]) % PARTS]
    }
}

impl Part {
    fn lock(&self) -> MutexGuard<'_, HashTable<Interest>> {
        // Nothing in here panics between two changes that belong together.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bit(shard: u8) -> u64 {
    debug_assert!(shard < 64, "a bit for each");
    1 << shard
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(directory: &Directory, topic: &[u8]) -> u64 {
        let hash = directory.hash(topic);
        let wanted = directory.look_up(hash, topic);
        let shards = directory.recall(hash, &wanted);
        shards.expect("it was looked up just now")
    }

    #[test]
    fn e6_topics_that_collide_in_one_directory_do_not_in_another() {
        let (probed, attacked) = (Directory::new(), Directory::new());
        let bucket = |directory: &Directory, topic: &[u8; 4]| directory.hash(topic) & 0x3FF;
        let topics = (0..200_000_u32).map(u32::to_be_bytes);
        let wanted = bucket(&probed, &[0; 4]);
        let crafted: Vec<_> = topics
            .filter(|topic| bucket(&probed, topic) == wanted)
            .collect();
        assert!(crafted.len() > 100, "one in a thousand does");
        let wanted = bucket(&attacked, &crafted[0]);
        let colliding = crafted[1..]
            .iter()
            .filter(|topic| bucket(&attacked, topic) == wanted);
        assert!(colliding.count() < 10, "no more than by chance");
    }

    #[test]
    fn a_bit_is_there_as_long_as_its_shard_wants_the_topic() {
        let directory = Directory::new();
        assert_eq!(shards(&directory, b"a"), 0);
        directory.join(0, b"a");
        directory.join(63, b"a");
        directory.join(3, b"b");
        assert_eq!(shards(&directory, b"a"), 1 | 1 << 63);
        directory.leave(0, b"a");
        directory.leave(0, b"a");
        assert_eq!(shards(&directory, b"a"), 1 << 63);
        directory.leave(63, b"a");
        directory.leave(3, b"b");
        assert_eq!(directory.topic_count(), 0);
    }

    #[test]
    fn what_was_remembered_is_not_believed_after_a_birth_or_a_removal() {
        let directory = Directory::new();
        let hash = directory.hash(b"t");
        let nobody = directory.look_up(hash, b"t");
        directory.join(1, b"t");
        assert_eq!(directory.recall(hash, &nobody), None);
        let by = directory.look_up(hash, b"t");
        directory.leave(1, b"t");
        assert_eq!(directory.recall(hash, &by), None);
        directory.join(2, b"t");
        assert_eq!(directory.recall(hash, &by), None, "retired for ever");
        assert_eq!(shards(&directory, b"t"), 1 << 2);
    }
}
