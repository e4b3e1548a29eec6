//! What a shard counts: names and help texts in one table, and the law that deliveries obey.
//!
//! Plain numbers, owned by one shard and written by one thread. Others get copies.

use crate::session::{CloseReason, SessionState};

mod labels;

pub use labels::{AdminRefusal, DiscardCause, DropReason, Overload, RefuseReason};

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
labelled!(Overload, overload_state, overload, count_overload);
labelled!(SessionState, sessions, in_state, count_in_state);

/// Whether a metric only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It does, from 0 when the broker starts; its name ends in `_total`.
    Counter,
    /// It is what holds now.
    Gauge,
}

impl Kind {
    /// The word for it in `/metrics`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// One row of the table of metrics.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Without the prefix `hvlp_` that `/metrics` puts in front.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// What its samples differ in; empty if there is only one.
    pub label: &'static str,
    /// All values of the label, in their order; empty where they are numbers or versions.
    pub values: &'static [&'static str],
    /// What it counts, in one sentence.
    pub help: &'static str,
}

/// The label of what is shown for each reactor: its number, or `process` for the one that serves
/// the broker's own process.
pub const REACTOR: &str = "reactor";

/// How the numbers of two shards become one.
macro_rules! merge {
    (max $mine:expr, $theirs:expr) => {
        $mine = $mine.max($theirs)
    };
    (sum $mine:expr, $theirs:expr) => {
        $mine += $theirs
    };
}

/// Declares [`Counters`] and the table of its metrics: field, how shards add up, kind, name, label
/// (with its values), help.
macro_rules! counters {
    (
        plain { $($field:ident $how:ident $kind:ident $name:literal $scope:expr, $help:literal;)* }
        labelled {
            $(
                $family:ident $fkind:ident $fname:literal $label:literal
                    $values:expr, $fhelp:literal;
            )*
        }
    ) => {
        /// Everything that a shard counts.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(#[doc = $help] pub $field: u64,)*
            $(#[doc = $fhelp] pub $family: Family<{ $values.len() }>,)*
        }

        /// Every metric that reactors count, in the order in which they are shown.
        pub const METRICS: &[Metric] = &[
            $(Metric {
                name: $name,
                kind: Kind::$kind,
                label: $scope,
                values: &[],
                help: $help,
            },)*
            $(Metric {
                name: $fname,
                kind: Kind::$fkind,
                label: $label,
                values: &$values,
                help: $fhelp,
            },)*
        ];

        impl Counters {
            /// Adds what another shard counted.
            pub fn add(&mut self, other: &Self) {
                $(merge!($how self.$field, other.$field);)*
                $(for (mine, theirs) in self.$family.0.iter_mut().zip(other.$family.0) {
                    *mine += theirs;
                })*
            }

            /// Every metric with its value: name, label's value (empty for a plain one), number.
            /// In the order of [`METRICS`].
            pub fn samples(&self) -> Vec<(&'static str, &'static str, u64)> {
                let mut samples = vec![$(($name, "", self.$field),)*];
                $(samples.extend(
                    $values.into_iter().zip(self.$family.0).map(|(l, v)| ($fname, l, v))
                );)*
                samples
            }
        }
    };
}

