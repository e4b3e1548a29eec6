//! Who wants which topic: topic -> subscribers, session -> topics.
//!
//! The structure that a shard routes with, usable by itself. A session's subscriptions are a set.
//! Each change costs O(1), however many topics a session or subscribers a topic has, and a topic
//! that loses its last subscriber leaves nothing behind.

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use smallvec::SmallVec;

use crate::pages::Pages;
use crate::register::directory::Interest;
use crate::session::SessionKey;

pub mod directory;
pub mod last_values;
mod name;
mod topics;
pub mod wildcard;

pub(crate) use name::is_same;
use topics::{Topic, Topics};

/// Topics and sessions, and who is subscribed to what.
///
/// ```
/// use hvlp::register::Register;
/// use hvlp::session::SessionKey;
///
/// let mut register = Register::new();
/// let session = SessionKey::new(0, 0);
/// register.subscribe(session, ["test1", "test2"]);
/// assert_eq!(register.topics(session).collect::<Vec<_>>(), ["test1", "test2"]);
/// assert_eq!(register.subscribers("test1"), [session]);
/// ```
///
/// Invariant: for every subscription there is one `Link`, and its two positions are where the
/// session stands in the topic's list and the topic in the session's.
#[derive(Debug, Default)]
pub struct Register {
    topics: Topics,
    /// The lengths of their names together.
    topic_bytes: usize,
    /// Indices into `topics`, found by the topic's name: the name is stored once.
    names: HashTable<u32>,
    /// By slot.
    holders: Pages<Holder>,
    links: HashTable<Link>,
    /// Keyed per register, so that nobody can choose topics that collide.
    hasher: RandomState,
}

/// What a slot's session holds.
#[derive(Debug, Default)]
struct Holder {
    /// The session's generation; `None` if the slot's is unknown. Smaller than an optional key.
    generation: Option<u32>,
    topics: SmallVec<[u32; 4]>,
}

/// One subscription.
#[derive(Clone, Copy, Debug)]
struct Link {
    topic: u32,
    slot: u32,
    /// Index in `Topic::subscribers`.
    in_topic: u32,
    /// Index in `Holder::topics`.
    in_holder: u32,
}

/// Where a topic was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicIndex(u32);

/// What a lookup found: whom a message on this topic goes to.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    subscribers: &'a [SessionKey],
    interest: &'a Interest,
}

impl<'a> Route<'a> {
    /// The sessions of this register that are subscribed; never empty.
    pub const fn subscribers(self) -> &'a [SessionKey] {
        self.subscribers
    }

    /// Which shards want the topic, if this register's shard is one of several.
    pub(crate) const fn interest(self) -> &'a Interest {
        self.interest
    }
}

impl Register {
    /// An empty register with hash keys of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty register that hashes topics as others do.
    pub(crate) fn with_hasher(hasher: RandomState) -> Self {
        Self {
            hasher,
            ..Self::default()
        }
    }

    /// Makes a session known. Slots are indices into a table: choose small ones. A session with an
    /// older generation of the same slot is removed; one with a newer generation stays, and this
    /// one remains unknown.
    pub fn add_session(&mut self, key: SessionKey) {
        let index = key.slot() as usize;
        match self.holders.reach(index).generation {
            Some(newer) if newer > key.generation() => return,
            Some(older) if older < key.generation() => {
                self.remove_session(SessionKey::new(key.slot(), older));
            }
            _ => {}
        }
        self.holders.reach(index).generation = Some(key.generation());
    }

    /// Removes a session and all its subscriptions; an unknown one is no error.
    pub fn remove_session(&mut self, key: SessionKey) {
        self.remove_session_with(key, |_| ());
    }

    /// As `remove_session`; `orphaned` is told of each topic that has no subscriber left.
    pub(crate) fn remove_session_with(
        &mut self,
        key: SessionKey,
        mut orphaned: impl FnMut(&Interest),
    ) {
        while let Some(&topic) = self.holder(key).and_then(|holder| holder.topics.last()) {
            self.unlink(key, topic, &mut orphaned);
        }
        if self.holder(key).is_some() {
            *self.holders.reach(key.slot() as usize) = Holder::default();
        }
    }

