//! One socket to a broker, tcp or unix, as tokio drives it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::io::{Interest, Ready};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use crate::address::Address;
use crate::client::error::ClientError;
use crate::loopback::take_pace_off;

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects; of a name with several addresses the first that answers, each within `limit`.
    pub(super) async fn open(address: Address, limit: Duration) -> Result<Self, ClientError> {
        let opened = match &address {
            Address::Unix(path) => within(limit, UnixStream::connect(path))
                .await
                .map(Self::Unix),
            Address::Tcp { host, port } => connect(host, *port, limit).await.map(Self::Tcp),
        };
        opened.map_err(|source| ClientError::from_connect(&address, limit, source))
    }

    /// Waits for room to write, or for bytes to read, as asked. Whoever waits may stop at any time.
    pub(super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(stream) => stream.ready(interest).await,
            Self::Unix(stream) => stream.ready(interest).await,
        }
    }

    /// Reads what is there; `None` if that is nothing, 0 at the end of the stream.
    pub(super) fn read(&self, space: &mut [u8]) -> io::Result<Option<usize>> {
        some(match self {
            Self::Tcp(stream) => stream.try_read(space),
            Self::Unix(stream) => stream.try_read(space),
        })
    }

    /// Writes as much as there is room for; `None` if that is nothing.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        some(match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        })
    }

    /// Ends our direction; the broker still gets all that was sent.
    pub(super) fn end_writing(&self) -> io::Result<()> {
        let socket = match self {
            Self::Tcp(stream) => socket2::SockRef::from(stream),
            Self::Unix(stream) => socket2::SockRef::from(stream),
        };
        socket.shutdown(std::net::Shutdown::Write)
    }

    /// Whether the broker has already ended its direction, with nothing left to read.
    pub(super) fn is_ended(&self) -> bool {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        let peeked = match self {
            Self::Tcp(stream) => recv(stream, &mut [0_u8; 1], flags),
            Self::Unix(stream) => recv(stream, &mut [0_u8; 1], flags),
        };
        matches!(peeked, Ok((0, _)))
    }

    /// Where the kernel has put our end of it; nowhere for a unix socket.
    pub(super) fn local_address(&self) -> Option<Address> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok().map(Address::from),
            Self::Unix(_) => None,
        }
    }
}

fn some(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        done => done.map(Some),
    }
}

async fn connect(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in within(limit, lookup_host((host, port))).await? {
        match within(limit, connect_to(address)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    take_pace_off(&socket, address);
    // Small frames must not wait for acknowledgements; whoever sends many uses a batch.
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

async fn within<T>(limit: Duration, done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, done).await.map_err(io::Error::from)?
}
