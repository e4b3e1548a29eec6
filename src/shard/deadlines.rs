//! What a shard waits for.

use std::time::Duration;

use crate::config::ListenerConfig;
use crate::deadline::{DeadlineQueue, Timestamp};
use crate::session::CloseReason;

/// Everything that a shard waits for, with the reason that ends a session when it has not come.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// From accept to CONNECT.
    pub(super) connect: DeadlineQueue,
    /// From the first byte of a frame to its last.
    pub(super) frame: DeadlineQueue,
    /// From one byte of a backlog that the kernel takes to the next.
    pub(super) progress: DeadlineQueue,
    /// From the moment a consumer holds its publishers to the end of that.
    pub(super) pause: DeadlineQueue,
}

impl Deadlines {
    pub(super) fn new(listeners: &[ListenerConfig]) -> Self {
        let queue =
            |wait: fn(&ListenerConfig) -> Duration| DeadlineQueue::new(listeners.iter().map(wait));
        Self {
            connect: queue(|listener| listener.connect_timeout),
            frame: queue(|listener| listener.frame_timeout),
            progress: queue(|listener| listener.progress_timeout),
            pause: queue(|listener| listener.pause_max),
        }
    }

    /// Ends every wait of `slot`.
    pub(super) fn disarm(&mut self, slot: u32) {
        for (queue, _) in self.queues() {
            queue.disarm(slot);
        }
    }

    /// When the first of all waits ends.
    pub(super) fn first(&self) -> Option<Timestamp> {
        let queues = [&self.connect, &self.frame, &self.progress, &self.pause];
        queues.iter().filter_map(|queue| queue.first()).min()
    }

    /// Takes a slot whose wait is over.
    pub(super) fn pop_expired(&mut self, now: Timestamp) -> Option<(u32, CloseReason)> {
        let mut queues = self.queues().into_iter();
        queues.find_map(|(queue, reason)| Some((queue.pop_expired(now)?, reason)))
    }

    const fn queues(&mut self) -> [(&mut DeadlineQueue, CloseReason); 4] {
        [
            (&mut self.connect, CloseReason::ConnectTimeout),
            (&mut self.frame, CloseReason::FrameTimeout),
            (&mut self.progress, CloseReason::SlowConsumerStalled),
            (&mut self.pause, CloseReason::SlowConsumerPaused),
        ]
    }
}
