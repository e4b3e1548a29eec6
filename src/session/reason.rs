//! Why sessions end.

use crate::label::labels;
use crate::packet::Reason;

labels! {
    /// Why a session ended. Every close has exactly one.
    pub enum CloseReason {
        /// The client sent DISCONNECT.
        ClientDisconnect = "client_disconnect",
        /// The client ended the stream between two frames.
        Eof = "eof",
        /// The client ended the stream inside a frame.
        EofMidFrame = "eof_mid_frame",
        /// A frame was not complete within `frame_timeout` of its first byte.
        FrameTimeout = "frame_timeout",
        /// No CONNECT within `connect_timeout`.
        ConnectTimeout = "connect_timeout",
        /// `error_budget` frames were discarded within `error_window`.
        ProtocolErrorBudget = "protocol_error_budget",
        /// An extended CONNECT without the shape of one.
        HelloMalformed = "hello_malformed",
        /// The handler refused the CONNECT.
        AuthFailed = "auth_failed",
        /// A limit refused the CONNECT: the handler's, or `held_total_max`.
        LimitConnect = "limit_connect",
        /// A limit on topics or subscriptions; a base client cannot be told otherwise.
        LimitSubscriptions = "limit_subscriptions",
        /// The backlog reached `outbound_max`.
        SlowConsumerBytes = "slow_consumer_bytes",
        /// A backlog, and the kernel took nothing of it for `progress_timeout`.
        SlowConsumerStalled = "slow_consumer_stalled",
        /// All backlogs together reached `outbound_total_max`, and this was the largest.
        SlowConsumerEvicted = "slow_consumer_evicted",
        /// It held its publishers for `pause_max`.
        SlowConsumerPaused = "slow_consumer_paused",
        /// Nothing came for one and a half times the keepalive that the client asked for.
        Keepalive = "keepalive",
        /// The peer reset the connection.
        Reset = "reset",
        /// The kernel gave the connection up (`ETIMEDOUT`).
        WriteTimeout = "write_timeout",
        /// Any other error of the socket.
        IoError = "io_error",
        /// The broker stops.
        Shutdown = "shutdown",
        /// No memory for what the session is owed.
        NoMemory = "no_memory",
        /// The socket took nothing and said that this was fine.
        WriteZero = "write_zero",
    }
}

impl CloseReason {
    /// Whether the client simply left, which nobody needs to be told about.
    pub const fn is_ordinary(self) -> bool {
        matches!(self, Self::ClientDisconnect | Self::Eof | Self::Shutdown)
    }

    /// Whether it was slow: its socket is reset, so that the kernel's copy goes at once.
    pub const fn is_slow(self) -> bool {
        matches!(
            self,
            Self::SlowConsumerBytes
                | Self::SlowConsumerStalled
                | Self::SlowConsumerEvicted
                | Self::SlowConsumerPaused
        )
    }

    /// What a client that asked for answers is told; `None` if there is nobody to be told.
    pub const fn farewell(self) -> Option<Reason> {
        match self {
            Self::ClientDisconnect
            | Self::Eof
            | Self::Reset
            | Self::WriteTimeout
            | Self::IoError => None,
            Self::EofMidFrame
            | Self::FrameTimeout
            | Self::ConnectTimeout
            | Self::ProtocolErrorBudget
            | Self::HelloMalformed => Some(Reason::Protocol),
            Self::AuthFailed => Some(Reason::NotAuthorised),
            Self::LimitConnect | Self::LimitSubscriptions | Self::NoMemory | Self::WriteZero => {
                Some(Reason::Limit)
            }
            Self::SlowConsumerBytes
            | Self::SlowConsumerStalled
            | Self::SlowConsumerEvicted
            | Self::SlowConsumerPaused => Some(Reason::SlowConsumer),
            Self::Keepalive => Some(Reason::Keepalive),
            Self::Shutdown => Some(Reason::Shutdown),
        }
    }

    /// Whether what the session is owed is still offered to its socket once.
    pub(crate) const fn flushes(self) -> bool {
        !self.is_slow()
            && !matches!(
                self,
                Self::Reset | Self::WriteTimeout | Self::IoError | Self::NoMemory | Self::WriteZero
            )
    }
}
