//! Who gets last values, and which messages these stand for.

use super::{Model, Session};
use crate::filters;
use crate::ledger::Publication;

/// What a session has subscribed to in one packet and had not before.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    pub(super) topics: Vec<String>,
    pub(super) filters: Vec<String>,
    /// What was executed before is kept, or stands behind something that is.
    since: u64,
    /// The session was not read since.
    is_under_way: bool,
}

impl Session {
    pub(crate) fn is_replaying(&self) -> bool {
        self.fresh.as_ref().is_some_and(|fresh| fresh.is_under_way)
    }

    /// Whether a topic is among what it has subscribed to last, and was not before.
    fn is_fresh(&self, topic: &str) -> bool {
        let Some(fresh) = &self.fresh else {
            return false;
        };
        let is_named = fresh.topics.iter().any(|it| it == topic);
        let matches = |filter: &&String| filters::matches(filter, topic);
        let is_covered = is_named || fresh.filters.iter().any(|it| matches(&it));
        let mut others = self.filters.iter().filter(|it| !fresh.filters.contains(it));
        let was_held = self.topics.contains(topic) && !is_named;
        is_covered && !was_held && !others.any(|it| matches(&it))
    }

    /// Whether it gets a last value that is at least as new as a message.
    pub(super) fn has_newer(&self, publication: &Publication) -> bool {
        let fresh = self.fresh.as_ref().filter(|it| it.is_under_way);
        publication.is_kept
            && fresh.is_some_and(|fresh| publication.order <= fresh.since)
            && self.is_fresh(&publication.topic)
    }
}

impl Model {
    /// A session has subscribed to this: it is not read before it has the values, if there may be
    /// any.
    pub(super) fn begin_replay(&mut self, number: u64, mut fresh: Fresh) {
        let session = &self.sessions[&number];
        if fresh.topics.is_empty() && fresh.filters.is_empty() || !session.is_open() {
            return;
        }
        fresh.since = self.ledger.executed();
        fresh.is_under_way = true;
        self.session(number).fresh = Some(fresh);
        let session = &self.sessions[&number];
        if !session.is_broken {
            self.ledger
                .begin_replay(number, |topic| session.is_fresh(topic));
        }
    }

    /// It is read again, or nothing is left to be done.
    pub(crate) fn end_replay(&mut self, number: u64) {
        let session = self.session(number);
        let (shard, is_broken) = (session.shard, session.is_broken);
        let Some(fresh) = &mut session.fresh else {
            return;
        };
        let since = fresh.since;
        if std::mem::take(&mut fresh.is_under_way) && !is_broken {
            // A shard that stops gives no more of them.
            let is_whole = !self.draining[shard];
            self.ledger.end_replay(number, shard, since, is_whole);
        }
    }
}
