//! What one turn may do before everyone else has their turn.

use crate::config::Limits;

/// What is left of a turn. Looked at between frames: the fan-out of one frame is the smallest unit
/// of work, so a turn exceeds its share by that of one frame at most.
#[derive(Debug)]
pub(super) struct Budget {
    frames_left: usize,
    /// Bytes of frames, once for each session that they go to.
    delivery_bytes_left: usize,
}

impl Budget {
    pub(super) const fn of(limits: &Limits) -> Self {
        Self {
            frames_left: limits.frames_per_turn,
            delivery_bytes_left: limits.deliver_per_turn,
        }
    }

    /// `count` frames were read, or topics of a list, each of which costs about as much.
    pub(super) const fn spend_frames(&mut self, count: usize) {
        self.frames_left = self.frames_left.saturating_sub(count);
    }

    /// `len` bytes go to `sessions` sessions.
    pub(super) const fn spend_deliveries(&mut self, len: usize, sessions: usize) {
        let bytes = len.saturating_mul(sessions);
        self.delivery_bytes_left = self.delivery_bytes_left.saturating_sub(bytes);
    }

    pub(super) const fn is_spent(&self) -> bool {
        self.frames_left == 0 || self.delivery_bytes_left == 0
    }

    /// How many frames a run may have.
    pub(super) fn frames_max(&self) -> u32 {
        u32::try_from(self.frames_left).unwrap_or(u32::MAX)
    }

    /// How many bytes of frames may still go to `sessions` sessions; perhaps less than a frame.
    pub(super) fn run_len_max(&self, sessions: usize) -> usize {
        self.delivery_bytes_left / sessions.max(1)
    }

    /// What was delivered so far, of what there was in the beginning.
    pub(super) const fn delivered_bytes(&self, limits: &Limits) -> usize {
        limits.deliver_per_turn - self.delivery_bytes_left
    }
}
