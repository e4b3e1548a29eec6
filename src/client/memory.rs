//! What makes a broker know a client again on a new connection.

use std::collections::BTreeSet;
use std::fmt;

use crate::packet::{EncodeError, FrameBuf, id};
use crate::topic_frames::topic_frames;

/// The CONNECT and the topics of a client.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Sent first on each connection, once the client has sent it.
    connect: Option<Connect>,
    topics: BTreeSet<Box<str>>,
}

/// A CONNECT, which may hold a secret: it is shown to nobody.
struct Connect(FrameBuf);

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CONNECT")
    }
}

impl Memory {
    pub(super) fn set_connect(&mut self, frame: FrameBuf) {
        self.connect = Some(Connect(frame));
    }

    pub(super) fn add(&mut self, topics: &[&str]) {
        self.topics.extend(topics.iter().copied().map(Box::from));
    }

    pub(super) fn forget(&mut self, topics: &[&str]) {
        for topic in topics {
            self.topics.remove(*topic);
        }
    }

    /// What is subscribed, in alphabetical order.
    pub(super) fn topics(&self) -> Vec<String> {
        self.topics.iter().map(|topic| topic.to_string()).collect()
    }

    /// What goes first on a new connection.
    pub(super) fn frames(&self) -> Result<Vec<u8>, EncodeError> {
        let mut frames = Vec::new();
        if let Some(Connect(connect)) = &self.connect {
            frames.extend_from_slice(connect.bytes());
        }
        let topics = self.topics.iter().map(AsRef::as_ref);
        frames.extend(topic_frames(id::SUBSCRIBE, topics)?);
        Ok(frames)
    }
}
