//! Publishing and subscribing from within the process that the broker runs in.
//!
//! Such sessions are like any other, save that a buffer stands where others have a socket: the same
//! order, bounds and counters. They have a reactor of their own, one more peer of the mesh, so
//! that nothing the process does holds up a socket.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::packet::{EncodeError, Frame, FrameBuf, id};
use crate::reactor::{NoPipe, Peers, PipeEnded, ProcessEnd};
use crate::topic_frames::topic_frames;

/// Why nothing was published or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// It does not fit into a frame; nothing was published or subscribed to.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The broker is stopping or has stopped, or has closed this session: a limit on subscriptions,
    /// or a slow consumer. `CloseReason` in its log says which.
    #[error("the broker has ended, or has closed this session")]
    Ended,
    /// The process has as many sessions as `limits.sessions_max` allows, or opens too many at once.
    #[error("the process has too many sessions: drop some, or raise limits.sessions_max")]
    TooManySessions,
}

impl From<NoPipe> for ProcessError {
    fn from(reason: NoPipe) -> Self {
        match reason {
            NoPipe::Ended => Self::Ended,
            NoPipe::Full => Self::TooManySessions,
        }
    }
}

impl From<PipeEnded> for ProcessError {
    fn from(_: PipeEnded) -> Self {
        Self::Ended
    }
}

/// What the process publishes with: one session, opened with the first message.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    pipe: OnceLock<ProcessEnd>,
}

impl Publisher {
    pub(super) fn publish(
        &self,
        peers: &Peers,
        topic: &str,
        data: &[u8],
    ) -> Result<(), ProcessError> {
        let frame = FrameBuf::publish(topic, data)?;
        let pipe = match self.pipe.get() {
            Some(pipe) => pipe,
            None => {
                // Should another thread be faster, its session is the one that is used.
                let pipe = connect(peers)?;
                self.pipe.get_or_init(|| pipe)
            }
        };
        Ok(pipe.write(frame.bytes())?)
    }
}

/// Topics that the process is subscribed to; see [`BrokerHandle::subscribe`].
///
/// A slow consumer like any other: what is not received waits here, then in the broker, and the
/// subscription ends when that is more than `outbound_max`, or when nothing was received for
/// `progress_timeout` meanwhile. Dropping it ends it as well.
///
/// [`BrokerHandle::subscribe`]: crate::BrokerHandle::subscribe
pub struct Subscription {
    pipe: ProcessEnd,
    /// What was taken from the broker; `buffer[..taken]` was received.
    buffer: Vec<u8>,
    taken: usize,
}

impl Subscription {
    pub(super) fn new<T: AsRef<str>>(
        peers: &Peers,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Self, ProcessError> {
        let frames = frames_of(id::SUBSCRIBE, topics)?;
        let mut subscription = Self {
            pipe: connect(peers)?,
            buffer: Vec::new(),
            taken: 0,
        };
        subscription.send(&frames)?;
        Ok(subscription)
    }

    /// Subscribes to more topics. When this returns, whatever is published later is received, by
    /// whomever and on whichever reactor.
    ///
    /// # Errors
    /// A topic is too long, and then none is subscribed to; a limit on subscriptions is met, which
    /// closes the session; or the broker has ended.
    pub fn subscribe<T: AsRef<str>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), ProcessError> {
        self.send(&frames_of(id::SUBSCRIBE, topics)?)
    }

    /// Ends subscriptions; topics that are not held are no error. When this returns, nothing that
    /// is published to them later is received.
    ///
    /// # Errors
    /// A topic is too long, and then none is given up; or the broker has ended.
    pub fn unsubscribe<T: AsRef<str>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), ProcessError> {
        self.send(&frames_of(id::UNSUBSCRIBE, topics)?)
    }

    /// The next message, waiting for it at most so long; `None` if none came.
    ///
    /// # Errors
    /// The broker has ended and everything before was received.
    pub fn receive(&mut self, timeout: Duration) -> Result<Option<Delivery<'_>>, ProcessError> {
        // A time that the clock cannot hold is no deadline at all.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Some((frame, _)) = Frame::split_first(&self.buffer[self.taken..]) {
                let len = frame.bytes().len();
                let start = self.taken;
                self.taken += len;
                return Ok(Delivery::of(&self.buffer[start..start + len]));
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            if !self.pipe.read(&mut self.buffer, deadline)? {
                return Ok(None);
            }
        }
    }

    /// Sends whole frames, and waits until they have taken effect: last values may come first.
    fn send(&mut self, mut frames: &[u8]) -> Result<(), ProcessError> {
        while let Some((frame, behind)) = Frame::split_first(frames) {
            self.pipe.write(frame.bytes())?;
            frames = behind;
        }
        Ok(self.pipe.wait_until_settled(&mut self.buffer)?)
    }
}

/// As many frames as the topics need; none if one of them does not fit.
fn frames_of<T: AsRef<str>>(
    id: u8,
    topics: impl IntoIterator<Item = T>,
) -> Result<Vec<u8>, EncodeError> {
    let topics: Vec<T> = topics.into_iter().collect();
    topic_frames(id, topics.iter().map(AsRef::as_ref))
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.buffer.len() - self.taken;
        f.debug_struct("Subscription")
            .field("waiting_bytes", &waiting)
            .finish_non_exhaustive()
    }
}

/// One message, borrowed from the subscription that received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    topic: &'a str,
    data: &'a [u8],
}

impl<'a> Delivery<'a> {
    /// `None` for anything but a PUBLISH, which is all that a broker sends.
    fn of(frame: &'a [u8]) -> Option<Self> {
        let (frame, _) = Frame::split_first(frame)?;
        let (topic, data) = frame.publish_parts().ok()?;
        let topic = str::from_utf8(topic).ok()?;
        Some(Self { topic, data })
    }

    /// What it was published to.
    pub const fn topic(&self) -> &'a str {
        self.topic
    }

    /// What was published, 0 to 254 bytes.
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }
}

fn connect(peers: &Peers) -> Result<ProcessEnd, ProcessError> {
    let pipe = peers.open_pipe()?;
    pipe.write(FrameBuf::connect(b"")?.bytes())?;
    Ok(pipe)
}
