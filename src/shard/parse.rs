//! Frames in: split, gathered to runs, and the runs given to everyone who wants them.

use crate::arena::Piece;
use crate::deadline::Timestamp;
use crate::handler::{SessionHandler, SessionView, Verdict};
use crate::metrics::DiscardCause;
use crate::packet::{HEADER_LEN, Packet, id};
use crate::register::is_same;
use crate::session::{SessionKey, SessionState};
use crate::shard::Shard;
use crate::shard::run::{Run, Step};

/// Where a run was published.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// By a session of this shard.
    Here(SessionKey),
    /// On another one.
    Shard { from: u8, topic_hash: u64 },
}

impl Origin {
    /// The session that must not get its own message.
    pub(super) const fn publisher(self) -> Option<SessionKey> {
        match self {
            Self::Here(publisher) => Some(publisher),
            Self::Shard { .. } => None,
        }
    }
}

/// What the parser does after a frame.
pub(super) enum Next {
    Go,
    /// The session waits for an answer, of the handler or of other shards; the rest is held.
    Hold,
    /// The session has ended; the rest is not executed.
    Stop,
}

impl<H: SessionHandler> Shard<H> {
    /// Whether the turn has done its share: nothing more is read, or taken from other shards,
    /// before everything is flushed and everyone has had their turn.
    pub const fn is_spent(&self) -> bool {
        self.budget.is_spent() || self.pieces.len() >= self.limits.pieces_per_turn
    }

    /// Executes whole frames from the front, at least one; returns how many bytes they were. Ends
    /// before the last one only if the turn is spent or `Next` says so.
    pub(super) fn parse(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        piece: Piece,
        bytes: &[u8],
    ) -> (usize, Next) {
        let Some(session) = self.sessions.get(key) else {
            return (0, Next::Stop);
        };
        if session.closing.is_some() {
            return (0, Next::Stop);
        }
        let view = SessionView {
            number: session.number,
            peer: session.peer,
        };
        let mut connected = session.state == SessionState::Connected;
        let frames_before = self.counters.frames_read;
        let (mut at, mut run, mut next) = (0, Run::NONE, Next::Go);

        while let Some((len, step)) = Step::next(&bytes[at..], &run, connected) {
            match step {
                Step::Publish { topic, data, same } => {
                    if !same {
                        self.end_run(key, piece, bytes, &mut run);
                    }
                    let mut verdict = self.on_publish(view, topic, data);
                    if verdict == Verdict::Allow {
                        if !same {
                            run = self.begin_run(topic, at);
                        }
                        run.extend(&bytes[at..at + len]);
                        verdict = self.take_repeats(view, bytes, &mut run);
                        at = run.end;
                    }
                    if verdict == Verdict::Discard {
                        self.end_run(key, piece, bytes, &mut run);
                        self.counters.frames_read += 1;
                        self.counters.count_discarded(DiscardCause::Denied, 1);
                        self.budget.spend_frames(1);
                        at += len;
                    }
                }
                Step::Other(frame) => {
                    self.end_run(key, piece, bytes, &mut run);
                    self.counters.frames_read += 1;
                    self.budget.spend_frames(1);
                    next = self.on_frame(now, key, view, frame);
                    connected = self.is_connected(key);
                    at += len;
                }
            }
            if run.is_full() {
                self.end_run(key, piece, bytes, &mut run);
            }
            if !matches!(next, Next::Go) || self.is_spent() {
                break;
            }
        }
        self.end_run(key, piece, bytes, &mut run);
        let forwarded = std::mem::take(&mut self.forwarded);
        if let Some(session) = self.sessions.get_mut(key) {
            session.frames_in += self.counters.frames_read - frames_before;
            if let Some(extended) = &mut session.extended {
                extended.published_to |= forwarded;
            }
        }
        (at, next)
    }

