//! The receiving core: bytes in, messages out.
//!
//! It knows no socket and no clock, so a blocking client, an asynchronous one and a fuzzer drive
//! the same code. It never panics and never hands out a part of a frame.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::message::{Message, Skipped};
use crate::packet::{Answer, FRAME_LEN_MAX, Frame, id};

/// Takes what was received and splits it into messages.
///
/// Use: read into [`space`](Self::space), tell how much with [`advance`](Self::advance), then take
/// messages with [`decode`](Self::decode) until there is none; at the end of the stream ask for the
/// [`remainder_len`](Self::remainder_len).
///
/// ```
/// use hvlp::client::MessageDecoder;
///
/// let mut decoder = MessageDecoder::new();
/// decoder.space()[..7].copy_from_slice(&[0x05, 0x04, 0x01, 0x61, 0xAA, 0x55, 0x05]);
/// decoder.advance(7);
/// let message = decoder.decode()?.expect("one whole frame");
/// assert_eq!((message.topic(), message.data()), ("a", &[0xAA, 0x55][..]));
/// assert_eq!(decoder.decode()?, None);
/// assert_eq!(decoder.remainder_len(), 1);
/// # Ok::<(), hvlp::client::Misbehaved>(())
/// ```
///
/// Invariant: `buffer[..filled]` was received and not yet handed out, `filled <= buffer.len()`; all
/// of `buffer` is initialised, so that reading into it needs no `unsafe`.
#[derive(Debug)]
pub struct MessageDecoder {
    buffer: BytesMut,
    filled: usize,
    received: u64,
    skipped: u64,
    skipped_in_row: u32,
    misbehaved: Option<Misbehaved>,
    /// Frames that answer what was asked; absent where nothing was.
    answers: Option<VecDeque<Bytes>>,
}

impl MessageDecoder {
    /// For a new connection that asks for extensions: answers are kept instead of skipped.
    pub fn with_answers() -> Self {
        Self {
            answers: Some(VecDeque::new()),
            ..Self::new()
        }
    }

