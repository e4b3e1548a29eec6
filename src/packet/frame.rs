//! Frames: where one ends and the next begins.

use super::{HEADER_LEN, Packet, PacketError, Topics, id};

/// One whole frame, borrowed from the buffer that it was read into.
///
/// Invariant: `bytes` is a header and exactly as many payload bytes as the header says. Frames are
/// made by [`Frame::split_first`] and by `FrameBuf` alone, so whoever holds one need not check its
/// length again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame<'a> {
    bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Splits one whole frame off the front of `input`; `None` until all its bytes are there.
    #[inline]
    pub fn split_first(input: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let &[_, payload_len, ..] = input else {
            return None;
        };
        let len = usize::from(payload_len).saturating_add(HEADER_LEN);
        let (bytes, rest) = input.split_at_checked(len)?;
        Some((Self { bytes }, rest))
    }

    /// The bytes of one whole frame, which the caller vouches for.
    pub(super) const fn from_whole(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Header and payload, to be forwarded as they are.
    #[inline]
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The first byte: what kind of packet this is.
    #[inline]
    pub fn id(self) -> u8 {
        // A frame has a header; 0 is an id that nobody uses.
        self.bytes.first().copied().unwrap_or(0)
    }

    /// Everything after the header, 0 to 255 bytes.
    #[inline]
    pub fn payload(self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }

    /// The topic of a PUBLISH as it stands in the frame, and the data behind it. Whether the topic
    /// is UTF-8 is not looked at: who has seen these very bytes before need not ask again.
    ///
    /// # Errors
    /// The payload is empty, or the topic's length points past it.
    #[inline]
    pub fn publish_parts(self) -> Result<(&'a [u8], &'a [u8]), PacketError> {
        let Some((&topic_len, rest)) = self.payload().split_first() else {
            return Err(PacketError::EmptyPublish);
        };
        rest.split_at_checked(usize::from(topic_len))
            .ok_or(PacketError::TopicOverrun)
    }

    /// What the frame means.
    ///
    /// # Errors
    /// The payload does not have the shape that its id asks for, or a topic is not UTF-8.
    pub fn packet(self) -> Result<Packet<'a>, PacketError> {
        let payload = self.payload();
        Ok(match self.id() {
            id::CONNECT => Packet::Connect { payload },
            id::DISCONNECT => Packet::Disconnect { payload },
            id::SUBSCRIBE => Packet::Subscribe {
                topics: Topics::parse(payload)?,
            },
            id::UNSUBSCRIBE => Packet::Unsubscribe {
                topics: Topics::parse(payload)?,
            },
            id::PUBLISH => {
                let (topic, data) = self.publish_parts()?;
                let topic = str::from_utf8(topic).map_err(|_| PacketError::TopicNotUtf8)?;
                Packet::Publish { topic, data }
            }
            id => Packet::Unknown { id, payload },
        })
    }
}
