//! What can go wrong for a client, and whose fault it is.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::time::Duration;

use super::decoder::Misbehaved;
use crate::address::{Address, AddressError};
use crate::packet::{EncodeError, Extensions, Reason, Status};

/// Why a client could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// It does not fit into a frame. Nothing was written, the connection stays usable.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The address has no meaning.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The host is there, but nobody listens at that port or path.
    #[error("nothing listens on {address}; start one: hvlp-broker")]
    NothingListens {
        /// Where.
        address: Address,
    },
    /// The host cannot be found or reached.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// Where.
        address: Address,
        /// What the system says.
        source: io::Error,
    },
    /// The broker, or the way to it, did not react in time.
    #[error("{address} did not {wait} within {limit:?}")]
    TimedOut {
        /// Who.
        address: Address,
        /// What was waited for.
        wait: Wait,
        /// The time that it had.
        limit: Duration,
    },
    /// What comes from there cannot be from a broker.
    #[error("{address} does not look like an HVLP broker: {cause}")]
    NotABroker {
        /// Who.
        address: Address,
        /// What it does instead.
        cause: Misbehaved,
    },
    /// The broker does not let this client in.
    #[error("the broker at {address} refuses the connection: {status}")]
    Refused {
        /// Who.
        address: Address,
        /// Why.
        status: Status,
    },
    /// A user and a secret were sent, and no answer came: nobody knows who has them now.
    #[error("{address} does not answer a login: it speaks the base protocol alone")]
    NoLogin {
        /// Who.
        address: Address,
    },
    /// The broker has not granted what is needed for this.
    #[error("the broker at {address} does not offer {missing}")]
    NotGranted {
        /// Who.
        address: Address,
        /// What is missing.
        missing: Extensions,
    },
    /// An answer is waited for, and too many messages come before it.
    #[error("{kept} messages of {address} came before an answer: receive them first")]
    TooManyMessages {
        /// Who.
        address: Address,
        /// How many are kept.
        kept: usize,
    },
    /// The broker said why it closes the connection.
    #[error("the broker at {address} closed the connection: {reason}")]
    ClosedFor {
        /// Who.
        address: Address,
        /// Why.
        reason: Reason,
    },
    /// An orderly end of the connection, between two frames.
    #[error("the broker at {address} closed the connection")]
    Closed {
        /// Who.
        address: Address,
    },
    /// The connection ended within a frame. What was there of it is discarded.
    #[error("the broker at {address} closed the connection {received} bytes into a frame")]
    ClosedInFrame {
        /// Who.
        address: Address,
        /// Bytes of the frame that had come.
        received: usize,
    },
    /// The connection was torn down; what was on its way may be lost.
    #[error("the connection to {address} was reset")]
    Reset {
        /// Who.
        address: Address,
    },
    /// This client, or its other half, has disconnected itself.
    #[error("this client has disconnected")]
    Disconnected,
    /// Anything else that the system says about the connection.
    #[error("connection to {address}: {source}")]
    Io {
        /// Who.
        address: Address,
        /// What the system says.
        source: io::Error,
    },
}

impl ClientError {
    /// Who has to change something.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Encode(_) | Self::Address(_) | Self::Disconnected => Fault::Caller,
            Self::Refused { .. } | Self::TooManyMessages { .. } => Fault::Caller,
            Self::NotABroker { .. }
            | Self::NoLogin { .. }
            | Self::NotGranted { .. }
            | Self::ClosedFor { .. }
            | Self::Closed { .. }
            | Self::ClosedInFrame { .. } => Fault::Broker,
            Self::NothingListens { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Reset { .. }
            | Self::Io { .. } => Fault::Environment,
        }
    }

    pub(super) fn from_connect(address: &Address, limit: Duration, source: io::Error) -> Self {
        let address = address.clone();
        match source.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                Self::NothingListens { address }
            }
            io::ErrorKind::TimedOut => Self::TimedOut {
                address,
                wait: Wait::Connect,
                limit,
            },
            _ => Self::Unreachable { address, source },
        }
    }

    pub(super) fn from_io(address: &Address, source: io::Error) -> Self {
        let address = address.clone();
        match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected => Self::Closed { address },
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
                Self::Reset { address }
            }
            _ => Self::Io { address, source },
        }
    }
}

impl From<Infallible> for ClientError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// What a broker did not do in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Take a connection.
    Connect,
    /// Take what was sent.
    Send,
    /// Be there again after a lost connection.
    Reconnect,
    /// Answer a request.
    Answer,
    /// Close the connection after DISCONNECT.
    Close,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "answer",
            Self::Send => "take anything",
            Self::Reconnect => "come back",
            Self::Answer => "answer a request",
            Self::Close => "close the connection",
        })
    }
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The program that uses the client.
    Caller,
    /// The peer.
    Broker,
    /// The network, the host, or a broker that does not run.
    Environment,
}
