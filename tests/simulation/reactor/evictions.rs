//! Who goes when all backlogs together are too large: the largest first, and no more of them than
//! it takes.

use std::collections::BTreeMap;

use hvlp::outbound::SlowConsumer;
use hvlp::session::{CloseReason, SessionKey};

use crate::faults::Mark;
use crate::outside::Outside;
use crate::reactor::Reactor;

/// What open sessions are owed, by memory, before or behind a call that may evict some.
pub(super) struct Backlogs {
    open: BTreeMap<SessionKey, usize>,
    /// Those of sessions that are leaving included.
    total: usize,
}

/// What may be left of a session that is evicted: its last words, and a frame that has begun.
const LAST_WORDS_LEN_MAX: usize = 5_000;

impl Reactor {
    pub(super) fn backlogs(&self) -> Backlogs {
        let sessions = self.shard.sessions();
        Backlogs {
            open: sessions.map(|(key, it)| (key, it.backlog_bytes)).collect(),
            total: self.shard.counters().backlog_bytes as usize,
        }
    }

    /// What was owed to `key` was kept, or sent, since `before`: whoever else is closing now was
    /// evicted for it.
    pub(super) fn check_evicted(
        &mut self,
        outside: &mut Outside,
        key: SessionKey,
        before: &Backlogs,
    ) {
        let after = self.backlogs();
        let mut gone = before.open.clone();
        gone.retain(|key, _| !after.open.contains_key(key));
        let rest: usize = after.open.values().sum();
        // Of that one the reason is not known yet, nor how much it was owed at last.
        let is_known = gone.remove(&key).is_none();
        if !is_known {
            self.evicted.insert(key, rest);
        }
        let Some(smallest) = gone.values().copied().min() else {
            return;
        };
        let total_max = outside.config.limits.outbound_total_max;
        let enough = total_max / 10 * 9;
        assert!(smallest > 0, "somebody without a backlog is evicted");
        let largest = after.open.values().copied().max().unwrap_or(0);
        assert!(
            largest <= smallest,
            "a backlog of {smallest} goes, and one of {largest} stays"
        );
        let number = self.connections[&key].number;
        // When the newest of each topic are frozen behind that, they take less.
        if is_known && outside.model.ledger.policy(number) != SlowConsumer::Conflate {
            let total = after.total + gone.values().sum::<usize>();
            assert!(total > total_max, "{total} bytes are within the bound");
            // The last words of those who go take a little too, as long as they are not written.
            let words = gone.len() * LAST_WORDS_LEN_MAX;
            assert!(
                rest + smallest + words > enough,
                "more are evicted than it takes"
            );
        }
        outside.faults.mark(Mark::Evicted, true);
        outside.faults.mark(Mark::EvictedTwo, gone.len() > 1);
        self.evicted.extend(gone.keys().map(|key| (*key, rest)));
    }

    /// Last values have made several backlogs grow: whoever is closing now was evicted for one of
    /// them, or could be owed no more.
    pub(super) fn note_evicted(&mut self, outside: &Outside, before: &Backlogs) {
        let after = self.backlogs();
        let enough = outside.config.limits.outbound_total_max / 10 * 9;
        let rest = after.open.values().sum::<usize>().min(enough);
        let gone = before
            .open
            .keys()
            .filter(|key| !after.open.contains_key(key));
        self.evicted.extend(gone.map(|key| (*key, rest)));
    }

    /// A session was evicted when that left nine tenths of the bound at most.
    pub(super) fn check_reason(&mut self, outside: &Outside, key: SessionKey, reason: CloseReason) {
        let rest = self.evicted.remove(&key);
        if reason == CloseReason::SlowConsumerEvicted {
            let rest = rest.expect("sessions are evicted when a backlog grows");
            let enough = outside.config.limits.outbound_total_max / 10 * 9;
            assert!(rest <= enough, "{rest} bytes are left");
        }
    }
}
