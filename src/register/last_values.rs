//! Last values: of each topic under some prefixes the newest message, for who subscribes later.
//!
//! All shards of a broker share them. Each value has a number, higher than that of every value
//! stored before it.
//!
//! **Guarantee.** A subscriber that has joined first and asked for `newest` then, and that takes
//! values up to this number from here and messages with higher ones as they come, gets every value
//! that was newest when it joined and every later message, none twice and none older behind a
//! newer one of its publisher. A publisher stores first and looks for subscribers then:
//!
//! * With a higher number it has taken it behind the subscriber's look at `newest`, so it finds the
//!   subscriber, which had joined before.
//! * With a lower one it had taken it before. It holds its part's lock from then on until the value
//!   is there, so the subscriber, which takes that lock later, finds this value or a newer one.
//!
//! Both numbers are in one order with what tells publishers of subscribers (SeqCst).

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError};

use hashbrown::HashTable;

use crate::config::Config;
use crate::packet::Frame;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};

/// The newest messages of topics that are kept.
///
/// ```
/// use hvlp::packet::FrameBuf;
/// use hvlp::register::last_values::{LastValues, Prefixes};
///
/// let values = LastValues::new(Prefixes::of(["state/"]), 1000, 1 << 20);
/// let message = FrameBuf::publish("state/door", b"open")?;
/// assert!(values.prefixes().cover(b"state/door"));
/// assert_eq!(values.store(7, message.bytes()), 1);
/// assert_eq!(values.find(7, b"state/door", 1).unwrap(), message.bytes());
/// # Ok::<(), hvlp::packet::EncodeError>(())
/// ```
#[derive(Debug)]
pub struct LastValues {
    prefixes: Prefixes,
    topics_max: usize,
    bytes_max: usize,
    /// Chosen by the topic's hash.
    parts: [Part; PARTS],
    /// The number of the newest value.
    newest: AtomicU64,
    topics: AtomicUsize,
    bytes: AtomicUsize,
    evicted: AtomicU64,
}

/// As many locks, so that shards seldom want the same one.
const PARTS: usize = 64;
/// What a value takes beside its frame: its entry and that in the table by name, which may have
/// just doubled, and what the allocator adds.
const VALUE_OVERHEAD: usize = 96;

#[derive(Debug)]
struct Part {
    /// The number of its oldest value, or `u64::MAX`; what it was a moment ago to others.
    oldest: AtomicU64,
    values: Mutex<Values>,
}

impl Default for Part {
    fn default() -> Self {
        Self {
            oldest: AtomicU64::new(u64::MAX),
            values: Mutex::default(),
        }
    }
}

/// The values of a part, in a list from the oldest to the newest.
#[derive(Debug)]
struct Values {
    /// Indices of `places`, by the topic.
    names: HashTable<u32>,
    places: Vec<Option<Value>>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
}

#[derive(Debug)]
struct Value {
    hash: u64,
    number: u64,
    /// A whole PUBLISH.
    frame: Vec<u8>,
    older: u32,
    newer: u32,
}

const NONE: u32 = u32::MAX;

impl Default for Values {
    fn default() -> Self {
        Self {
            names: HashTable::new(),
            places: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
        }
    }
}

/// Which topics are kept: those that begin with one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes(Vec<Box<str>>);

impl Prefixes {
    /// These; the empty one is that of every topic.
    pub fn of<T: Into<Box<str>>>(prefixes: impl IntoIterator<Item = T>) -> Self {
        Self(prefixes.into_iter().map(Into::into).collect())
    }

    /// Whether no topic is kept.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Whether `topic` is kept.
    pub fn cover(&self, topic: &[u8]) -> bool {
        self.iter()
            .any(|prefix| topic.starts_with(prefix.as_bytes()))
    }

    /// Whether any topic that begins with `head` may be kept.
    pub fn meet(&self, head: &str) -> bool {
        self.iter()
            .any(|prefix| head.starts_with(prefix) || prefix.starts_with(head))
    }
}

/// Joined by commas; `all` topics, or `none`. As [`Config::set`](crate::config::Config::set) takes
/// them.
impl fmt::Display for Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [] => f.write_str("none"),
            [only] if only.is_empty() => f.write_str("all"),
            prefixes => f.write_str(&prefixes.join(",")),
        }
    }
}

