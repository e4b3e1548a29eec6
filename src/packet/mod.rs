//! The wire format: bytes into meaning and back.
//!
//! A [`Frame`] is bytes, a [`Packet`] is what they mean. Both borrow from the buffer that the bytes
//! were read into; [`FrameBuf`] owns one frame in place. Nothing here does I/O, allocates or
//! panics, whatever the input: firmware can use this module with `default-features = false`.
//!
//! ```
//! use hvlp::packet::{Frame, FrameBuf, Packet};
//!
//! let frame = FrameBuf::publish("a", &[0xAA, 0x55])?;
//! assert_eq!(frame.bytes(), [0x05, 0x04, 0x01, 0x61, 0xAA, 0x55]);
//!
//! let (frame, rest) = Frame::split_first(frame.bytes()).expect("a whole frame");
//! assert_eq!(frame.packet()?, Packet::Publish { topic: "a", data: &[0xAA, 0x55] });
//! assert!(rest.is_empty());
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![deny(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use core::fmt;

mod encode;
mod frame;
mod hello;
mod topics;

pub use encode::{EncodeError, FrameBuf};
pub use frame::Frame;
pub use hello::{Answer, Extensions, Hello, MAGIC, MalformedHello, Reason, Status};
pub use topics::Topics;

/// Bytes before the payload: id and length.
pub const HEADER_LEN: usize = 2;
/// The longest payload, because its length is one byte.
pub const PAYLOAD_LEN_MAX: usize = 255;
/// The longest frame.
pub const FRAME_LEN_MAX: usize = 257;
/// The longest topic: a payload less the topic's own length byte.
pub const TOPIC_LEN_MAX: usize = 254;
/// The port that brokers listen on unless told otherwise.
pub const DEFAULT_PORT: u16 = 65432;

// The memory bounds of a session follow from these: no length field can ask for more.
const _: () = assert!(FRAME_LEN_MAX == HEADER_LEN.saturating_add(PAYLOAD_LEN_MAX));
const _: () = assert!(PAYLOAD_LEN_MAX == u8::MAX as usize);

/// Packet ids, the first byte of a frame.
pub mod id {
    /// Client to broker: begin a session.
    pub const CONNECT: u8 = 1;
    /// Client to broker: end it.
    pub const DISCONNECT: u8 = 2;
    /// Client to broker: add topics.
    pub const SUBSCRIBE: u8 = 3;
    /// Client to broker: remove topics.
    pub const UNSUBSCRIBE: u8 = 4;
    /// Client to broker, and broker to subscribers: one message.
    pub const PUBLISH: u8 = 5;
}

/// What a frame means.
///
/// Two packets are equal if they have the same kind and the same contents, wherever these lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packet<'a> {
    /// Begins a session. The base protocol ignores the payload.
    Connect {
        /// Whatever the client sent along, 0 to 255 bytes.
        payload: &'a [u8],
    },
    /// Ends a session. The payload is ignored.
    Disconnect {
        /// Whatever the peer sent along, 0 to 255 bytes.
        payload: &'a [u8],
    },
    /// Adds topics to the session's subscriptions.
    Subscribe {
        /// The topics, in the order of the frame; the list may be empty.
        topics: Topics<'a>,
    },
    /// Removes topics from the session's subscriptions.
    Unsubscribe {
        /// The topics, in the order of the frame; the list may be empty.
        topics: Topics<'a>,
    },
    /// One message.
    Publish {
        /// What it is published to, 0 to 254 bytes.
        topic: &'a str,
        /// The rest of the payload, 0 to `254 - topic.len()` bytes.
        data: &'a [u8],
    },
    /// A packet that this version of the protocol does not know. It survives a round trip.
    Unknown {
        /// Any id but those in [`id`].
        id: u8,
        /// 0 to 255 bytes.
        payload: &'a [u8],
    },
}

impl<'a> Packet<'a> {
    /// Decodes the first frame of `input`; returns the packet and the bytes behind it, or `None`
    /// until a whole frame is there.
    ///
    /// # Errors
    /// The first frame is whole and malformed. [`Frame::split_first`] tells where the next begins.
    pub fn decode(input: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, PacketError> {
        match Frame::split_first(input) {
            Some((frame, rest)) => Ok(Some((frame.packet()?, rest))),
            None => Ok(None),
        }
    }

    /// The first byte of this packet's frame.
    pub const fn id(&self) -> u8 {
        match self {
            Self::Connect { .. } => id::CONNECT,
            Self::Disconnect { .. } => id::DISCONNECT,
            Self::Subscribe { .. } => id::SUBSCRIBE,
            Self::Unsubscribe { .. } => id::UNSUBSCRIBE,
            Self::Publish { .. } => id::PUBLISH,
            Self::Unknown { id, .. } => *id,
        }
    }

    /// The name of the packet's kind, as the protocol writes it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "CONNECT",
            Self::Disconnect { .. } => "DISCONNECT",
            Self::Subscribe { .. } => "SUBSCRIBE",
            Self::Unsubscribe { .. } => "UNSUBSCRIBE",
            Self::Publish { .. } => "PUBLISH",
            Self::Unknown { .. } => "UNKNOWN",
        }
    }
}

/// `PUBLISH topic="a" data=[aa 55]`: one line, topics escaped, bytes in hexadecimal.
impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match *self {
            Self::Connect { payload } | Self::Disconnect { payload } => {
                write!(f, " payload=[{}]", Hex(payload))
            }
            Self::Subscribe { topics } | Self::Unsubscribe { topics } => {
                // Not `debug_list`: with `{:#}` it would break the line.
                f.write_str(" topics=[")?;
                for (position, topic) in topics.enumerate() {
                    let gap = if position == 0 { "" } else { ", " };
                    write!(f, "{gap}{topic:?}")?;
                }
                f.write_str("]")
            }
            Self::Publish { topic, data } => write!(f, " topic={topic:?} data=[{}]", Hex(data)),
            Self::Unknown { id, payload } => write!(f, " id={id} payload=[{}]", Hex(payload)),
        }
    }
}

/// Why a whole frame has no meaning. It is the sender's fault; the frame is discarded whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketError {
    /// PUBLISH without a payload, so without a topic (`05 00`).
    EmptyPublish,
    /// A topic's length byte points past the end of the payload.
    TopicOverrun,
    /// A topic is not UTF-8.
    TopicNotUtf8,
}

impl PacketError {
    /// Every cause, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::EmptyPublish, Self::TopicOverrun, Self::TopicNotUtf8];

    /// A stable name for counters, JSON and test vectors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EmptyPublish => "empty_publish",
            Self::TopicOverrun => "topic_overrun",
            Self::TopicNotUtf8 => "topic_not_utf8",
        }
    }
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyPublish => "PUBLISH without a topic",
            Self::TopicOverrun => "topic longer than the rest of its frame",
            Self::TopicNotUtf8 => "topic is not UTF-8",
        })
    }
}

impl core::error::Error for PacketError {}

/// Bytes as people read them: `aa 55`.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            let gap = if position == 0 { "" } else { " " };
            write!(f, "{gap}{byte:02x}")?;
        }
        Ok(())
    }
}
