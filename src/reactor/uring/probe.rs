//! Whether this kernel's rings do what the engine builds on. Behaviour counts, not version numbers:
//! what a distribution's kernel is called says little of what is in it.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

use crate::reactor::uring::ring::{BUFFERS, Completion, Ring, UserData};

/// Tries everything that the engine builds on, over a connection of this host to itself.
///
/// # Errors
/// What was refused or came out differently, and what would help.
pub(crate) fn probe() -> Result<(), String> {
    let ring = Ring::new().map_err(|error| refusal(&error))?;
    // A ring is one thread's; this one shall not be the caller's for ever.
    let probed = std::thread::Builder::new()
        .name("hvlp-probe".into())
        .spawn(move || Probe::new(ring)?.run())
        .map_err(|error| error.to_string())?
        .join();
    match probed {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("this kernel's io_uring does not fit: {error}")),
        Err(_) => Err("the test of this kernel's io_uring panicked".into()),
    }
}

/// Why there is no ring, and what would help.
fn refusal(error: &io::Error) -> String {
    let help = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            "io_uring is refused: by the sysctl kernel.io_uring_disabled, which would have to be 0, \
             or by a seccomp profile, such as a container's default one, which would have to allow \
             io_uring_setup, io_uring_enter and io_uring_register"
        }
        Some(Errno::NOSYS) => {
            "this kernel has no io_uring, or a seccomp profile hides it: Linux 6.1 or later is \
             needed, and a profile that allows io_uring_setup, io_uring_enter and io_uring_register"
        }
        Some(Errno::NOMEM) => {
            "there is no memory for its rings: the limit of locked memory (ulimit -l) is too low, \
             64 KiB for each reactor are enough"
        }
        Some(Errno::INVAL) => "this kernel's io_uring is too old: Linux 6.1 or later is needed",
        Some(Errno::MFILE | Errno::NFILE) => "no descriptor is free",
        _ => "io_uring cannot be set up",
    };
    format!("{help} ({error})")
}

struct Probe {
    ring: Ring,
    ours: TcpStream,
    theirs: TcpStream,
    completions: Vec<Completion>,
}

/// What the kernel owes us at once, on a loaded host.
const PATIENCE: Duration = Duration::from_secs(5);
const SEND: UserData = UserData(1);
const RECEIVE: UserData = UserData(2);
const CANCEL: UserData = UserData(3);

impl Probe {
    fn new(ring: Ring) -> io::Result<Self> {
        ring.enable()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let ours = TcpStream::connect(listener.local_addr()?)?;
        let (theirs, _) = listener.accept()?;
        // Small, so that they are full soon.
        set_socket_send_buffer_size(&ours, 32 * 1024)?;
        set_socket_recv_buffer_size(&theirs, 32 * 1024)?;
        theirs.set_nonblocking(true)?;
        Ok(Self {
            ring,
            ours,
            theirs,
            completions: Vec::new(),
        })
    }

    fn run(mut self) -> io::Result<()> {
        self.a_send_that_is_taken_whole_completes_silently()?;
        self.a_short_send_tells_its_count_and_a_full_socket_that_it_is_full()?;
        self.a_receive_repeats_until_it_is_canceled()?;
        self.without_a_buffer_a_receive_ends_and_begins_again()?;
        self.the_end_of_the_stream_comes_last()?;
        self.ring.end();
        Ok(())
    }

    fn a_send_that_is_taken_whole_completes_silently(&mut self) -> io::Result<()> {
        self.send(b"whole")?;
        self.expect_none("a send that was taken whole")?;
        self.drain(5)
    }

    fn a_short_send_tells_its_count_and_a_full_socket_that_it_is_full(&mut self) -> io::Result<()> {
        let bytes = vec![7; 4 << 20];
        let mut taken = 0;
        loop {
            self.send(&bytes)?;
            match self.next()?.result {
                Ok(len @ 1..) if len < bytes.len() => taken += len,
                Err(Errno::AGAIN) => break,
                other => return Err(differs("a send to a full socket", &other)),
            }
        }
        check(taken > 0, "no send was short")?;
        self.drain(taken)
    }

