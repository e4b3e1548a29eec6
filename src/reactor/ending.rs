//! How reactors end: together, behind the last message that any of them accepted.

use std::fmt;
use std::sync::Arc;

use crate::sync::{AtomicUsize, Ordering};

/// Reactors that will publish nothing any more.
pub(crate) struct Quiet {
    count: AtomicUsize,
    reactors: usize,
    wake_all: Box<dyn Fn() + Send + Sync>,
}

impl Quiet {
    /// None of so many; `wake_all` is called when the last one has become quiet.
    pub(crate) fn new(reactors: usize, wake_all: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
            reactors,
            wake_all: Box::new(wake_all),
        })
    }

    fn add(&self) {
        if self.count.fetch_add(1, Ordering::SeqCst) + 1 == self.reactors {
            (self.wake_all)();
        }
    }

    fn is_complete(&self) -> bool {
        self.count.load(Ordering::SeqCst) == self.reactors
    }
}

impl fmt::Debug for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Quiet").field(&self.count).finish()
    }
}

/// One reactor's part in the end of all.
#[derive(Debug)]
pub(crate) struct Ending {
    quiet: Arc<Quiet>,
    /// This reactor is counted there.
    is_quiet: bool,
    has_all: bool,
}

impl Ending {
    pub(crate) const fn new(quiet: Arc<Quiet>) -> Self {
        Self {
            quiet,
            is_quiet: false,
            has_all: false,
        }
    }

    /// Whether all that any reactor accepted has arrived: what sessions here are owed now is all
    /// they will get. Asked by a reactor that reads no more, at the end of each turn; `is_silent`
    /// once it has handed over everything and nothing that it holds will be published.
    ///
    /// Each is counted behind its last push, and the inboxes are looked at behind the whole count:
    /// SeqCst, so that this look finds every push. The other way round, a peer could push and
    /// become quiet between the two.
    pub(crate) fn all_arrived(
        &mut self,
        is_silent: bool,
        is_delivered: impl FnOnce() -> bool,
    ) -> bool {
        if !self.is_quiet && is_silent {
            self.is_quiet = true;
            self.quiet.add();
        }
        self.has_all |= self.quiet.is_complete() && is_delivered();
        self.has_all
    }

    /// Whether a reactor without sessions may leave. Not earlier: its peers wait until it has taken
    /// what they have for it, and what it spilt is still to be handed over.
    pub(crate) const fn may_leave(&self) -> bool {
        self.has_all
    }
}
