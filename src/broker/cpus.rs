//! CPUs: which of them this process may use, and keeping a thread on one.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps this thread on the `index`-th CPU that the process may use, counted round. A kernel that
/// refuses loses a little speed, and is told of in the log.
pub(super) fn pin(index: usize) {
    let pinned = sched_getaffinity(None).and_then(|allowed| {
        let usable: Vec<_> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| allowed.is_set(*cpu))
            .collect();
        let mut only = CpuSet::new();
        only.set(usable[index % usable.len().max(1)]);
        sched_setaffinity(None, &only)
    });
    if let Err(error) = pinned {
        tracing::warn!("reactor {index} is not pinned: {error}");
    }
}