    /// Subscribes a session, which becomes known if it was not. Returns how many of the topics it
    /// did not hold already.
    pub fn subscribe<T: AsRef<str>>(
        &mut self,
        key: SessionKey,
        topics: impl IntoIterator<Item = T>,
    ) -> usize {
        topics
            .into_iter()
            .filter(|topic| self.subscribe_with(key, topic.as_ref(), Interest::alone))
            .count()
    }

    /// Subscribes a session to one topic, which comes from `birth` if it has no subscriber yet.
    /// Returns whether that is new.
    pub(crate) fn subscribe_with(
        &mut self,
        key: SessionKey,
        topic: &str,
        birth: impl FnOnce(&[u8]) -> Interest,
    ) -> bool {
        self.add_session(key);
        if self.holder(key).is_none() {
            return false;
        }
        let topic = self
            .index(topic)
            .unwrap_or_else(|| self.add_topic(birth(topic.as_bytes())));
        self.link(key, topic)
    }

    /// Ends subscriptions; topics that the session does not hold are no error. Returns how many it
    /// held.
    pub fn unsubscribe<T: AsRef<str>>(
        &mut self,
        key: SessionKey,
        topics: impl IntoIterator<Item = T>,
    ) -> usize {
        topics
            .into_iter()
            .filter(|topic| self.unsubscribe_with(key, topic.as_ref(), |_| ()))
            .count()
    }

    /// Ends one subscription; `orphaned` is told of the topic if it has no subscriber left. Returns
    /// whether the session held it.
    pub(crate) fn unsubscribe_with(
        &mut self,
        key: SessionKey,
        topic: &str,
        orphaned: impl FnMut(&Interest),
    ) -> bool {
        let topic = self.index(topic);
        topic.is_some_and(|topic| self.holder(key).is_some() && self.unlink(key, topic, orphaned))
    }

