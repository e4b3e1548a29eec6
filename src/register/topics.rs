//! The topics of a register, each at an index of its own as long as it has subscribers.

use std::ops::{Index, IndexMut};

use smallvec::SmallVec;

use crate::pages::Pages;
use crate::register::directory::Interest;
use crate::session::SessionKey;

#[derive(Debug)]
pub(super) struct Topic {
    /// Its name, and which shards want it. Of a directory's, if the shard is one of several.
    pub(super) interest: Interest,
    pub(super) subscribers: SmallVec<[SessionKey; 2]>,
}

/// Topics by index, the freed ones of which are given again. None of them ever moves: a table that
/// doubles leaves holes in the heap where it has been, beside 15,000 idle topics 50 bytes for each.
#[derive(Debug, Default)]
pub(super) struct Topics {
    places: Pages<Option<Topic>>,
    /// How many indices were ever given.
    used: u32,
    free: Vec<u32>,
}

impl Topics {
    pub(super) fn len(&self) -> usize {
        self.used as usize - self.free.len()
    }

    pub(super) fn insert(&mut self, topic: Topic) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.used += 1;
            self.used - 1
        });
        *self.places.reach(index as usize) = Some(topic);
        index
    }

    /// # Panics
    /// If there is no such topic.
    pub(super) fn remove(&mut self, index: u32) -> Topic {
        let place = self.places.get_mut(index as usize);
        let topic = place.and_then(Option::take).expect(THERE);
        self.free.push(index);
        topic
    }
}

/// Indices are those of names and links, which go before their topic does.
const THERE: &str = "an index is that of a topic";

impl Index<u32> for Topics {
    type Output = Topic;

    #[inline]
    fn index(&self, index: u32) -> &Topic {
        let topic = self.places.get(index as usize).and_then(Option::as_ref);
        topic.expect(THERE)
    }
}

impl IndexMut<u32> for Topics {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut Topic {
        let topic = self.places.get_mut(index as usize).and_then(Option::as_mut);
        topic.expect(THERE)
    }
}
