//! Subscribers that never read: what a target makes of them is told when their sockets are read to
//! the end after all.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::Socket;

use crate::target::{Delivery, Dialect, Endpoint, connect_with};

/// The receive buffer that is asked for, so that the kernel does not read in their place.
const RECEIVE_BUFFER_LEN: usize = 4 << 10;
/// And the one with which they are read to the end.
const READ_LEN: usize = 256 << 10;
/// Who hears nothing for so long has heard all.
const QUIET: Duration = Duration::from_secs(1);
/// How long reading all of them may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One of them.
#[derive(Debug)]
pub struct Stalled {
    socket: Socket,
    tally: Tally,
    /// The target reset it, so that what it had written may never have been read.
    reset: bool,
    /// How it ended; `None` while it is still there.
    pub end: Option<End>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The target closed it.
    Closed,
    /// We had nothing more to say, and so had the target: all that it wrote was read.
    Drained,
    /// We had nothing more to say, and the target did not come to an end in time.
    Abandoned,
}

impl Stalled {
    /// Connects and subscribes to `topics`.
    ///
    /// # Errors
    /// Nobody listens, or hangs up at once.
    pub fn connect(endpoint: &Endpoint, topics: impl Iterator<Item = usize>) -> Result<Self> {
        let dialect = endpoint.dialect;
        let socket = connect_with(&endpoint.address, |socket| {
            socket.set_recv_buffer_size(RECEIVE_BUFFER_LEN)
        })
        .with_context(|| format!("a stalled subscriber cannot connect to {endpoint}"))?;
        let mut hello = dialect.greeting();
        hello.extend(dialect.subscribe(topics));
        let written = (&socket).write(&hello)?;
        ensure!(
            written == hello.len(),
            "a subscription is larger than a socket buffer"
        );
        Ok(Self {
            socket,
            tally: Tally::new(dialect),
            reset: false,
            end: None,
        })
    }

    /// Messages read after all.
    pub const fn received(&self) -> u64 {
        self.tally.messages
    }

    /// Whether the target has reset it. An ordinary end lies behind what was not read.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn is_reset(&mut self) -> Result<bool> {
        // Asking takes the error away.
        self.reset |= self.socket.take_error()?.is_some();
        Ok(self.reset)
    }

    /// What was written to it, at most, and never read, when `published` is all it can have got.
    pub const fn cut_max(&self, published: u64) -> u64 {
        match self.end {
            Some(End::Drained) => 0,
            _ => published.saturating_sub(self.received()),
        }
    }

    /// Reads what is there now. Says whether there was anything.
    pub fn read(&mut self, buffer: &mut [u8]) -> bool {
        if self.end.is_some() {
            return false;
        }
        match (&self.socket).read(buffer) {
            Ok(len @ 1..) => self.tally.take(&buffer[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Ok(0) => self.end = Some(End::Closed),
            Err(_) => {
                self.reset = true;
                self.end = Some(End::Closed);
            }
        }
        true
    }
}

/// Counts the messages of a stream of bytes.
#[derive(Debug)]
pub struct Tally {
    dialect: Dialect,
    /// The beginning of a frame whose end was not read yet.
    remainder: Vec<u8>,
    /// How many there were.
    pub messages: u64,
}

impl Tally {
    /// Of a connection's first byte on.
    pub const fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            remainder: Vec::new(),
            messages: 0,
        }
    }

    /// The next bytes of the stream.
    pub fn take(&mut self, bytes: &[u8]) {
        self.remainder.extend_from_slice(bytes);
        let mut rest = &self.remainder[..];
        while let Some((delivery, len)) = self.dialect.split(rest) {
            self.messages += u64::from(matches!(delivery, Delivery::Message { .. }));
            rest = &rest[len..];
        }
        let taken = self.remainder.len() - rest.len();
        self.remainder.drain(..taken);
    }
}

/// Reads all of `stalled` until nothing more comes; whoever is still there then says goodbye and is
/// read to the end.
///
/// # Errors
/// The kernel refuses.
pub fn read_to_end(stalled: &mut [Stalled]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for one in &mut *stalled {
        // As large as it becomes now, the target may have had it all along.
        one.socket.set_recv_buffer_size(READ_LEN)?;
    }
    read_until_quiet(stalled, deadline);
    for one in stalled.iter().filter(|one| one.end.is_none()) {
        // Who was reset at this very moment is found out by reading on.
        let _ = one.socket.shutdown(Shutdown::Write);
    }
    let kept: Vec<_> = stalled.iter().map(|one| one.end.is_none()).collect();
    read_until_quiet(stalled, deadline);
    for (one, _) in stalled.iter_mut().zip(kept).filter(|(_, kept)| *kept) {
        let reset = one.is_reset()?;
        one.end = Some(match one.end {
            Some(_) if !reset => End::Drained,
            _ => End::Abandoned,
        });
    }
    Ok(())
}

fn read_until_quiet(stalled: &mut [Stalled], deadline: Instant) {
    let mut buffer = vec![0; READ_LEN];
    let mut heard = Instant::now();
    while heard.elapsed() < QUIET
        && Instant::now() < deadline
        && stalled.iter().any(|one| one.end.is_none())
    {
        let mut any = false;
        for one in &mut *stalled {
            any |= one.read(&mut buffer);
        }
        match any {
            true => heard = Instant::now(),
            false => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
