//! Which protocol a target speaks: chosen once per connection, asked once per read.

use super::{Delivery, Template, hvlp, mqtt, nats, redis};

/// A protocol that the generator speaks itself, so that its own cost is the same for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Ours.
    #[default]
    Hvlp,
    /// The same, of sessions that ask for ACK.
    Acked,
    /// The text protocol of nats-server.
    Nats,
    /// RESP 2 and its publish/subscribe.
    Redis,
    /// MQTT 3.1.1, QoS 0.
    Mqtt,
}

impl Dialect {
    /// All whose scheme an address has to name.
    pub const NAMED: [Self; 4] = [Self::Acked, Self::Nats, Self::Redis, Self::Mqtt];

    /// The scheme of its addresses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hvlp => "hvlp",
            Self::Acked => "hvlp+ack",
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Mqtt => "mqtt",
        }
    }

    /// Where its servers usually listen.
    pub const fn port(self) -> u16 {
        match self {
            Self::Hvlp | Self::Acked => ::hvlp::packet::DEFAULT_PORT,
            Self::Nats => 4222,
            Self::Redis => 6379,
            Self::Mqtt => 1883,
        }
    }

    /// What a connection says first.
    pub fn greeting(self) -> Vec<u8> {
        match self {
            Self::Hvlp => hvlp::greeting(),
            Self::Acked => hvlp::asking(),
            Self::Nats => nats::greeting(),
            Self::Redis => Vec::new(),
            Self::Mqtt => mqtt::greeting(),
        }
    }

    /// What a subscriber says next.
    pub fn subscribe(self, topics: impl Iterator<Item = usize>) -> Vec<u8> {
        match self {
            Self::Hvlp | Self::Acked => hvlp::subscribe(topics),
            Self::Nats => nats::subscribe(topics),
            Self::Redis => redis::subscribe(topics),
            Self::Mqtt => mqtt::subscribe(topics),
        }
    }

    /// How a message is published.
    pub fn publish(self, topic: usize, payload_len: usize) -> Template {
        match self {
            Self::Hvlp | Self::Acked => hvlp::publish(topic, payload_len),
            Self::Nats => nats::publish(topic, payload_len),
            Self::Redis => redis::publish(topic, payload_len),
            Self::Mqtt => mqtt::publish(topic, payload_len),
        }
    }

    /// How it arrives.
    pub fn delivery(self, topic: usize, payload_len: usize) -> Template {
        match self {
            Self::Hvlp | Self::Acked => hvlp::publish(topic, payload_len),
            Self::Nats => nats::delivery(topic, payload_len),
            Self::Redis => redis::delivery(topic, payload_len),
            Self::Mqtt => mqtt::publish(topic, payload_len),
        }
    }

    /// Splits the first thing off `input`, with its length; `None` until it is whole.
    pub fn split(self, input: &[u8]) -> Option<(Delivery<'_>, usize)> {
        match self {
            Self::Hvlp => hvlp::split(input),
            Self::Acked => hvlp::split_acked(input),
            Self::Nats => nats::split(input),
            Self::Redis => redis::split(input),
            Self::Mqtt => mqtt::split(input),
        }
    }

    /// The answer to [`Delivery::Ping`].
    pub const fn pong(self) -> &'static [u8] {
        match self {
            Self::Nats => nats::PONG,
            Self::Hvlp | Self::Acked | Self::Redis | Self::Mqtt => &[],
        }
    }

    /// Whether its servers are our brokers.
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Hvlp | Self::Acked)
    }

    /// Whether publishers hear anything at all.
    pub fn answers_publishers(self) -> bool {
        self != Self::Hvlp
    }
}