    /// For a new connection of the base protocol.
    pub fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            filled: 0,
            received: 0,
            skipped: 0,
            skipped_in_row: 0,
            misbehaved: None,
            answers: None,
        }
    }

    /// Where to read into: never empty, and longer than the rest of any frame.
    pub fn space(&mut self) -> &mut [u8] {
        if self.buffer.len() - self.filled < SPACE_MIN {
            // Messages that were handed out keep the old buffer alive; the remainder moves.
            let mut fresh = BytesMut::zeroed(BUFFER_LEN);
            fresh[..self.filled].copy_from_slice(&self.buffer[..self.filled]);
            self.buffer = fresh;
        }
        &mut self.buffer[self.filled..]
    }

    /// So many bytes were read into [`space`](Self::space).
    ///
    /// # Panics
    /// If that is more than there was space for.
    pub fn advance(&mut self, len: usize) {
        assert!(
            len <= self.buffer.len() - self.filled,
            "read past the space"
        );
        self.filled += len;
    }

    /// The next message; `None` until its last byte is there. Answers in front of it are kept, and
    /// whatever else is no message is skipped and counted.
    ///
    /// # Errors
    /// What comes cannot be from a broker: [`Misbehaved`], from then on each time.
    pub fn decode(&mut self) -> Result<Option<Message>, Misbehaved> {
        loop {
            let Some((frame, checked)) = self.split_frame()? else {
                return Ok(None);
            };
            match checked {
                Ok(topic_len) => {
                    self.received += 1;
                    self.skipped_in_row = 0;
                    return Ok(Some(Message::from_checked(frame, topic_len)));
                }
                Err(_) if self.keep_answer(&frame) => {}
                Err(reason) => self.skip(reason)?,
            }
        }
    }

    /// Whether there are answers among the frames that were decoded.
    pub(super) fn has_answers(&self) -> bool {
        self.answers
            .as_ref()
            .is_some_and(|answers| !answers.is_empty())
    }

    /// The next answer among the frames that were decoded, as a frame that [`Answer::of`] reads.
    pub fn take_answer(&mut self) -> Option<Bytes> {
        self.answers.as_mut()?.pop_front()
    }

    /// Keeps an answer; false if the frame is none, or too many were not taken.
    fn keep_answer(&mut self, bytes: &Bytes) -> bool {
        let Some(answers) = &mut self.answers else {
            return false;
        };
        let frame = Frame::split_first(bytes).map(|(frame, _)| frame);
        let is_answer = frame.and_then(Answer::of).is_some() && answers.len() < ANSWERS_MAX;
        if is_answer {
            self.received += 1;
            self.skipped_in_row = 0;
            answers.push_back(bytes.clone());
        }
        is_answer
    }

    /// The next whole frame of any kind, for programs that look at the protocol itself.
    ///
    /// # Errors
    /// The peer speaks another protocol.
    pub fn decode_frame(&mut self) -> Result<Option<Bytes>, Misbehaved> {
        let Some((frame, _)) = self.split_frame()? else {
            return Ok(None);
        };
        // What else waits for an answer has to know.
        if !self.keep_answer(&frame) {
            self.received += 1;
        }
        Ok(Some(frame))
    }

    /// Frames that were no messages, since the connection began.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Bytes of a frame that is not whole. Not 0 at the end of the stream: cut in mid frame.
    pub const fn remainder_len(&self) -> usize {
        self.filled
    }

    /// Whether all that came until the end of the stream cannot have come from a broker.
    pub fn looks_foreign(&self) -> bool {
        let foreign_rest = self.filled > 0 && self.buffer.first() != Some(&id::PUBLISH);
        self.received == 0 && (self.skipped > 0 || foreign_rest)
    }

    /// Whether the first bytes are those of another protocol, before a frame was looked at.
    pub(super) fn foreign(&self) -> Option<Misbehaved> {
        if self.received + self.skipped > 0 {
            return None;
        }
        let protocol = foreign_protocol(&self.buffer[..self.filled])?;
        Some(Misbehaved::Foreign { protocol })
    }

    fn split_frame(&mut self) -> Result<Option<CheckedFrame>, Misbehaved> {
        if let Some(misbehaved) = self.misbehaved {
            return Err(misbehaved);
        }
        if let Some(foreign) = self.foreign() {
            return Err(self.give_up(foreign));
        }
        let Some((frame, _)) = Frame::split_first(&self.buffer[..self.filled]) else {
            return Ok(None);
        };
        let (len, checked) = (frame.bytes().len(), Message::check(frame));
        self.filled -= len;
        Ok(Some((self.buffer.split_to(len).freeze(), checked)))
    }

    fn skip(&mut self, last: Skipped) -> Result<(), Misbehaved> {
        self.skipped += 1;
        self.skipped_in_row += 1;
        if self.skipped_in_row > SKIPPED_IN_ROW_MAX {
            let count = self.skipped_in_row;
            return Err(self.give_up(Misbehaved::Garbage { count, last }));
        }
        Ok(())
    }

    const fn give_up(&mut self, misbehaved: Misbehaved) -> Misbehaved {
        self.misbehaved = Some(misbehaved);
        misbehaved
    }
}

impl Default for MessageDecoder {
    fn default() -> Self {
        Self::new()
    }
}

/// The peer is no broker, or one that has lost its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Misbehaved {
    /// Its first bytes are those of another protocol.
    #[error("it speaks {protocol}")]
    Foreign {
        /// The name of that protocol.
        protocol: &'static str,
    },
    /// Too many frames in a row that are no messages.
    #[error("{count} frames in a row were no messages, the last one: {last}")]
    Garbage {
        /// How many.
        count: u32,
        /// What was wrong with the last of them.
        last: Skipped,
    },
    /// It answers something else than it was asked.
    #[error("its answer belongs to another question")]
    Astray,
    /// The stream has ended, and nothing in it was a message.
    #[error("nothing that it sent was a message")]
    NoMessage,
}

/// A whole frame, and the length of its topic or why it is no message.
type CheckedFrame = (Bytes, Result<u8, Skipped>);

/// One buffer serves many reads; 64 KiB is what one read of a loaded connection fills.
const BUFFER_LEN: usize = 64 * 1024;
/// A smaller rest is not worth a system call.
const SPACE_MIN: usize = 4 * 1024;
/// As many answers as a broker keeps for a client that does not read, at two bytes each.
const ANSWERS_MAX: usize = 32 * 1024;
/// A peer of which so many frames in a row are useless will not get better.
const SKIPPED_IN_ROW_MAX: u32 = 64;

const _: () = assert!(SPACE_MIN > FRAME_LEN_MAX && BUFFER_LEN >= SPACE_MIN + FRAME_LEN_MAX);

