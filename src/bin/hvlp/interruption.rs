//! Ctrl-C and SIGTERM: the first lets the program print what it has, the second ends it at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use hvlp::client::Sender;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

/// Whether the process was told to end, and by which signal.
#[derive(Debug)]
pub(crate) struct Interruption {
    /// 0 for none.
    signal: Arc<AtomicI32>,
}

impl Interruption {
    /// Closes the connection of `sender` when a signal comes, which wakes whoever receives on it.
    pub(crate) fn closing(sender: Sender) -> io::Result<Self> {
        let again = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal only prepares what the second does.
            flag::register_conditional_default(signal, Arc::clone(&again))?;
            flag::register(signal, Arc::clone(&again))?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let seen = Arc::new(AtomicI32::new(0));
        let interruption = Self {
            signal: Arc::clone(&seen),
        };
        thread::Builder::new()
            .name("hvlp-signals".into())
            .spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    // Before closing, so that the error of a closed connection finds its cause.
                    seen.store(signal, Ordering::Release);
                    sender.close();
                }
            })?;
        Ok(interruption)
    }

    pub(crate) fn came(&self) -> bool {
        self.signal.load(Ordering::Acquire) != 0
    }

    /// Ends the process as the signal would have done, so that whoever started it sees that.
    pub(crate) fn end_if_it_came(&self) -> io::Result<()> {
        match self.signal.load(Ordering::Acquire) {
            0 => Ok(()),
            signal => low_level::emulate_default_handler(signal),
        }
    }
}
