//! What a reactor waits with.

use crate::label::labels;

labels! {
    /// What a reactor waits with.
    pub enum EngineKind {
        /// Whichever was measured faster on this kind of kernel, if it can be had.
        Auto = "auto",
        /// Readiness: epoll or kqueue.
        Mio = "mio",
        /// Completion: io_uring, on Linux 6.1 and later.
        Uring = "uring",
    }
}
