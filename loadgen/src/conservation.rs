//! Conservation of deliveries: what this generator saw of a broker against what the broker counted.
//!
//! ```text
//! published (generator) = accepted (broker)
//! matched = written + dropped + owed
//! written = received (generator) + left in the sockets of connections that were cut
//! ```
//!
//! A connection that was reset takes with it what the kernel had accepted and nobody had read.
//! Nothing counts that, but it is never less than nothing, nor more than was published meanwhile.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::admin::{Admin, Counts};

/// What a generator published and received, probes included, once all has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Messages handed to sockets.
    pub published: u64,
    /// Messages read from sockets.
    pub received: u64,
    /// The most that may have been written to connections that were cut, and never read.
    pub cut_max: u64,
}

impl Ledger {
    /// With what another part of the generator saw.
    #[must_use]
    pub const fn and(&self, other: &Self) -> Self {
        Self {
            published: self.published + other.published,
            received: self.received + other.received,
            cut_max: self.cut_max + other.cut_max,
        }
    }
}

/// Both sides of the account, as differences from before the first connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conservation {
    ledger: Ledger,
    accepted: u64,
    matched: u64,
    written: u64,
    owed: u64,
    dropped: BTreeMap<String, u64>,
}

impl Conservation {
    /// Deliveries dropped for `reason`.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.dropped.get(reason).copied().unwrap_or_default()
    }

    /// What has come on top between two looks at a broker.
    ///
    /// # Errors
    /// The broker was started again between them.
    #[expect(
        clippy::float_cmp,
        reason = "the same process tells the same number, to the bit"
    )]
    pub fn between(before: &Counts, after: &Counts, ledger: Ledger) -> Result<Self> {
        ensure!(
            before.start_time == after.start_time,
            "the broker was started again meanwhile: its counters began anew"
        );
        let since = |after: u64, before: u64| after.saturating_sub(before);
        let dropped = after.dropped.iter().map(|(reason, &count)| {
            let before = before.dropped.get(reason).copied().unwrap_or_default();
            (reason.clone(), since(count, before))
        });
        Ok(Self {
            ledger,
            accepted: since(after.published, before.published),
            matched: since(after.matched, before.matched),
            written: since(after.written, before.written),
            owed: after.owed,
            dropped: dropped.filter(|(_, count)| *count > 0).collect(),
        })
    }

    /// Messages and deliveries that one side knows of and the other does not.
    pub fn unexplained(&self) -> u64 {
        let Ledger {
            published,
            received,
            cut_max,
        } = self.ledger;
        let dropped: u64 = self.dropped.values().sum();
        let left = self.written.saturating_sub(received);
        published.abs_diff(self.accepted)
            + self.matched.abs_diff(self.written + dropped + self.owed)
            + received.saturating_sub(self.written)
            + left.saturating_sub(cut_max)
    }

    /// What was written to connections that were cut and never read.
    pub fn in_cut_sockets(&self) -> u64 {
        let left = self.written.saturating_sub(self.ledger.received);
        left.min(self.ledger.cut_max)
    }

    /// Why the run has no result.
    pub fn invalid_reason(&self) -> Option<String> {
        let unexplained = self.unexplained();
        (unexplained > 0).then(|| {
            format!(
                "{unexplained} unexplained: the broker accepted {} of {} published, and wrote {} \
                 of which {} were received and at most {} lay in sockets that were cut",
                self.accepted,
                self.ledger.published,
                self.written,
                self.ledger.received,
                self.ledger.cut_max
            )
        })
    }

    /// For a report in JSON.
    pub fn object(&self) -> Value {
        json!({
            "published": self.ledger.published,
            "accepted": self.accepted,
            "matched": self.matched,
            "written": self.written,
            "received": self.ledger.received,
            "dropped": self.dropped,
            "owed": self.owed,
            "in_cut_sockets": self.in_cut_sockets(),
            "unexplained": self.unexplained(),
        })
    }
}

