//! Where a broker listens, and where a client finds it: `host:port`, `[v6]:port` or `unix:/path`.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use crate::packet::DEFAULT_PORT;

/// An address as people write it. Names are resolved when it is used, not when it is parsed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or IP address (IPv6 without brackets), and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// TCP port; 0 lets the kernel choose one for a listener.
        port: u16,
    },
    /// A unix socket, by its path.
    Unix(PathBuf),
}

impl Address {
    /// The socket addresses that a TCP address stands for; none for a unix socket. An IPv4 address
    /// written in IPv6 is the IPv4 one: whoever judges or counts addresses meets one form of each.
    ///
    /// # Errors
    /// The name cannot be resolved.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Tcp { host, port } => {
                let resolved = (host.as_str(), *port).to_socket_addrs()?;
                Ok(resolved.map(unmapped).collect())
            }
            Self::Unix(_) => Ok(Vec::new()),
        }
    }
}

fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, |v4| {
            SocketAddr::new(IpAddr::V4(v4), address.port())
        }),
        IpAddr::V4(_) => address,
    }
}

impl Default for Address {
    /// `127.0.0.1:65432`, as the protocol's reference has it.
    fn default() -> Self {
        Self::Tcp {
            host: "127.0.0.1".into(),
            port: DEFAULT_PORT,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl From<&Self> for Address {
    fn from(address: &Self) -> Self {
        address.clone()
    }
}

impl TryFrom<&str> for Address {
    type Error = AddressError;

    fn try_from(text: &str) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = AddressError;

    fn try_from(text: &String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

/// Accepts an optional `hvlp://`; a missing port is 65432.
impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(AddressError(text.into()))
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let bare = text.strip_prefix("hvlp://").unwrap_or(text);
        let (host, port) = split_port(bare).ok_or_else(|| AddressError(text.into()))?;
        Ok(Self::Tcp {
            host: host.into(),
            port,
        })
    }
}

/// Written so that it can be parsed again.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn split_port(text: &str) -> Option<(&str, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, behind) = rest.split_once(']')?;
        let port = match behind.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if behind.is_empty() => DEFAULT_PORT,
            None => return None,
        };
        return host
            .parse::<std::net::Ipv6Addr>()
            .ok()
            .map(|_| (host, port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, DEFAULT_PORT),
    };
    let plain = !host.is_empty() && !host.contains([':', '/', '[', ']', '@']);
    plain.then_some((host, port))
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address: write host:port, [v6]:port or unix:/path")]
pub struct AddressError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_parsed_and_printed_so_that_it_parses_again() {
        for (text, printed) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("hvlp://localhost:7", "localhost:7"),
            ("localhost", "localhost:65432"),
            ("[::1]:5", "[::1]:5"),
            ("hvlp://[::1]", "[::1]:65432"),
            ("unix:/run/h.sock", "unix:/run/h.sock"),
            ("unix:///run/h.sock", "unix:/run/h.sock"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), printed);
            assert_eq!(printed.parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn d18_an_ipv4_address_written_in_ipv6_is_the_ipv4_one() {
        for (text, socket) in [
            ("[::ffff:127.0.0.1]:5", "127.0.0.1:5"),
            ("[::ffff:0.0.0.0]:5", "0.0.0.0:5"),
            ("[::1]:5", "[::1]:5"),
        ] {
            let resolved = text.parse::<Address>().unwrap().resolve().unwrap();
            assert_eq!(resolved, [socket.parse().unwrap()]);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms_that_are() {
        for text in [
            "", ":1", "a:b", "a:65536", "[::1", "[::1]x", "[a]:1", "::1", "unix:", "a/b:1",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("write host:port"), "{text}: {error}");
        }
    }
}
