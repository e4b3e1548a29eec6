//! SIGTERM and SIGINT: the first drains, the second ends at once.

use std::io;
use std::thread::{self, JoinHandle};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::broker::handle::Stopper;

/// The thread that waits for signals.
#[derive(Debug)]
pub(super) struct SignalThread {
    handle: Handle,
    thread: JoinHandle<()>,
}

/// Stops a broker whenever the process is told to.
pub(super) fn stop_on_signal(stopper: Stopper) -> io::Result<SignalThread> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let handle = signals.handle();
    let thread = thread::Builder::new()
        .name("hvlp-signals".into())
        .spawn(move || {
            for (count, signal) in signals.forever().enumerate() {
                if count == 0 {
                    tracing::info!(signal, "stopping");
                    stopper.stop();
                } else {
                    tracing::info!(signal, "ending at once");
                    stopper.end();
                }
            }
        })?;
    Ok(SignalThread { handle, thread })
}

impl SignalThread {
    pub(super) fn end(self) {
        self.handle.close();
        // It does nothing that could fail.
        let _ = self.thread.join();
    }
}
