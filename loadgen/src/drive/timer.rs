//! An alarm for the next tick of a schedule, for a loop that has to give its CPU away meanwhile.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

const SECOND_NS: u64 = 1_000_000_000;

/// A timer that is an event of the poll: waiting itself is counted in milliseconds.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// A timer whose events carry `token`.
    ///
    /// # Errors
    /// The kernel has none.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let source = timer.as_raw_fd();
        registry.register(&mut SourceFd(&source), token, Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Sets it, whatever it was set to before.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set(&self, in_ns: u64) -> io::Result<()> {
        let never = Timespec::default();
        // Zero would switch it off.
        let in_ns = in_ns.max(1);
        let at = Timespec {
            tv_sec: i64::try_from(in_ns / SECOND_NS).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(in_ns % SECOND_NS).expect("less than a second"),
        };
        let setting = Itimerspec {
            it_interval: never,
            it_value: at,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &setting)?;
        Ok(())
    }
}
