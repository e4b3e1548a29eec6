//! Log lines about sessions: one per close, limited per reason, never one per frame.

use std::time::Duration;

use humantime::format_duration;
use tracing::{debug, info, warn};

use crate::deadline::Timestamp;
use crate::metrics::Overload;
use crate::session::{CloseReason, Foreign, Peer};
use crate::shard::{Closed, Overloads};

/// Writes what happens to sessions, at most ten lines a second for each reason.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    reasons: [Rate; CloseReason::ALL.len()],
    /// When each kind of foreign client was last told about.
    foreign: Vec<(Foreign, Timestamp)>,
    descriptors: Option<Timestamp>,
    lag: Rate,
    /// As told last.
    overloads: Overloads,
    overload_lines: Rate,
    option_refused: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    second: Timestamp,
    lines: u32,
    suppressed: u64,
}

const LINES_PER_SECOND: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);
/// A shorter lag is counted, and not worth a line.
const LAG_TOLD: Duration = SECOND;
const FOREIGN_EVERY: Duration = Duration::from_secs(60);
const DESCRIPTORS_EVERY: Duration = Duration::from_secs(10);

impl Journal {
    pub(crate) fn opened(number: Option<u64>, peer: Peer) {
        debug!(session = number, %peer, "open");
    }

    pub(crate) fn closed(&mut self, now: Timestamp, closed: &Closed) {
        let &Closed {
            number,
            peer,
            reason,
            dropped,
            foreign,
            ..
        } = closed;
        self.foreign(now, peer, foreign);
        let Some(suppressed) = self.reasons[reason as usize].admit(now) else {
            return;
        };
        if reason.is_ordinary() {
            debug!(session = number, %peer, %reason, dropped, suppressed, "close");
        } else if suppressed == 0 {
            info!(session = number, %peer, %reason, dropped, "close");
        } else {
            info!(session = number, %peer, %reason, dropped, suppressed, "close");
        }
    }

    fn foreign(&mut self, now: Timestamp, peer: Peer, foreign: Option<Foreign>) {
        let Some(kind) = foreign else { return };
        let known = self.foreign.iter_mut().find(|(known, _)| *known == kind);
        match known {
            Some((_, told)) if now.since(*told) < FOREIGN_EVERY => return,
            Some((_, told)) => *told = now,
            None => self.foreign.push((kind, now)),
        }
        warn!("client {peer} {kind}");
    }

    /// The kernel did not take a socket option; said once.
    pub(crate) fn option_refused(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.option_refused, true) {
            warn!("a socket option was refused: {error}; look at the listener.tcp_ settings");
        }
    }

    /// The loop stood still that long.
    pub(crate) fn lag(&mut self, now: Timestamp, lag: Duration) {
        if lag >= LAG_TOLD
            && let Some(suppressed) = self.lag.admit(now)
        {
            let lag = format_duration(Duration::from_secs(lag.as_secs()));
            warn!(
                suppressed,
                "this reactor stood still for {lag}: the process was stopped, the host is \
                 overcommitted, or a handler took so long"
            );
        }
    }

    /// Which states of overload hold now; told of when they begin and when they end.
    pub(crate) fn overloads(&mut self, now: Timestamp, overloads: Overloads) {
        if overloads == self.overloads {
            return;
        }
        let Some(suppressed) = self.overload_lines.admit(now) else {
            return;
        };
        let before = std::mem::replace(&mut self.overloads, overloads);
        for (overload, changed) in Overload::ALL
            .into_iter()
            .zip(before.into_iter().zip(overloads))
        {
            match changed {
                (false, true) => {
                    warn!(limit = %overload, suppressed, "overloaded: {}", overload.advice());
                }
                (true, false) => info!(limit = %overload, suppressed, "no longer overloaded"),
                _ => {}
            }
        }
    }

    /// No descriptor was free to accept with.
    pub(crate) fn no_descriptors(&mut self, now: Timestamp, error: &std::io::Error) {
        if self
            .descriptors
            .is_none_or(|told| now.since(told) >= DESCRIPTORS_EVERY)
        {
            self.descriptors = Some(now);
            warn!("cannot accept: {error}; raise the descriptor limit (ulimit -n, LimitNOFILE=)");
        }
    }
}

impl Rate {
    /// Whether one more line may be written, and how many were suppressed before it.
    fn admit(&mut self, now: Timestamp) -> Option<u64> {
        if now.since(self.second) >= SECOND {
            (self.second, self.lines) = (now, 0);
        }
        if self.lines == LINES_PER_SECOND {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_pass_and_the_next_one_says_how_many_did_not() {
        let mut rate = Rate::default();
        let passed = (0..25)
            .filter(|_| rate.admit(Timestamp::from(SECOND)).is_some())
            .count();
        assert_eq!(passed, 10);
        assert_eq!(rate.admit(Timestamp::from(SECOND * 2)), Some(15));
        assert_eq!(rate.admit(Timestamp::from(SECOND * 2)), Some(0));
    }
}
