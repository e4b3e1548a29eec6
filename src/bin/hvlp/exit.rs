//! How the program ends: one table of codes, and the failures that lead to them.

use std::io;
use std::process::ExitCode;

use hvlp::address::Address;
use hvlp::client::{ClientError, Fault, Wait};

/// The exit codes of `hvlp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or whoever read our output has gone.
    Done = 0,
    /// Failed while running.
    Failed = 1,
    /// Wrong usage; nothing was sent because of it.
    Usage = 2,
    /// No broker answers there.
    NobodyThere = 3,
    /// The broker does not let us in.
    Refused = 4,
    /// The time was up before as many messages came as were asked for.
    TimedOut = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a subcommand could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It was called in a way that has no meaning.
    #[error("{0}")]
    Usage(String),
    /// The client's error.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What should be published cannot be read.
    #[error("cannot read {name}: {source}")]
    Input {
        /// A file, or standard input.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// What was received cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// The broker takes messages, but none comes back.
    #[error("{0} takes messages, but none comes back")]
    Silent(Address),
    /// Anything that only has to be printed.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Client(error) => match error {
                ClientError::NothingListens { .. }
                | ClientError::Unreachable { .. }
                | ClientError::NotABroker { .. }
                | ClientError::TimedOut {
                    wait: Wait::Connect,
                    ..
                } => Exit::NobodyThere,
                ClientError::Refused { .. } | ClientError::NoLogin { .. } => Exit::Refused,
                other if other.fault() == Fault::Caller => Exit::Usage,
                _ => Exit::Failed,
            },
            Self::Silent(_) => Exit::NobodyThere,
            Self::Input { .. } | Self::Output(_) | Self::Other(_) => Exit::Failed,
        }
    }
}
