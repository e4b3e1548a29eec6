//! What a shard waits for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::config::ListenerConfig;
use crate::deadline::{DeadlineQueue, Timestamp};
use crate::session::{CloseReason, SessionKey};
use crate::shard::answers::FAREWELL;

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
    /// From the close of a session to the end of its last words.
    pub(super) farewell: DeadlineQueue,
    /// From one byte of a session with a keepalive to the next.
    pub(super) keepalive: Keepalives,
}

/// Sessions with a keepalive, by when they are to have been heard of. Each stands here once: that
/// it was heard of is found out then, so a receive costs nothing.
#[derive(Debug, Default)]
pub(super) struct Keepalives {
    due: BinaryHeap<Reverse<(Timestamp, SessionKey)>>,
}

impl Keepalives {
    /// How long a session that promised to be heard of every so many seconds may be silent.
    pub(super) const fn wait(seconds: u8) -> Duration {
        Duration::from_millis(seconds as u64 * 1500)
    }

    /// The session promises it; not for 0 seconds.
    pub(super) fn begin(&mut self, key: SessionKey, seconds: u8, now: Timestamp) {
        if seconds > 0 {
            self.look_at(key, now + Self::wait(seconds));
        }
    }

    pub(super) fn look_at(&mut self, key: SessionKey, due: Timestamp) {
        self.due.push(Reverse((due, key)));
    }

    fn first(&self) -> Option<Timestamp> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes a session that is to have been heard of by now; perhaps one that has ended.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<SessionKey> {
        let is_due = self.first().is_some_and(|due| due <= now);
        let popped = is_due.then(|| self.due.pop())?;
        popped.map(|Reverse((_, key))| key)
    }
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
            farewell: queue(|_| FAREWELL),
            keepalive: Keepalives::default(),
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
        let queues = [
            &self.connect,
            &self.frame,
            &self.progress,
            &self.pause,
            &self.farewell,
        ];
        let firsts = queues.iter().filter_map(|queue| queue.first());
        firsts.chain(self.keepalive.first()).min()
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
