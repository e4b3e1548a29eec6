//! Last values: of each topic under some prefixes the newest message, for who subscribes later.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::ledger::Publication;

/// What a naive broker keeps: whoever was not published for the longest time goes first.
#[derive(Debug, Default)]
pub(crate) struct Values {
    prefixes: Vec<&'static str>,
    topics_max: usize,
    by_topic: BTreeMap<Rc<str>, Publication>,
}

impl Values {
    pub(crate) fn new(prefixes: &[&'static str], topics_max: usize) -> Self {
        Self {
            prefixes: prefixes.to_vec(),
            topics_max,
            by_topic: BTreeMap::new(),
        }
    }

    pub(crate) fn keeps(&self, topic: &str) -> bool {
        self.prefixes.iter().any(|prefix| topic.starts_with(prefix))
    }

    /// Whether a filter, by what stands in front of its wildcards, may match a topic that is kept.
    pub(crate) fn meets(&self, filter: &str) -> bool {
        let head = filter.split(['+', '#']).next().unwrap_or_default();
        // `a/#` matches `a` as well.
        let head = head.trim_end_matches('/');
        let mut prefixes = self.prefixes.iter();
        prefixes.any(|prefix| head.starts_with(prefix) || prefix.starts_with(head))
    }

    pub(crate) fn put(&mut self, publication: &Publication) {
        let topic = Rc::clone(&publication.topic);
        self.by_topic.insert(topic, publication.clone());
        while self.by_topic.len() > self.topics_max {
            let oldest = self.by_topic.values().min_by_key(|it| it.order);
            let oldest = oldest.map(|it| Rc::clone(&it.topic));
            self.by_topic.remove(&oldest.expect("there are some"));
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Publication> {
        self.by_topic.values()
    }

    /// Whether this is still the newest message of its topic, and kept.
    pub(crate) fn holds(&self, topic: &str, order: u64) -> bool {
        let value = self.by_topic.get(topic);
        value.is_some_and(|value| value.order == order)
    }
}