/// The protocol whose greeting or refusal `received` begins with.
fn foreign_protocol(received: &[u8]) -> Option<&'static str> {
    const GREETINGS: [(&[u8], &str); 8] = [
        (b"HTTP/", "HTTP"),
        (&[0x15, 0x03, 0x01], "TLS"),
        (&[0x15, 0x03, 0x03], "TLS"),
        (&[0x16, 0x03, 0x03], "TLS"),
        (b"SSH-", "SSH"),
        (b"INFO {", "NATS"),
        (b"-ERR", "Redis or NATS"),
        (b"220 ", "SMTP or FTP"),
    ];
    let mut known = GREETINGS.iter();
    known
        .find(|(greeting, _)| received.starts_with(greeting))
        .map(|&(_, protocol)| protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{FrameBuf, PacketError};

    /// Everything that comes out of `bytes`, fed in parts of `step`.
    fn decode_all(bytes: &[u8], step: usize) -> Result<Vec<Message>, Misbehaved> {
        let (mut decoder, mut messages) = (MessageDecoder::new(), Vec::new());
        for part in bytes.chunks(step) {
            decoder.space()[..part.len()].copy_from_slice(part);
            decoder.advance(part.len());
            while let Some(message) = decoder.decode()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn any_split_gives_the_same_messages() {
        let mut bytes = Vec::new();
        for n in 0..2000_usize {
            let data = vec![b'x'; n % 250];
            bytes.extend_from_slice(FrameBuf::publish("a/b", &data).unwrap().bytes());
        }
        let whole = decode_all(&bytes, 4096).unwrap();
        assert_eq!(whole.len(), 2000);
        assert!(
            (0..).zip(&whole).all(|(n, message)| {
                message.topic() == "a/b" && message.data().len() == n % 250
            })
        );
        for step in [1, 2, 3, 255, 257, 1000] {
            assert_eq!(
                decode_all(&bytes, step).unwrap(),
                whole,
                "in parts of {step}"
            );
        }
    }

    #[test]
    fn a_message_outlives_the_buffer_and_equals_its_copy() {
        let frame = FrameBuf::publish("a", b"kept").unwrap();
        let mut decoder = MessageDecoder::new();
        let mut first = None;
        for _ in 0..20_000 {
            decoder.space()[..frame.bytes().len()].copy_from_slice(frame.bytes());
            decoder.advance(frame.bytes().len());
            let message = decoder.decode().unwrap().unwrap();
            first.get_or_insert(message);
        }
        let first = first.unwrap();
        assert_eq!(first.data(), b"kept");
        assert_eq!(first.detach(), first);
        assert_eq!(&first.data_bytes()[..], b"kept");
        assert_eq!(&first.frame()[..], frame.bytes());
    }

    #[test]
    fn l3_what_is_no_message_is_skipped_and_the_65th_in_a_row_is_an_error() {
        let good = [5, 2, 1, b'a'];
        let mut bytes = good.to_vec();
        for _ in 0..2 {
            bytes.extend([[5, 0]; 64].concat());
            bytes.extend(good);
        }
        assert_eq!(decode_all(&bytes, 7).unwrap().len(), 3);

        bytes.extend([[5, 0]; 65].concat());
        bytes.extend(good);
        let last = Skipped::Malformed(PacketError::EmptyPublish);
        let garbage = Misbehaved::Garbage { count: 65, last };
        assert_eq!(decode_all(&bytes, 7), Err(garbage));
    }

    #[test]
    fn l3_each_kind_of_useless_frame_is_counted() {
        let useless: [&[u8]; 6] = [
            &[5, 0],
            &[5, 1, 1],
            &[5, 2, 1, 0xFF],
            &[1, 0],
            &[0, 1, 9],
            &[255, 0],
        ];
        let mut decoder = MessageDecoder::new();
        for frame in useless {
            decoder.space()[..frame.len()].copy_from_slice(frame);
            decoder.advance(frame.len());
            assert_eq!(decoder.decode(), Ok(None), "{frame:?}");
        }
        assert_eq!(decoder.skipped(), 6);
        assert!(decoder.looks_foreign());
    }

    #[test]
    fn l1_other_protocols_are_called_by_their_names() {
        for (greeting, name) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], "HTTP"),
            (&[0x15, 3, 3, 0, 2, 2, 70], "TLS"),
            (b"SSH-2.0-x\r\n", "SSH"),
            (b"INFO {}\r\n", "NATS"),
        ] {
            let error = decode_all(greeting, 100).unwrap_err().to_string();
            assert_eq!(error, format!("it speaks {name}"));
        }
    }

    proptest::proptest! {
        #[test]
        fn l3_no_bytes_whatever_make_it_panic_or_hand_out_what_was_not_received(
            bytes: Vec<u8>, step in 1_usize..64,
        ) {
            if let Ok(messages) = decode_all(&bytes, step) {
                let len: usize = messages.iter().map(|message| message.frame().len()).sum();
                assert!(len <= bytes.len());
            }
        }
    }
}