/// `conserved: published 3, matched 6, written 5, dropped 1 (1 displaced), unexplained 0`.
impl fmt::Display for Conservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dropped: u64 = self.dropped.values().sum();
        write!(
            f,
            "conserved: published {}, matched {}, written {}, dropped {dropped}",
            self.ledger.published, self.matched, self.written
        )?;
        if dropped > 0 {
            let reasons = self.dropped.iter();
            let reasons: Vec<_> = reasons.map(|(name, n)| format!("{n} {name}")).collect();
            write!(f, " ({})", reasons.join(", "))?;
        }
        if self.ledger.cut_max > 0 {
            let left = self.in_cut_sockets();
            write!(f, ", left in the sockets of cut connections {left}")?;
        }
        write!(f, ", unexplained {}", self.unexplained())
    }
}

/// The account of one run, open until its last connection is closed.
#[derive(Debug)]
pub struct Account<'a> {
    admin: &'a Admin,
    before: Counts,
}

impl<'a> Account<'a> {
    /// Before the first connection.
    ///
    /// # Errors
    /// The endpoint does not answer, or somebody else is connected.
    pub fn open(admin: &'a Admin) -> Result<Self> {
        let before = admin.counts_when_alone()?;
        Ok(Self { admin, before })
    }

    /// After the last connection was drained and closed.
    ///
    /// # Errors
    /// The endpoint does not answer, somebody else is connected, or the broker is another one.
    pub fn close(self, ledger: Ledger) -> Result<Conservation> {
        let after = self.admin.counts_when_alone()?;
        Conservation::between(&self.before, &after, ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(published: u64, matched: u64, written: u64, displaced: u64) -> Counts {
        Counts {
            published,
            matched,
            written,
            dropped: [("displaced".to_owned(), displaced)].into(),
            ..Counts::default()
        }
    }

    fn ledger(published: u64, received: u64, cut_max: u64) -> Ledger {
        Ledger {
            published,
            received,
            cut_max,
        }
    }

    fn unexplained(after: &Counts, ledger: Ledger) -> u64 {
        let before = counts(100, 200, 190, 10);
        let conservation = Conservation::between(&before, after, ledger).unwrap();
        let reason = conservation.invalid_reason();
        assert_eq!(reason.is_some(), conservation.unexplained() > 0);
        conservation.unexplained()
    }

    #[test]
    fn what_both_sides_saw_leaves_nothing_unexplained() {
        let after = counts(103, 206, 195, 11);
        assert_eq!(unexplained(&after, ledger(3, 5, 0)), 0);
        let conservation =
            Conservation::between(&counts(100, 200, 190, 10), &after, ledger(3, 5, 0)).unwrap();
        assert_eq!(
            conservation.to_string(),
            "conserved: published 3, matched 6, written 5, dropped 1 (1 displaced), unexplained 0"
        );
    }

    #[test]
    fn one_too_few_anywhere_is_unexplained() {
        let ledger = ledger(3, 5, 0);
        for after in [
            counts(102, 206, 195, 11), // a PUBLISH that the broker did not count
            counts(103, 207, 195, 11), // a match that became nothing
            counts(103, 205, 194, 11), // a delivery that was received and not written
            counts(103, 207, 196, 11), // one that was written and not received
        ] {
            assert_eq!(unexplained(&after, ledger), 1, "{after:?}");
        }
    }

    #[test]
    fn a_cut_connection_explains_what_it_can_have_held_and_no_more() {
        let after = counts(103, 206, 195, 11);
        assert_eq!(unexplained(&after, ledger(3, 2, 3)), 0);
        assert_eq!(unexplained(&after, ledger(3, 1, 3)), 1);
        assert_eq!(unexplained(&after, ledger(3, 6, 3)), 1);
    }

    #[test]
    fn a_broker_that_was_started_again_has_no_difference() {
        let after = Counts {
            start_time: 7.0,
            ..Counts::default()
        };
        let refusal = Conservation::between(&Counts::default(), &after, Ledger::default());
        assert!(refusal.unwrap_err().to_string().contains("again"));
    }
}
