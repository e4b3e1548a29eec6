//! What a shard counts: names and help texts in one table, and the law that deliveries obey.
//!
//! Plain numbers, owned by one shard and written by one thread. Others get copies.

use crate::label::labels;
use crate::packet::PacketError;
use crate::session::CloseReason;

labels! {
    /// Why a whole frame was discarded.
    pub enum DiscardCause {
        /// PUBLISH without a payload.
        EmptyPublish = "empty_publish",
        /// A topic longer than the rest of its frame.
        TopicOverrun = "topic_overrun",
        /// A topic that is not UTF-8.
        TopicNotUtf8 = "topic_not_utf8",
        /// An id that the protocol does not have.
        UnknownId = "unknown_id",
        /// Anything but CONNECT came before CONNECT.
        BeforeConnect = "before_connect",
        /// The handler said so; not charged to the error budget.
        Denied = "denied",
    }
}

impl From<PacketError> for DiscardCause {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::EmptyPublish => Self::EmptyPublish,
            PacketError::TopicOverrun => Self::TopicOverrun,
            PacketError::TopicNotUtf8 => Self::TopicNotUtf8,
        }
    }
}

labels! {
    /// Why a matched delivery was not written. There is no `other`.
    pub enum DropReason {
        /// A slow consumer's backlog was full, and this was new.
        QueueFull = "queue_full",
        /// A slow consumer's backlog was full, and this was the oldest.
        Displaced = "displaced",
        /// A slow consumer had not got it when a newer one of its topic came.
        Conflated = "conflated",
        /// A slow consumer was closed.
        SlowClose = "slow_close",
        /// The largest backlog was closed, because all together were too large.
        Evicted = "evicted",
        /// The session closed for any other reason.
        SessionGone = "session_gone",
        /// The broker stopped before the session took it.
        Drain = "drain",
        /// No memory.
        NoMemory = "no_memory",
    }
}

impl DropReason {
    /// How the deliveries that a closed session was still owed are counted.
    pub const fn of_close(reason: CloseReason) -> Self {
        match reason {
            CloseReason::SlowConsumerBytes | CloseReason::SlowConsumerStalled => Self::SlowClose,
            CloseReason::SlowConsumerEvicted => Self::Evicted,
            CloseReason::Shutdown => Self::Drain,
            CloseReason::NoMemory => Self::NoMemory,
            _ => Self::SessionGone,
        }
    }
}

labels! {
    /// Why a connection was closed before it had a session.
    pub enum RefuseReason {
        /// `sessions_max` is reached.
        SessionsMax = "sessions_max",
        /// No descriptor is free.
        NoDescriptors = "no_descriptors",
        /// The kernel would not watch the socket.
        RegisterFailed = "register_failed",
        /// The reactor that it was given to has too many to adopt already.
        Overload = "overload",
        /// The broker is stopping.
        Stopping = "stopping",
    }
}

/// Packets by id, 1 to 5.
const PACKET_NAMES: [&str; 5] = [
    "connect",
    "disconnect",
    "subscribe",
    "unsubscribe",
    "publish",
];

/// Numbers by label: one for each of `N` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family<const N: usize>([u64; N]);

impl<const N: usize> Default for Family<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> Family<N> {
    /// The sum over all labels.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Access to a [`Family`] by the enum that labels it.
macro_rules! labelled {
    ($label:ty, $field:ident, $get:ident, $count:ident) => {
        impl Counters {
            #[doc = concat!("`", stringify!($field), "` of one label.")]
            pub fn $get(&self, label: $label) -> u64 {
                self.$field.0[label as usize]
            }

            pub(crate) fn $count(&mut self, label: $label, count: u64) {
                self.$field.0[label as usize] += count;
            }
        }
    };
}

labelled!(DiscardCause, frames_discarded, discarded, count_discarded);
labelled!(DropReason, deliveries_dropped, dropped, count_dropped);
labelled!(CloseReason, sessions_closed, closed, count_closed);
labelled!(RefuseReason, sessions_refused, refused, count_refused);

/// Declares [`Counters`] and the table of its names: field, metric name, help.
macro_rules! counters {
    (
        plain { $($field:ident $name:literal $help:literal,)* }
        labelled { $($family:ident $labels:path, $fname:literal $fhelp:literal,)* }
    ) => {
        /// Everything that a shard counts.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(#[doc = $help] pub $field: u64,)*
            $(#[doc = $fhelp] pub $family: Family<{ $labels.len() }>,)*
        }

        /// Name and help text of every metric, in the order in which they are shown.
        pub const HELP: &[(&str, &str)] = &[$(($name, $help),)* $(($fname, $fhelp),)*];

        impl Counters {
            /// Adds what another shard counted.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
                $(for (mine, theirs) in self.$family.0.iter_mut().zip(other.$family.0) {
                    *mine += theirs;
                })*
            }

            /// Every metric with its value: name, label's value (empty for a plain one), number.
            pub fn samples(&self) -> Vec<(&'static str, &'static str, u64)> {
                let mut samples = vec![$(($name, "", self.$field),)*];
                $(samples.extend(
                    $labels.into_iter().zip(self.$family.0).map(|(l, v)| ($fname, l, v))
                );)*
                samples
            }
        }
    };
}

