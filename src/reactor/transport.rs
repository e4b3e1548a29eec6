//! Transports: what turns a socket into bytes in and frames out.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
use socket2::{SockRef, TcpKeepalive};

use crate::config::ListenerConfig;
use crate::reactor::pipe::ReactorEnd;
use crate::shard::SendOutcome;

/// Multiples of it, modulo 2^32, are spread evenly however many there are (Knuth, The Art of
/// Computer Programming, 6.4).
const GOLDEN_RATIO: u32 = 0x9E37_79B9;

/// Between half of `whole` and all of it, by `spread` of 2^16, in seconds as the kernel counts.
///
/// The kernel asks all silent peers whose time has come in one go. Were those of 15,000 sessions
/// that began together equal, most of the questions would overflow a queue of 1,000, again and
/// again until peers that are there had not answered for `tcp_user_timeout`.
fn share(whole: Duration, spread: u32) -> Duration {
    let seconds = whole.as_secs().max(1);
    Duration::from_secs(seconds - seconds / 2 * u64::from(spread) / 0x1_0000)
}

/// What one session's bytes come from and go to.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// The process that the broker runs in.
    Process(ReactorEnd),
}

impl Transport {
    /// Sets what every session's socket has, as far as the kernel lets it: an option that it
    /// refuses is no reason to refuse the client. `number`: any that tells sessions apart.
    ///
    /// # Errors
    /// The first refusal; the other options are set all the same.
    pub(crate) fn configure(&self, config: &ListenerConfig, number: u32) -> io::Result<()> {
        let Ok(descriptor) = self.socket() else {
            return Ok(());
        };
        let socket = SockRef::from(&descriptor);
        let is_unix = matches!(self, Self::Unix(_));
        let sndbuf = config.sndbuf.or_else(|| is_unix.then_some(UNIX_SNDBUF));
        let sndbuf = sndbuf.map_or(Ok(()), |len| socket.set_send_buffer_size(len));
        if is_unix {
            return sndbuf;
        }
        let spread = number.wrapping_mul(GOLDEN_RATIO);
        let keepalive = TcpKeepalive::new()
            .with_time(share(config.tcp_keepalive, spread >> 16))
            .with_interval(share(config.tcp_keepalive_interval, spread & 0xFFFF));
        let set = [
            sndbuf,
            socket.set_tcp_nodelay(true),
            // Urgent bytes stay at their place in the stream; it must never be desynchronised.
            socket.set_out_of_band_inline(true),
            socket.set_tcp_keepalive(&keepalive),
            #[cfg(target_os = "linux")]
            socket.set_tcp_user_timeout(Some(config.tcp_user_timeout)),
            #[cfg(target_os = "linux")]
            socket.set_tcp_notsent_lowat(u32::try_from(config.notsent_lowat).unwrap_or(u32::MAX)),
        ];
        set.into_iter().collect()
    }

    /// Watches the socket for everything, once: it is edge-triggered and never registered again.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        #[cfg(target_os = "linux")]
        let interest = interest | Interest::PRIORITY;
        self.source()
            .map_or(Ok(()), |source| source.register(registry, token, interest))
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.source()
            .map_or(Ok(()), |source| source.deregister(registry))
    }

    /// Receives into `room`; 0 is the end of the stream.
    #[inline]
    pub(crate) fn receive(&self, room: &mut [u8]) -> io::Result<usize> {
        match self.socket() {
            Ok(socket) => Ok(rustix::net::recv(socket, room, RecvFlags::DONTWAIT)?.0),
            Err(pipe) => pipe.receive(room),
        }
    }

    /// Offers one stretch to the kernel, once.
    #[inline]
    pub(crate) fn send(&self, bytes: &[u8]) -> SendOutcome {
        let socket = match self.socket() {
            Ok(socket) => socket,
            Err(pipe) => return pipe.send(bytes),
        };
        let send = || rustix::net::send(socket, bytes, SEND_FLAGS);
        outcome(bytes.len(), rustix::io::retry_on_intr(send))
    }

    /// Offers several stretches to the kernel, at once.
    pub(crate) fn send_vectored(&self, parts: &[IoSlice<'_>]) -> SendOutcome {
        let socket = match self.socket() {
            Ok(socket) => socket,
            Err(pipe) => return pipe.send_vectored(parts),
        };
        let len = parts.iter().map(|part| part.len()).sum();
        let mut control = SendAncillaryBuffer::default();
        let send = || rustix::net::sendmsg(socket, parts, &mut control, SEND_FLAGS);
        outcome(len, rustix::io::retry_on_intr(send))
    }

    /// Ends our side of the stream; what was sent still arrives.
    pub(crate) fn shut_down_writing(&self) {
        match self.socket() {
            // An error means that the connection is gone, which is what closing is about.
            Ok(socket) => drop(rustix::net::shutdown(socket, Shutdown::Write)),
            Err(pipe) => pipe.shut_down_writing(),
        }
    }

    /// Makes the close that follows a reset, so that the kernel's copy goes at once.
    pub(crate) fn reset_on_close(&self) {
        if let Ok(socket) = self.socket() {
            // Refused, the close is an ordinary one.
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// The error that the kernel holds for this socket.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        let socket = self.socket().ok()?;
        SockRef::from(&socket).take_error().ok().flatten()
    }

    /// The end of a connection inside the process.
    pub(crate) const fn pipe(&self) -> Option<&ReactorEnd> {
        match self {
            Self::Process(pipe) => Some(pipe),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// The socket, if there is one.
    #[cfg(all(feature = "uring", target_os = "linux"))]
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.socket().ok()
    }

    /// The socket, or what there is instead.
    #[inline]
    fn socket(&self) -> Result<BorrowedFd<'_>, &ReactorEnd> {
        match self {
            Self::Tcp(stream) => Ok(stream.as_fd()),
            Self::Unix(stream) => Ok(stream.as_fd()),
            Self::Process(pipe) => Err(pipe),
        }
    }

    fn source(&mut self) -> Option<&mut dyn Source> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Unix(stream) => Some(stream),
            Self::Process(_) => None,
        }
    }
}

/// Linux tunes the send buffers of TCP, not those of unix sockets: with their 208 KiB every larger
/// burst becomes a backlog, at 2.3 times the CPU per delivery. Taken as far as
/// `net.core.wmem_max` allows.
const UNIX_SNDBUF: usize = 1 << 20;

/// MSG_NOSIGNAL: a peer that has gone is an error, whatever the process does about SIGPIPE.
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

fn outcome(offered: usize, taken: Result<usize, Errno>) -> SendOutcome {
    match taken {
        Ok(0) if offered > 0 => SendOutcome::Failed(io::ErrorKind::WriteZero),
        Ok(taken) if taken == offered => SendOutcome::Whole(taken),
        Ok(taken) => SendOutcome::Short(taken),
        Err(Errno::AGAIN) => SendOutcome::Short(0),
        Err(Errno::NOBUFS) => SendOutcome::NoBuffers(0),
        Err(errno) => SendOutcome::Failed(io::Error::from(errno).kind()),
    }
}
