//! Runs: neighbouring PUBLISH frames of one topic, told apart from everything else.

use crate::packet::{Frame, id};
use crate::register::TopicIndex;

/// Neighbouring PUBLISH frames of one topic, routed once.
///
/// Invariant: with `frames` > 0, the bytes `start..end` of the receive are exactly these frames,
/// and `last` is the last of them.
pub(super) struct Run<'a> {
    pub(super) topic: &'a str,
    pub(super) hash: u64,
    /// Where the register has the topic, if anybody here wants it.
    pub(super) found: Option<TopicIndex>,
    pub(super) last: &'a [u8],
    pub(super) start: usize,
    pub(super) end: usize,
    /// It is full when `end` or `frames` has come so far: the turn has nothing left for more.
    pub(super) end_max: usize,
    pub(super) frames_max: u32,
    pub(super) frames: u32,
}

impl<'a> Run<'a> {
    pub(super) const NONE: Self = Run {
        topic: "",
        hash: 0,
        found: None,
        last: &[],
        start: 0,
        end: 0,
        end_max: 0,
        frames_max: 0,
        frames: 0,
    };

    pub(super) const fn take(&mut self) -> Self {
        std::mem::replace(self, Self::NONE)
    }

    pub(super) const fn extend(&mut self, frame: &'a [u8]) {
        self.last = frame;
        self.end += frame.len();
        self.frames += 1;
    }

    pub(super) const fn is_full(&self) -> bool {
        self.frames > 0 && (self.end >= self.end_max || self.frames >= self.frames_max)
    }
}

/// One whole frame, as far as the parser has to tell frames apart.
pub(super) enum Step<'a> {
    /// A well-formed PUBLISH of a connected session; `same`: on the topic of the run.
    Publish {
        topic: &'a str,
        data: &'a [u8],
        same: bool,
    },
    /// Anything else.
    Other(Frame<'a>),
}

impl<'a> Step<'a> {
    /// Splits a frame off the front of `rest`; returns its length as well.
    #[inline]
    pub(super) fn next(rest: &'a [u8], run: &Run<'a>, connected: bool) -> Option<(usize, Self)> {
        let (frame, _) = Frame::split_first(rest)?;
        let step = match frame.publish_parts() {
            Ok((topic, data)) if connected && frame.id() == id::PUBLISH => {
                if run.frames > 0 && is_same(topic, run.topic.as_bytes()) {
                    Some(Step::Publish {
                        topic: run.topic,
                        data,
                        same: true,
                    })
                } else {
                    let topic = str::from_utf8(topic).ok();
                    topic.map(|topic| Step::Publish {
                        topic,
                        data,
                        same: false,
                    })
                }
            }
            _ => None,
        };
        Some((frame.bytes().len(), step.unwrap_or(Step::Other(frame))))
    }
}

/// Whether two topics are equal. Why not `==`: for lengths that are not constant that is a call
/// into the C library, and most topics are shorter than such a call is long (9 % of the broker's
/// time in a stream of 64-byte messages).
#[inline]
pub(super) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && match one.len() {
            0..8 => one.iter().zip(other).all(|(a, b)| a == b),
            // Eight bytes from each end, overlapping in the middle.
            8..=16 => {
                one.first_chunk::<8>() == other.first_chunk::<8>()
                    && one.last_chunk::<8>() == other.last_chunk::<8>()
            }
            _ => one == other,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_the_same_only_if_every_byte_is() {
        for len in 0..40 {
            let topic: Vec<u8> = (0..len).collect();
            assert!(is_same(&topic, &topic.clone()));
            assert!(!is_same(&topic, &[&topic[..], b"x"].concat()));
            for at in 0..topic.len() {
                let mut other = topic.clone();
                other[at] ^= 0x80;
                assert!(!is_same(&topic, &other), "{len} bytes, different at {at}");
            }
        }
    }
}
