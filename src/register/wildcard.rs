//! Filters: topics in which a level `+` stands for any one level, and a last level `#` for all that
//! follow and for nothing, by MQTT's rules (MQTT 3.1.1, 4.7.1).
//!
//! A filter is found by its *shape*: how many levels it has and which of them are wildcards. With
//! the wildcards of a shape put into a topic, the filter of that shape that matches it can only be
//! called like that, so a topic costs one lookup for each shape, however many filters there are. A
//! limit on shapes bounds that for whatever filters somebody thinks of.

use smallvec::SmallVec;

use crate::packet::TOPIC_LEN_MAX;
use crate::register::directory::Interest;
use crate::register::{Register, Route, TopicIndex};
use crate::session::SessionKey;

/// What a topic of a SUBSCRIBE is, for a session that may use wildcards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// It has no wildcard: an ordinary topic.
    Exact,
    /// A filter.
    Filter(Shape),
    /// `+` or `#` within a level, or `#` in front of others.
    Bad,
}

/// Where the wildcards of a filter stand.
///
/// Invariant: only bits of levels below `levels` are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bit k: level k is `+`. A topic of 254 bytes has 255 levels at most.
    plus: [u64; 4],
    /// Levels in front of a last `#`, or all.
    levels: u8,
    /// It ends with `#`.
    is_open: bool,
}

impl Pattern {
    /// What `topic` is.
    pub fn of(topic: &str) -> Self {
        if !topic.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
            return Self::Exact;
        }
        let mut shape = Shape {
            plus: [0; 4],
            levels: 0,
            is_open: false,
        };
        for level in topic.split('/') {
            match level {
                _ if shape.is_open => return Self::Bad,
                "#" => shape.is_open = true,
                "+" => {
                    shape.plus[usize::from(shape.levels) / 64] |= 1 << (shape.levels % 64);
                    shape.levels += 1;
                }
                _ if level.contains(['+', '#']) => return Self::Bad,
                _ => shape.levels += 1,
            }
        }
        Self::Filter(shape)
    }
}

impl Shape {
    fn is_plus(&self, level: usize) -> bool {
        self.plus[level / 64] & 1 << (level % 64) != 0
    }

    /// Whether `filter`, which has this shape, matches `topic`.
    pub(crate) fn matches(&self, filter: &str, topic: &str) -> bool {
        let mut name = SmallVec::new();
        self.put_into(topic.as_bytes(), &mut name).is_some() && name[..] == *filter.as_bytes()
    }

    /// What each topic begins with that `filter`, which has this shape, matches.
    pub(crate) fn head<'a>(&self, filter: &'a str) -> &'a str {
        let wildcard = filter.find(['+', '#']).unwrap_or(filter.len());
        // `a/#` matches `a` as well.
        filter[..wildcard].trim_end_matches('/')
    }

    /// What the filter of this shape that matches `topic` is called; `None` if the topic has not as
    /// many levels, or no filter is as long as that.
    fn put_into(&self, topic: &[u8], name: &mut SmallVec<[u8; 256]>) -> Option<()> {
        name.clear();
        let mut topic_levels = topic.split(|byte| *byte == b'/');
        for level in 0..usize::from(self.levels) {
            let literal = topic_levels.next()?;
            if level > 0 {
                name.push(b'/');
            }
            name.extend_from_slice(if self.is_plus(level) { b"+" } else { literal });
        }
        match (self.is_open, topic_levels.next()) {
            (false, Some(_)) => return None,
            (false, None) => {}
            (true, _) => name.extend_from_slice(if self.levels > 0 { b"/#" } else { b"#" }),
        }
        (name.len() <= TOPIC_LEN_MAX).then_some(())
    }
}

