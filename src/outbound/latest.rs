//! The newest frame of each topic, in the order of their last update.
//!
//! Frames are appended to a log; an index says which of them is the newest of its topic. What has
//! been replaced stays until it is a quarter of the log or more, then the rest moves together: each
//! byte moves a constant number of times on average, however often a topic is updated.

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::outbound::Refused;
use crate::packet::{Frame, HEADER_LEN};

/// Whole PUBLISH frames, at most one that counts of each topic.
///
/// Invariant: `offsets` holds where each frame that counts begins in `log`, `live_len` is the
/// length of these together, and what else is in `log` is whole frames that were replaced.
#[derive(Debug, Default)]
pub(super) struct Latest {
    log: Vec<u8>,
    offsets: HashTable<u32>,
    live_len: usize,
    /// Keyed, so that nobody can choose topics that collide.
    hasher: RandomState,
}

const LOG_LEN_MIN: usize = 4 * 1024;

impl Latest {
    /// How many frames count.
    pub(super) fn frames(&self) -> u64 {
        self.offsets.len() as u64
    }

    /// Bytes of memory.
    pub(super) fn allocated(&self) -> usize {
        self.log.capacity() + self.offsets.allocation_size() + size_of::<Self>()
    }

    /// Adds a frame; whether it replaced an older one.
    pub(super) fn push(&mut self, frame: &[u8], bytes_max: usize) -> Result<bool, Refused> {
        self.make_room(frame.len(), bytes_max)?;
        let at = u32::try_from(self.log.len()).map_err(|_| Refused::Full)?;
        let hash = self.hasher.hash_one(topic(frame));
        let (log, hasher) = (&self.log, &self.hasher);
        let entry = self.offsets.entry(
            hash,
            |&known| topic(&log[known as usize..]) == topic(frame),
            |&known| hasher.hash_one(topic(&log[known as usize..])),
        );
        let replaced = match entry {
            Entry::Occupied(mut known) => {
                let older = std::mem::replace(known.get_mut(), at);
                self.live_len -= frame_len(&self.log[older as usize..]);
                true
            }
            Entry::Vacant(vacant) => {
                vacant.insert(at);
                false
            }
        };
        self.live_len += frame.len();
        self.log.extend_from_slice(frame);
        Ok(replaced)
    }

    /// The frames that count, one behind the other, and how many they are.
    pub(super) fn into_bytes(mut self) -> (Vec<u8>, u64) {
        self.compact();
        (self.log, self.offsets.len() as u64)
    }

    /// Room for a frame of `len` bytes, and for an entry of its own.
    fn make_room(&mut self, len: usize, bytes_max: usize) -> Result<(), Refused> {
        if self.offsets.len() == self.offsets.capacity() {
            let (log, hasher) = (&self.log, &self.hasher);
            let hash = |&known: &u32| hasher.hash_one(topic(&log[known as usize..]));
            // It doubles: both tables exist for a moment, the old one within what is added.
            let grown = 2 * self.offsets.allocation_size();
            if self.allocated() + grown > bytes_max {
                return Err(Refused::Full);
            }
            self.offsets
                .try_reserve(1, hash)
                .map_err(|_| Refused::NoMemory)?;
        }
        if self.log.len() + len <= self.log.capacity() {
            return Ok(());
        }
        let replaced_len = self.log.len() - self.live_len;
        if replaced_len * 4 >= self.log.len() && replaced_len >= len {
            self.compact();
            return Ok(());
        }
        let log_max = bytes_max.saturating_sub(self.allocated() - self.log.capacity());
        let wanted = (2 * self.log.capacity()).max(LOG_LEN_MIN).min(log_max);
        if wanted < self.log.len() + len {
            return Err(Refused::Full);
        }
        self.log
            .try_reserve_exact(wanted - self.log.len())
            .map_err(|_| Refused::NoMemory)
    }

    /// Moves the frames that count together.
    fn compact(&mut self) {
        let (mut from, mut to) = (0, 0);
        while from < self.log.len() {
            let len = frame_len(&self.log[from..]);
            let hash = self.hasher.hash_one(topic(&self.log[from..]));
            let offset = self.offsets.find_mut(hash, |&known| known as usize == from);
            if let Some(offset) = offset {
                *offset = u32::try_from(to).expect("it only becomes smaller");
                self.log.copy_within(from..from + len, to);
                to += len;
            }
            from += len;
        }
        self.log.truncate(to);
    }
}

/// The topic of the PUBLISH frame that `bytes` begin with.
fn topic(bytes: &[u8]) -> &[u8] {
    let len = usize::from(bytes[HEADER_LEN]);
    &bytes[HEADER_LEN + 1..][..len]
}

fn frame_len(bytes: &[u8]) -> usize {
    Frame::split_first(bytes).map_or(bytes.len(), |(frame, _)| frame.bytes().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::FrameBuf;

    fn frame(topic: &str, data: &str) -> Vec<u8> {
        FrameBuf::publish(topic, data.as_bytes())
            .unwrap()
            .bytes()
            .to_vec()
    }

    #[test]
    fn the_newest_of_each_topic_stay_in_the_order_of_their_last_update() {
        let mut latest = Latest::default();
        let mut replaced = 0;
        for (topic, data) in [
            ("a", "1"),
            ("b", "2"),
            ("", "3"),
            ("a", "4"),
            ("b", "55555"),
        ] {
            replaced += u32::from(latest.push(&frame(topic, data), 1 << 16).unwrap());
        }
        assert_eq!((replaced, latest.frames()), (2, 3));
        let expected = [frame("", "3"), frame("a", "4"), frame("b", "55555")].concat();
        assert_eq!(latest.into_bytes(), (expected, 3));
    }

    #[test]
    fn one_busy_topic_among_many_needs_no_more_room_than_the_bound() {
        let (mut latest, bound) = (Latest::default(), 64 * 1024);
        for n in 0..300 {
            let topic = format!("quiet{n}");
            latest.push(&frame(&topic, &"x".repeat(60)), bound).unwrap();
        }
        for n in 0..100_000 {
            assert!(latest.push(&frame("busy", &n.to_string()), bound).unwrap() || n == 0);
            assert!(latest.allocated() <= bound);
        }
        let (bytes, frames) = latest.into_bytes();
        assert_eq!(frames, 301);
        assert!(bytes.ends_with(&frame("busy", "99999")));
    }

    #[test]
    fn more_topics_than_fit_are_refused_within_the_bound() {
        let (mut latest, bound) = (Latest::default(), 64 * 1024);
        let refusal = (0..10_000).find_map(|n| {
            let refused = latest.push(&frame(&n.to_string(), "data"), bound).err();
            assert!(latest.allocated() <= bound);
            refused
        });
        assert_eq!(refusal, Some(Refused::Full));
        let live = latest.log.len();
        assert!(live > bound / 4, "{live} bytes of frames");
        let (bytes, frames) = latest.into_bytes();
        assert_eq!(crate::outbound::whole_frames(&bytes, usize::MAX).1, frames);
    }
}