counters! {
    plain {
        turns sum Counter "turns_total" REACTOR, "Passes of the loop.";
        receives sum Counter "receives_total" REACTOR, "Receives that brought bytes.";
        bytes_in sum Counter "bytes_in_total" REACTOR, "Bytes received.";
        sends sum Counter "sends_total" REACTOR, "Sends of which the kernel took something.";
        short_sends sum Counter "short_sends_total" REACTOR, "Sends of which the kernel did not take everything.";
        bytes_out sum Counter "bytes_out_total" REACTOR, "Bytes that the kernel took.";
        read_budget_exhausted sum Counter "read_budget_exhausted_total" REACTOR, "Sessions put off to the next turn.";
        lags sum Counter "loop_lags_total" REACTOR, "Turns that took longer than limits.lag_warn, or began so much later than they should have.";
        accept_rests sum Counter "accept_rests_total" "", "Times that accepting rested, because limits.accepts_per_second was reached.";
        stale_events sum Counter "stale_events_total" REACTOR, "Events for a session that had ended.";
        mesh_bytes sum Counter "mesh_bytes_total" REACTOR, "Bytes handed over to other reactors, their headers included.";
        doorbells sum Counter "doorbells_total" REACTOR, "Other reactors woken, because something was handed over to them or there is room again.";
        pauses sum Counter "slow_consumer_pauses_total" "", "Times that a subscriber began to hold its publishers.";
        doorbells_missed sum Counter "doorbells_missed_total" REACTOR, "Sleeps that only the backstop ended.";
        mesh_spill_bytes sum Gauge "mesh_spill_bytes" REACTOR, "Bytes for other reactors that their full rings have not taken yet.";
        sessions_opened sum Counter "sessions_opened_total" "", "Connections that got a session.";
        frames_read sum Counter "frames_read_total" "", "Whole frames.";
        publishes_unmatched sum Counter "publishes_unmatched_total" "", "Accepted PUBLISH that nobody wanted.";
        deliveries_matched sum Counter "deliveries_matched_total" "", "Pairs of an accepted PUBLISH and a session.";
        deliveries_replayed sum Counter "deliveries_replayed_total" "", "Of deliveries_matched, those of last values to who subscribed later.";
        deliveries_written sum Counter "deliveries_written_total" "", "Deliveries whose last byte the kernel took.";
        deliveries_owed sum Gauge "deliveries_owed" "", "Deliveries neither written nor dropped yet.";
        topics sum Gauge "topics" "", "Topics that somebody is subscribed to.";
        topic_bytes sum Gauge "topic_bytes" "", "Lengths of the names of topics, once for each reactor with a subscriber.";
        last_value_topics max Gauge "last_value_topics" "", "Topics whose last value is kept.";
        last_value_bytes max Gauge "last_value_bytes" "", "What last values take, overhead included.";
        last_values_evicted max Counter "last_values_evicted_total" "", "Last values that had to go for newer ones, at last_value_topics_max or last_value_bytes_max.";
        subscriptions sum Gauge "subscriptions" "", "Pairs of a session and a topic that it is subscribed to.";
        publishers_paused sum Gauge "publishers_paused" "", "Sessions that are not read until a reactor or a slow subscriber has room.";
        backlog_bytes sum Gauge "backlog_bytes" "", "What sessions are owed and their sockets have refused, overhead included.";
        backlog_bytes_max_session max Gauge "backlog_bytes_max_session" "", "The part of backlog_bytes that belongs to the session with the most.";
        accounted_bytes sum Gauge "accounted_bytes" "", "What sessions, topics, subscriptions, backlogs and held input take, by account.";
        held_bytes sum Gauge "held_bytes" "", "Input that came and waits to be parsed.";
    }
    labelled {
        overload_state Gauge "overload_state" "limit" Overload::NAMES, "Reactors that are at a limit or not well below it yet, by limit.";
        sessions Gauge "sessions" "state" SessionState::NAMES, "Slots of sessions that are taken, by state.";
        packets_accepted Counter "packets_accepted_total" "type" PACKET_NAMES, "Packets that took effect, by type.";
        frames_discarded Counter "frames_discarded_total" "cause" DiscardCause::NAMES, "Whole frames discarded, by cause.";
        deliveries_dropped Counter "deliveries_dropped_total" "reason" DropReason::NAMES, "Deliveries dropped, by reason.";
        sessions_closed Counter "sessions_closed_total" "reason" CloseReason::NAMES, "Sessions that ended, by reason.";
        sessions_refused Counter "sessions_refused_total" "reason" RefuseReason::NAMES, "Connections refused, by reason.";
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

/// What the process has beside the counters of its reactors, in the order in which it is shown.
pub const PROCESS: &[Metric] = &[
    process(
        "build_info",
        Kind::Gauge,
        "version, engine",
        "Always 1; its labels say what runs.",
    ),
    process(
        "start_time_seconds",
        Kind::Gauge,
        "",
        "When the broker started, in seconds since 1970.",
    ),
    process(
        "reactor_answers",
        Kind::Gauge,
        REACTOR,
        "1 if the reactor answered within a second or has ended in order, 0 if not; its numbers \
         are then the last known.",
    ),
    Metric {
        values: &["bound", "limit"],
        ..process(
            "memory_limit_bytes",
            Kind::Gauge,
            "kind",
            "The sum of all limits, which is what the process may come to take, and \
             limits.memory_max, which it must not exceed.",
        )
    },
    process(
        "backlog_limit_bytes",
        Kind::Gauge,
        "",
        "The limit of backlog_bytes, limits.outbound_total_max.",
    ),
    Metric {
        values: &["used", "limit"],
        ..process(
            "descriptors",
            Kind::Gauge,
            "kind",
            "Descriptors of the process, and how many it may have.",
        )
    },
    process(
        "control_panics_total",
        Kind::Counter,
        "",
        "Panics of the control plane, each of which made it start again.",
    ),
    process(
        "admin_requests_total",
        Kind::Counter,
        "",
        "Requests to the admin endpoint that it could read.",
    ),
    Metric {
        values: &AdminRefusal::NAMES,
        ..process(
            "admin_refused_total",
            Kind::Counter,
            "reason",
            "Connections and requests that the admin endpoint refused, by reason.",
        )
    },
];

const fn process(
    name: &'static str,
    kind: Kind,
    label: &'static str,
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        label,
        values: &[],
        help,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own_and_a_help_text() {
        let all = || METRICS.iter().chain(PROCESS);
        let names: std::collections::BTreeSet<_> = all().map(|metric| metric.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(all().all(|metric| metric.help.ends_with('.')));
    }

    #[test]
    fn what_only_grows_is_a_total_by_its_name() {
        for metric in METRICS.iter().chain(PROCESS) {
            let is_total = metric.name.ends_with("_total");
            assert_eq!(is_total, metric.kind == Kind::Counter, "{}", metric.name);
        }
    }

    #[test]
    fn samples_come_in_the_order_of_the_table_with_every_value_of_their_labels() {
        let samples = Counters::default().samples();
        let mut expected = Vec::new();
        for metric in METRICS {
            match metric.values {
                [] => expected.push((metric.name, "", 0)),
                values => expected.extend(values.iter().map(|value| (metric.name, *value, 0))),
            }
        }
        assert_eq!(samples, expected);
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