counters! {
    plain {
        turns "turns_total" "Passes of the loop.",
        receives "receives_total" "Receives that brought bytes.",
        bytes_in "bytes_in_total" "Bytes received.",
        sends "sends_total" "Sends of which the kernel took something.",
        short_sends "short_sends_total" "Sends of which the kernel did not take everything.",
        bytes_out "bytes_out_total" "Bytes that the kernel took.",
        read_budget_exhausted "read_budget_exhausted_total" "Sessions put off to the next turn.",
        stale_events "stale_events_total" "Events for a session that had ended.",
        doorbells_missed "doorbells_missed_total" "Sleeps that only the backstop ended.",
        sessions_opened "sessions_opened_total" "Connections that got a session.",
        frames_read "frames_read_total" "Whole frames.",
        publishes_unmatched "publishes_unmatched_total" "Accepted PUBLISH that nobody wanted.",
        deliveries_matched "deliveries_matched_total" "Pairs of an accepted PUBLISH and a session.",
        deliveries_written "deliveries_written_total" "Deliveries whose last byte the kernel took.",
        deliveries_owed "deliveries_owed" "Deliveries neither written nor dropped yet.",
        sessions "sessions" "Slots of sessions that are taken.",
        topics "topics" "Topics that somebody is subscribed to.",
        subscriptions "subscriptions" "Pairs of a session and a topic that it is subscribed to.",
    }
    labelled {
        packets_accepted PACKET_NAMES, "packets_accepted_total" "Packets that took effect, by type.",
        frames_discarded DiscardCause::NAMES, "frames_discarded_total" "Whole frames discarded, by cause.",
        deliveries_dropped DropReason::NAMES, "deliveries_dropped_total" "Deliveries dropped, by reason.",
        sessions_closed CloseReason::NAMES, "sessions_closed_total" "Sessions that ended, by reason.",
        sessions_refused RefuseReason::NAMES, "sessions_refused_total" "Connections refused, by reason.",
    }
}

impl Counters {
    /// Packets accepted with the given id, 1 to 5.
    pub fn accepted(&self, id: u8) -> u64 {
        self.packets_accepted
            .0
            .get(usize::from(id).wrapping_sub(1))
            .copied()
            .unwrap_or(0)
    }

    pub(crate) fn count_accepted(&mut self, id: u8, count: u64) {
        self.packets_accepted.0[usize::from(id) - 1] += count;
    }

    /// Whether every frame and every delivery is accounted for.
    pub fn is_conserved(&self) -> bool {
        let frames = self.packets_accepted.total() + self.frames_discarded.total();
        let deliveries =
            self.deliveries_written + self.deliveries_dropped.total() + self.deliveries_owed;
        self.frames_read == frames && self.deliveries_matched == deliveries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own_and_a_help_text() {
        let names: std::collections::BTreeSet<_> = HELP.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), HELP.len());
        assert!(
            HELP.iter()
                .all(|(name, help)| !name.is_empty() && help.ends_with('.'))
        );
    }

    #[test]
    fn counters_of_shards_add_up_and_each_label_is_shown() {
        let mut one = Counters {
            turns: 2,
            ..Counters::default()
        };
        one.count_closed(CloseReason::WriteZero, 3);
        let mut sum = one.clone();
        sum.add(&one);
        assert_eq!((sum.turns, sum.closed(CloseReason::WriteZero)), (4, 6));
        assert!(
            sum.samples()
                .contains(&("sessions_closed_total", "write_zero", 6))
        );
    }
}
