//! Many messages for one system call.

use crate::packet::{EncodeError, Frame, FrameBuf};

/// Messages that go out together, in their order.
///
/// ```
/// use hvlp::client::Batch;
///
/// let mut batch = Batch::new();
/// batch.publish("a", b"1")?;
/// batch.publish("a", b"2")?;
/// assert!(batch.publish(&"x".repeat(255), b"").is_err());
/// assert_eq!(batch.bytes(), [5, 3, 1, b'a', b'1', 5, 3, 1, b'a', b'2']);
/// # Ok::<(), hvlp::packet::EncodeError>(())
/// ```
///
/// Invariant: `frames` is a sequence of whole frames.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    frames: Vec<u8>,
}

impl Batch {
    /// An empty one. It keeps its memory when it is sent, so one batch serves a program for long.
    pub const fn new() -> Self {
        Self { frames: Vec::new() }
    }

    /// Adds one message.
    ///
    /// # Errors
    /// Topic and data do not fit into a frame; the batch is then unchanged.
    pub fn publish(&mut self, topic: &str, data: &[u8]) -> Result<(), EncodeError> {
        let frame = FrameBuf::publish(topic, data)?;
        self.frames.extend_from_slice(frame.bytes());
        Ok(())
    }

    /// The frames, back to back.
    pub fn bytes(&self) -> &[u8] {
        &self.frames
    }

    /// How many bytes they are; a good moment to send is at some ten thousand.
    pub const fn bytes_len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is nothing to send.
    pub const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Forgets all messages.
    pub fn clear(&mut self) {
        self.frames.clear();
    }

    /// Drops what has been sent; the rest stays.
    pub(super) fn keep_last(&mut self, len: usize) {
        let sent = self.frames.len().saturating_sub(len);
        self.frames.drain(..sent);
    }
}

/// What is left of `frames` when `written` bytes of them have gone: all frames of which at least
/// one byte has not. A frame that went out in part was never whole for the broker, so it is sent
/// again as a whole on a new connection, and no message twice.
pub(super) fn unsent(mut frames: &[u8], written: usize) -> &[u8] {
    let end = frames.len().saturating_sub(written);
    while let Some((_, rest)) = Frame::split_first(frames) {
        if rest.len() < end {
            break;
        }
        frames = rest;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_went_out_in_part_is_sent_again_whole_and_no_other() {
        let frames = [1, 0, 5, 2, 1, 7, 2, 1, 9];
        for (written, left) in [
            (0, 9),
            (1, 9),
            (2, 7),
            (3, 7),
            (5, 7),
            (6, 3),
            (8, 3),
            (9, 0),
        ] {
            assert_eq!(unsent(&frames, written).len(), left, "{written} written");
        }
    }
}
