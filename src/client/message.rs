//! One received message: a topic and its data.

use std::fmt;

use bytes::Bytes;

use crate::packet::{Frame, Packet, PacketError, id};

/// A message, borrowed from the buffer that it was received in.
///
/// Cloning it copies no bytes. As long as one message of a buffer is kept, that buffer (64 KiB) is;
/// what is kept for long is better [detached](Self::detach).
///
/// Invariant: `frame` is one whole PUBLISH and `topic_len` the length of its topic, which is UTF-8.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Message {
    frame: Bytes,
    topic_len: u8,
}

impl Message {
    /// Why a whole frame is no message.
    pub(super) fn check(frame: Frame<'_>) -> Result<u8, Skipped> {
        if frame.id() != id::PUBLISH {
            return Err(Skipped::NotPublish { id: frame.id() });
        }
        let (topic, _) = frame.publish_parts().map_err(Skipped::Malformed)?;
        str::from_utf8(topic).map_err(|_| Skipped::Malformed(PacketError::TopicNotUtf8))?;
        // A topic that lies in a frame is shorter than the frame's payload.
        u8::try_from(topic.len()).map_err(|_| Skipped::Malformed(PacketError::TopicOverrun))
    }

    /// A frame that `check` has passed.
    pub(super) const fn from_checked(frame: Bytes, topic_len: u8) -> Self {
        Self { frame, topic_len }
    }

    /// What it was published to.
    pub fn topic(&self) -> &str {
        let topic = self.frame.get(TOPIC_START..self.data_start());
        topic
            .and_then(|topic| str::from_utf8(topic).ok())
            .unwrap_or_default()
    }

    /// What was published, 0 to 254 bytes.
    pub fn data(&self) -> &[u8] {
        self.frame.get(self.data_start()..).unwrap_or_default()
    }

    /// The same data, sharing the buffer instead of borrowing the message.
    pub fn data_bytes(&self) -> Bytes {
        self.frame.slice(self.data_start()..)
    }

    /// The whole frame, byte for byte as the publisher sent it.
    pub const fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// A copy with a buffer of its own, for a message that is kept for long.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self {
            frame: Bytes::copy_from_slice(&self.frame),
            topic_len: self.topic_len,
        }
    }

    fn data_start(&self) -> usize {
        TOPIC_START + usize::from(self.topic_len)
    }
}

/// Behind id, length and the topic's own length.
const TOPIC_START: usize = 3;

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (topic, data) = (self.topic(), self.data());
        fmt::Display::fmt(&Packet::Publish { topic, data }, f)
    }
}

/// Why a frame from the broker was not handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skipped {
    /// Only PUBLISH goes from the broker to a client.
    NotPublish {
        /// The id that came instead.
        id: u8,
    },
    /// A PUBLISH that has no meaning.
    Malformed(PacketError),
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPublish { id } => write!(f, "packet id {id} instead of PUBLISH"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}