    fn a_receive_repeats_until_it_is_canceled(&mut self) -> io::Result<()> {
        self.ring.receive(self.ours.as_fd(), RECEIVE)?;
        for text in [&b"first"[..], b"second"] {
            self.theirs.write_all(text)?;
            let received = self.next()?;
            check(received.more, "a repeated receive came once")?;
            self.check_received(&received, text)?;
        }
        self.ring.cancel(RECEIVE, CANCEL)?;
        let last = self.next()?;
        check(!last.more, "a canceled receive goes on")?;
        match last.result {
            Err(Errno::CANCELED) => Ok(()),
            other => Err(differs("a canceled receive", &other)),
        }
    }

    fn without_a_buffer_a_receive_ends_and_begins_again(&mut self) -> io::Result<()> {
        self.ring.receive(self.ours.as_fd(), RECEIVE)?;
        let mut held = Vec::new();
        let ended = loop {
            self.theirs.write_all(b"x")?;
            let received = self.next()?;
            match received.buffer {
                Some(buffer) => held.push(buffer),
                None => break received,
            }
            check(
                held.len() <= usize::from(BUFFERS),
                "more buffers came than there are",
            )?;
            if !received.more {
                self.ring.receive(self.ours.as_fd(), RECEIVE)?;
            }
        };
        match ended.result {
            Err(Errno::NOBUFS) => check(!ended.more, "a receive without a buffer goes on")?,
            other => return Err(differs("a receive without a buffer", &other)),
        }
        held.into_iter()
            .for_each(|buffer| self.ring.give_back(buffer));
        self.ring.receive(self.ours.as_fd(), RECEIVE)?;
        let received = self.next()?;
        self.check_received(&received, b"x")?;
        check(received.more, "a repeated receive came once")
    }

    fn the_end_of_the_stream_comes_last(&mut self) -> io::Result<()> {
        self.theirs.write_all(b"last")?;
        self.theirs.shutdown(std::net::Shutdown::Write)?;
        let received = self.next()?;
        self.check_received(&received, b"last")?;
        match self.next()? {
            Completion {
                result: Ok(0),
                more: false,
                ..
            } => Ok(()),
            other => Err(differs("the end of a stream", &other)),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: `bytes` are borrowed until `submit` has returned.
        #[expect(unsafe_code, reason = "see above")]
        unsafe {
            self.ring.send(self.ours.as_fd(), bytes, SEND)?;
        }
        self.ring.submit()
    }

    /// Reads `len` bytes at the other end.
    fn drain(&mut self, len: usize) -> io::Result<()> {
        let (mut left, mut room, start) = (len, vec![0; 64 * 1024], Instant::now());
        while left > 0 {
            match self.theirs.read(&mut room) {
                Ok(read) => left -= read.min(left),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    check(start.elapsed() < PATIENCE, "what was sent does not arrive")?;
                    std::thread::yield_now();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<Completion> {
        let start = Instant::now();
        while self.completions.is_empty() {
            check(start.elapsed() < PATIENCE, "a completion does not come")?;
            self.ring.wait(Some(PATIENCE))?;
            self.ring.take(&mut self.completions)?;
        }
        Ok(self.completions.remove(0))
    }

    fn expect_none(&mut self, what: &str) -> io::Result<()> {
        self.ring.take(&mut self.completions)?;
        match self.completions.first() {
            None => Ok(()),
            Some(completion) => Err(differs(what, completion)),
        }
    }

    fn check_received(&mut self, completion: &Completion, expected: &[u8]) -> io::Result<()> {
        let (Ok(len), Some(buffer)) = (completion.result, completion.buffer) else {
            return Err(differs("a receive", completion));
        };
        let is_right = self.ring.received(buffer, len) == expected;
        self.ring.give_back(buffer);
        check(is_right, "a receive brought other bytes than were sent")
    }
}

fn check(is_so: bool, otherwise: &str) -> io::Result<()> {
    match is_so {
        true => Ok(()),
        false => Err(io::Error::other(otherwise.to_owned())),
    }
}

fn differs(what: &str, came: &dyn std::fmt::Debug) -> io::Error {
    io::Error::other(format!("{what} completed with {came:?}"))
}
