//! What ends a reactor's wait from another thread.

use std::io;

/// Wakes one reactor, whatever it waits with.
#[derive(Debug)]
pub(crate) enum Waker {
    Mio(mio::Waker),
    /// An eventfd that the ring polls.
    #[cfg(all(feature = "uring", target_os = "linux"))]
    Event(rustix::fd::OwnedFd),
}

impl Waker {
    pub(super) fn wake(&self) -> io::Result<()> {
        match self {
            Self::Mio(waker) => waker.wake(),
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Self::Event(event) => match rustix::io::write(event, &1_u64.to_ne_bytes()) {
                // Full: it has been woken often enough.
                Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
                Err(errno) => Err(errno.into()),
            },
        }
    }
}