impl FromStr for Prefixes {
    /// One of them is empty, which might be meant as all topics or as none.
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "none" => Ok(Self::default()),
            "all" => Ok(Self::of([""])),
            prefixes if prefixes.split(',').all(|prefix| !prefix.is_empty()) => {
                Ok(Self::of(prefixes.split(',')))
            }
            _ => Err(()),
        }
    }
}

/// How far a look at all values has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    part: usize,
    place: usize,
}

impl Cursor {
    /// Whether all have been looked at.
    pub const fn is_at_end(&self) -> bool {
        self.part == PARTS
    }
}

impl LastValues {
    /// What all shards of a broker with these settings share; `None` if it keeps no topic.
    pub fn of(config: &Config) -> Option<Arc<Self>> {
        let limits = &config.limits;
        let (topics_max, bytes_max) = (limits.last_value_topics_max, limits.last_value_bytes_max);
        let prefixes = config.last_value.clone();
        (!prefixes.is_empty()).then(|| Arc::new(Self::new(prefixes, topics_max, bytes_max)))
    }

    /// None yet, of topics with these prefixes; at most so many, and so many bytes with all that
    /// they take. Beyond that those go first that were not published for the longest time.
    pub fn new(prefixes: Prefixes, topics_max: usize, bytes_max: usize) -> Self {
        Self {
            prefixes,
            topics_max,
            bytes_max,
            parts: std::array::from_fn(|_| Part::default()),
            newest: AtomicU64::new(0),
            topics: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// Which topics are kept.
    pub const fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// Keeps a message, a whole PUBLISH of a topic with this hash, or forgets the topic if it has
    /// no data. Returns its number. Whoever publishes it looks for subscribers afterwards.
    pub fn store(&self, hash: u64, frame: &[u8]) -> u64 {
        let (topic, data) = parts_of(frame);
        let part = self.part(hash);
        let mut values = part.lock();
        let number = self.newest.fetch_add(1, Ordering::SeqCst) + 1;
        let found = values.find(hash, topic);
        match (found, data.is_empty()) {
            (Some(place), true) => self.take(&mut values, place),
            (Some(place), false) => self.replace(&mut values, place, number, frame),
            (None, true) => {}
            (None, false) => self.insert(&mut values, hash, number, frame),
        }
        part.note_oldest(&values);
        drop(values);
        while self.is_over() && self.evict() {}
        number
    }

    /// The number of the newest value; 0 if there never was one. Whoever subscribes has joined
    /// before.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// The value of a topic with this hash, if its number is at most `since`.
    pub fn find(&self, hash: u64, topic: &[u8], since: u64) -> Option<Vec<u8>> {
        let values = self.part(hash).lock();
        let value = values.value(values.find(hash, topic)?)?;
        (value.number <= since).then(|| value.frame.clone())
    }

    /// Shows the next `count` values from `cursor` on, those with numbers above `since` left out,
    /// by hash, topic and frame. Whatever changes between two looks, those that stay are shown
    /// once. A part is locked while so many of it are shown.
    pub fn scan(
        &self,
        cursor: &mut Cursor,
        since: u64,
        count: usize,
        mut show: impl FnMut(u64, &[u8], &[u8]),
    ) {
        let mut left = count;
        while left > 0
            && let Some(part) = self.parts.get(cursor.part)
        {
            let values = part.lock();
            let places = values.places.iter().skip(cursor.place);
            let mut seen = 0;
            for value in places.take(left) {
                seen += 1;
                if let Some(value) = value
                    && value.number <= since
                {
                    let (topic, _) = parts_of(&value.frame);
                    show(value.hash, topic, &value.frame);
                }
            }
            cursor.place += seen;
            // An empty part costs a step as well.
            left = left.saturating_sub(seen.max(1));
            if cursor.place >= values.places.len() {
                *cursor = Cursor {
                    part: cursor.part + 1,
                    place: 0,
                };
            }
        }
    }

    // Relaxed, here and below: each number stands for itself.

    /// How many topics have a value.
    pub fn topics(&self) -> usize {
        self.topics.load(Ordering::Relaxed)
    }

    /// What all of them take, overhead included.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many had to go for newer ones.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    fn insert(&self, values: &mut Values, hash: u64, number: u64, frame: &[u8]) {
        let frame = frame.to_vec();
        self.bytes.fetch_add(size_of(&frame), Ordering::Relaxed);
        self.topics.fetch_add(1, Ordering::Relaxed);
        values.insert(hash, number, frame);
    }

    fn replace(&self, values: &mut Values, place: u32, number: u64, frame: &[u8]) {
        values.unlink(place);
        values.link(place);
        let Some(value) = values.value_mut(place) else {
            return;
        };
        let before = size_of(&value.frame);
        value.number = number;
        value.frame.clear();
        value.frame.reserve_exact(frame.len());
        value.frame.extend_from_slice(frame);
        let after = size_of(&value.frame);
        // Two's complement: what is less comes out as less.
        let more = after.wrapping_sub(before);
        self.bytes.fetch_add(more, Ordering::Relaxed);
    }

    fn take(&self, values: &mut Values, place: u32) {
        if let Some(value) = values.remove(place) {
            self.bytes
                .fetch_sub(size_of(&value.frame), Ordering::Relaxed);
            self.topics.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn is_over(&self) -> bool {
        self.topics() > self.topics_max || self.bytes() > self.bytes_max
    }

    /// Forgets the value that was not published for the longest time; false if there is none.
    fn evict(&self) -> bool {
        let oldest = |part: &&Part| part.oldest.load(Ordering::Relaxed);
        let Some(part) = self.parts.iter().min_by_key(oldest) else {
            return false;
        };
        let mut values = part.lock();
        let place = values.oldest;
        if place == NONE {
            // Whoever emptied it has not said so yet, or there is nothing anywhere.
            return self.topics() > 0;
        }
        self.take(&mut values, place);
        part.note_oldest(&values);
        self.evicted.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn part(&self, hash: u64) -> &Part {
        // The low bits, as the directory's: the table inside the part uses the others.
        &self.parts[usize::from(hash.to_le_bytes()[0]) % PARTS]
    }
}

impl Part {
    fn lock(&self) -> MutexGuard<'_, Values> {
        // Nothing in here panics between two changes that belong together.
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_oldest(&self, values: &Values) {
        let oldest = values.value(values.oldest);
        let oldest = oldest.map_or(u64::MAX, |value| value.number);
        self.oldest.store(oldest, Ordering::Relaxed);
    }
}

impl Values {
    fn find(&self, hash: u64, topic: &[u8]) -> Option<u32> {
        let is_it = |place: &u32| {
            let value = self.value(*place);
            value.is_some_and(|value| parts_of(&value.frame).0 == topic)
        };
        self.names.find(hash, is_it).copied()
    }

    fn value(&self, place: u32) -> Option<&Value> {
        self.places.get(place as usize)?.as_ref()
    }

    fn value_mut(&mut self, place: u32) -> Option<&mut Value> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    fn insert(&mut self, hash: u64, number: u64, frame: Vec<u8>) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).expect("bounded far below 2^32")
        });
        self.places[place as usize] = Some(Value {
            hash,
            number,
            frame,
            older: NONE,
            newer: NONE,
        });
        self.link(place);
        let Self { names, places, .. } = self;
        names.insert_unique(hash, place, |place| {
            let value = places[*place as usize].as_ref();
            value.map_or(0, |value| value.hash)
        });
    }

