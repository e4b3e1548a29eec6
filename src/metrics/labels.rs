//! What counters are told apart by: reasons, causes and states, with their stable names.

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
        /// A SUBSCRIBE of filters that are none: `#` in front of a level, a wildcard within one.
        BadFilter = "bad_filter",
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
            CloseReason::SlowConsumerBytes
            | CloseReason::SlowConsumerStalled
            | CloseReason::SlowConsumerPaused => Self::SlowClose,
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
        /// Its address has `sessions_per_address_max`.
        PerAddress = "per_address",
        /// No descriptor is free.
        NoDescriptors = "no_descriptors",
        /// The kernel would not watch the socket.
        RegisterFailed = "register_failed",
        /// The memory that the broker may take is nearly used up, by its own account; or the
        /// reactor that it was given to has too many to adopt already.
        Overload = "overload",
        /// The broker is stopping.
        Stopping = "stopping",
    }
}

labels! {
    /// What a shard has too much of.
    pub enum Overload {
        /// Four fifths are taken of what there is for sessions, topics and backlogs: new sessions
        /// are refused until a quarter is free, and beyond nine tenths the largest backlogs go.
        Memory = "memory",
        /// A session was closed over `subscriptions_max`, and less than a twentieth is free since.
        Subscriptions = "subscriptions",
        /// The same over `topics_max` or `topic_bytes_max`.
        Topics = "topics",
    }
}

impl Overload {
    /// What follows from it, and what to do.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::Memory => {
                "new connections are refused and the largest backlogs closed; raise \
                 limits.memory_max, or look for subscribers that do not keep up"
            }
            Self::Subscriptions => {
                "whoever subscribes to more is closed; raise limits.subscriptions_max"
            }
            Self::Topics => {
                "whoever subscribes to new topics is closed; raise limits.topics_max and \
                 limits.topic_bytes_max"
            }
        }
    }
}

labels! {
    /// What the admin endpoint refused, and why.
    pub enum AdminRefusal {
        /// As many connections as there may be were being answered; this one was closed.
        ConnectionsMax = "connections_max",
        /// Its request was not whole when a newer connection needed its place.
        Displaced = "displaced",
        /// A request's head of more than 4 KiB: 431.
        HeadMax = "head_max",
        /// A request's head that was not whole after 2 s.
        HeadTimeout = "head_timeout",
        /// An answer that was not taken in time.
        AnswerTimeout = "answer_timeout",
        /// What is not HTTP: 400.
        Malformed = "malformed",
        /// Another method than GET and HEAD: 405.
        Method = "method",
        /// A `Host` that is not this host: 421.
        Host = "host",
        /// A path that does not exist: 404.
        Path = "path",
        /// What an address that others can reach does not serve: 403.
        Forbidden = "forbidden",
    }
}