/// The filters of a shard, and who is subscribed to them.
///
/// ```
/// use hvlp::register::wildcard::Wildcards;
/// use hvlp::session::SessionKey;
///
/// let mut wildcards = Wildcards::new(100);
/// let session = SessionKey::new(0, 0);
/// assert_eq!(wildcards.subscribe(session, "sensors/+/temperature"), Some(true));
/// assert_eq!(wildcards.subscribers("sensors/7/temperature"), [session]);
/// assert_eq!(wildcards.subscribers("sensors/7/8/temperature"), []);
/// ```
#[derive(Debug)]
pub struct Wildcards {
    filters: Register,
    shapes: Vec<Known>,
    shapes_max: usize,
    /// Changes when a filter comes or goes, and with it all remembered routes.
    version: u64,
    /// What the last topics matched, by their hash; empty as long as there is no filter.
    routes: Vec<Remembered>,
}

/// A shape, and how many filters have it.
#[derive(Debug)]
struct Known {
    shape: Shape,
    filters: u32,
}

/// What a topic matched while `version` held.
#[derive(Clone, Debug, Default)]
struct Remembered {
    version: u64,
    topic: SmallVec<[u8; 32]>,
    matched: Matched,
}

/// Filters that a topic matches, each once.
pub(crate) type Matched = SmallVec<[TopicIndex; 4]>;

/// Topics whose filters are remembered: 400 KiB and long topics, overwritten and never grown.
const ROUTES: usize = 4096;
/// Of a topic that matches more filters the route is looked up each time: it costs less than what
/// is done with it, and memory stays bounded.
const REMEMBERED_MAX: usize = 64;

impl Wildcards {
    /// None, and at most so many shapes.
    pub fn new(shapes_max: usize) -> Self {
        Self {
            filters: Register::new(),
            shapes: Vec::new(),
            shapes_max,
            version: 1,
            routes: Vec::new(),
        }
    }

    /// Whether there is no filter.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.shapes.is_empty()
    }

    /// The filters and who holds them; a filter is a topic there.
    pub const fn filters(&self) -> &Register {
        &self.filters
    }

    /// How many shapes a topic is held against.
    pub(crate) const fn shape_count(&self) -> usize {
        self.shapes.len()
    }

    /// Whether there is room for the shape of a filter.
    pub fn has_room(&self, shape: Shape) -> bool {
        self.shapes.len() < self.shapes_max || self.shapes.iter().any(|known| known.shape == shape)
    }

    /// Subscribes a session to a filter; whether that is new, or `None` if there is no room for its
    /// shape, or it is no filter.
    pub fn subscribe(&mut self, key: SessionKey, filter: &str) -> Option<bool> {
        let Pattern::Filter(shape) = Pattern::of(filter) else {
            return None;
        };
        if !self.has_room(shape) {
            return None;
        }
        let before = self.filters.topic_count();
        let is_new = self.filters.subscribe_with(key, filter, Interest::alone);
        if self.filters.topic_count() > before {
            self.born(shape);
        }
        Some(is_new)
    }

    /// Ends a subscription; whether the session held it.
    pub fn unsubscribe(&mut self, key: SessionKey, filter: &str) -> bool {
        let Self {
            filters,
            shapes,
            version,
            ..
        } = self;
        filters.unsubscribe_with(key, filter, |gone| forget(shapes, version, gone))
    }

    /// Removes a session and all its subscriptions.
    pub fn remove_session(&mut self, key: SessionKey) {
        let Self {
            filters,
            shapes,
            version,
            ..
        } = self;
        filters.remove_session_with(key, |gone| forget(shapes, version, gone));
    }

    /// The sessions whose filters match `topic`, one for each filter that does.
    pub fn subscribers(&mut self, topic: &str) -> Vec<SessionKey> {
        let matched = self.matched(self.filters.hash(topic.as_bytes()), topic.as_bytes());
        let routes = matched.iter().map(|&filter| self.route_at(filter));
        routes
            .flat_map(|route| route.subscribers().to_vec())
            .collect()
    }

    /// Whom a message on a topic goes to that matches a filter.
    pub(crate) fn route_at(&self, filter: TopicIndex) -> Route<'_> {
        self.filters.route_at(filter)
    }

    /// The filters that match `topic`, by whatever hash it has.
    pub(crate) fn matched(&mut self, hash: u64, topic: &[u8]) -> Matched {
        let [.., high, higher] = hash.to_le_bytes();
        let slot = usize::from(u16::from_le_bytes([high, higher])) % ROUTES;
        if let Some(known) = self.routes.get(slot)
            && known.version == self.version
            && known.topic[..] == *topic
        {
            return known.matched.clone();
        }
        let matched = self.look_up(topic);
        if self.routes.is_empty() {
            self.routes = vec![Remembered::default(); ROUTES];
        }
        if matched.len() <= REMEMBERED_MAX {
            self.routes[slot] = Remembered {
                version: self.version,
                topic: SmallVec::from_slice(topic),
                matched: matched.clone(),
            };
        }
        matched
    }

    fn look_up(&self, topic: &[u8]) -> Matched {
        let mut matched = Matched::new();
        let mut name = SmallVec::new();
        for known in &self.shapes {
            if known.shape.put_into(topic, &mut name).is_none() {
                continue;
            }
            // A level of the topic that is `+` itself leads to a filter of another shape, which
            // matches as well.
            if let Some(filter) = self.filters.find(self.filters.hash(&name), &name)
                && !matched.contains(&filter)
            {
                matched.push(filter);
            }
        }
        matched
    }

    fn born(&mut self, shape: Shape) {
        self.version += 1;
        match self.shapes.iter_mut().find(|known| known.shape == shape) {
            Some(known) => known.filters += 1,
            None => self.shapes.push(Known { shape, filters: 1 }),
        }
    }
}