    /// Looks the topic up, once for the whole run: nothing that changes subscriptions is executed
    /// before it ends.
    #[inline]
    fn begin_run<'a>(&mut self, topic: &'a str, start: usize) -> Run<'a> {
        let hash = self.register.hash(topic.as_bytes());
        let audience = self.audience(hash, topic.as_bytes());
        let len_max = self.budget.run_len_max(audience.sessions);
        Run {
            topic,
            hash,
            audience,
            is_kept: self.replays.keep(topic),
            end_max: start.saturating_add(len_max),
            frames_max: self.budget.frames_max(),
            start,
            end: start,
            ..Run::NONE
        }
    }

    /// Extends the run by all frames behind it that differ from its last one in their data alone.
    /// Nothing else is left to be checked then, and most frames of a burst are like this.
    ///
    /// `Discard` if the frame behind the run is one of these and the handler denied it.
    fn take_repeats(&mut self, view: SessionView, bytes: &[u8], run: &mut Run<'_>) -> Verdict {
        let len = run.last.len();
        let (head, _) = run.last.split_at(HEADER_LEN + 1 + run.topic.len());
        // A run is full with the frame that reaches `end_max`, or with its last one.
        let end_max = run.end_max.saturating_add(len - 1);
        let frames_left = run.frames_max.saturating_sub(run.frames) as usize;
        let end_max = end_max.min(run.end.saturating_add(frames_left.saturating_mul(len)));
        let bytes = &bytes[..bytes.len().min(end_max)];
        let mut rest = &bytes[run.end.min(bytes.len())..];
        let (mut frames, mut verdict) = (run.frames, Verdict::Allow);
        while let Some((frame, behind)) = rest.split_at_checked(len) {
            let (next_head, data) = frame.split_at(head.len());
            if !is_same(head, next_head) {
                break;
            }
            verdict = self.on_publish(view, run.topic, data);
            if verdict == Verdict::Discard {
                break;
            }
            rest = behind;
            frames += 1;
        }
        run.end += (frames - run.frames) as usize * len;
        run.frames = frames;
        verdict
    }

    #[inline]
    fn on_publish(&mut self, view: SessionView, topic: &str, data: &[u8]) -> Verdict {
        match self
            .handler
            .on_packet(view, &Packet::Publish { topic, data })
        {
            Verdict::Allow => self.handler.on_publish(view, topic, data),
            Verdict::Discard => Verdict::Discard,
        }
    }

    /// Gives a run to everyone who wants it.
    #[inline]
    fn end_run(&mut self, publisher: SessionKey, piece: Piece, bytes: &[u8], run: &mut Run<'_>) {
        let frames = std::mem::take(&mut run.frames);
        if frames == 0 {
            return;
        }
        self.counters.frames_read += u64::from(frames);
        self.counters.count_accepted(id::PUBLISH, u64::from(frames));
        self.budget.spend_frames(frames as usize);
        // Before anybody is looked for who wants it; see `LastValues`.
        let number = match run.is_kept {
            true => self.replays.store(run, bytes),
            false => None,
        };
        let others = match &mut self.remote {
            None => 0,
            Some(remote) => {
                let local = run.audience.exact;
                let local = local.map(|exact| self.register.route_at(exact));
                let local = local.map(|route| route.interest());
                remote.wanted_by(run.hash, run.topic.as_bytes(), local)
            }
        };
        if others != 0 {
            self.forward(
                others,
                publisher,
                run.hash,
                number,
                &bytes[run.start..run.end],
            );
            self.forwarded |= others;
            self.hold_for_others(publisher, run.hash);
        }
        let matched = match run.audience.sessions {
            0 => 0,
            _ => {
                let piece = piece.part(run.start, run.end);
                self.fan_out(run.audience, Origin::Here(publisher), piece, frames)
            }
        };
        if matched == 0 && others == 0 {
            self.counters.publishes_unmatched += u64::from(frames);
        }
    }

    /// Appends a run for every shard whose bit is set.
    fn forward(
        &mut self,
        mut shards: u64,
        publisher: SessionKey,
        hash: u64,
        number: Option<u64>,
        run: &[u8],
    ) {
        let Some(remote) = &mut self.remote else {
            return;
        };
        while shards != 0 {
            let to = shards.trailing_zeros() as usize;
            remote.mesh.forward(to, publisher, hash, number, run);
            shards &= shards - 1;
        }
    }
}
