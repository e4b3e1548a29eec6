//! The extended CONNECT: what a client asks for beyond the base protocol, and who it says it is.
//!
//! It lies in the payload of CONNECT, which the base protocol ignores, and begins with bytes that
//! begin no UTF-8, so no token that a base client sends can be taken for it.

use core::fmt;
use core::ops::{BitAnd, BitOr};

use super::encode::{EncodeError, FrameBuf};
use super::topics::split_string;
use super::{Frame, id};

/// The first bytes of an extended CONNECT's payload, and of its answer's.
pub const MAGIC: [u8; 3] = *b"\xFFH+";

/// A set of extensions. Bits that this version does not know survive a round trip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extensions(u8);

impl Extensions {
    /// The base protocol.
    pub const NONE: Self = Self(0);
    /// SUBSCRIBE and UNSUBSCRIBE are answered, the empty UNSUBSCRIBE is a ping, and the broker says
    /// why it closes.
    pub const ACK: Self = Self(1);
    /// The session's own messages come back if it is subscribed.
    pub const ECHO: Self = Self(2);
    /// `+` and `#` are wildcards in the session's SUBSCRIBE and UNSUBSCRIBE.
    pub const WILD: Self = Self(4);
    /// All that this version knows.
    pub const ALL: Self = Self(7);

    /// The extensions of these bits.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// A bit for each.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `others` are among these.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

impl BitOr for Extensions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Extensions {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// `ack+wild`, or `none`.
impl fmt::Display for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [
            (Self::ACK, "ack"),
            (Self::ECHO, "echo"),
            (Self::WILD, "wild"),
        ];
        let mut gap = "";
        for (extension, name) in known {
            if self.contains(extension) {
                write!(f, "{gap}{name}")?;
                gap = "+";
            }
        }
        if gap.is_empty() {
            f.write_str("none")?;
        }
        Ok(())
    }
}

/// What an extended CONNECT asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hello<'a> {
    /// The extensions that the client wants.
    pub want: Extensions,
    /// Seconds; the broker closes after one and a half times that without a byte. 0 is never.
    pub keepalive: u8,
    /// Who the client is.
    pub user: Option<&'a str>,
    /// What proves it; only with a user.
    pub secret: Option<&'a [u8]>,
}

/// An extended CONNECT that is cut, too long, or names a user that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MalformedHello;

impl fmt::Display for MalformedHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed extended CONNECT")
    }
}

impl core::error::Error for MalformedHello {}

impl<'a> Hello<'a> {
    /// Reads the payload of a CONNECT; `None` if that is one of the base protocol.
    pub fn parse(payload: &'a [u8]) -> Option<Result<Self, MalformedHello>> {
        let fields = payload.strip_prefix(&MAGIC)?;
        Some(Self::parse_fields(fields).ok_or(MalformedHello))
    }

    fn parse_fields(fields: &'a [u8]) -> Option<Self> {
        let (&[want, keepalive], rest) = fields.split_first_chunk()?;
        let (user, rest) = split_optional(rest)?;
        let (secret, rest) = split_optional(rest)?;
        let user = match user {
            Some(user) => Some(str::from_utf8(user).ok()?),
            None => None,
        };
        rest.is_empty().then_some(Self {
            want: Extensions(want),
            keepalive,
            user,
            secret,
        })
    }

    /// The frame that asks for it.
    ///
    /// # Errors
    /// `PayloadTooLong` if user and secret do not fit, `SecretWithoutUser`.
    pub fn to_frame(&self) -> Result<FrameBuf, EncodeError> {
        if self.secret.is_some() && self.user.is_none() {
            return Err(EncodeError::SecretWithoutUser);
        }
        let mut frame = FrameBuf::new(id::CONNECT, &MAGIC)?;
        frame.extend(&[self.want.0, self.keepalive])?;
        let user = self.user.map(str::as_bytes);
        for field in [user, self.secret].into_iter().flatten() {
            let len = u8::try_from(field.len());
            let len = len.map_err(|_| EncodeError::PayloadTooLong { len: field.len() })?;
            frame.extend(&[len])?;
            frame.extend(field)?;
        }
        Ok(frame)
    }
}

/// A field that may be missing, and what follows it; `None` if its length points past the end.
fn split_optional(rest: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    match split_string(rest).ok()? {
        Some((field, rest)) => Some((Some(field), rest)),
        None => Some((None, rest)),
    }
}

/// How the broker judges a request: a CONNECT, or one topic of a SUBSCRIBE or UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It has taken effect.
    Ok,
    /// The client may not.
    NotAuthorised,
    /// It makes no sense.
    Malformed,
    /// The client might, but not now.
    Limit,
    /// One that this version does not know.
    Other(u8),
}

