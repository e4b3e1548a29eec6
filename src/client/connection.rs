//! One socket to a broker, tcp or unix. Frames of several threads do not interleave on it.

use std::io;
use std::net::Shutdown;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, SockAddr, Socket, Type};

use super::batch::unsent;
use super::dialogue::Requests;
use super::error::{ClientError, Wait};
use crate::address::Address;
use crate::loopback::take_pace_off;
use crate::packet::Frame;

/// A connected socket.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    address: Address,
    /// Counts the connections of one client, from 1.
    generation: u64,
    write_timeout: Option<Duration>,
    /// Held while frames are written, so that no other frame gets between. It keeps the rest of a
    /// frame that the broker did not take in time: that goes first, so no frame is ever torn.
    owed: Mutex<Vec<u8>>,
    requests: Mutex<Requests>,
}

/// A write that failed.
#[derive(Debug)]
pub(super) struct SendFailure {
    /// How many bytes of the frames are sent all the same, or will be before anything else.
    pub(super) written: usize,
    pub(super) error: ClientError,
}

impl Connection {
    /// Connects; of a name with several addresses the first that answers.
    pub(super) fn open(
        address: &Address,
        generation: u64,
        connect_timeout: Duration,
        write_timeout: Option<Duration>,
    ) -> Result<Self, ClientError> {
        let socket = connect(address, connect_timeout)
            .map_err(|source| ClientError::from_connect(address, connect_timeout, source))?;
        if matches!(address, Address::Tcp { .. }) {
            // Small frames must not wait for acknowledgements; whoever sends many uses a batch.
            socket
                .set_tcp_nodelay(true)
                .map_err(|source| ClientError::from_io(address, source))?;
        }
        socket
            .set_write_timeout(write_timeout)
            .map_err(|source| ClientError::from_io(address, source))?;
        Ok(Self {
            socket,
            address: address.clone(),
            generation,
            write_timeout,
            owed: Mutex::new(Vec::new()),
            requests: Mutex::default(),
        })
    }

    /// What was asked on it and is not answered yet.
    pub(super) fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    /// Where the kernel has put our end of it.
    pub(super) fn local_address(&self) -> Option<Address> {
        let local = self.socket.local_addr().ok()?;
        local.as_socket().map(Address::from)
    }

    /// Writes whole frames; blocks while the broker does not take them. After a time-out the stream
    /// is intact, and more can be sent later.
    pub(super) fn send(&self, frames: &[u8]) -> Result<(), SendFailure> {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(SendFailure { written, error }) = self.write(&owed) {
            owed.drain(..written);
            return Err(SendFailure { written: 0, error });
        }
        owed.clear();
        let Err(SendFailure { written, error }) = self.write(frames) else {
            return Ok(());
        };
        if !matches!(error, ClientError::TimedOut { .. }) {
            return Err(SendFailure { written, error });
        }
        // A frame that has begun must be ended; it counts as sent.
        let cut = unsent(frames, written);
        let begun = written - (frames.len() - cut.len());
        let cut_len = Frame::split_first(cut).map_or(cut.len(), |(frame, _)| frame.bytes().len());
        if begun > 0 {
            owed.extend_from_slice(cut.get(begun..cut_len).unwrap_or_default());
        }
        let written = written + owed.len();
        if written == frames.len() {
            return Ok(());
        }
        Err(SendFailure { written, error })
    }

    fn write(&self, bytes: &[u8]) -> Result<(), SendFailure> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    let written = bytes.len() - rest.len();
                    let error = self.send_error(errno);
                    return Err(SendFailure { written, error });
                }
            }
        }
        Ok(())
    }

    /// Reads what is there, waiting for it until `deadline`. `None` if nothing came, 0 at the end.
    pub(super) fn receive(
        &self,
        space: &mut [u8],
        deadline: Option<Instant>,
    ) -> Result<Option<usize>, ClientError> {
        let flags = match deadline {
            Some(_) => RecvFlags::DONTWAIT,
            None => RecvFlags::empty(),
        };
        loop {
            match recv(&self.socket, &mut *space, flags) {
                Ok((len, _)) => return Ok(Some(len)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    if !self.wait_readable(deadline)? {
                        return Ok(None);
                    }
                }
                Err(errno) => return Err(ClientError::from_io(&self.address, errno.into())),
            }
        }
    }

    /// Whether the broker has already ended its direction, with nothing left to read.
    pub(super) fn is_ended(&self) -> bool {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        matches!(recv(&self.socket, &mut [0_u8; 1], flags), Ok((0, _)))
    }

    /// Ends our direction; the broker still gets all that was sent.
    pub(super) fn end_writing(&self) -> Result<(), ClientError> {
        let shut = self.socket.shutdown(Shutdown::Write);
        shut.map_err(|source| ClientError::from_io(&self.address, source))
    }

    /// Ends both directions, which also wakes a thread that is blocked on this socket.
    pub(super) fn shut_down(&self) {
        // A socket that is not connected any more is as good as shut down.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn wait_readable(&self, deadline: Option<Instant>) -> Result<bool, ClientError> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(false);
        }
        // A wait too long to be expressed is as good as one without end.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut sockets = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut sockets, left.as_ref()) {
            // Interrupted: the caller tries to read, and comes back with what is left of the time.
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(true),
            Err(errno) => Err(ClientError::from_io(&self.address, errno.into())),
        }
    }

    fn send_error(&self, errno: rustix::io::Errno) -> ClientError {
        match (errno, self.write_timeout) {
            (rustix::io::Errno::AGAIN, Some(limit)) => ClientError::TimedOut {
                address: self.address.clone(),
                wait: Wait::Send,
                limit,
            },
            _ => ClientError::from_io(&self.address, errno.into()),
        }
    }
}

fn connect(address: &Address, timeout: Duration) -> io::Result<Socket> {
    if let Address::Unix(path) = address {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.connect_timeout(&SockAddr::unix(path)?, timeout)?;
        return Ok(socket);
    }
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in address.resolve()? {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        take_pace_off(&socket, address);
        match socket.connect_timeout(&address.into(), timeout) {
            Ok(()) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
