//! What a client makes of a broker's bytes, against a decoder that has them all from the start. The
//! fuzz target calls it, and so does the test that replays the corpus.
//!
//! 1. The first byte says which of the decoder's two ways is used: messages, frames of any kind, or
//!    both in turn; and whether its buffer is nearly used up, so that a short input outgrows it.
//! 2. The second byte says how many of the next ones are lengths of reads, used in turn and from
//!    the beginning again; with none everything is read at once. The rest is the stream.
//! 3. After each read the decoder hands out what the naive one does: the same messages and frames
//!    whole and in order, the same error by its name, and that for ever, with as much skipped and
//!    as many bytes left, however the reads were cut.
//! 4. What was handed out first is still the same at the end.

use hvlp::client::{Message, MessageDecoder, Misbehaved, Skipped};
use hvlp::packet::PacketError;

const SKIPPED_IN_ROW_MAX: u32 = 64;
const FRAME_LEN_MAX: usize = 257;
const LENGTHS_MAX: u8 = 8;
/// As many longest messages fit before a decoder takes a fresh buffer, and 17 bytes more.
const BEFORE_FRESH: usize = 239;

pub(crate) fn check(input: &[u8]) {
    let [choice, count, rest @ ..] = input else {
        return;
    };
    let count = usize::from(count % LENGTHS_MAX).min(rest.len());
    let (lengths, stream) = rest.split_at(count);
    let way = match choice % 3 {
        0 => Way::Messages,
        1 => Way::Frames,
        _ => Way::InTurn,
    };
    let mut receiver = Receiver::of(stream, way);
    if *choice >= 240 {
        receiver.use_up_buffer();
    }
    receiver.run(lengths);
}

/// What the program asks the decoder for.
#[derive(Clone, Copy)]
enum Way {
    Messages,
    Frames,
    InTurn,
}

/// A program that receives, and what it should get.
struct Receiver<'a> {
    decoder: MessageDecoder,
    naive: Naive<'a>,
    way: Way,
    asked: u64,
    /// The first message, and what it was when it came.
    kept: Option<(Message, Vec<u8>)>,
}

impl<'a> Receiver<'a> {
    fn of(stream: &'a [u8], way: Way) -> Self {
        let naive = Naive {
            stream,
            arrived: 0,
            at: 0,
            handed_out: 0,
            skipped: 0,
            skipped_in_row: 0,
            end: None,
        };
        Self {
            decoder: MessageDecoder::new(),
            naive,
            way,
            asked: 0,
            kept: None,
        }
    }

    fn use_up_buffer(&mut self) {
        let frame = [&[5, 255, 0][..], &[b'x'; 254]].concat();
        let bytes = frame.repeat(BEFORE_FRESH);
        self.decoder.space()[..bytes.len()].copy_from_slice(&bytes);
        self.decoder.advance(bytes.len());
        while let Ok(Some(_)) = self.decoder.decode() {
            self.naive.handed_out += 1;
        }
        assert_eq!(self.naive.handed_out, BEFORE_FRESH as u64);
    }

    fn run(mut self, lengths: &[u8]) {
        let mut lengths = lengths.iter().cycle();
        while self.naive.arrived < self.naive.stream.len() {
            let space = self.decoder.space();
            assert!(space.len() >= FRAME_LEN_MAX, "the rest of any frame fits");
            let rest = &self.naive.stream[self.naive.arrived..];
            let wanted = lengths.next().map_or(usize::MAX, |len| usize::from(*len));
            let len = wanted.max(1).min(rest.len()).min(space.len());
            space[..len].copy_from_slice(&rest[..len]);
            self.decoder.advance(len);
            self.naive.arrived += len;
            self.take_all();
            if let Some(end) = self.naive.end {
                assert_eq!(self.decoder.decode(), Err(end), "it stays");
                assert_eq!(self.decoder.decode_frame(), Err(end), "it stays");
                break;
            }
        }
        if let Some((message, frame)) = self.kept {
            assert_eq!(message.frame(), &frame, "it lies in a buffer of its own");
            assert_eq!(message.detach(), message);
        }
    }

    fn take_all(&mut self) {
        loop {
            self.asked += 1;
            let whole_frames = match self.way {
                Way::Messages => false,
                Way::Frames => true,
                Way::InTurn => self.asked.is_multiple_of(2),
            };
            let is_over = match whole_frames {
                true => self.take_frame(),
                false => self.take_message(),
            };
            self.check_counts();
            if is_over {
                return;
            }
        }
    }

