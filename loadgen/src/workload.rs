//! What a run consists of: who publishes to which topic, who subscribes to it. Pure arithmetic.
//!
//! Topics are dealt out in turn. With at least as many topics as subscribers, subscriber `s` takes
//! the topics `s, s + subscribers, ...`; with fewer, it takes topic `s % topics`. Publishers alike.

use std::fmt;

use crate::stamp::StampKind;

/// The publisher's index travels in two bytes of the stamp.
pub const PUBLISHERS_MAX: usize = 1 << 16;
/// Four hexadecimal digits name a topic.
pub const TOPICS_MAX: usize = 1 << 16;
/// A PUBLISH carries 254 bytes of topic and data; our topics have [`TOPIC_LEN`].
pub const PAYLOAD_LEN_MAX: usize = 254 - TOPIC_LEN;
/// All topics are equally long, so that all frames of a run are.
pub const TOPIC_LEN: usize = 5;

/// The workloads of the benchmark by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// 1 publisher, 1 topic, 100 subscribers.
    Fanout,
    /// 1 publisher, 1 subscriber.
    One,
    /// 1 topic, 1000 subscribers, 16 bytes.
    Wide,
    /// 1 publisher, 100 topics in turn, 1 subscriber each.
    Spread,
    /// 1 publisher, 100 topics in turn, 10 subscribers each.
    Mesh,
    /// 100 publishers, each with a topic and a subscriber of its own.
    Pairs,
    /// No load: connections with a topic each.
    Idle,
}

impl Workload {
    /// The word on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::One => "one",
            Self::Wide => "wide",
            Self::Spread => "spread",
            Self::Mesh => "mesh",
            Self::Pairs => "pairs",
            Self::Idle => "idle",
        }
    }

    /// The workload with its usual numbers.
    pub const fn plan(self) -> Plan {
        let (publishers, topics, subscribers, payload_len, window) = match self {
            Self::Fanout => (1, 1, 100, 64, 700_000),
            Self::One => (1, 1, 1, 64, 14_000),
            Self::Wide => (1, 1, 1000, 16, 7_000_000),
            Self::Spread => (1, 100, 100, 64, 14_000),
            Self::Mesh => (1, 100, 1000, 64, 140_000),
            Self::Pairs => (100, 100, 100, 64, 1_000),
            Self::Idle => (1, 1, 1, 64, 1_000),
        };
        Plan {
            publishers,
            topics,
            topics_from: 0,
            subscribers,
            payload_len,
            window,
        }
    }
}

/// Who publishes what to whom.
///
/// Invariant, after [`Plan::check`]: every number is at least 1, every topic has a publisher and a
/// subscriber, and the stamp tells the publishers of a topic apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Connections that publish.
    pub publishers: usize,
    /// Topics in all.
    pub topics: usize,
    /// The number of the first one: another than 0 keeps two runs at one broker apart.
    pub topics_from: usize,
    /// Connections that subscribe.
    pub subscribers: usize,
    /// Bytes of data in each message.
    pub payload_len: usize,
    /// Deliveries that each publisher may have outstanding in a closed loop.
    pub window: u64,
}

/// Bytes that may be on their way to the subscribers of a large fan-out: kernels buffer as much
/// without pressure.
const OUTSTANDING_BYTES_MAX: usize = 256 << 20;
/// A frame of 64 bytes with our topic.
const FRAME_LEN: usize = 72;

impl Plan {
    /// `fanout` to so many subscribers, each with as much on its way as usual, if that fits.
    pub fn fanout_to(subscribers: usize) -> Self {
        let plan = Workload::Fanout.plan();
        let usual = plan.window / plan.subscribers as u64;
        let fitting = (OUTSTANDING_BYTES_MAX / FRAME_LEN / subscribers.max(1)) as u64;
        Self {
            subscribers,
            window: usual.min(fitting).max(1) * subscribers as u64,
            ..plan
        }
    }

