//! How many descriptors the process has, and how many it may have.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Where a kernel lists them; a symbolic link on some.
const OPEN: &str = "/dev/fd/";

/// Descriptors that are open; `None` where the kernel does not tell.
pub(super) fn used() -> Option<u64> {
    // Linux gives their number as the size of the directory, since 6.2; before, it is 0.
    let told = fs::metadata(OPEN).ok()?.len();
    if cfg!(target_os = "linux") && told > 0 {
        return Some(told);
    }
    // One is the directory itself.
    let count = fs::read_dir(OPEN).ok()?.count() as u64;
    Some(count.saturating_sub(1))
}

/// Descriptors that may be open; `None` if there is no limit.
pub(super) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}
