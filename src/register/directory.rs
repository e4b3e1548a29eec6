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
//! * one that was removed: it was marked *retired* before it left the table, hence before S; the
//!   load sees the mark, looks again under the lock and finds the new one;
//! * "nobody", with the number of births that this was true for: the topic's birth raised `births`
//!   before S, so the comparison fails and the look under the lock finds it.
//!
//! A removal and a birth cannot interleave, because both hold the lock of the topic's part.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Who in this process wants a topic. Bit k: shard k. Bit 63: retired, look the topic up again.
#[derive(Debug, Default)]
pub struct Interest(AtomicU64);

const RETIRED: u64 = 1 << 63;

impl Interest {
    /// The shards that want the topic, a bit each; `None` if the topic must be looked up again.
    #[inline]
    pub fn shards(&self) -> Option<u64> {
        // SeqCst, a plain load on x86-64: this load and the stores under the lock stand in one
        // order with whatever told the publisher of the subscription.
        let word = self.0.load(Ordering::SeqCst);
        (word != RETIRED).then_some(word)
    }
}

/// What a shard may remember about a topic that it has no subscriber for.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Shards, as long as the word is not retired.
    By(Arc<Interest>),
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
    /// Keyed per process.
    hasher: RandomState,
}

/// As many locks, so that shards seldom want the same one.
const PARTS: usize = 64;

#[derive(Debug, Default)]
struct Part {
    births: AtomicU64,
    topics: Mutex<HashTable<Topic>>,
}

#[derive(Debug)]
struct Topic {
    name: Box<[u8]>,
    interest: Arc<Interest>,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            parts: std::array::from_fn(|_| Part::default()),
            hasher: RandomState::new(),
        }
    }
}

impl Directory {
    /// An empty directory with hash keys of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The hash by which this directory, and whoever remembers its answers, finds a topic.
    #[inline]
    pub fn hash(&self, topic: &[u8]) -> u64 {
        self.hasher.hash_one(topic)
    }

    /// `shard` has got its first subscriber for `topic`. When this returns, every publish sees it.
    pub fn join(&self, shard: u8, topic: &[u8]) -> Arc<Interest> {
        let hash = self.hash(topic);
        let part = self.part(hash);
        let mut topics = part.lock();
        let rehash = |topic: &Topic| self.hasher.hash_one(&*topic.name);
        let interest = match topics.entry(hash, |known| *known.name == *topic, rehash) {
            Entry::Occupied(known) => Arc::clone(&known.get().interest),
            Entry::Vacant(vacant) => {
                let born = Topic {
                    name: topic.into(),
                    interest: Arc::default(),
                };
                part.births.fetch_add(1, Ordering::SeqCst);
                Arc::clone(&vacant.insert(born).get().interest)
            }
        };
        interest.0.fetch_or(bit(shard), Ordering::SeqCst);
        interest
    }

    /// `shard` has lost its last subscriber for `topic`. The last shard takes the topic with it.
    pub fn leave(&self, shard: u8, topic: &[u8]) {
        let hash = self.hash(topic);
        let mut topics = self.part(hash).lock();
        let Ok(known) = topics.find_entry(hash, |known| *known.name == *topic) else {
            return;
        };
        let word = &known.get().interest.0;
        let left = word.fetch_and(!bit(shard), Ordering::SeqCst) & !bit(shard);
        if left == 0 {
            // Before it leaves the table: whoever still holds it must see the mark.
            word.store(RETIRED, Ordering::SeqCst);
            known.remove();
        }
    }

    /// Who wants `topic`, in a form that may be remembered.
    pub fn look_up(&self, topic: &[u8]) -> Wanted {
        let hash = self.hash(topic);
        let part = self.part(hash);
        let topics = part.lock();
        match topics.find(hash, |known| *known.name == *topic) {
            Some(known) => Wanted::By(Arc::clone(&known.interest)),
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
    fn lock(&self) -> MutexGuard<'_, HashTable<Topic>> {
        // Nothing in here panics between two changes that belong together.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bit(shard: u8) -> u64 {
    debug_assert!(shard < 63, "bit 63 says something else");
    1 << shard
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(directory: &Directory, topic: &[u8]) -> u64 {
        let wanted = directory.look_up(topic);
        directory
            .recall(directory.hash(topic), &wanted)
            .expect("it was looked up just now")
    }

    #[test]
    fn a_bit_is_there_as_long_as_its_shard_wants_the_topic() {
        let directory = Directory::new();
        assert_eq!(shards(&directory, b"a"), 0);
        directory.join(0, b"a");
        directory.join(62, b"a");
        directory.join(3, b"b");
        assert_eq!(shards(&directory, b"a"), 1 | 1 << 62);
        directory.leave(0, b"a");
        directory.leave(0, b"a");
        assert_eq!(shards(&directory, b"a"), 1 << 62);
        directory.leave(62, b"a");
        directory.leave(3, b"b");
        assert_eq!(directory.topic_count(), 0);
    }

    #[test]
    fn what_was_remembered_is_not_believed_after_a_birth_or_a_removal() {
        let directory = Directory::new();
        let hash = directory.hash(b"t");
        let nobody = directory.look_up(b"t");
        directory.join(1, b"t");
        assert_eq!(directory.recall(hash, &nobody), None);
        let by = directory.look_up(b"t");
        directory.leave(1, b"t");
        assert_eq!(directory.recall(hash, &by), None);
        directory.join(2, b"t");
        assert_eq!(directory.recall(hash, &by), None, "retired for ever");
        assert_eq!(shards(&directory, b"t"), 1 << 2);
    }
}