    /// Refuses what cannot be run.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: usize, max: usize| match value {
            0 => Err(format!("--{name} must be at least 1")),
            value if value > max => Err(format!("--{name} is {value}, the most is {max}")),
            _ => Ok(()),
        };
        within("publishers", self.publishers, PUBLISHERS_MAX)?;
        within("topics", self.topics, TOPICS_MAX)?;
        within("subscribers", self.subscribers, usize::MAX)?;
        if self.payload_len > PAYLOAD_LEN_MAX {
            return Err(format!(
                "--payload is {}, the most is {PAYLOAD_LEN_MAX}",
                self.payload_len
            ));
        }
        if self.window == 0 {
            return Err("--window must be at least 1".into());
        }
        if self.stamp_kind() != StampKind::Full && self.publishers > self.topics {
            return Err(
                "several publishers of one topic need --payload of 18 or more: a smaller one has \
                 no room for the publisher's number"
                    .into(),
            );
        }
        Ok(())
    }

    /// What fits into the payload.
    pub const fn stamp_kind(&self) -> StampKind {
        StampKind::of_payload(self.payload_len)
    }

    /// The topics that `subscriber` subscribes to, ascending.
    pub fn subscriptions(&self, subscriber: usize) -> impl Iterator<Item = usize> + use<> {
        self.numbered(deal(subscriber, self.subscribers, self.topics))
    }

    /// The topics that `publisher` publishes to, in turn, ascending.
    pub fn publications(&self, publisher: usize) -> impl Iterator<Item = usize> + use<> {
        self.numbered(deal(publisher, self.publishers, self.topics))
    }

    /// The publishers of `topic`, ascending.
    pub fn writers(&self, topic: usize) -> impl Iterator<Item = usize> + use<> {
        takers(topic - self.topics_from, self.publishers, self.topics)
    }

    /// How many subscribers `topic` has.
    pub const fn fan_out(&self, topic: usize) -> usize {
        takers_count(topic - self.topics_from, self.subscribers, self.topics)
    }

    fn numbered<I>(&self, dealt: I) -> impl Iterator<Item = usize> + use<I>
    where
        I: Iterator<Item = usize>,
    {
        let from = self.topics_from;
        dealt.map(move |topic| from + topic)
    }
}

/// The topics dealt to `peer` of `peers`.
fn deal(peer: usize, peers: usize, topics: usize) -> std::iter::StepBy<std::ops::Range<usize>> {
    let step = if topics >= peers { peers } else { topics };
    (peer % topics..topics).step_by(step)
}

/// The peers of `peers` that `topic` was dealt to.
fn takers(topic: usize, peers: usize, topics: usize) -> impl Iterator<Item = usize> + use<> {
    (topic % peers..peers).step_by(topics)
}

const fn takers_count(topic: usize, peers: usize, topics: usize) -> usize {
    if peers <= topics {
        1
    } else {
        (peers - topic).div_ceil(topics)
    }
}

