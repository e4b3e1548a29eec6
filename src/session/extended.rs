//! What a session has that asked for more than the base protocol.

use thin_vec::ThinVec;

use crate::deadline::Timestamp;
use crate::packet::{Extensions, Hello};

/// What an offer to a session's socket is, if it is neither all of its backlog nor new messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ahead {
    #[default]
    Nothing,
    /// The rest of a frame, so that answers can follow.
    Frame,
    Answers,
}

/// What a session has that began with an extended CONNECT.
#[derive(Debug, Default)]
pub(crate) struct Extended {
    /// What it asked for, and from its CONNECT's acceptance on what it was granted.
    pub(crate) extensions: Extensions,
    /// Seconds; 0 is never.
    pub(crate) keepalive: u8,
    /// When its last byte came.
    pub(crate) heard: Timestamp,
    /// Whole frames that answer it, of the first perhaps only the end.
    pub(crate) answers: ThinVec<u8>,
    /// What goes to the socket ahead of all else, just now.
    pub(crate) ahead: Ahead,
    /// It has ended, and its last answer is to be written.
    pub(crate) is_leaving: bool,
    /// The last audience that it was in.
    pub(crate) marked: u64,
    /// Bit k: it has published to shard k since its last ping.
    pub(crate) published_to: u64,
    /// Bit k: shard k has not answered its ping yet.
    pub(crate) awaited: u64,
}

impl Extended {
    /// What a CONNECT asks for, before it is accepted.
    pub(crate) fn of(hello: &Hello<'_>) -> Self {
        Self {
            extensions: hello.want,
            keepalive: hello.keepalive,
            ..Self::default()
        }
    }
}
