//! Listeners: bound sockets, and accepting from them without ever spinning or giving up.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
#[cfg(all(feature = "uring", target_os = "linux"))]
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::address::Address;
use crate::deadline::Timestamp;
use crate::loopback::take_pace_off;
use crate::reactor::socket_file::SocketFile;
use crate::reactor::transport::Transport;
use crate::session::Peer;

/// One bound address.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Bound,
    /// An edge said that connections wait, and accepting has not come to their end since.
    pub(crate) ready: bool,
    /// Accepting rests until then, because no descriptor was free.
    pub(crate) resume: Option<Timestamp>,
    rest: Duration,
    /// Given up to accept and close one connection when no other descriptor is free, so that the
    /// client sees a refusal instead of silence.
    spare: Option<File>,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// What one attempt to accept brought.
#[derive(Debug)]
pub(crate) enum Accepted {
    Connection(Transport, Peer),
    /// One connection failed before it was ours; others may wait.
    Lost,
    /// Nobody waits.
    None,
    /// No descriptor is free: accepting rests. `refused`: one client was told so.
    NoDescriptors {
        error: io::Error,
        refused: bool,
    },
}

const REST_MIN: Duration = Duration::from_millis(100);
const REST_MAX: Duration = Duration::from_secs(1);

impl Listener {
    /// Binds a unix path, or the first of the `resolved` addresses that can be bound.
    pub(crate) fn bind(
        address: &Address,
        resolved: &[SocketAddr],
        backlog: usize,
    ) -> io::Result<Self> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let socket = match address {
            Address::Unix(path) => {
                let (listener, file) = SocketFile::bind(path, backlog)?;
                Bound::Unix(listener, file)
            }
            Address::Tcp { .. } => {
                let mut bound = Err(io::Error::new(io::ErrorKind::NotFound, "no such host"));
                for address in resolved {
                    bound = bind_tcp(*address, backlog);
                    if bound.is_ok() {
                        break;
                    }
                }
                Bound::Tcp(bound?)
            }
        };
        Ok(Self {
            socket,
            ready: true,
            resume: None,
            rest: REST_MIN,
            spare: open_spare(),
        })
    }

    /// Where it listens; the port is the one that the kernel chose.
    pub(crate) fn address(&self) -> io::Result<Address> {
        match &self.socket {
            Bound::Tcp(listener) => listener.local_addr().map(Address::from),
            Bound::Unix(_, file) => Ok(Address::Unix(file.path().into())),
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.socket {
            Bound::Tcp(listener) => registry.register(listener, token, Interest::READABLE),
            Bound::Unix(listener, _) => registry.register(listener, token, Interest::READABLE),
        }
    }

    /// The listening socket.
    #[cfg(all(feature = "uring", target_os = "linux"))]
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Bound::Tcp(listener) => listener.as_fd(),
            Bound::Unix(listener, _) => listener.as_fd(),
        }
    }

    /// Whether accepting is worth a try at `now`.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.ready && self.resume.is_none_or(|resume| resume <= now)
    }

    /// Takes one connection.
    pub(crate) fn accept(&mut self, now: Timestamp) -> Accepted {
        match self.accept_raw() {
            Ok((transport, peer)) => {
                (self.resume, self.rest) = (None, REST_MIN);
                Accepted::Connection(transport, peer)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready = false;
                Accepted::None
            }
            Err(error) if is_exhausted(&error) => {
                let refused = self.refuse_one();
                self.resume = Some(now + self.rest);
                self.rest = (self.rest * 2).min(REST_MAX);
                Accepted::NoDescriptors { error, refused }
            }
            // ECONNABORTED, EPROTO, EINTR, and the network errors that Linux hands on: the fault of
            // that connection. The loop goes on.
            Err(_) => Accepted::Lost,
        }
    }

    fn accept_raw(&self) -> io::Result<(Transport, Peer)> {
        match &self.socket {
            Bound::Tcp(listener) => listener
                .accept()
                .map(|(stream, peer)| (Transport::Tcp(stream), Peer::Tcp(peer))),
            Bound::Unix(listener, _) => listener
                .accept()
                .map(|(stream, _)| (Transport::Unix(stream), Peer::Unix)),
        }
    }

    fn refuse_one(&mut self) -> bool {
        let refused = self.spare.take().is_some() && self.accept_raw().is_ok();
        self.spare = open_spare();
        refused
    }
}

fn open_spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// EMFILE, ENFILE, ENOBUFS, ENOMEM: the process or the host has run out of something.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error
        .raw_os_error()
        .is_some_and(|code| exhausted.contains(&Errno::from_raw_os_error(code)))
}

fn bind_tcp(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // `[::]` means IPv6, so that an address in a log has one form only.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    take_pace_off(&socket, address);
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(TcpListener::from_std(socket.into()))
}