    /// Whom a message on `topic` goes to; `None` if nobody wants it.
    #[inline]
    pub fn route(&self, topic: &[u8]) -> Option<Route<'_>> {
        let found = self.find(self.hash(topic), topic)?;
        Some(self.route_at(found))
    }

    /// The hash by which topics are found.
    #[inline]
    pub(crate) fn hash(&self, topic: &[u8]) -> u64 {
        self.hasher.hash_one(topic)
    }

    /// Where a topic is, until subscriptions change.
    #[inline]
    pub(crate) fn find(&self, hash: u64, topic: &[u8]) -> Option<TopicIndex> {
        let is_it = |&index: &u32| is_same(self.topics[index].interest.topic(), topic);
        self.names.find(hash, is_it).copied().map(TopicIndex)
    }

    /// Whom a message on a topic that was found goes to.
    #[inline]
    pub(crate) fn route_at(&self, TopicIndex(index): TopicIndex) -> Route<'_> {
        let topic = &self.topics[index];
        Route {
            subscribers: &topic.subscribers,
            interest: &topic.interest,
        }
    }

    /// The name of a topic that was found.
    pub(crate) fn name_at(&self, TopicIndex(index): TopicIndex) -> &str {
        let name = self.topics[index].interest.topic();
        str::from_utf8(name).expect(TEXT)
    }

    /// The sessions that are subscribed to `topic`.
    pub fn subscribers(&self, topic: &str) -> &[SessionKey] {
        self.route(topic.as_bytes()).map_or(&[], Route::subscribers)
    }

    /// Whether the session holds the topic.
    pub fn is_subscribed(&self, key: SessionKey, topic: &str) -> bool {
        self.holder(key).is_some()
            && self.index(topic).is_some_and(|topic| {
                self.links
                    .find(self.link_hash(topic, key.slot()), same(topic, key))
                    .is_some()
            })
    }

    /// The topics that a session holds; none for an unknown one.
    pub fn topics(&self, key: SessionKey) -> impl ExactSizeIterator<Item = &str> {
        let topics = self.holder(key).map_or(&[][..], |holder| &holder.topics);
        topics.iter().map(|&topic| self.name_at(TopicIndex(topic)))
    }

    /// All known sessions, by slot.
    pub fn sessions(&self) -> impl Iterator<Item = SessionKey> {
        let slots = (0..).zip(self.holders.iter());
        slots.filter_map(|(slot, holder)| Some(SessionKey::new(slot, holder.generation?)))
    }

    /// How many topics have a subscriber.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// How long the names of all topics are together, in bytes.
    pub const fn topic_bytes(&self) -> usize {
        self.topic_bytes
    }

    /// How many subscriptions there are, over all sessions.
    pub fn subscription_count(&self) -> usize {
        self.links.len()
    }

    /// Forgets every session, topic and subscription.
    pub fn reset(&mut self) {
        *self = Self::with_hasher(self.hasher.clone());
    }

    fn holder(&self, key: SessionKey) -> Option<&Holder> {
        let holder = self.holders.get(key.slot() as usize)?;
        (holder.generation == Some(key.generation())).then_some(holder)
    }

    fn index(&self, topic: &str) -> Option<u32> {
        let topic = topic.as_bytes();
        self.find(self.hash(topic), topic).map(|found| found.0)
    }

    fn link_hash(&self, topic: u32, slot: u32) -> u64 {
        self.hasher.hash_one((topic, slot))
    }

    /// Adds a subscription; false if the session holds it already.
    fn link(&mut self, key: SessionKey, topic: u32) -> bool {
        let holder = self.holders.reach(key.slot() as usize);
        let subscribers = &mut self.topics[topic].subscribers;
        let hasher = &self.hasher;
        let entry = self.links.entry(
            hasher.hash_one((topic, key.slot())),
            same(topic, key),
            |link| hasher.hash_one((link.topic, link.slot)),
        );
        let Entry::Vacant(vacant) = entry else {
            return false;
        };
        vacant.insert(Link {
            topic,
            slot: key.slot(),
            in_topic: position(subscribers.len()),
            in_holder: position(holder.topics.len()),
        });
        subscribers.push(key);
        holder.topics.push(topic);
        true
    }

    /// Takes a subscription away; false if the session does not hold it.
    fn unlink(&mut self, key: SessionKey, topic: u32, mut orphaned: impl FnMut(&Interest)) -> bool {
        let hash = self.link_hash(topic, key.slot());
        let Ok(entry) = self.links.find_entry(hash, same(topic, key)) else {
            return false;
        };
        let (link, _) = entry.remove();

        // The last of each list moves into the gap, so its link's position changes.
        let subscribers = &mut self.topics[topic].subscribers;
        subscribers.swap_remove(link.in_topic as usize);
        let moved = subscribers.get(link.in_topic as usize).copied();
        if let Some(moved) = moved {
            self.link_mut(topic, moved).in_topic = link.in_topic;
        }
        let holder = self.holders.reach(key.slot() as usize);
        holder.topics.swap_remove(link.in_holder as usize);
        let moved = holder.topics.get(link.in_holder as usize).copied();
        if let Some(moved) = moved {
            self.link_mut(moved, key).in_holder = link.in_holder;
        }
        if self.topics[topic].subscribers.is_empty() {
            orphaned(&self.remove_topic(topic));
        }
        true
    }

    fn link_mut(&mut self, topic: u32, key: SessionKey) -> &mut Link {
        let hash = self.link_hash(topic, key.slot());
        self.links
            .find_mut(hash, same(topic, key))
            .expect("both lists say that it is there")
    }

    fn add_topic(&mut self, interest: Interest) -> u32 {
        let hash = self.hash(interest.topic());
        self.topic_bytes += interest.topic().len();
        let topic = self.topics.insert(Topic {
            interest,
            subscribers: SmallVec::new(),
        });
        let Self {
            topics,
            names,
            hasher,
            ..
        } = self;
        names.insert_unique(hash, topic, |&topic| {
            hasher.hash_one(topics[topic].interest.topic())
        });
        topic
    }

    fn remove_topic(&mut self, topic: u32) -> Interest {
        let interest = self.topics.remove(topic).interest;
        let hash = self.hash(interest.topic());
        self.topic_bytes -= interest.topic().len();
        let entry = self.names.find_entry(hash, |&found| found == topic);
        entry.expect("a topic has a name").remove();
        interest
    }
}

const TEXT: &str = "topics are subscribed to as text";

fn same(topic: u32, key: SessionKey) -> impl Fn(&Link) -> bool {
    move |link| link.topic == topic && link.slot == key.slot()
}