/// `1 publisher, 100 topics, 1000 subscribers (10 per topic), 64 bytes`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = |count: usize, noun: &str| {
            let plural = if count == 1 { "" } else { "s" };
            format!("{count} {noun}{plural}")
        };
        write!(
            f,
            "{}, {}, {}, {}",
            many(self.publishers, "publisher"),
            many(self.topics, "topic"),
            many(self.subscribers, "subscriber"),
            many(self.payload_len, "byte"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(publishers: usize, topics: usize, subscribers: usize) -> Plan {
        Plan {
            publishers,
            topics,
            topics_from: 0,
            subscribers,
            payload_len: 64,
            window: 1,
        }
    }

    #[test]
    fn every_named_workload_can_be_run() {
        for workload in [
            Workload::Fanout,
            Workload::One,
            Workload::Wide,
            Workload::Spread,
            Workload::Mesh,
            Workload::Pairs,
            Workload::Idle,
        ] {
            assert_eq!(workload.plan().check(), Ok(()), "{}", workload.name());
        }
    }

    #[test]
    fn mesh_gives_each_of_its_topics_to_ten_subscribers() {
        let mesh = Workload::Mesh.plan();
        assert!((0..mesh.topics).all(|topic| mesh.fan_out(topic) == 10));
        assert_eq!(mesh.publications(0).count(), 100);
        assert_eq!(mesh.subscriptions(734).collect::<Vec<_>>(), [34]);
    }

    #[test]
    fn who_takes_a_topic_and_what_a_peer_takes_are_two_views_of_one_deal() {
        for (publishers, topics, subscribers) in [
            (1, 1, 1),
            (3, 7, 2),
            (7, 3, 11),
            (4, 4, 4),
            (1, 10, 3),
            (5, 1, 1),
            (2, 3, 100),
        ] {
            let plan = plan(publishers, topics, subscribers);
            for topic in 0..topics {
                let readers = (0..subscribers)
                    .filter(|&peer| plan.subscriptions(peer).any(|taken| taken == topic))
                    .count();
                assert_eq!(plan.fan_out(topic), readers, "{plan}");
                assert!(readers > 0, "{plan}: topic {topic} has no subscriber");
                let writers: Vec<_> = (0..publishers)
                    .filter(|&peer| plan.publications(peer).any(|taken| taken == topic))
                    .collect();
                assert_eq!(plan.writers(topic).collect::<Vec<_>>(), writers, "{plan}");
                assert!(
                    !writers.is_empty(),
                    "{plan}: topic {topic} has no publisher"
                );
            }
        }
    }

    #[test]
    fn what_is_on_its_way_to_ten_thousand_subscribers_stays_within_bounds() {
        for size in [1, 10, 100, 1_000, 10_000, 1_000_000_000] {
            let plan = Plan::fanout_to(size);
            let messages = usize::try_from(plan.window).unwrap() / size;
            assert!((1..=7_000).contains(&messages), "{size}: {messages}");
            let bytes = messages * size * FRAME_LEN;
            assert!(
                bytes <= OUTSTANDING_BYTES_MAX.max(size * FRAME_LEN),
                "{size}"
            );
        }
        let usual = Workload::Fanout.plan();
        assert_eq!(Plan::fanout_to(usual.subscribers), usual);
    }

    #[test]
    fn plans_with_topics_of_their_own_are_the_same_but_for_the_numbers() {
        let (plain, moved) = (
            plan(3, 7, 2),
            Plan {
                topics_from: 90,
                ..plan(3, 7, 2)
            },
        );
        for peer in 0..2 {
            let expected = plain.subscriptions(peer).map(|topic| topic + 90);
            assert!(moved.subscriptions(peer).eq(expected));
            let expected = plain.publications(peer).map(|topic| topic + 90);
            assert!(moved.publications(peer).eq(expected));
        }
        for topic in 0..7 {
            assert!(moved.writers(topic + 90).eq(plain.writers(topic)));
            assert_eq!(moved.fan_out(topic + 90), plain.fan_out(topic));
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_the_option_to_change() {
        for (wrong, option) in [
            (plan(0, 1, 1), "--publishers"),
            (plan(1, 0, 1), "--topics"),
            (plan(1, 1, 0), "--subscribers"),
            (plan(PUBLISHERS_MAX + 1, PUBLISHERS_MAX, 1), "--publishers"),
            (plan(1, TOPICS_MAX + 1, 1), "--topics"),
            (
                Plan {
                    payload_len: 250,
                    ..plan(1, 1, 1)
                },
                "--payload",
            ),
            (
                Plan {
                    payload_len: 17,
                    ..plan(2, 1, 1)
                },
                "--payload",
            ),
            (
                Plan {
                    window: 0,
                    ..plan(1, 1, 1)
                },
                "--window",
            ),
        ] {
            let refusal = wrong.check().expect_err("must be refused");
            assert!(refusal.contains(option), "{refusal}");
        }
    }
}
