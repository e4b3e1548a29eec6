//! What the control plane counts about itself. It outlives a panic, so it is shared.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::AdminRefusal;

/// Numbers that are written and read on the control plane's thread alone.
// Relaxed throughout: one thread; atomics only because the tasks of a runtime have to be `Send`.
#[derive(Debug, Default)]
pub(super) struct Counts {
    panics: AtomicU64,
    requests: AtomicU64,
    refused: [AtomicU64; AdminRefusal::ALL.len()],
}

impl Counts {
    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn requested(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Every refusal passes here.
    pub(super) fn refused(&self, reason: AdminRefusal) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// How often each reason was met, in their order.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self
            .refused
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        AdminRefusal::NAMES.into_iter().zip(counts)
    }
}
