//! Encoding: what does not fit is refused before anything is written.

use core::fmt;

use super::{FRAME_LEN_MAX, Frame, HEADER_LEN, PAYLOAD_LEN_MAX, Packet, TOPIC_LEN_MAX, id};

/// One whole frame that owns its bytes, in place: 257 bytes and a length, no allocation.
///
/// Invariant: `bytes[..len]` is a header and exactly as many payload bytes as the header says.
#[derive(Clone, Copy)]
pub struct FrameBuf {
    bytes: [u8; FRAME_LEN_MAX],
    len: usize,
}

impl FrameBuf {
    /// A frame with any id and payload.
    ///
    /// # Errors
    /// `PayloadTooLong` above 255 bytes.
    pub fn new(id: u8, payload: &[u8]) -> Result<Self, EncodeError> {
        let mut frame = Self::empty(id);
        frame
            .append(payload)
            .ok_or(EncodeError::PayloadTooLong { len: payload.len() })?;
        Ok(frame)
    }

    /// CONNECT; the base protocol ignores the payload, a token for example.
    ///
    /// # Errors
    /// `PayloadTooLong` above 255 bytes.
    pub fn connect(payload: &[u8]) -> Result<Self, EncodeError> {
        Self::new(id::CONNECT, payload)
    }

    /// DISCONNECT; the payload is ignored.
    ///
    /// # Errors
    /// `PayloadTooLong` above 255 bytes.
    pub fn disconnect(payload: &[u8]) -> Result<Self, EncodeError> {
        Self::new(id::DISCONNECT, payload)
    }

    /// SUBSCRIBE to all `topics` in one frame.
    ///
    /// # Errors
    /// `TopicTooLong` for a topic above 254 bytes, `ListTooLong` if they do not fit together.
    pub fn subscribe<T: AsRef<str>>(
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Self, EncodeError> {
        Self::list(id::SUBSCRIBE, topics)
    }

    /// UNSUBSCRIBE from all `topics` in one frame.
    ///
    /// # Errors
    /// `TopicTooLong` for a topic above 254 bytes, `ListTooLong` if they do not fit together.
    pub fn unsubscribe<T: AsRef<str>>(
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Self, EncodeError> {
        Self::list(id::UNSUBSCRIBE, topics)
    }

    /// PUBLISH `data` to `topic`.
    ///
    /// # Errors
    /// `TopicTooLong` for a topic above 254 bytes, `MessageTooLong` if topic and data together are.
    pub fn publish(topic: &str, data: &[u8]) -> Result<Self, EncodeError> {
        let mut frame = Self::empty(id::PUBLISH);
        frame.append_topic(topic)?;
        frame.append(data).ok_or(EncodeError::MessageTooLong {
            topic_len: topic.len(),
            data_len: data.len(),
        })?;
        Ok(frame)
    }

    /// Adds a topic to a SUBSCRIBE or UNSUBSCRIBE.
    ///
    /// # Errors
    /// `NotAList` for any other packet, `TopicTooLong` above 254 bytes, `ListTooLong` if this frame
    /// has no room left for it; the frame is then unchanged, and a second one can take the topic.
    pub fn push_topic(&mut self, topic: &str) -> Result<(), EncodeError> {
        match self.as_frame().id() {
            id::SUBSCRIBE | id::UNSUBSCRIBE => self.append_topic(topic),
            id => Err(EncodeError::NotAList { id }),
        }
    }

    /// Adds payload bytes.
    pub(super) fn extend(&mut self, more: &[u8]) -> Result<(), EncodeError> {
        let payload_len = self.len.saturating_sub(HEADER_LEN);
        let len = payload_len.saturating_add(more.len());
        let too_long = EncodeError::PayloadTooLong { len };
        self.append(more).ok_or(too_long)
    }

    /// Header and payload, as they go on the wire.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The same bytes, borrowed.
    pub fn as_frame(&self) -> Frame<'_> {
        // Why not `split_first`: by the invariant it could only succeed.
        Frame::from_whole(self.bytes())
    }

    fn empty(id: u8) -> Self {
        let mut bytes = [0; FRAME_LEN_MAX];
        if let Some(first) = bytes.first_mut() {
            *first = id;
        }
        Self {
            bytes,
            len: HEADER_LEN,
        }
    }

    fn list<T: AsRef<str>>(
        id: u8,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Self, EncodeError> {
        let mut frame = Self::empty(id);
        for topic in topics {
            frame.append_topic(topic.as_ref())?;
        }
        Ok(frame)
    }

    fn append_topic(&mut self, topic: &str) -> Result<(), EncodeError> {
        let too_long = EncodeError::TopicTooLong { len: topic.len() };
        if topic.len() > TOPIC_LEN_MAX {
            return Err(too_long);
        }
        let len = u8::try_from(topic.len()).map_err(|_| too_long)?;
        let needed = self.len.saturating_add(1).saturating_add(topic.len());
        if needed > FRAME_LEN_MAX {
            return Err(EncodeError::ListTooLong {
                len: needed.saturating_sub(HEADER_LEN),
            });
        }
        self.append(&[len])
            .and_then(|()| self.append(topic.as_bytes()))
            .ok_or(too_long)
    }

    /// Adds payload bytes; `None`, and nothing changed, if they do not fit.
    fn append(&mut self, more: &[u8]) -> Option<()> {
        let end = self.len.checked_add(more.len())?;
        self.bytes.get_mut(self.len..end)?.copy_from_slice(more);
        let payload_len = u8::try_from(end.saturating_sub(HEADER_LEN)).ok()?;
        *self.bytes.get_mut(1)? = payload_len;
        self.len = end;
        Some(())
    }
}

impl PartialEq for FrameBuf {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for FrameBuf {}

impl fmt::Debug for FrameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_frame().fmt(f)
    }
}

impl From<Frame<'_>> for FrameBuf {
    fn from(frame: Frame<'_>) -> Self {
        let mut owned = Self::empty(frame.id());
        // A frame's payload always fits into a frame.
        let _ = owned.append(frame.payload());
        owned
    }
}