/// A filter has lost its last subscriber.
fn forget(shapes: &mut Vec<Known>, version: &mut u64, gone: &Interest) {
    *version += 1;
    let name = str::from_utf8(gone.topic()).unwrap_or_default();
    let Pattern::Filter(shape) = Pattern::of(name) else {
        return;
    };
    if let Some(at) = shapes.iter().position(|known| known.shape == shape) {
        shapes[at].filters -= 1;
        if shapes[at].filters == 0 {
            shapes.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn session(slot: u32) -> SessionKey {
        SessionKey::new(slot, 0)
    }

    /// The rules, level by level.
    fn matches(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => matches(filter, topic),
            ([same, filter @ ..], [level, topic @ ..]) if same == level => matches(filter, topic),
            _ => false,
        }
    }

    /// All names of up to `levels_max` of these levels.
    fn names(levels: &[&'static str], levels_max: usize) -> Vec<Vec<&'static str>> {
        let (mut all, mut longest) = (Vec::new(), vec![Vec::new()]);
        for _ in 0..levels_max {
            let longer = longest.iter().flat_map(|name: &Vec<_>| {
                levels
                    .iter()
                    .map(|level| [&name[..], &[*level]].concat())
                    .collect::<Vec<_>>()
            });
            longest = longer.collect();
            all.extend(longest.clone());
        }
        all
    }

    #[test]
    fn j9_every_short_filter_matches_what_the_rules_say_and_nothing_else() {
        let filters = names(&["", "a", "b", "+", "#"], 4);
        let is_filter =
            |name: &Vec<&str>| matches!(Pattern::of(&name.join("/")), Pattern::Filter(_));
        let filters: Vec<_> = filters.into_iter().filter(is_filter).collect();
        let mut wildcards = Wildcards::new(1000);
        for (slot, filter) in (0..).zip(&filters) {
            let added = wildcards.subscribe(session(slot), &filter.join("/"));
            assert_eq!(added, Some(true), "{filter:?}");
        }
        // Levels that are wildcards themselves are ordinary in a topic.
        let topics = names(&["", "a", "c", "+", "#"], 5);
        assert!(filters.len() > 300 && topics.len() > 3000);
        for topic in topics {
            let found = wildcards.subscribers(&topic.join("/"));
            let got: BTreeSet<_> = found.iter().map(|key| key.slot()).collect();
            assert_eq!(got.len(), found.len(), "{topic:?}: each filter once");
            let wanted = (0..).zip(&filters);
            let wanted = wanted.filter(|(_, filter)| matches(filter, &topic));
            let wanted: BTreeSet<_> = wanted.map(|(slot, _)| slot).collect();
            assert_eq!(got, wanted, "{topic:?}");
        }
    }

    #[test]
    fn j9_what_is_no_filter_is_told_from_what_is_an_ordinary_topic() {
        for bad in [
            "a#", "#a", "a/#/b", "#/", "a+", "+a", "a/b+/c", "##", "++", "+#",
        ] {
            assert_eq!(Pattern::of(bad), Pattern::Bad, "{bad}");
            assert_eq!(Wildcards::new(9).subscribe(session(0), bad), None);
        }
        for exact in ["", "/", "a/b", "$SYS/a", "\u{FC}/*"] {
            assert_eq!(Pattern::of(exact), Pattern::Exact, "{exact}");
        }
        let longest = format!("{}+", "/".repeat(253));
        for filter in ["+", "#", "/+", "+/", "a/+/b/#", &longest] {
            assert!(
                matches!(Pattern::of(filter), Pattern::Filter(_)),
                "{filter}"
            );
        }
    }

    #[test]
    fn j9_filters_of_127_levels_match_and_shapes_are_bounded() {
        let mut wildcards = Wildcards::new(64);
        let topic = vec!["a"; 127].join("/");
        let filter = |plus: usize| {
            let mut levels = vec!["a"; 127];
            levels[plus] = "+";
            levels.join("/")
        };
        for plus in 0..64 {
            assert_eq!(wildcards.subscribe(session(0), &filter(plus)), Some(true));
        }
        assert_eq!(wildcards.subscribe(session(0), &filter(64)), None);
        assert_eq!(wildcards.subscribe(session(1), &filter(63)), Some(true));
        assert_eq!(wildcards.subscribers(&topic).len(), 65);
        assert!(wildcards.unsubscribe(session(0), &filter(7)));
        assert_eq!(wildcards.subscribe(session(0), &filter(64)), Some(true));
        assert_eq!(wildcards.subscribers(&topic).len(), 65);
        wildcards.remove_session(session(0));
        wildcards.remove_session(session(1));
        assert!(wildcards.is_empty() && wildcards.filters().topic_count() == 0);
    }

    #[test]
    fn j9_a_hundred_thousand_filters_of_a_few_shapes_cost_a_topic_a_few_lookups() {
        let mut wildcards = Wildcards::new(8);
        for number in 0..50_000 {
            for filter in [format!("+/{number}"), format!("{number}/#")] {
                assert_eq!(wildcards.subscribe(session(number), &filter), Some(true));
            }
        }
        assert_eq!(wildcards.shapes.len(), 2);
        assert_eq!(wildcards.subscribers("7/9").len(), 2);
        assert_eq!(wildcards.subscribers("x/49999"), [session(49_999)]);
        assert_eq!(wildcards.subscribers("x/y"), []);
    }

    #[test]
    fn a_remembered_route_is_forgotten_when_a_filter_comes_or_goes_and_memory_is_bounded() {
        let mut wildcards = Wildcards::new(8);
        assert_eq!(wildcards.subscribers("a/b"), []);
        wildcards.subscribe(session(1), "a/+");
        assert_eq!(wildcards.subscribers("a/b"), [session(1)]);
        // A further session on the same filter is no new route.
        let version = wildcards.version;
        wildcards.subscribe(session(2), "a/+");
        assert_eq!(wildcards.version, version);
        assert_eq!(wildcards.subscribers("a/b"), [session(1), session(2)]);
        wildcards.subscribe(session(3), "#");
        assert_eq!(wildcards.subscribers("a/b").len(), 3);
        wildcards.unsubscribe(session(1), "a/+");
        wildcards.unsubscribe(session(2), "a/+");
        assert_eq!(wildcards.subscribers("a/b"), [session(3)]);
        for number in 0..20_000 {
            assert_eq!(wildcards.subscribers(&number.to_string()), [session(3)]);
        }
        assert_eq!(wildcards.routes.len(), ROUTES);
        assert_eq!(wildcards.subscribers("a/b"), [session(3)]);
    }
}