    fn remove(&mut self, place: u32) -> Option<Value> {
        self.unlink(place);
        let value = self.places.get_mut(place as usize)?.take()?;
        if let Ok(name) = self.names.find_entry(value.hash, |found| *found == place) {
            name.remove();
        }
        self.free.push(place);
        Some(value)
    }

    /// Makes it the newest.
    fn link(&mut self, place: u32) {
        let older = std::mem::replace(&mut self.newest, place);
        match self.value_mut(older) {
            Some(older) => older.newer = place,
            None => self.oldest = place,
        }
        if let Some(value) = self.value_mut(place) {
            (value.older, value.newer) = (older, NONE);
        }
    }

    fn unlink(&mut self, place: u32) {
        let Some(value) = self.value(place) else {
            return;
        };
        let (older, newer) = (value.older, value.newer);
        match self.value_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.value_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
    }
}

fn size_of(frame: &Vec<u8>) -> usize {
    VALUE_OVERHEAD + frame.capacity()
}

/// Topic and data of a whole PUBLISH.
fn parts_of(frame: &[u8]) -> (&[u8], &[u8]) {
    let frame = Frame::split_first(frame).map(|(frame, _)| frame);
    let parts = frame.and_then(|frame| frame.publish_parts().ok());
    parts.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::packet::FrameBuf;

    fn values(topics_max: usize, bytes_max: usize) -> LastValues {
        LastValues::new(Prefixes::of([""]), topics_max, bytes_max)
    }

    /// As good as any, and hard on the table: all of a part collide.
    fn hash(topic: u32) -> u64 {
        u64::from(topic % 7)
    }

    fn put(values: &LastValues, topic: u32, data: &[u8]) -> u64 {
        let frame = FrameBuf::publish(&topic.to_string(), data).unwrap();
        values.store(hash(topic), frame.bytes())
    }

    fn all(values: &LastValues, since: u64, step: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let (mut cursor, mut found) = (Cursor::default(), BTreeMap::new());
        while !cursor.is_at_end() {
            values.scan(&mut cursor, since, step, |_, topic, frame| {
                let (same, data) = parts_of(frame);
                assert_eq!(topic, same);
                let twice = found.insert(topic.to_vec(), data.to_vec());
                assert_eq!(twice, None, "each once");
            });
        }
        found
    }

    #[test]
    fn prefixes_cover_topics_and_meet_what_may_begin_like_them() {
        let prefixes = Prefixes::of(["state/", "a"]);
        for (topic, is_covered) in [
            ("state/x", true),
            ("a", true),
            ("state", false),
            ("", false),
        ] {
            assert_eq!(prefixes.cover(topic.as_bytes()), is_covered, "{topic}");
        }
        for (head, meets) in [
            ("", true),
            ("st", true),
            ("state/x/", true),
            ("log/", false),
        ] {
            assert_eq!(prefixes.meet(head), meets, "{head}");
        }
        assert!(!Prefixes::default().cover(b"a") && Prefixes::of([""]).cover(b""));
    }

    #[test]
    fn j15_the_newest_of_each_topic_is_kept_and_one_without_data_clears_it() {
        let values = values(1000, 1 << 20);
        let mut model = BTreeMap::new();
        for n in 0..5000_u32 {
            let topic = n * 7919 % 301;
            let data = match n % 5 {
                0 => Vec::new(),
                _ => vec![7; (n % 200) as usize + 1],
            };
            let number = put(&values, topic, &data);
            assert_eq!(number, values.newest());
            match data.is_empty() {
                true => model.remove(topic.to_string().as_bytes()),
                false => model.insert(topic.to_string().into_bytes(), data),
            };
        }
        for step in [1, 10, 1000] {
            assert_eq!(all(&values, values.newest(), step), model);
        }
        assert_eq!(values.topics(), model.len());
        for topic in 0..301 {
            put(&values, topic, b"");
        }
        assert_eq!((values.topics(), values.bytes()), (0, 0));
    }

    #[test]
    fn j15_what_is_newer_than_asked_for_is_not_shown() {
        let values = values(10, 1 << 20);
        let first = put(&values, 1, b"a");
        put(&values, 2, b"b");
        assert_eq!(all(&values, first, 100).len(), 1);
        assert!(values.find(hash(2), b"2", first).is_none());
        put(&values, 1, b"c");
        assert!(values.find(hash(1), b"1", first).is_none());
        assert!(all(&values, first, 100).is_empty());
    }

    #[test]
    fn j15_number_and_bytes_are_bounded_and_the_oldest_goes_first() {
        let values = values(100, 1 << 20);
        for n in 0..10_000 {
            put(&values, n, b"data");
            // This one is young all the time.
            put(&values, 0, &n.to_be_bytes());
        }
        let kept = all(&values, values.newest(), 100);
        assert_eq!((kept.len(), values.topics()), (100, 100));
        let young = (9901..10_000).chain([0]);
        assert!(
            young
                .into_iter()
                .all(|n| kept.contains_key(n.to_string().as_bytes()))
        );
        assert_eq!(values.evicted(), 9_900);

        let values = self::values(100_000, 10_000);
        for n in 0..10_000 {
            put(&values, n, &[7; 200]);
            assert!(values.bytes() <= 10_000);
        }
        assert_eq!(values.topics(), 10_000 / (VALUE_OVERHEAD + 3 + 4 + 200));
    }
}
