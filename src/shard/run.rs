//! Runs: neighbouring PUBLISH frames of one topic, told apart from everything else.

use crate::packet::{Frame, id};
use crate::register::is_same;
use crate::shard::fan_out::Audience;

/// Neighbouring PUBLISH frames of one topic, routed once.
///
/// Invariant: with `frames` > 0, the bytes `start..end` of the receive are exactly these frames,
/// and `last` is one of them, as long as all behind it are.
pub(super) struct Run<'a> {
    pub(super) topic: &'a str,
    pub(super) hash: u64,
    pub(super) audience: Audience,
    /// Its last message is kept for later subscribers.
    pub(super) is_kept: bool,
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
        audience: Audience::NONE,
        is_kept: false,
        last: &[],
        start: 0,
        end: 0,
        end_max: 0,
        frames_max: 0,
        frames: 0,
    };

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
