//! What one turn may do before everyone else has their turn.

use crate::config::Limits;

/// As many sessions share what a turn delivers. Where one run goes to more of them, most of the
/// turn is what sends cost whatever is in them (10,000 take some 35 ms), and bytes are what makes
/// that worth it: each session beyond them adds as much again as each of these has.
const SHARERS: usize = 4096;

/// What is left of a turn. Looked at between frames: the fan-out of one frame is the smallest unit
/// of work, so a turn exceeds its share by that of one frame at most.
#[derive(Debug)]
pub(super) struct Budget {
    frames_left: usize,
    /// Bytes of frames, once for each session that they go to.
    delivered_bytes: usize,
    /// How many of them a turn may have.
    share: usize,
    /// What each session beyond `sharers` adds to it.
    each: usize,
    /// As many as the largest fan-out so far has, or as share without adding.
    sharers: usize,
}

impl Budget {
    pub(super) const fn of(limits: &Limits) -> Self {
        Self {
            frames_left: limits.frames_per_turn,
            delivered_bytes: 0,
            share: limits.deliver_per_turn,
            each: limits.deliver_per_turn / SHARERS,
            sharers: SHARERS,
        }
    }

    /// `count` frames were read, or topics of a list, each of which costs about as much.
    pub(super) const fn spend_frames(&mut self, count: usize) {
        self.frames_left = self.frames_left.saturating_sub(count);
    }

    /// `len` bytes go to `sessions` sessions.
    pub(super) const fn spend_deliveries(&mut self, len: usize, sessions: usize) {
        self.delivered_bytes = self
            .delivered_bytes
            .saturating_add(len.saturating_mul(sessions));
        if sessions > self.sharers {
            self.share = self.share_of(sessions);
            self.sharers = sessions;
        }
    }

    pub(super) const fn is_spent(&self) -> bool {
        self.frames_left == 0 || self.delivered_bytes >= self.share
    }

    /// How many frames a run may have.
    pub(super) fn frames_max(&self) -> u32 {
        u32::try_from(self.frames_left).unwrap_or(u32::MAX)
    }

    /// How many bytes of frames may still go to `sessions` sessions; perhaps less than a frame.
    pub(super) fn run_len_max(&self, sessions: usize) -> usize {
        self.share_of(sessions).saturating_sub(self.delivered_bytes) / sessions.max(1)
    }

    /// The share, once as many sessions have been served at a time.
    const fn share_of(&self, sessions: usize) -> usize {
        let more = sessions.saturating_sub(self.sharers);
        self.share.saturating_add(self.each.saturating_mul(more))
    }

    /// What was delivered so far.
    pub(super) const fn delivered_bytes(&self) -> usize {
        self.delivered_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_beyond_those_who_share_a_turn_add_to_it() {
        let limits = Limits {
            deliver_per_turn: SHARERS * 1000,
            ..Limits::default()
        };
        for (sessions, each) in [(1, SHARERS * 1000), (SHARERS, 1000), (4 * SHARERS, 1000)] {
            let mut budget = Budget::of(&limits);
            assert_eq!(budget.run_len_max(sessions), each, "{sessions} sessions");
            budget.spend_deliveries(each - 1, sessions);
            assert!(!budget.is_spent(), "{sessions} sessions");
            assert_eq!(budget.run_len_max(sessions), 1, "{sessions} sessions");
            budget.spend_deliveries(1, sessions);
            assert!(budget.is_spent(), "{sessions} sessions");
        }
    }
}
