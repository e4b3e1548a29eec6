//! What can be measured. A target's dialect says how its frames are written and where they end;
//! pacing, the loop and all checks are the same for every target.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use ::hvlp::address::Address;
use ::hvlp::loopback::take_pace_off;
use socket2::{Domain, SockAddr, Socket, Type};

mod dialect;
mod hvlp;
mod mqtt;
mod nats;
mod redis;
pub mod relay;
pub mod relay_process;

pub use dialect::Dialect;

/// How long one connection may take to be accepted.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the load goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A broker, or a relay that runs as a process of its own.
    Broker(Endpoint),
    /// A relay of our own, started for the run.
    Relay,
}

/// An address, and what is spoken there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// What is spoken.
    pub dialect: Dialect,
    /// Where.
    pub address: Address,
}

impl Default for Target {
    fn default() -> Self {
        Self::Broker(Endpoint::default())
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "relay" {
            return Ok(Self::Relay);
        }
        let named = Dialect::NAMED.into_iter().find_map(|dialect| {
            let behind = text.strip_prefix(dialect.name())?.strip_prefix("://")?;
            Some((dialect, behind))
        });
        let (dialect, behind) = named.unwrap_or((Dialect::Hvlp, text));
        let address = match (named, behind.parse()) {
            // Only our own port is known to the address.
            (Some(_), Ok(Address::Tcp { host, .. })) if !names_port(behind) => Ok(Address::Tcp {
                host,
                port: dialect.port(),
            }),
            (Some(_), Ok(Address::Unix(_))) => Err(()),
            (_, parsed) => parsed.map_err(|_| ()),
        };
        let refusal = |()| {
            format!(
                "{text:?} is no target: write hvlp://host:port, unix:/path, hvlp+ack://host:port, \
                 nats://host:port, redis://host:port, mqtt://host:port or relay"
            )
        };
        let address = address.map_err(refusal)?;
        Ok(Self::Broker(Endpoint { dialect, address }))
    }
}

/// Written so that it can be parsed again.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(endpoint) => endpoint.fmt(f),
            Self::Relay => f.write_str("relay"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp { .. } => write!(f, "{}://{}", self.dialect.name(), self.address),
            Address::Unix(_) => self.address.fmt(f),
        }
    }
}

/// Whether `host:port` or `[v6]:port` has its last part.
fn names_port(text: &str) -> bool {
    let behind = text.rsplit_once(']').map_or(text, |(_, behind)| behind);
    behind.contains(':')
}

/// A frame that is the same for every message of a topic but for its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The whole frame, its payload zeroed.
    pub bytes: Vec<u8>,
    /// Where the payload begins.
    pub payload_at: usize,
}

impl Template {
    fn new(head: &[u8], payload_len: usize, tail: &[u8]) -> Self {
        Self {
            bytes: [head, &vec![0; payload_len], tail].concat(),
            payload_at: head.len(),
        }
    }
}

/// One thing that a target sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// A message.
    Message {
        /// What it was published to.
        topic: &'a [u8],
        /// Its data.
        payload: &'a [u8],
    },
    /// An answer that belongs to the dialect and means nothing to us.
    Answer,
    /// Something that wants [`Dialect::pong`].
    Ping,
    /// The target says that something is wrong.
    Complaint(&'a [u8]),
    /// Anything else. Nothing else was asked for.
    Other,
}

/// The name of a topic, always equally long.
pub fn topic_name(topic: usize) -> String {
    format!("t{topic:04x}")
}

/// The topic of that name, if it is one of ours.
pub fn topic_index(name: &[u8]) -> Option<usize> {
    let digits = str::from_utf8(name.strip_prefix(b"t")?).ok()?;
    let topic = usize::from_str_radix(digits, 16).ok()?;
    (topic_name(topic).as_bytes() == name).then_some(topic)
}

/// Opens one connection, in non-blocking mode from then on. One handshake at a time: the target's
/// accept queue cannot overflow while it accepts at all.
///
/// # Errors
/// The last address that the name stands for did not answer.
pub fn connect(address: &Address) -> io::Result<Socket> {
    connect_with(address, |_| Ok(()))
}

/// The same, with options that have to be set before the handshake.
///
/// # Errors
/// As [`connect`]; or `prepare` fails.
pub fn connect_with(
    address: &Address,
    prepare: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Socket> {
    let socket = match address {
        Address::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            prepare(&socket)?;
            socket.connect(&SockAddr::unix(path)?)?;
            socket
        }
        Address::Tcp { .. } => {
            let mut outcome = Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
            for address in address.resolve()? {
                let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
                take_pace_off(&socket, address);
                prepare(&socket)?;
                outcome = socket
                    .connect_timeout(&address.into(), CONNECT_TIMEOUT)
                    .map(|()| socket);
                if outcome.is_ok() {
                    break;
                }
            }
            let socket = outcome?;
            socket.set_tcp_nodelay(true)?;
            socket
        }
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_printed_so_that_it_parses_again() {
        for (text, printed) in [
            ("relay", "relay"),
            ("hvlp://127.0.0.1:7", "hvlp://127.0.0.1:7"),
            ("localhost", "hvlp://localhost:65432"),
            ("unix:/run/h.sock", "unix:/run/h.sock"),
            ("nats://127.0.0.1:7", "nats://127.0.0.1:7"),
            ("hvlp+ack://127.0.0.1", "hvlp+ack://127.0.0.1:65432"),
            ("redis://localhost", "redis://localhost:6379"),
            ("mqtt://[::1]", "mqtt://[::1]:1883"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), printed);
            assert_eq!(printed.parse::<Target>().unwrap(), target);
        }
        for wrong in ["kafka://a/b", "nats://unix:/run/n.sock", "redis://:x"] {
            let refusal = wrong.parse::<Target>().unwrap_err();
            assert!(refusal.contains("hvlp://host:port"), "{refusal}");
        }
    }

    #[test]
    fn a_topic_is_known_again_by_its_name_alone() {
        for topic in [0, 1, 255, 65_535] {
            assert_eq!(topic_index(topic_name(topic).as_bytes()), Some(topic));
        }
        for foreign in [
            "",
            "t",
            "t1",
            "t0G00",
            "x0001",
            "t+001",
            "t00001",
            "t00a\u{e9}",
        ] {
            assert_eq!(topic_index(foreign.as_bytes()), None, "{foreign}");
        }
    }
}