impl Status {
    /// By its byte.
    pub const fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Ok,
            1 => Self::NotAuthorised,
            2 => Self::Malformed,
            3 => Self::Limit,
            other => Self::Other(other),
        }
    }

    /// Its byte.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::NotAuthorised => 1,
            Self::Malformed => 2,
            Self::Limit => 3,
            Self::Other(byte) => byte,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::NotAuthorised => f.write_str("not authorised"),
            Self::Malformed => f.write_str("malformed"),
            Self::Limit => f.write_str("at a limit"),
            Self::Other(byte) => write!(f, "status {byte}"),
        }
    }
}

/// Why a broker closes a session, as it says in DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The broker stops, or was told to close the session.
    Shutdown,
    /// The client may not go on.
    NotAuthorised,
    /// The client broke the protocol.
    Protocol,
    /// A limit was reached.
    Limit,
    /// The client did not read what it was sent.
    SlowConsumer,
    /// Nothing came from the client for one and a half times its keepalive.
    Keepalive,
    /// One that this version does not know.
    Other(u8),
}

impl Reason {
    /// By its byte.
    pub const fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Shutdown,
            1 => Self::NotAuthorised,
            2 => Self::Protocol,
            3 => Self::Limit,
            4 => Self::SlowConsumer,
            5 => Self::Keepalive,
            other => Self::Other(other),
        }
    }

    /// Its byte.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Shutdown => 0,
            Self::NotAuthorised => 1,
            Self::Protocol => 2,
            Self::Limit => 3,
            Self::SlowConsumer => 4,
            Self::Keepalive => 5,
            Self::Other(byte) => byte,
        }
    }

    /// In words, as DISCONNECT carries it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::NotAuthorised => "not authorised",
            Self::Protocol => "protocol",
            Self::Limit => "limit",
            Self::SlowConsumer => "slow consumer",
            Self::Keepalive => "keepalive",
            Self::Other(_) => "unknown",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What a broker says to a client that has asked for it. A PUBLISH is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer<'a> {
    /// To an extended CONNECT.
    Hello {
        /// The extensions that are in force.
        have: Extensions,
        /// Anything but `Ok` is followed by the end of the stream.
        status: Status,
    },
    /// To a SUBSCRIBE: a status byte for each topic, or `Malformed` alone.
    Subscribe {
        /// As they stand in the frame; see [`Status::of`].
        statuses: &'a [u8],
    },
    /// To an UNSUBSCRIBE with topics, likewise.
    Unsubscribe {
        /// As they stand in the frame; see [`Status::of`].
        statuses: &'a [u8],
    },
    /// To a ping: all that was sent before it has taken effect on every reactor.
    Pong {
        /// How many messages for this session were dropped so far.
        dropped: u32,
    },
    /// The broker closes the session.
    Disconnect {
        /// Why.
        reason: Reason,
        /// In words; empty if it is not UTF-8.
        text: &'a str,
    },
}

/// Says that an answer to an UNSUBSCRIBE is a pong: it is no status.
const PONG: u8 = 0xFF;

impl<'a> Answer<'a> {
    /// What a frame from a broker answers; `None` if it is no answer.
    pub fn of(frame: Frame<'a>) -> Option<Self> {
        let payload = frame.payload();
        match (frame.id(), payload) {
            (id::CONNECT, [a, b, c, have, status]) if [*a, *b, *c] == MAGIC => Some(Self::Hello {
                have: Extensions(*have),
                status: Status::of(*status),
            }),
            (id::SUBSCRIBE, statuses) => Some(Self::Subscribe { statuses }),
            (id::UNSUBSCRIBE, [PONG, rest @ ..]) => Some(Self::Pong {
                dropped: u32::from_be_bytes(rest.try_into().ok()?),
            }),
            (id::UNSUBSCRIBE, statuses) => Some(Self::Unsubscribe { statuses }),
            (id::DISCONNECT, [reason, text @ ..]) => Some(Self::Disconnect {
                reason: Reason::of(*reason),
                text: str::from_utf8(text).unwrap_or_default(),
            }),
            _ => None,
        }
    }

    /// The frame that says it.
    ///
    /// # Errors
    /// `PayloadTooLong` if statuses or text do not fit.
    pub fn to_frame(&self) -> Result<FrameBuf, EncodeError> {
        match *self {
            Self::Hello { have, status } => {
                let mut frame = FrameBuf::new(id::CONNECT, &MAGIC)?;
                frame.extend(&[have.0, status.byte()])?;
                Ok(frame)
            }
            Self::Subscribe { statuses } => FrameBuf::new(id::SUBSCRIBE, statuses),
            Self::Unsubscribe { statuses } => FrameBuf::new(id::UNSUBSCRIBE, statuses),
            Self::Pong { dropped } => {
                let mut frame = FrameBuf::new(id::UNSUBSCRIBE, &[PONG])?;
                frame.extend(&dropped.to_be_bytes())?;
                Ok(frame)
            }
            Self::Disconnect { reason, text } => {
                let mut frame = FrameBuf::new(id::DISCONNECT, &[reason.byte()])?;
                frame.extend(text.as_bytes())?;
                Ok(frame)
            }
        }
    }
}