impl Packet<'_> {
    /// The frame of this packet.
    ///
    /// # Errors
    /// What does not fit into a frame; `KnownId` for an `Unknown` packet with an id of the
    /// protocol.
    pub fn encode(&self) -> Result<FrameBuf, EncodeError> {
        match *self {
            Self::Connect { payload } | Self::Disconnect { payload } => {
                FrameBuf::new(self.id(), payload)
            }
            Self::Subscribe { topics } | Self::Unsubscribe { topics } => {
                FrameBuf::new(self.id(), topics.as_bytes())
            }
            Self::Publish { topic, data } => FrameBuf::publish(topic, data),
            Self::Unknown {
                id: id @ id::CONNECT..=id::PUBLISH,
                ..
            } => Err(EncodeError::KnownId { id }),
            Self::Unknown { id, payload } => FrameBuf::new(id, payload),
        }
    }

    /// The length of this packet's frame in bytes, 2 to 257 if it can be encoded at all.
    pub fn encoded_len(&self) -> usize {
        let payload_len = match *self {
            Self::Connect { payload }
            | Self::Disconnect { payload }
            | Self::Unknown { payload, .. } => payload.len(),
            Self::Subscribe { topics } | Self::Unsubscribe { topics } => topics.as_bytes().len(),
            Self::Publish { topic, data } => {
                topic.len().saturating_add(1).saturating_add(data.len())
            }
        };
        payload_len.saturating_add(HEADER_LEN)
    }
}

/// What the sender's program asked for does not fit. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncodeError {
    /// A payload above 255 bytes.
    PayloadTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A topic above 254 bytes.
    TopicTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Topics that do not fit into one frame together.
    ListTooLong {
        /// What the list would take, in bytes, length bytes included.
        len: usize,
    },
    /// Topic and data above 254 bytes together.
    MessageTooLong {
        /// The topic's length in bytes.
        topic_len: usize,
        /// The data's length in bytes.
        data_len: usize,
    },
    /// A topic for a packet that has no list of them.
    NotAList {
        /// That packet's id.
        id: u8,
    },
    /// A secret, and nobody whose it is.
    SecretWithoutUser,
    /// An `Unknown` packet with an id that has a meaning.
    KnownId {
        /// That id.
        id: u8,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PayloadTooLong { len } => {
                write!(
                    f,
                    "payload is {len} bytes; a frame carries at most {PAYLOAD_LEN_MAX}"
                )
            }
            Self::TopicTooLong { len } => {
                write!(f, "topic is {len} bytes; the longest is {TOPIC_LEN_MAX}")
            }
            Self::ListTooLong { len } => write!(
                f,
                "topic list is {len} bytes; a frame carries at most {PAYLOAD_LEN_MAX}, \
                 send the rest in a second one"
            ),
            Self::MessageTooLong {
                topic_len,
                data_len,
            } => write!(
                f,
                "message is {data_len} bytes; with a topic of {topic_len} one PUBLISH carries at \
                 most {}",
                TOPIC_LEN_MAX.saturating_sub(topic_len)
            ),
            Self::NotAList { id } => write!(f, "a packet with id {id} has no list of topics"),
            Self::SecretWithoutUser => f.write_str("a secret needs the user that it belongs to"),
            Self::KnownId { id } => write!(f, "id {id} is not unknown: use its own packet"),
        }
    }
}

impl core::error::Error for EncodeError {}