    fn take_frame(&mut self) -> bool {
        let expected = self.naive.next_frame();
        let found = self.decoder.decode_frame();
        let found = found.as_ref().map(|frame| frame.as_deref());
        assert_eq!(found, expected.as_ref().map(|it| *it));
        !matches!(expected, Ok(Some(_)))
    }

    fn take_message(&mut self) -> bool {
        let expected = self.naive.next_message();
        let found = self.decoder.decode();
        let (Ok(Some(message)), Ok(Some(frame))) = (&found, expected) else {
            assert_eq!(found, expected.map(|_| None), "a message or none");
            return true;
        };
        let (topic, data) = frame[3..].split_at(usize::from(frame[2]));
        assert_eq!(message.frame(), frame);
        assert_eq!(message.topic().as_bytes(), topic);
        assert_eq!((message.data(), &message.data_bytes()[..]), (data, data));
        if self.kept.is_none() {
            let text = format!("{message:?}");
            assert!(!text.contains(char::is_control), "one line: {text:?}");
            self.kept = Some((message.clone(), frame.to_vec()));
        }
        false
    }

    fn check_counts(&self) {
        let (decoder, naive) = (&self.decoder, &self.naive);
        assert_eq!(decoder.skipped(), naive.skipped, "skipped");
        let rest = &naive.stream[naive.at..naive.arrived];
        assert_eq!(decoder.remainder_len(), rest.len(), "bytes left");
        let has_nothing = naive.handed_out == 0;
        let is_other = rest.first().is_some_and(|id| *id != 5);
        let is_foreign = has_nothing && (naive.skipped > 0 || is_other);
        assert_eq!(decoder.looks_foreign(), is_foreign);
    }
}

/// A decoder as simple as can be: a place in the stream, and no buffer.
struct Naive<'a> {
    stream: &'a [u8],
    arrived: usize,
    at: usize,
    handed_out: u64,
    skipped: u64,
    skipped_in_row: u32,
    end: Option<Misbehaved>,
}

impl<'a> Naive<'a> {
    fn next_frame(&mut self) -> Result<Option<&'a [u8]>, Misbehaved> {
        let frame = self.split()?;
        self.handed_out += u64::from(frame.is_some());
        Ok(frame)
    }

    fn next_message(&mut self) -> Result<Option<&'a [u8]>, Misbehaved> {
        while let Some(frame) = self.split()? {
            let Some(last) = why_skipped(frame) else {
                self.handed_out += 1;
                self.skipped_in_row = 0;
                return Ok(Some(frame));
            };
            self.skipped += 1;
            self.skipped_in_row += 1;
            if self.skipped_in_row > SKIPPED_IN_ROW_MAX {
                let count = self.skipped_in_row;
                self.end = Some(Misbehaved::Garbage { count, last });
            }
        }
        Ok(None)
    }

    fn split(&mut self) -> Result<Option<&'a [u8]>, Misbehaved> {
        let here = &self.stream[self.at..self.arrived];
        if self.handed_out + self.skipped == 0 && self.end.is_none() {
            self.end = foreign(here);
        }
        if let Some(end) = self.end {
            return Err(end);
        }
        let [_, len, ..] = here else {
            return Ok(None);
        };
        let frame = here.get(..2 + usize::from(*len));
        self.at += frame.map_or(0, <[u8]>::len);
        Ok(frame)
    }
}

/// Why a frame is no message; `None`: it is one.
fn why_skipped(frame: &[u8]) -> Option<Skipped> {
    let malformed = |error| Some(Skipped::Malformed(error));
    match *frame {
        [5, _] => malformed(PacketError::EmptyPublish),
        [5, _, topic_len, ref rest @ ..] => match rest.get(..usize::from(topic_len)) {
            None => malformed(PacketError::TopicOverrun),
            Some(topic) if String::from_utf8(topic.to_vec()).is_err() => {
                malformed(PacketError::TopicNotUtf8)
            }
            Some(_) => None,
        },
        [id, ..] => Some(Skipped::NotPublish { id }),
        [] => None,
    }
}

fn foreign(first: &[u8]) -> Option<Misbehaved> {
    let protocol = match first {
        [b'H', b'T', b'T', b'P', b'/', ..] => "HTTP",
        [0x15, 3, 1 | 3, ..] | [0x16, 3, 3, ..] => "TLS",
        [b'S', b'S', b'H', b'-', ..] => "SSH",
        [b'I', b'N', b'F', b'O', b' ', b'{', ..] => "NATS",
        [b'-', b'E', b'R', b'R', ..] => "Redis or NATS",
        [b'2', b'2', b'0', b' ', ..] => "SMTP or FTP",
        _ => return None,
    };
    Some(Misbehaved::Foreign { protocol })
}