/// An index as it is stored: four bytes, because limits keep every table far below 2^32.
fn position(index: usize) -> u32 {
    u32::try_from(index).expect("tables are bounded far below 2^32")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_subscription_is_a_set_and_goes_with_its_session() {
        let mut register = Register::new();
        let (a, b) = (SessionKey::new(0, 0), SessionKey::new(1, 0));
        assert_eq!(register.subscribe(a, ["x", "y", "x"]), 2);
        assert_eq!(register.subscribe(b, ["x", ""]), 2);
        assert_eq!(register.subscribers("x"), [a, b]);
        assert_eq!(register.unsubscribe(a, ["x", "x", "nobody's"]), 1);
        assert_eq!(register.subscribers("x"), [b]);
        register.remove_session(b);
        assert_eq!(
            (register.topic_count(), register.subscription_count()),
            (1, 1)
        );
        assert!(register.route(b"").is_none());
        register.reset();
        assert_eq!(register.sessions().count(), 0);
    }

    #[test]
    fn a_stale_key_finds_and_changes_nothing() {
        let mut register = Register::new();
        let (stale, new) = (SessionKey::new(4, 1), SessionKey::new(4, 2));
        register.subscribe(stale, ["t"]);
        register.add_session(new);
        assert!(register.subscribers("t").is_empty());
        register.subscribe(new, ["t"]);
        assert_eq!(register.subscribe(stale, ["u"]), 0);
        assert_eq!(register.unsubscribe(stale, ["t"]), 0);
        register.remove_session(stale);
        assert_eq!(register.topics(stale).len(), 0);
        assert!(register.is_subscribed(new, "t") && !register.is_subscribed(stale, "t"));
    }

    #[derive(Clone, Debug)]
    enum Change {
        Subscribe(u32, u8),
        Unsubscribe(u32, u8),
        Remove(u32),
    }

    fn change() -> impl Strategy<Value = Change> {
        let (slot, topic) = (0..5u32, 0..7u8);
        prop_oneof![
            4 => (slot.clone(), topic.clone()).prop_map(|(s, t)| Change::Subscribe(s, t)),
            3 => (slot.clone(), topic).prop_map(|(s, t)| Change::Unsubscribe(s, t)),
            1 => slot.prop_map(Change::Remove),
        ]
    }

    proptest! {
        #[test]
        fn any_changes_leave_what_a_map_of_sets_would_hold(
            changes in prop::collection::vec(change(), 0..200),
        ) {
            let mut register = Register::new();
            let mut model: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
            for change in changes {
                match change {
                    Change::Subscribe(slot, topic) => {
                        let new = register.subscribe(SessionKey::new(slot, 0), [topic.to_string()]);
                        let held = model.entry(slot).or_default().insert(topic.to_string());
                        prop_assert_eq!(new, usize::from(held));
                    }
                    Change::Unsubscribe(slot, topic) => {
                        let topic = topic.to_string();
                        let gone = register.unsubscribe(SessionKey::new(slot, 0), [&topic]);
                        let held = model.get_mut(&slot).is_some_and(|topics| topics.remove(&topic));
                        prop_assert_eq!(gone, usize::from(held));
                    }
                    Change::Remove(slot) => {
                        register.remove_session(SessionKey::new(slot, 0));
                        model.remove(&slot);
                    }
                }
                let all: BTreeSet<_> = model.values().flatten().cloned().collect();
                prop_assert_eq!(register.topic_count(), all.len());
                let bytes: usize = all.iter().map(String::len).sum();
                prop_assert_eq!(register.topic_bytes(), bytes);
                prop_assert_eq!(
                    register.subscription_count(),
                    model.values().map(BTreeSet::len).sum::<usize>()
                );
                for (slot, topics) in &model {
                    let held: BTreeSet<_> =
                        register.topics(SessionKey::new(*slot, 0)).map(String::from).collect();
                    prop_assert_eq!(&held, topics);
                }
                for topic in all {
                    let found: BTreeSet<_> =
                        register.subscribers(&topic).iter().map(|key| key.slot()).collect();
                    let wanted: BTreeSet<_> = model.iter()
                        .filter(|(_, topics)| topics.contains(&topic))
                        .map(|(slot, _)| *slot)
                        .collect();
                    prop_assert_eq!(found, wanted);
                }
            }
        }
    }
}
